"""One array out of a .npz file, or a ValueError that says why not. Imports numpy only.

The header of an array is Python code of a kind: a damaged one makes numpy's reader raise whatever Python's parser does.
"""

from __future__ import annotations

import math
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt


def read_member(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """The array `name` (without .npy), whose header declares as many bytes as there are.

    Raises:
        KeyError: there is none of that name.
        ValueError: it is damaged, of Python objects, or declares more or less than it has.
    """
    member = archive.getinfo(f"{name}.npy")
    try:
        return _read(archive, member, name)
    except ValueError:
        raise
    except Exception as error:  # of the parser: MemoryError, TypeError, SyntaxError, TokenError, RecursionError
        raise ValueError(f"the header of {name} cannot be read ({type(error).__name__})") from error


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> npt.NDArray[Any]:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"{name} is of version {version} of numpy's format, expected 1.0 or 2.0")
        if dtype.hasobject:
            raise ValueError("Object arrays are pickles, which are never loaded")
        wanted, have = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
        if wanted != have or min(shape, default=0) < 0:
            raise ValueError(f"{name} declares shape {shape} of {dtype}, {wanted:,} bytes, and has {have:,}")
    with archive.open(member) as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))

"""Arrays out of a .npz file: whole, or a reason why not. Imports errors and io.

Everything is checked before an array is made: the kind of the file, the directory and the CRC-32 of every member (a
member that is lost from the directory would be a split without labels), and each array's shape against the bytes
there are.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy.typing as npt

from fourier_probe.errors import DataError, ProbeError, printable
from fourier_probe.io.npy import read_member
from fourier_probe.io.regular import open_regular, version

_DENSEST = 100  # decompressed over compressed bytes, beyond `_FREE`: deflate reaches 1,030
_FREE = 2**30  # bytes that may be declared whatever the size of the file
_END = struct.Struct("<4s4H2LH")  # signature, 2 numbers of disks, 2 of members, size, offset, length of the comment


class Archive(Mapping[str, npt.NDArray[Any]]):
    """The arrays of a .npz file by name; each is read when asked for.

    Args:
        path: of the file.

    Raises:
        DataError: it cannot be read, is damaged, or declares more than it can hold; also on reading an array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _reasons(path), open_regular(path) as file:
            if file.read(6) == b"\x93NUMPY":
                raise DataError(f"{path} holds a single array: expected a .npz with arrays such as test_images.")
            self._version = version(file)
            self._members = _checked(file)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._members:
            raise KeyError(name)
        with _reasons(self.path), open_regular(self.path) as file:
            with zipfile.ZipFile(file) as archive:
                values = read_member(archive, name)
            if version(file) != self._version:  # its images and its labels would be of two files
                raise DataError(f"{self.path} was changed while it was read: run again when it is written.")
            return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


class _reasons:  # noqa: N801 - reads as words
    """Inside, whatever a damaged file makes its readers raise becomes a DataError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, ProbeError):
            reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"cannot read {self.path}: {printable(reason, 200)}; expected a .npz of plain arrays, whole."
            ) from error


def _checked(file: BinaryIO) -> list[str]:
    """Names of the arrays, once every member is there and whole."""
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(set(names)) < len(names) or len(names) != _count(file, size):
            raise ValueError("its directory is damaged")
        if odd := [name for name in names if not name.endswith(".npy")]:
            raise ValueError(f"it holds {odd[0]!r}, which is no array (.npy)")
        declared = sum(member.file_size for member in members)
        if declared > _FREE + _DENSEST * size:
            raise ValueError(f"it has {size:,} bytes and declares {declared:,}")
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
            raise ValueError("it is compressed in another way than numpy's (stored or deflate)")
        if wrong := archive.testzip():
            raise ValueError(f"{wrong} is damaged (its CRC-32 does not match)")
    return [name.removesuffix(".npy") for name in names]


def _count(file: BinaryIO, size: int) -> int:
    """Number of members, as the end of the directory has it."""
    length = min(size, _END.size + 0xFFFF)
    file.seek(size - length)
    tail = file.read(length)
    start = tail.rfind(b"PK\x05\x06")
    count: int = _END.unpack_from(tail, start)[4]
    return count

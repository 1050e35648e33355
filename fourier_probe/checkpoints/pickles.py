"""Which types a pickled checkpoint may name, and what becomes of them. Nothing that can run code.

torch's `weights_only` unpickler takes tensors and a few containers. Checkpoints in the wild also hold the command line
as an `argparse.Namespace`, metrics as numpy scalars, paths. Each of these is given a stand-in that only keeps values:
numpy's own functions never see the file, since a forged dtype can make them read pointers.
"""

from __future__ import annotations

import argparse
import datetime
import pickletools
import re
from collections.abc import Callable, Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor


class _Dtype:
    """Stand-in for `numpy.dtype`: numbers and strings of fixed size, nothing else."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def real(self) -> np.dtype[Any]:
        if not (isinstance(self.code, str) and re.fullmatch(r"[biufcSU]\d{1,4}", self.code) and self.order in "<>|="):
            raise ValueError(f"a numpy value of type {self.code!r}, which is neither number nor string")
        return np.dtype(self.order + self.code)


class _Array:
    """Stand-in for `numpy.ndarray`; becomes nested lists."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def real(self) -> Any:
        shape, dtype, fortran, data = self.state[-4:]
        return np.frombuffer(data, dtype.real()).reshape(shape, order="F" if fortran else "C").tolist()


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    """Stand-in for numpy's `scalar`: a Python number or string."""
    (value,) = np.frombuffer(data, dtype.real()).tolist()
    return value


def _reconstruct(*_: object) -> _Array:
    """Stand-in for numpy's `_reconstruct`: an array yet to be filled."""
    return _Array()


def _dictionary(*_: object) -> dict[Any, Any]:
    """Stand-in for `defaultdict`: a dictionary without the default."""
    return {}


_NUMPY = [f"numpy.{core}.multiarray" for core in ("core", "_core")]
_PATHS = [
    (kind, f"{module}.{name}")
    for module in ("pathlib", "pathlib._local")
    for kind, names in (
        (PurePosixPath, ("Path", "PosixPath", "PurePath", "PurePosixPath")),
        (PureWindowsPath, ("WindowsPath", "PureWindowsPath")),
    )
    for name in names
]
# Every entry is (what the unpickler gets, the name in the file).
_STAND_INS: list[tuple[Callable[..., Any], str]] = [
    (argparse.Namespace, "argparse.Namespace"),
    (_dictionary, "collections.defaultdict"),
    *((kind, f"builtins.{kind.__name__}") for kind in (bool, dict, float, frozenset, int, list, str, tuple)),
    *((_scalar, f"{module}.scalar") for module in _NUMPY),
    *((_reconstruct, f"{module}._reconstruct") for module in _NUMPY),
    (_Array, "numpy.ndarray"),
    (_Dtype, "numpy.dtype"),
    *_PATHS,
    (datetime.datetime, "datetime.datetime"),
    (str, "torch.torch_version.TorchVersion"),
]

SAFE: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [*_STAND_INS]  # as torch takes it

# What torch itself lets through, by name: for messages only, the refusing is torch's.
_TORCHS = re.compile(
    r"collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(set|bytearray|complex)"
    r"|torch\.(\w+Storage|storage\.\w+Storage|Size|Tensor|device|\w*(float|int|complex|bool)\w*)"
    r"|torch\.(nn\.parameter\.Parameter|_utils\._rebuild_\w+|_tensor\._rebuild_from_type_v2|serialization\._get_layout)"
)


def plain(value: Any) -> Any:
    """Values as the rest of the package takes them: tensors, numbers, strings, lists, tuples, dictionaries.

    >>> plain(argparse.Namespace(model="resnet18", out=PurePosixPath("runs") / "one"))
    {'model': 'resnet18', 'out': 'runs/one'}
    """
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | bytearray):
        return value
    if isinstance(value, argparse.Namespace):
        return plain(vars(value))
    if isinstance(value, Mapping):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, tuple):
        return tuple(plain(each) for each in value)
    if isinstance(value, _Array):
        return value.real()
    if isinstance(value, PurePath | torch.dtype | torch.device | torch.layout | datetime.datetime):
        return str(value)
    return f"<{type(value).__name__}>"  # a class, a bare storage: of no use to us


def foreign_globals(stream: IO[bytes], *, pickles: int = 1) -> list[str]:
    """What the first `pickles` pickles of a stream name that is not let through; read as text, never run."""
    found: set[str] = set()
    for _ in range(pickles):
        if not _collect_globals(stream, found):
            break
    allowed = {name for _, name in _STAND_INS}
    return sorted(name for name in found if name not in allowed and not _TORCHS.fullmatch(name))


def _collect_globals(stream: IO[bytes], found: set[str]) -> bool:
    """Add the globals of the next pickle to `found`; False where it breaks off."""
    strings: list[str] = []  # pushed last; STACK_GLOBAL (protocol 4) takes its module and name from there
    memo: dict[int, str] = {}
    try:
        for operation, argument, _ in pickletools.genops(stream):
            code = operation.name
            if code in ("GLOBAL", "INST"):
                module, _, name = str(argument).partition(" ")
                found.add(f"{module.replace('__builtin__', 'builtins')}.{name}")
            elif code == "STACK_GLOBAL":
                found.add(".".join(strings[-2:]))
            elif "UNICODE" in code or "STRING" in code:
                strings.append(str(argument))
            elif code == "MEMOIZE" or "PUT" in code:
                memo[len(memo) if argument is None else argument] = strings[-1] if strings else ""
            elif "GET" in code and argument in memo:
                strings.append(memo[argument])
    except Exception:  # a damaged pickle can break its reader in any way; what was found up to there counts
        return False
    return True

"""A pickle -> plain values, with nothing in it made or run. Imports numpy, torch and limits.

Python's unpickler (the one in Python, which looks at keys before it hashes them) is given a record for every name in
the file: what was named, with which arguments, and what was set on it. No function or class of any library is ever
called for a file. The records become plain values here, each checked against the bytes that are there.

`torch.serialization.get_unsafe_globals_in_checkpoint` answers less and is not used: it lists names alone, of zip files
and protocol 2 alone, so that a file of 100 bytes that asks for gigabytes, whose names are all allowed, passes it.
"""

from __future__ import annotations

import datetime
import io
import itertools
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fourier_probe.checkpoints.limits import NODE, Budget, Keys, OversizedError

_BITS = 4096  # of the longest whole number; longer ones cannot be printed
_NAMES = 4096  # different names of a file: each is a class here, of a hundred times the bytes that it has there


class ForeignNamesError(Exception):
    """The pickle names what plain data does not need; `names` lists it."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted(names)
        super().__init__(", ".join(self.names))


class Stored(NamedTuple):
    """Numbers of a storage, as they lie in the file."""

    data: bytearray | memoryview
    dtype: torch.dtype


class _Record:
    """What the pickle names and does with it; a subclass per name."""

    name: str
    args: tuple[Any, ...]
    state: Any
    items: list[Any]  # of append and extend; pairs where items were set by key

    def __new__(cls, *args: object) -> _Record:
        record = super().__new__(cls)
        record.args, record.state, record.items = args, None, []
        return record

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.items.append((key, value))

    def append(self, value: object) -> None:
        self.items.append(value)

    def extend(self, values: list[object]) -> None:
        self.items.extend(values)


Locate = Callable[[torch.dtype, tuple[object, ...]], Stored]
"""Type of a storage and its (key, location, number of elements, ...) in the pickle -> its numbers."""


_Unpickler: Any = pickle._Unpickler  # typed as if it had no stack


class _Reader(_Unpickler):  # type: ignore[misc]
    """Makes records; collects the names that are not let through; looks at keys before they are hashed."""

    def __init__(self, data: bytes, locate: Locate) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.foreign: set[str] = set()
        self._locate = locate
        self._keys = Keys(len(data))
        self._classes: dict[str, type[_Record]] = {}  # made anew for each file, so that none can spoil the next

    def _set_item(self) -> None:
        self._keys.check(self.stack[-2:-1], self.stack[-3])
        super().load_setitem()

    def _set_items(self) -> None:
        self._keys.check(self.stack[::2], self.metastack[-1][-1])
        super().load_setitems()

    def _add_items(self) -> None:
        self._keys.check(self.stack, self.metastack[-1][-1])
        super().load_additems()

    def _dictionary(self) -> None:
        self._keys.check(self.stack[::2], object())
        super().load_dict()

    def _frozenset(self) -> None:
        self._keys.check(self.stack, object())
        super().load_frozenset()

    dispatch: ClassVar = {
        **_Unpickler.dispatch,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.ADDITEMS[0]: _add_items,
        pickle.DICT[0]: _dictionary,
        pickle.FROZENSET[0]: _frozenset,
    }

    def find_class(self, module: str, name: str) -> type[_Record]:
        full = f"{module.replace('__builtin__', 'builtins')}.{name}"
        if full not in self._classes:
            if len(self._classes) == _NAMES:
                raise OversizedError(f"it names more than {_NAMES} classes and functions")
            if full not in _MEANINGS and _dtype(full) is None and not _UNUSED.fullmatch(full):
                self.foreign.add(full)
            self._classes[full] = type("record", (_Record,), {"name": full})
        return self._classes[full]

    def persistent_load(self, pid: object) -> Stored | None:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] not in ("storage", b"storage"):
            raise ValueError("it refers to something that is no storage of numbers")
        dtype = _dtype(getattr(pid[1], "name", ""))
        if dtype is None:
            raise ValueError("it has a storage of an unknown type")
        return self._locate(dtype, pid[2:])


def records(data: bytes, locate: Locate | None = None) -> object:
    """The content of one pickle, with records for what it names: for `plain`.

    Raises:
        ForeignNamesError: it names what plain data does not need.
        Exception: it is damaged, in any way Python's unpickler knows.
    """
    for count, (operation, argument, _) in enumerate(pickletools.genops(data)):  # also: every declared size is there
        if "EXT" in operation.name or ("PUT" in operation.name and (argument or 0) > count):
            raise ValueError(f"a pickle with {operation.name} {argument}")
    reader = _Reader(data, locate or _nowhere)
    try:
        value = reader.load()
    except Exception:
        if reader.foreign:
            raise ForeignNamesError(reader.foreign) from None
        raise
    if reader.foreign:
        raise ForeignNamesError(reader.foreign)
    return value


class Plain:
    """Records -> tensors, numbers, strings, lists, tuples, dictionaries, while the budget lasts."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._tensors: dict[int, tuple[_Record, Tensor]] = {}  # by identity of the record: one tensor for one record

    def __call__(self, value: Any) -> Any:
        """The plain value; raises OversizedError, RecursionError, or ValueError where it is not what it claims."""
        self._budget.spend(NODE)
        if isinstance(value, int) and value.bit_length() > _BITS:
            raise ValueError(f"a whole number of {value.bit_length()} bits")
        if value is None or isinstance(value, bool | int | float | str | bytes | bytearray):
            return value
        if isinstance(value, dict):
            return self._dictionary(value.items())
        if isinstance(value, Stored):
            return "<storage>"
        if isinstance(value, list | set | frozenset):
            return [self(item) for item in value]
        if isinstance(value, tuple):
            return tuple(self(item) for item in value)
        if isinstance(value, _Record):
            if value.name.startswith("torch._utils.") and value.name not in _MEANINGS:
                return torch.empty(0, device="meta")  # a tensor without dense numbers
            meaning = _MEANINGS.get(value.name)
            return meaning(self, value) if meaning else f"<{value.name}>"
        return value.name if _dtype(value.name) is not None else f"<{value.name}>"  # a class

    def tensor(self, record: _Record, args: tuple[Any, ...], dtype: torch.dtype | None = None) -> Tensor:
        """A view of a storage, if the storage holds every number of it."""
        if id(record) not in self._tensors:
            stored, offset, size, stride = args[:4]
            if not isinstance(stored, Stored):
                raise ValueError("a tensor without a storage")
            view = self._view(stored, dtype or stored.dtype, offset, tuple(size), tuple(stride))
            self._tensors[id(record)] = record, view  # the record too: its identity must not be given away
        return self._tensors[id(record)][1]

    def _view(
        self, stored: Stored, dtype: torch.dtype, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> Tensor:
        if any(type(number) is not int or number < 0 for number in (offset, *size, *stride)) or len(size) > 64:
            raise ValueError(f"a tensor of size {size[:8]} at offset {offset}")
        numbers = math.prod(size)
        if numbers == 0:
            return torch.empty(size, dtype=dtype)
        steps = [(n, step) for n, step in zip(size, stride, strict=True) if n > 1]
        reach = offset + sum((n - 1) * step for n, step in steps) + 1
        available = len(stored.data) // dtype.itemsize
        if reach > available:
            raise ValueError(f"a tensor of size {size} reaches to element {reach} of a storage of {available}")
        spread = sorted((step, n) for n, step in steps if step)
        if any(step < below * n for (below, n), (step, _) in itertools.pairwise(spread)) or (
            len(spread) < len(steps) and reach < available
        ):
            raise ValueError(f"a tensor of size {size} and strides {stride}, which overlaps itself")
        self._budget.spend(numbers * dtype.itemsize)
        return torch.frombuffer(stored.data, dtype=dtype).as_strided(size, stride, offset)

    def pairs(self, record: _Record) -> dict[object, object]:
        """A dictionary of some kind: its arguments, then the items set."""
        source = record.args[0] if record.args else ()
        items = source.items() if isinstance(source, dict) else source if isinstance(source, list | tuple) else ()
        return self._dictionary((*items, *record.items))

    def _dictionary(self, items: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        pairs = [(self(key), self(value)) for key, value in items]  # a key may have been a record: look again
        Keys(self._budget.size).check((key for key, _ in pairs), pairs)
        return dict(pairs)

    def sequence(self, record: _Record) -> list[object]:
        """A list or set: its argument, then what was appended."""
        source = record.args[0] if record.args else ()
        if not isinstance(source, list | tuple | set | frozenset | dict):
            raise ValueError(f"{record.name} of a {type(source).__name__}")
        return [self(value) for value in (*source, *record.items)]

    def text(self, record: _Record) -> str:
        """A string in some dress."""
        return ":".join(str(self(value)) for value in record.args)

    def data(self, value: object) -> bytes:
        """Bytes, which old protocols write as text."""
        if isinstance(value, _Record):
            value = value.args[0] if value.args else b""
        if isinstance(value, str):
            value = value.encode("latin1")
        if not isinstance(value, bytes | bytearray):
            raise ValueError(f"expected bytes, got {type(value).__name__}")
        self._budget.spend(NODE + len(value))
        return bytes(value)

    def number(self, record: _Record) -> object:
        """A numpy scalar."""
        dtype, data = _numpy_dtype(record.args[0]), self.data(record.args[1])
        (value,) = np.frombuffer(data, dtype).tolist() if len(data) == dtype.itemsize else (None,)
        return value

    def array(self, record: _Record) -> object:
        """A numpy array, as nested lists."""
        shape, code, fortran, data = record.state[-4:]
        dtype = _numpy_dtype(code)
        numbers = self.data(data)
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"an array of shape {shape}")
        self._budget.spend(NODE * sum(math.prod(shape[:depth]) for depth in range(len(shape) + 1)))
        return np.frombuffer(numbers, dtype).reshape(shape, order="F" if fortran else "C").tolist()

    def rebuilt(self, record: _Record) -> object:
        """A tensor of a class of its own (a parameter, a buffer): the tensor."""
        inner = record.args[0](*record.args[2]) if isinstance(record.args[0], type) else record.args[0]
        return self(inner)


def _nowhere(_dtype: torch.dtype, _place: tuple[object, ...]) -> Stored:
    raise ValueError("it refers to a storage, and has none")


_KINDS = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64, "Untyped": torch.uint8,
    "QInt8": torch.int8, "QUInt8": torch.uint8, "QInt32": torch.int32,
}  # fmt: skip
_DTYPES = {f"torch.{name}": kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)}


def _dtype(name: str) -> torch.dtype | None:
    """The type that `torch.float32`, `torch.FloatStorage`, `torch.cuda.HalfStorage` stand for."""
    if storage := re.fullmatch(r"torch\.(?:cuda\.|storage\.)?(\w+)Storage", name):
        return _KINDS.get(storage[1])
    return _DTYPES.get(name)


def _numpy_dtype(record: Any) -> np.dtype[Any]:
    """Numbers and strings of fixed size, nothing else."""
    code = record.args[0] if isinstance(record, _Record) and record.name == "numpy.dtype" and record.args else None
    order = record.state[1] if isinstance(code, str) and isinstance(record.state, tuple) else "="
    if not (isinstance(code, str) and re.fullmatch(r"[biufcSU]\d{1,4}", code) and order in ("<", ">", "|", "=")):
        raise ValueError(f"a numpy value of type {code!r}, which is neither number nor string")
    return np.dtype(order + code)


# Let through, and of no use to us: kinds of tensors that are not dense numbers, classes.
_UNUSED = re.compile(
    r"torch\.((cuda|sparse|cuda\.sparse)\.)?\w+Tensor|torch\.(storage\.)?\w+Storage|torch\.Tensor|torch\.per_\w+"
    r"|torch\._utils\._rebuild_(sparse|nested|meta|device|qtensor|wrapper)\w*"
    r"|builtins\.(bool|int|float)|numpy\.(dtype|ndarray)"
)
_Meaning = Callable[[Plain, _Record], object]
_MEANINGS: dict[str, _Meaning] = {
    "argparse.Namespace": lambda plain, record: plain(record.state or {}),
    "collections.defaultdict": lambda plain, record: plain.pairs(record),  # its argument is no pairs
    **dict.fromkeys(("collections.OrderedDict", "collections.Counter", "builtins.dict"), Plain.pairs),
    **dict.fromkeys(("builtins.list", "builtins.set", "builtins.frozenset"), Plain.sequence),
    **dict.fromkeys(("builtins.tuple", "torch.Size"), lambda plain, record: tuple(plain.sequence(record))),
    **dict.fromkeys(("builtins.bytearray", "builtins.bytes", "_codecs.encode"), Plain.data),
    "builtins.complex": lambda plain, record: complex(*(float(part) for part in plain(record.args))),
    **dict.fromkeys(
        ("builtins.str", "torch.torch_version.TorchVersion", "torch.device", "torch.serialization._get_layout"),
        Plain.text,
    ),
    "datetime.datetime": lambda plain, record: str(datetime.datetime(plain.data(record.args[0]))),  # type: ignore[arg-type,call-arg]
    **{
        f"{module}.{name}": _path
        for module in ("pathlib", "pathlib._local")
        for _path, names in (
            (
                lambda plain, record: str(PurePosixPath(*plain(record.args))),
                ("Path", "PosixPath", "PurePath", "PurePosixPath"),
            ),
            (lambda plain, record: str(PureWindowsPath(*plain(record.args))), ("WindowsPath", "PureWindowsPath")),
        )
        for name in names
    },
    **{f"numpy.{core}.multiarray.scalar": Plain.number for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": Plain.array for core in ("core", "_core")},
    **dict.fromkeys(
        ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"),
        lambda plain, record: plain.tensor(record, record.args),
    ),
    "torch._utils._rebuild_tensor_v3": lambda plain, record: plain.tensor(
        record, record.args, _dtype(record.args[6].name)
    ),
    **dict.fromkeys(
        (
            "torch._utils._rebuild_parameter",
            "torch._utils._rebuild_parameter_with_state",
            "torch.nn.parameter.Parameter",
            "torch._tensor._rebuild_from_type_v2",
        ),
        Plain.rebuilt,
    ),
}

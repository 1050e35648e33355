"""A file -> plain values. Only files that are whole, and only pickles of plain data; there is no other way in."""

from __future__ import annotations

import hashlib
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from fourier_probe.checkpoints.limits import Budget, OversizedError
from fourier_probe.checkpoints.pickles import ForeignNamesError, Plain, Stored, records
from fourier_probe.errors import CheckpointError, printable
from fourier_probe.io.regular import open_regular, version

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch before 1.6: five pickles, then the storages
_PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_HEADER_LIMIT = 100_000_000  # bytes; safetensors' own limit


class Contents(NamedTuple):
    """What a file holds."""

    values: Any  # plain: see `pickles.plain`
    sha256: str  # of the file
    metadata: dict[str, str] | None  # of a safetensors file; None for any other


def load(path: Path) -> Contents:
    """Read a checkpoint written by `torch.save` (zip or the older format) or a safetensors file, onto the CPU.

    Of zip files every part that is read is checked against its CRC-32, which torch does not look at. The older format
    and safetensors carry no checksum: a bit flipped inside a tensor goes unseen there.

    Raises:
        CheckpointError: not there, not a checkpoint, damaged, or naming what plain data does not need.
    """
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder: name the checkpoint in it, such as {path / 'last.pt'}.")
        with open_regular(path) as file:
            before = version(file)
            contents = _contents(path, file)
            opened_again = contents.metadata is not None  # safetensors, by its name
            if version(file) != before or (opened_again and version(path) != before):
                raise CheckpointError(f"{path} was changed while it was read: run again when it is written.")
            return contents
    except FileNotFoundError as error:
        raise CheckpointError(f"no such file: {path}.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _contents(path: Path, file: IO[bytes]) -> Contents:
    sha256 = _sha256(file)
    size = file.tell()
    start = _peek(file, len(_LEGACY))
    if size == 0:
        raise CheckpointError(f"{path} is damaged or incomplete: it is empty.")
    if start.startswith(_ZIP[: len(start)]):
        return Contents(_guarded(path, lambda: _load_zip(path, file, size)), sha256, None)
    if start.startswith(_LEGACY[: len(start)]):
        return Contents(_guarded(path, lambda: _load_legacy(file, size)), sha256, None)
    if start[8:9] == b"{" or (path.suffix == ".safetensors" and not start.startswith(_PICKLES)):
        values, metadata = _guarded(path, lambda: _load_safetensors(path, file, size))
        return Contents(values, sha256, metadata)
    raise _guarded(path, lambda: _not_a_checkpoint(path, file, start))


def _guarded(path: Path, read: Callable[[], object]) -> Any:
    """`read()`, whose every failure is this file's: a cut or forged file can make its reader raise anything."""
    try:
        return read()
    except CheckpointError:
        raise
    except ForeignNamesError as error:
        more = f" and {len(error.names) - 5} more" if len(error.names) > 5 else ""
        raise CheckpointError(
            f"{path} was refused: it is not plain data but names {printable(', '.join(error.names[:5]), 400)}{more}, "
            "which loading it would run. Nothing of it was run. If you trust it, load it where it was made and save "
            "model.state_dict() alone."
        ) from None
    except OversizedError as error:
        raise CheckpointError(f"{path} was refused: {error}. Expected a checkpoint as torch.save writes it.") from error
    except RecursionError as error:
        raise CheckpointError(
            f"{path} was refused: its values are nested too deeply. Expected a checkpoint as torch.save writes it."
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} is damaged or incomplete: {_reason(error)}. Copy or download it again; it was not changed."
        ) from error


def _load_zip(path: Path, file: IO[bytes], size: int) -> object:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        names = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
        if not names:
            raise CheckpointError(f"{path} is a zip file, but not a checkpoint: torch.save did not write it.")
        root = names[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in entries:
            raise CheckpointError(
                f"{path} is a TorchScript archive, which holds code: save the model's state_dict() with torch.save."
            )
        if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries.values()) or (
            sum(entry.file_size for entry in archive.infolist()) > size
        ):
            raise CheckpointError(
                f"{path} is compressed or declares more bytes than it has: torch.save writes neither."
            )
        if len(names) > 1 or len(entries) < len(archive.infolist()):
            raise CheckpointError(f"{path} is damaged or incomplete: it has two parts of one name.")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise CheckpointError(f"{path} was written on a big-endian machine: load and save it there as safetensors.")
        storages: dict[str, bytearray] = {}

        def locate(dtype: torch.dtype, reference: tuple[object, ...]) -> Stored:
            key = str(reference[0])
            if key not in storages:
                storages[key] = bytearray(archive.read(f"{root}data/{key}"))  # which checks the CRC-32
            return _of_length(Stored(storages[key], dtype), reference[2])

        return Plain(Budget(size))(records(archive.read(names[0]), locate))


def _load_legacy(file: IO[bytes], size: int) -> object:
    """Magic number, protocol, system, values, keys of the storages: a pickle each; then the storages."""
    file.seek(0)
    plain, storages, left = Plain(Budget(size)), dict[str, Stored](), size

    def locate(dtype: torch.dtype, reference: tuple[Any, ...]) -> Stored:
        nonlocal left
        key, _, numbers, view = (*reference, None)[:4]
        if str(key) not in storages:
            if type(numbers) is not int or not 0 <= numbers * dtype.itemsize <= left:
                raise ValueError(f"a storage of {str(numbers)[:20]} numbers in a file of {size} bytes")
            left -= numbers * dtype.itemsize
            storages[str(key)] = Stored(bytearray(numbers * dtype.itemsize), dtype)
        stored = _of_length(Stored(storages[str(key)].data, dtype), numbers)
        if view is None:
            return stored
        start, length = (int(number) * dtype.itemsize for number in view[1:])
        return stored._replace(data=memoryview(stored.data)[start : start + length])

    _magic, _protocol, system = (plain(records(_next_pickle(file))) for _ in range(3))
    if not system["little_endian"]:
        raise ValueError("it was written on a big-endian machine")
    values, keys = records(_next_pickle(file), locate), plain(records(_next_pickle(file)))
    if sorted(keys) != sorted(storages):
        raise ValueError("its storages are not the ones that its tensors refer to")
    for key in keys:
        data, dtype = storages[key]
        numbers = int.from_bytes(file.read(8), "little")
        numbers_read = file.read(len(data)) if numbers * dtype.itemsize == len(data) else b""
        if len(numbers_read) != len(data):
            raise ValueError("a storage is not as long as its tensors")
        data[:] = numbers_read
    return plain(values)


def _of_length(stored: Stored, numbers: object) -> Stored:
    if type(numbers) is not int or numbers * stored.dtype.itemsize != len(stored.data):
        raise ValueError(f"a storage of {str(numbers)[:20]} numbers has {len(stored.data)} bytes")
    return stored


def _next_pickle(file: IO[bytes]) -> bytes:
    """The bytes of the pickle that starts here; the file is left at its end."""
    start = file.tell()
    for _ in pickletools.genops(file):
        pass
    end = file.tell()
    file.seek(start)
    return file.read(end - start)


def _load_safetensors(path: Path, file: IO[bytes], size: int) -> tuple[dict[str, object], dict[str, str]]:
    from safetensors import safe_open

    file.seek(0)
    header = int.from_bytes(file.read(8), "little")
    if header > min(size - 8, _HEADER_LIMIT):
        raise CheckpointError(
            f"{path} is damaged or incomplete: it declares a header of {header} bytes and has {size} bytes in all "
            f"(a header may have {_HEADER_LIMIT})."
        )
    with safe_open(path, framework="pt", device="cpu") as tensors:  # checks every declared size before it allocates
        values = {name: tensors.get_tensor(name).clone() for name in tensors.keys()}  # off the mapped file
        return values, dict(tensors.metadata() or {})


def _not_a_checkpoint(path: Path, file: IO[bytes], start: bytes) -> CheckpointError:
    """The error for a file that is neither zip, nor torch's older format, nor safetensors."""
    if path.suffix == ".py":
        return CheckpointError(
            f"{path} is Python code: name the function in it that returns the network, such as {path}:make."
        )
    if start.startswith(_PICKLES):
        file.seek(0)
        records(_next_pickle(file))  # a pickle that names anything is refused for that
        return CheckpointError(
            f"{path} is a bare pickle, not a checkpoint: expected a file of torch.save or safetensors. If it holds "
            "weights, load it where it was made and write them with torch.save(model.state_dict(), ...)."
        )
    return CheckpointError(
        f"{path} is not a checkpoint (it starts with {start[:8]!r}): expected a file of torch.save "
        "(.pt, .pth, .tar, .ckpt) or .safetensors."
    )


def _reason(error: Exception) -> str:
    """Type and first line of what a reader raised."""
    text = str(error).strip()
    return (
        f"{type(error).__name__}: {printable(text.splitlines()[0], 200).rstrip('.')}"
        if text
        else (type(error).__name__)
    )


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _peek(file: IO[bytes], length: int) -> bytes:
    file.seek(0)
    return file.read(length)

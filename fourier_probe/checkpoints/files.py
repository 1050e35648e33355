"""A file -> plain values. Only files that are whole, and only pickles of plain data; there is no other way in."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from fourier_probe.checkpoints.pickles import SAFE, foreign_globals, plain
from fourier_probe.errors import CheckpointError

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

    Zip files are checked against their CRC-32, which torch does not look at. The older format and safetensors carry no
    checksum: a bit flipped inside a tensor goes unseen there.

    Raises:
        CheckpointError: not there, not a checkpoint, damaged, or naming what plain data does not need.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: name the checkpoint in it, such as {path / 'last.pt'}.")
    if not path.is_file():
        raise CheckpointError(f"no such file: {path}.")
    try:
        with path.open("rb") as file:
            sha256 = _sha256(file)
            start = _peek(file, len(_LEGACY))
            size = path.stat().st_size
            if size == 0:
                raise CheckpointError(f"{path} is damaged or incomplete: it is empty.")
            if start.startswith(_ZIP[: len(start)]):
                return Contents(_guarded(path, lambda: _load_zip(path, file)), sha256, None)
            if start.startswith(_LEGACY[: len(start)]):
                return Contents(_guarded(path, lambda: _unpickled(path, file, pickles=5)), sha256, None)
            if start[8:9] == b"{" or (path.suffix == ".safetensors" and not start.startswith(_PICKLES)):
                values, metadata = _guarded(path, lambda: _load_safetensors(path, file, size))
                return Contents(values, sha256, metadata)
            raise _not_a_checkpoint(path, file, start)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    """`read()`, whose every failure is this file's: a cut or forged file can make its reader raise anything."""
    try:
        return read()
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path} is damaged or incomplete: {_reason(error)}. Copy or download it again; it was not changed."
        ) from error


def _load_zip(path: Path, file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename.rpartition("/")[2]: entry for entry in archive.infolist()}
        if "data.pkl" not in entries:
            raise CheckpointError(f"{path} is a zip file, but not a checkpoint: torch.save did not write it.")
        if "constants.pkl" in entries:
            raise CheckpointError(
                f"{path} is a TorchScript archive, which holds code: save the model's state_dict() with torch.save."
            )
        size = path.stat().st_size
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size for entry in archive.infolist()):
            raise CheckpointError(
                f"{path} is compressed or declares more bytes than it has: torch.save writes neither."
            )
        if wrong := archive.testzip():
            raise CheckpointError(
                f"{path} is damaged or incomplete: the CRC-32 of {wrong} does not match. Copy or download it again; "
                "it was not changed."
            )
        names = entries["data.pkl"]

        def refuse() -> list[str]:
            with archive.open(names) as stream:
                return foreign_globals(stream)

        return _torch_load(path, file, refuse)


def _unpickled(path: Path, file: IO[bytes], *, pickles: int) -> Any:
    def refuse() -> list[str]:
        file.seek(0)
        return foreign_globals(file, pickles=pickles)

    return _torch_load(path, file, refuse)


def _torch_load(path: Path, file: IO[bytes], refuse: Callable[[], list[str]]) -> Any:
    """`torch.load` of plain data; if it fails, and `refuse` finds what is none, that is the reason."""
    file.seek(0)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(SAFE):
            warnings.simplefilter("ignore")  # torch warns about unusual pickles before it refuses them
            return plain(torch.load(file, map_location="cpu", weights_only=True, mmap=False))
    except Exception:
        if names := refuse():
            raise _unsafe(path, names) from None
        raise


def _load_safetensors(path: Path, file: IO[bytes], size: int) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import safe_open

    file.seek(0)
    header = int.from_bytes(file.read(8), "little")
    if header > min(size - 8, _HEADER_LIMIT):
        raise CheckpointError(
            f"{path} is damaged or incomplete: it declares a header of {header} bytes and has {size} bytes in all "
            f"(a header may have {_HEADER_LIMIT})."
        )
    json.loads(file.read(header))
    with safe_open(path, framework="pt", device="cpu") as tensors:  # checks every declared size before it allocates
        values = {name: tensors.get_tensor(name).clone() for name in tensors.keys()}  # off the mapped file
        return values, dict(tensors.metadata() or {})


def _not_a_checkpoint(path: Path, file: IO[bytes], start: bytes) -> CheckpointError:
    """The error for a file that is neither zip, nor torch's older format, nor safetensors."""
    if start.startswith(_PICKLES):
        file.seek(0)
        if names := foreign_globals(file):
            return _unsafe(path, names)
        return CheckpointError(
            f"{path} is a bare pickle, not a checkpoint: expected a file of torch.save or safetensors. If it holds "
            "weights, load it where it was made and write them with torch.save(model.state_dict(), ...)."
        )
    return CheckpointError(
        f"{path} is not a checkpoint (it starts with {start[:8]!r}): expected a file of torch.save "
        "(.pt, .pth, .tar, .ckpt) or .safetensors."
    )


def _unsafe(path: Path, names: list[str]) -> CheckpointError:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return CheckpointError(
        f"{path} was refused: it is not plain data but names {', '.join(names[:5])}{more}, which loading it would run. "
        "Nothing of it was run. If you trust it, load it where it was made and save model.state_dict() alone."
    )


def _reason(error: Exception) -> str:
    """The first line that says something, without torch's advice to load the file unsafely."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    if isinstance(error, pickle.UnpicklingError) and text.startswith("Weights only load failed"):
        text = text.partition("\n\n")[2] or "not a valid pickle"
    return f"{type(error).__name__}: {text.splitlines()[0][:200].rstrip('.')}" if text else type(error).__name__


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _peek(file: IO[bytes], length: int) -> bytes:
    file.seek(0)
    return file.read(length)

"""Plain values -> a file, whole or not at all."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fourier_probe.errors import CheckpointError
from fourier_probe.io import atomic

VERSION = 1  # of the keys below; a reader refuses a newer one
_SCALARS = (type(None), bool, int, float, str, bytes)


def save(path: Path | str, payload: dict[str, object]) -> None:
    """Write a checkpoint: `payload` with `digest` (SHA-256 of its tensors) and `version` added.

    Tensors are written from the CPU, in the order in which they lie in memory, without the rest of a storage they are a
    view of; an `OrderedDict` becomes a dictionary.

    Args:
        path: replaced only once the whole file is on the disk.
        payload: `state_dict`, `state_dict_ema`, `arch`, `model_args`, `epoch`, `step`, `optimizer`, `scaler`, `config`,
            `conversions`, `metrics`, `rng`: nested dictionaries, lists and tuples of tensors, numbers, strings, None.

    Raises:
        CheckpointError: something else is in the payload; names where.
        OutputError: the file cannot be written; what was there is intact.
    """
    clean = _storable(payload, "payload")
    clean.update(digest=digest(clean), version=VERSION)
    buffer = io.BytesIO()
    torch.save(clean, buffer)
    atomic.write_bytes(path, buffer.getvalue())


def digest(values: object) -> str:
    """SHA-256 of all tensors in nested values: where they are, type, shape and bytes, whatever the order.

    >>> digest({"a": torch.zeros(2), "b": 1}) == digest({"b": 2, "a": torch.zeros(2)})
    True
    >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(2, 1)})
    False
    """
    hashed = hashlib.sha256()
    for where, tensor in sorted(_tensors(values, "payload"), key=lambda item: item[0]):
        hashed.update(f"{where}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # Bytes as they lie in memory: little-endian on every machine torch runs on.
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def _tensors(value: object, where: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tensors(item, f"{where}[{index}]")


def _storable(value: Any, where: str) -> Any:
    """`value` if the safe reader will take it back, tensors on the CPU and in a storage of their own size."""
    if type(value) in _SCALARS:
        return value
    if type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided and not value.is_quantized:
        tensor: Tensor = value.detach().cpu()  # with its strides: sums over another order end in other digits
        return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor
    if isinstance(value, dict):
        if wrong := [key for key in value if type(key) not in (str, int)]:
            raise CheckpointError(
                f"cannot save {where}: its key {wrong[0]!r} is {type(wrong[0]).__name__}, expected a string or an int."
            )
        return {key: _storable(item, f"{where}[{key!r}]") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_storable(item, f"{where}[{index}]") for index, item in enumerate(value))
    raise CheckpointError(
        f"cannot save {where}: it is {type(value).__module__}.{type(value).__qualname__}, expected plain values (dense "
        "tensors, numbers, strings, None, and lists, tuples and dictionaries of them)."
    )

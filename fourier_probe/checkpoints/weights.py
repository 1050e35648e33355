"""The weights in a checkpoint: where they are, and under which names. Imports torch, errors and messages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fourier_probe.errors import CheckpointError, printable
from fourier_probe.runtime.messages import note

PREFIXES = ("module.", "_orig_mod.", "model.")  # DistributedDataParallel, torch.compile, Lightning


_RAW = ("state_dict", "model", "model_state_dict", "student")


_EMA = ("state_dict_ema", "model_ema", "teacher")


def strip_prefixes(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Names without `module.`, `_orig_mod.`, `model.`, each taken once and only if every name has it; what was taken.

    >>> names = {"module._orig_mod.fc.weight": torch.zeros(1), "module._orig_mod.fc.bias": torch.zeros(1)}
    >>> list(strip_prefixes(names)[0]), strip_prefixes(names)[1]
    (['fc.weight', 'fc.bias'], 'module._orig_mod.')
    """
    prefix, left = "", list(PREFIXES)
    while common := next((first for first in left if all(name.startswith(prefix + first) for name in state)), None):
        prefix += common
        left.remove(common)
    return {name[len(prefix) :]: tensor for name, tensor in state.items()}, prefix


def weights_of(path: Path, values: dict[str, Any], use_ema: bool | None) -> tuple[str, dict[str, Tensor]]:
    """("raw" or "ema", names -> tensors) of what the caller asked for."""
    raw, ema = (next((key for key in keys if isinstance(values.get(key), dict)), "") for keys in (_RAW, _EMA))
    if not raw and not ema:
        named = [key for key, value in values.items() if _is_state(value)]  # under a name of the user's own
        raw = named[0] if len(named) == 1 else ""
    if not raw and not ema:
        if named:
            choices = ", ".join(f"--key {printable(key, 80)}" for key in named[:8])
            raise CheckpointError(f"{path} holds weights under several names: say which, {choices}.")
        raise CheckpointError(
            f"{path} holds no weights: expected {', '.join(_RAW)} or a dictionary of tensors, found "
            f"{', '.join(printable(key, 80) for key in list(values)[:8]) or 'nothing'}. If one of these holds them, "
            "name it with --key; for a layout of your own register a reader (docs/extending.md)."
        )
    if use_ema and not ema:
        raise CheckpointError(
            f"{path} has no averaged (EMA) weights, expected {' or '.join(_EMA)}: ask for the raw ones."
        )
    if use_ema is False and not raw:
        raise CheckpointError(
            f"{path} has only averaged (EMA) weights, expected one of {', '.join(_RAW)}: ask for EMA."
        )
    key = raw if use_ema is False or not ema else ema
    state = dict(values[key])
    if len(state) > 1:
        state.pop("n_averaged", None)  # the counter of torch's AveragedModel
    return ("ema" if key == ema else "raw"), _dense(path, key, state)


def _is_state(value: Any) -> bool:
    """Whether a value of a file is the weights of a network: tensors under names, by content."""
    return (
        isinstance(value, dict)
        and any(isinstance(tensor, Tensor) and tensor.dim() > 0 for tensor in value.values())
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def _dense(path: Path, key: str, state: dict[str, Any]) -> dict[str, Tensor]:
    """The dictionary under `key`, once every value of it is a dense tensor on the CPU."""
    if not state:
        raise CheckpointError(f"{path} holds no weights: its {key} is empty.")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or not isinstance(name, str):
            raise CheckpointError(
                f"{path}: {key}['{printable(name, 80)}'] is a {type(tensor).__name__}, expected a tensor."
            )
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise CheckpointError(
                f"{path}: {key}['{printable(name, 80)}'] is sparse, quantized or empty of data; expected dense numbers."
            )
    return state


def under_key(path: Path, values: dict[str, object], key: str) -> dict[str, Tensor]:
    """The weights at `key`, dots between the names of nested dictionaries."""
    inside: object = values
    for depth, part in enumerate(parts := [key] if key in values else key.split(".")):
        if not isinstance(inside, dict) or part not in inside:
            where = ".".join(parts[:depth]) or "the file"
            names = ", ".join(printable(name, 80) for name in list(inside)[:8]) if isinstance(inside, dict) else "none"
            raise CheckpointError(f"{path} has nothing under --key {printable(key, 200)}: {where} holds {names}.")
        inside = inside[part]
    if not isinstance(inside, dict):
        raise CheckpointError(
            f"{path}: --key {printable(key, 200)} is a {type(inside).__name__}, expected a dictionary of tensors."
        )
    return _dense(path, key, dict(inside))


def under_prefix(path: Path, state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin with `prefix`, without it."""
    prefix = prefix if prefix.endswith(".") or not prefix else f"{prefix}."
    inside = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not inside:
        tops = dict.fromkeys(name.split(".")[0] for name in state)
        raise CheckpointError(
            f"{path} has no weights whose names begin with {printable(prefix, 200)}: they begin with "
            f"{', '.join(printable(top, 80) for top in list(tops)[:8])}."
        )
    if len(inside) < len(state):
        note(f"{len(state) - len(inside)} weights of {path.name} are not under {prefix} and are left out.")
    return inside

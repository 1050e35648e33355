"""Plain values -> `Checkpoint`: where each kind of file keeps its weights, and what it says of itself.

| written by | weights, EMA | architecture and arguments |
|---|---|---|
| this package | `state_dict`, `state_dict_ema` | `arch`, `model_args` |
| timm | `state_dict`, `state_dict_ema` | `arch`, `args` (num_classes, in_chans, gp, bn_eps, model_kwargs, img_size) |
| torchvision's references | `model`, `model_ema` (`module.` and a counter, `n_averaged`) | `args.model` |
| Lightning | `state_dict` (`model.`) | `hyper_parameters` |
| DINO | `student`, `teacher` (an average of the student) | `args.arch` |
| open_clip, others | `state_dict`, `model`, `model_state_dict`, or the whole file | `arch`, if any |
| safetensors | the whole file | its metadata, or timm's `config.json` beside a `model.safetensors` |
| a reader that the user registered (`readers`) | what it says | what it says |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fourier_probe.checkpoints import files
from fourier_probe.checkpoints.readers import read_with_plugins
from fourier_probe.checkpoints.record import (
    LARGEST,
    Conversion,
    HubConfig,
    Record,
    Training,
    arguments,
    as_far_as_typed,
    decoded,
    hub_config,
    typed,
)
from fourier_probe.checkpoints.writing import VERSION, digest
from fourier_probe.errors import CheckpointError, printable
from fourier_probe.runtime.messages import note

PREFIXES = ("module.", "_orig_mod.", "model.")  # DistributedDataParallel, torch.compile, Lightning
_RAW = ("state_dict", "model", "model_state_dict", "student")
_EMA = ("state_dict_ema", "model_ema", "teacher")
_ARCH = ("arch", "architecture", "model", "model_name", "backbone")
# What timm's `create_model` and `build_model_with_cfg` take to fetch, read or wrap a model: never followed from inside
# a file. Complete: a test compares it with their signatures.
NOT_ARCHITECTURE = {
    "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "checkpoint_path",
    "cache_dir", "features_only", "feature_cls", "out_indices", "scriptable", "exportable", "no_jit", "device", "dtype",
    "model_cls", "variant", "model_cfg", "feature_cfg", "pretrained_strict", "pretrained_filter_fn", "kwargs_filter",
    "pruned",
}  # fmt: skip


@dataclass
class Checkpoint:
    """A file's weights and what it says of them. `build` makes it a model.

    Attributes:
        path: of the file.
        sha256: of the file's bytes, hexadecimal.
        state: name -> tensor, on the CPU, in the type of the file, without `prefix`.
        arch: name of the architecture, if the file gives one.
        model_args: arguments it was created with, as far as the file says.
        weights: which of the file's weights these are, "raw" or "ema".
        config: of the training run; timm's and torchvision's `args`, Lightning's `hyper_parameters`.
        epoch: as the file counts.
        conversions: layers recast as attention; only in files of this package.
        metrics: name -> number.
        format: who wrote it: fourier-probe, timm, torchvision, lightning, safetensors, pytorch, or a registered
            reader.
        prefix: stripped from every name.
        hints: arguments from the file that only some models take (`img_size`).
        ignored: what the file says and was left out, with the reason.
        payload: all the file holds (optimizer, scaler, rng, ...), to resume from.
    """

    path: Path
    sha256: str
    state: dict[str, Tensor]
    arch: str | None
    model_args: dict[str, Any]
    weights: str
    config: dict[str, Any]
    epoch: int | None
    conversions: tuple[Conversion, ...]
    metrics: dict[str, Any]
    format: str = "pytorch"
    prefix: str = ""
    hints: dict[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    payload: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def says(self) -> str:
        """What the file says it is, for messages."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.model_args.items())
        what = printable(f"{self.arch}({arguments})", 300) if self.arch else "no architecture"
        return f"{what}{'' if self.epoch is None else f' at epoch {self.epoch}'}, written by {self.format}"


def read(
    path: Path | str, *, use_ema: bool | None = None, key: str | None = None, prefix: str | None = None
) -> Checkpoint:
    """Read a checkpoint, running nothing in it.

    Args:
        path: .pt, .pth, .tar, .ckpt, .bin or .safetensors; recognised by content.
        use_ema: the averaged weights: None if the file has them, True or else fail, False never.
        key: where the weights are, in place of the names that are looked for: "ema.model".
        prefix: take the weights whose names begin with it, without it.

    Raises:
        CheckpointError: not there, damaged, unsafe, without weights, or without the ones asked for.
    """
    path = Path(path)
    contents = files.load(path)
    values, ignored = contents.values, list[str]()
    if contents.metadata is not None:
        said, ignored = _metadata(contents.metadata)
        values = {"state_dict": values, **said}
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, expected a dictionary of weights.")
    payload = values
    own = None if contents.metadata is None and _format(values) == "fourier-probe" else read_with_plugins(values)
    if own is not None:
        values = own[1]
    elif values and all(isinstance(each, Tensor) for each in values.values()):
        payload = values = {"state_dict": values}
    if own is None and (list(values) == ["state_dict"] or (contents.metadata is not None and "arch" not in values)):
        config, reason = hub_config(path)
        ignored += [reason] if reason else []
        values |= _hub_values(config) if config else {}
    kind = own[0] if own is not None else "safetensors" if contents.metadata is not None else _format(values)
    settings = _settings(values)
    if kind == "fourier-probe":
        record = typed(values, Record, path)
        _verify(path, values, record)
        epoch, conversions = record.epoch, record.conversions or ()
    else:
        epoch, conversions = values.get("epoch"), ()
        training, reasons = as_far_as_typed(settings, Training)
        ignored += reasons
        settings = {
            name: value
            for name, value in settings.items()
            if name not in Training.__struct_fields__ or getattr(training, name) is not None
        }

    if key is None:
        weights, state = _weights(path, values, use_ema)
    else:
        weights, state = "raw", _under_key(path, payload, key)
    if prefix is None:
        state, stripped = strip_prefixes(state)
    else:
        state, stripped = _under_prefix(path, state, prefix), prefix
    model_args, hints = _model_args(values, settings, kind)
    metrics = values.get("metrics")
    return Checkpoint(
        path=path,
        sha256=contents.sha256,
        state=state,
        arch=_arch(values, settings),
        model_args=arguments(model_args, path),
        weights=weights,
        config=settings,
        epoch=epoch if type(epoch) is int else None,
        conversions=conversions,
        metrics=metrics if isinstance(metrics, dict) else {k: values[k] for k in ("metric",) if k in values},
        format=kind,
        prefix=stripped,
        hints=hints,
        ignored=tuple(ignored),
        payload=payload,
    )


def strip_prefixes(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Names without `module.`, `_orig_mod.`, `model.`, each taken once and only if every name has it; what was taken.

    >>> names = {"module._orig_mod.fc.weight": torch.zeros(1), "module._orig_mod.fc.bias": torch.zeros(1)}
    >>> list(strip_prefixes(names)[0]), strip_prefixes(names)[1]
    (['fc.weight', 'fc.bias'], 'module._orig_mod.')
    """
    prefix, left = "", list(PREFIXES)
    while found := next((each for each in left if all(name.startswith(prefix + each) for name in state)), None):
        prefix += found
        left.remove(found)
    return {name[len(prefix) :]: tensor for name, tensor in state.items()}, prefix


def _weights(path: Path, values: dict[str, Any], use_ema: bool | None) -> tuple[str, dict[str, Tensor]]:
    """("raw" or "ema", names -> tensors) of what the caller asked for."""
    raw, ema = (next((key for key in keys if isinstance(values.get(key), dict)), "") for keys in (_RAW, _EMA))
    if not raw and not ema:
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
    found = dict(values[key])
    if len(found) > 1:
        found.pop("n_averaged", None)  # the counter of torch's AveragedModel
    return ("ema" if key == ema else "raw"), _dense(path, key, found)


def _dense(path: Path, key: str, found: dict[str, Any]) -> dict[str, Tensor]:
    """The dictionary under `key`, once every value of it is a dense tensor on the CPU."""
    if not found:
        raise CheckpointError(f"{path} holds no weights: its {key} is empty.")
    for name, tensor in found.items():
        if not isinstance(tensor, Tensor) or not isinstance(name, str):
            raise CheckpointError(
                f"{path}: {key}['{printable(name, 80)}'] is a {type(tensor).__name__}, expected a tensor."
            )
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise CheckpointError(
                f"{path}: {key}['{printable(name, 80)}'] is sparse, quantized or empty of data; expected dense numbers."
            )
    return found


def _under_key(path: Path, values: dict[str, Any], key: str) -> dict[str, Tensor]:
    """The weights at `key`, dots between the names of nested dictionaries."""
    inside: Any = values
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


def _under_prefix(path: Path, state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
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


def _verify(path: Path, values: dict[str, Any], record: Record) -> None:
    """Refuse a file of ours that is newer than this code, or whose tensors are not those that were saved."""
    if record.version > VERSION:
        raise CheckpointError(
            f"{path} was written by a newer fourier-probe (checkpoint version {record.version}, this one reads up "
            f"to {VERSION}): upgrade it."
        )
    try:
        intact = record.digest == digest(values)
    except (RuntimeError, NotImplementedError):  # a tensor without dense numbers, which we do not write
        intact = False
    if not intact:
        raise CheckpointError(
            f"{path} is damaged: the SHA-256 of its tensors is not the one saved with them. Use another copy, or an "
            "earlier checkpoint; it was not changed."
        )


def _format(values: dict[str, Any]) -> str:
    if "digest" in values and "version" in values:
        return "fourier-probe"
    if "pytorch-lightning_version" in values or "hyper_parameters" in values:
        return "lightning"
    if "model" in values and "args" in values:
        return "torchvision"
    return "timm" if "args" in values else "pytorch"


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """The run's configuration, under whichever name."""
    found = (values.get(key) for key in ("config", "args", "hyper_parameters"))
    return next((dict(each) for each in found if isinstance(each, dict)), {})


def _arch(values: dict[str, Any], settings: dict[str, Any]) -> str | None:
    named = (place.get(key) for place in (values, settings) for key in _ARCH)
    return next((each for each in named if isinstance(each, str) and 0 < len(each) <= 1000), None)


def _model_args(values: dict[str, Any], settings: dict[str, Any], kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments the model was created with, and those it may have been."""
    said = values.get("model_args")
    found = dict(said) if isinstance(said, dict) else {}
    hints: dict[str, Any] = {}
    if kind != "fourier-probe":
        extra = settings.get("model_kwargs")
        found = {**_timm_args(settings), **(extra if isinstance(extra, dict) else {}), **_timm_args(values), **found}
        size = settings.get("img_size")
        if "img_size" not in found and isinstance(size, int) and 0 < size <= LARGEST:
            hints["img_size"] = size
    return {str(name): each for name, each in found.items() if name not in NOT_ARCHITECTURE}, hints


def _timm_args(settings: dict[str, Any]) -> dict[str, Any]:
    """What timm's training script hands to `create_model`, under its names there."""

    def pairs() -> Iterator[tuple[str, Any]]:
        size = settings.get("input_size")
        if isinstance(size, list | tuple) and len(size) == 3:
            yield "in_chans", size[0]
        for ours, theirs, kinds in (
            ("in_chans", "in_chans", int),
            ("num_classes", "num_classes", int),
            ("global_pool", "gp", str),
            ("global_pool", "global_pool", str),
            ("bn_eps", "bn_eps", float),
        ):
            if isinstance(settings.get(theirs), kinds):
                yield ours, settings[theirs]

    return dict(pairs())


def _metadata(metadata: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """What a safetensors file says of its architecture (strings, some of them JSON), and what of it is left out."""
    said: dict[str, Any] = {}
    ignored: list[str] = []
    for key, text in metadata.items():
        if key in ("arch", "architecture"):
            said["arch"] = text
        elif key == "global_pool":
            said[key] = text.strip('"')
        elif key in ("model_args", "num_classes", "in_chans", "epoch"):
            value, reason = decoded(text)
            kind = dict if key == "model_args" else int
            if not reason and isinstance(value, kind):
                said[key] = value
            else:
                ignored.append(f"metadata {key}: {reason or f'expected {kind.__name__}, got {type(value).__name__}'}")
    return said, ignored


def _hub_values(config: HubConfig) -> dict[str, Any]:
    fields = {"arch": config.architecture, "num_classes": config.num_classes, "global_pool": config.global_pool}
    return {**fields, "model_args": config.model_args or {}}

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

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fourier_probe.checkpoints import files
from fourier_probe.checkpoints.description import (
    architecture_of,
    arguments_of,
    format_of,
    from_hub,
    from_metadata,
    settings_of,
)
from fourier_probe.checkpoints.readers import read_with_plugins
from fourier_probe.checkpoints.record import (
    Conversion,
    Record,
    Training,
    arguments,
    as_far_as_typed,
    hub_config,
    typed,
)
from fourier_probe.checkpoints.weights import strip_prefixes, under_key, under_prefix, weights_of
from fourier_probe.checkpoints.writing import VERSION, digest
from fourier_probe.errors import CheckpointError, printable


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
        """What the file says of its architecture, for messages: the end of a sentence."""
        if not self.arch:
            return "nothing of its architecture"
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.model_args.items())
        epoch = "" if self.epoch is None else f" at epoch {self.epoch}"
        return f"it is {printable(f'{self.arch}({arguments})', 300)}{epoch}, written by {self.format}"


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
        described, ignored = from_metadata(contents.metadata)
        values = {"state_dict": values, **described}
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, expected a dictionary of weights.")
    payload = values
    own = None if contents.metadata is None and format_of(values) == "fourier-probe" else read_with_plugins(values)
    if own is not None:
        values = own[1]
    elif values and all(isinstance(tensor, Tensor) for tensor in values.values()):
        payload = values = {"state_dict": values}
    if own is None and (list(values) == ["state_dict"] or (contents.metadata is not None and "arch" not in values)):
        config, reason = hub_config(path)
        ignored += [reason] if reason else []
        values |= from_hub(config) if config else {}
    kind = own[0] if own is not None else "safetensors" if contents.metadata is not None else format_of(values)
    settings = settings_of(values)
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
        weights, state = weights_of(path, values, use_ema)
    else:
        weights, state = "raw", under_key(path, payload, key)
    if prefix is None:
        state, stripped = strip_prefixes(state)
    else:
        state, stripped = under_prefix(path, state, prefix), prefix
    model_args, hints = arguments_of(values, settings, kind)
    metrics = values.get("metrics")
    return Checkpoint(
        path=path,
        sha256=contents.sha256,
        state=state,
        arch=architecture_of(values, settings),
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


def _verify(path: Path, values: dict[str, object], record: Record) -> None:
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

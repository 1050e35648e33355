"""A checkpoint file, or a run folder's last.pt, as a target. May import checkpoints and results."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fourier_probe import checkpoints
from fourier_probe.checkpoints.record import Input
from fourier_probe.data.trust import NamedData, read_fingerprint
from fourier_probe.errors import CheckpointError
from fourier_probe.models import zoo
from fourier_probe.results.records import Provenance
from fourier_probe.runtime.messages import note
from fourier_probe.targets.options import ModelOptions
from fourier_probe.targets.target import Target


def open_checkpoint(path: Path, name: str, options: ModelOptions, own: str | None = None) -> Target:
    """The network of a checkpoint.

    Args:
        path: the file.
        name: as the user named it.
        options: `model` and, beside it, `model_args` are for a file that does not say what it is.
        own: the architecture that the user names for this file alone (TARGET=MODEL); comes before what the file says.
    """
    if options.pretrained:
        raise CheckpointError(
            f"{name} is a checkpoint with weights of its own: --pretrained is for timm:NAME and torchvision:NAME."
        )
    checkpoint = checkpoints.read(path, use_ema=options.use_ema, key=options.key, prefix=options.prefix)
    model, arguments = own or options.model, options.model_args
    says = checkpoint.arch if checkpoint.arch and zoo.is_registered(checkpoint.arch) else None
    if model is not None:
        model = model.removeprefix("timm:")
    if says and model and not own and model != says:
        note(
            f"{name} says that it is {says}, and is read as that: --model is for files that do not say. If it is "
            f"something else, name it for this file alone: {name}={model}"
        )
        model, arguments = None, None
    if options.prefix is None:
        checkpoint = checkpoints.encoder(checkpoint, model, arguments)
    built = checkpoints.build(
        checkpoint,
        model=model,
        model_args=arguments,
        untrained=options.untrained,
        ignore_extra=options.ignore_extra,
    )
    arch, made_with = checkpoints.architecture(checkpoint, model=model, model_args=arguments)
    config = checkpoint.config
    trained = {key: config.get(key) for key in ("data", "data_scale", "schedule", "seed")}
    trained["train_images"] = config.get("train_images") or None  # 0: by data_scale
    provenance = Provenance.of(
        {
            "source": name,
            "sha256": checkpoint.sha256,
            "arch": arch,
            "model_args": made_with,
            "weights": "untrained" if options.untrained else checkpoint.weights,
            **trained,
            "epoch": checkpoint.epoch,
        }
    )
    return Target(
        label=path.parent.name if path.stem in ("last", "best") and path.parent.name else path.stem,
        provenance=provenance,
        model=built,
        data=_data(checkpoint, name),
        transform=_input(checkpoint),
    )


def _data(checkpoint: checkpoints.Checkpoint, name: str) -> NamedData | None:
    """What the file says it was trained on."""
    source, ours = checkpoint.config.get("data"), checkpoint.format == "fourier-probe"
    if not isinstance(source, str) or not source:
        return None
    return NamedData(source, name, ours, read_fingerprint(checkpoint.payload.get("data_fingerprint")) if ours else None)


def _input(checkpoint: checkpoints.Checkpoint) -> Input:
    """What a file says of its run's input; of another tool's, only what reads as ours."""
    try:
        return msgspec.convert(checkpoint.config.get("input") or {}, Input)
    except (msgspec.ValidationError, RecursionError):
        return Input()

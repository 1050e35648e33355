"""What every verb takes: a target and data, as names or as objects. May import everything but plots and cli."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn
from typing_extensions import TypeIs

from fourier_probe.data import Batch, ImageSet, InputSpec, batches, choose, off_scale, open_data
from fourier_probe.data.trust import data_of
from fourier_probe.errors import DataError, ModelError
from fourier_probe.io.paths import expanded
from fourier_probe.models import zoo
from fourier_probe.results.labels import legible
from fourier_probe.results.records import ImagesInfo, Provenance
from fourier_probe.runtime.messages import note
from fourier_probe.targets import ModelOptions, Target, resolve

Data = str | Path | ImageSet | Iterable[object]
"""A source's name, an opened source, a DataLoader, or any iterable of batches or (batch, labels)."""

AnyTarget = str | Path | nn.Module | Target
"""A network, what the command line calls TARGET, or an opened target."""


@dataclass(frozen=True)
class ImageOptions:
    """Which images to look at, and how; the flags of the same names.

    Attributes:
        images: at most so many, spread evenly over the split and its classes; of batches, the first so many; null: all.
        split: of a source: "train", "val" or "test".
        batch_size: images of a forward.
        workers: processes that read image files.
        skip_bad: leave unreadable images out, counted in the result.
        img_size: (H, W) pixels. mean, std: per channel, in [0, 1]. Each where the target does not say, or in its place.
    """

    images: int | None = 1000
    split: str = "test"
    batch_size: int = 32
    workers: int = 0
    skip_bad: bool = False
    img_size: tuple[int, int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


@dataclass(frozen=True)
class Stream:
    """Images on their way into a model.

    Attributes:
        batches: `Batch`es of a source, this rank's share; or what the caller gave.
        total: number of images, over all ranks; null where it is unknown.
        share: of these, this rank's.
        source: the `images` field of a result: source, split, size, mean, std, skipped.
        classes: number of classes the labels are of, where known.
        chosen: the opened source; null for batches of the caller's own.
    """

    batches: Iterable[Any]
    total: int | None
    share: int | None
    source: ImagesInfo
    classes: int | None
    chosen: ImageSet | None


def open_target(
    target: AnyTarget,
    *,
    model: str | None = None,
    model_args: dict[str, object] | None = None,
    pretrained: bool = False,
    use_ema: bool | None = None,
    untrained: bool = False,
    key: str | None = None,
    prefix: str | None = None,
    ignore_extra: bool = False,
    label: str | None = None,
) -> Target:
    """Open what the command line calls TARGET, or wrap a network.

    Args:
        target: a checkpoint, a run folder, `timm:NAME`, a network, or an opened target, which is returned.
        model: architecture of a checkpoint that does not say.
        model_args: its arguments.
        pretrained: for `timm:NAME`, fetch the published weights.
        use_ema: the EMA weights or the raw ones; by default EMA where the file has it.
        untrained: the same architecture before any training.
        key: where in a file the weights are.
        prefix: take the weights whose names begin with it, without it.
        ignore_extra: leave out weights that the network has no place for.
        label: what tables and figures call it.

    Returns:
        The target: `.model` in eval mode on the CPU (a network is left where and as it is), `.input`, `.provenance`.

    Raises:
        CheckpointError, ModelError: what is wrong, and what to do. A saved result is `Spectra.load`'s.

    >>> open_target("timm:resnet18").input.size
    (224, 224)
    """
    options = ModelOptions(model, model_args, pretrained, use_ema, untrained, key, prefix, ignore_extra)
    opened = open_any(target, options, label=label)
    if opened.model is None:
        raise ModelError(f"{target} is a saved result: read it with fourier_probe.Spectra.load.")
    return opened


def device_for(target: AnyTarget, device: torch.device | str | None) -> torch.device | str | None:
    """Where to run: what was asked for; else a GPU where there is one for a named target, and a network stays."""
    if device is not None or isinstance(target, nn.Module | Target):
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def open_any(target: AnyTarget, options: ModelOptions, *, label: str | None = None, saved: bool = False) -> Target:
    """As `open_target`; a saved result is opened too, and of a run folder taken first where `saved` is set."""
    if isinstance(target, str | Path):
        opened = resolve(str(target), options, saved=saved)
        if _is_ours(opened) or expanded(str(target).partition("=")[0]).is_file():
            opened = replace(opened, label=legible(opened.provenance, opened.label))
    elif options:
        raise ModelError(
            "model, model_args, pretrained, use_ema, untrained, key, prefix and ignore_extra are for a target that is "
            f"named; this one is a {type(target).__name__} already."
        )
    elif isinstance(target, Target):
        opened = target
    elif isinstance(target, nn.Module):
        name = type(target).__name__
        zoo.check_weights(target)
        opened = Target(label=name, provenance=Provenance(source=name), model=target)
    else:
        raise ModelError(
            f"the target is a {type(target).__name__}: expected a network, a name or path, or an opened target."
        )
    if label is not None:
        opened = replace(opened, label=label, provenance=msgspec.structs.replace(opened.provenance, label=label))
    return opened


def _is_ours(target: Target) -> bool:
    """Whether it is a run or a checkpoint of ours, which says what it was trained on."""
    return target.provenance.data is not None


def open_stream(target: Target, data: Data | None, options: ImageOptions, *, rank: int = 0, world: int = 1) -> Stream:
    """The images of `data`, fitted to a target; by default those it was trained on, else the bundled ones.

    Raises:
        DataError, ModelError: data that cannot be opened, or that the model cannot take.
    """
    if is_source(data):
        chosen, spec = open_source(target, data, options)
        stream = batches(chosen, spec, batch_size=options.batch_size, shard=(rank, world), workers=options.workers)
        classes = None if chosen.classes is None else len(chosen.classes)
        return Stream(
            stream, len(chosen), len(range(rank, len(chosen), world)), described(chosen, spec), classes, chosen
        )
    if not isinstance(data, Iterable):
        raise DataError(f"the data are a {type(data).__name__}: expected a source's name, or batches of images.")
    fitting = [name for name in ("img_size", "mean", "std") if getattr(options, name) is not None]
    if fitting:
        raise DataError(
            f"{fitting[0]}= fits the images of a source to a model; batches are taken as they are: normalise first."
        )
    return Stream(_first(data, options.images, options.batch_size), None, None, ImagesInfo(), None, None)


def is_source(data: Data | None) -> TypeIs[str | Path | ImageSet | None]:
    """Whether data are a source, named or opened, and not batches of the caller's own."""
    return data is None or isinstance(data, str | Path | ImageSet)


def open_source(
    target: Target, data: str | Path | ImageSet | None, options: ImageOptions
) -> tuple[ImageSet, InputSpec]:
    """The chosen images of a source, and the input of a target that they are fitted to.

    Raises:
        DataError, ModelError: data that cannot be opened, or that the model cannot take.
    """
    if not isinstance(data, ImageSet):
        source = data_of(None if data is None else str(data), target.data)
        data = open_data(source, options.split, limit=options.images)
    chosen = choose(data, limit=options.images, skip_bad=options.skip_bad)
    spec = target.input_spec(img_size=options.img_size, mean=options.mean, std=options.std, arrays=chosen.array_size)
    if chosen.pixels is not None and min(spec.size) > min(chosen.pixels.shape[1:3]):
        small = "x".join(map(str, chosen.pixels.shape[1:3]))
        note(
            f"the images of {chosen.source} are {small} and are enlarged to {spec.size[0]}x{spec.size[1]} for this "
            "model: the highest frequencies hold no image content. Give larger images with --data, or --img-size if "
            "it was trained on small ones."
        )
    if odd := off_scale(chosen, spec):
        note(odd)
    return chosen, spec


def described(chosen: ImageSet, spec: InputSpec) -> ImagesInfo:
    """What a result says of these images, before they are counted."""
    return ImagesInfo(
        source=chosen.source,
        split=chosen.split,
        size=list(spec.size),
        mean=list(spec.mean),
        std=list(spec.std),
        skipped=chosen.skipped,
    )


def _first(data: Iterable[object], count: int | None, batch_size: int) -> Iterator[object]:
    """The first `count` images of the caller's own batches, of one tensor of images, or of single images."""
    items = torch.split(data, batch_size) if isinstance(data, torch.Tensor) and data.ndim == 4 else data
    seen = 0
    for item in items:
        if count is not None and seen >= count:
            note(f"the first {seen} images are read; images= names another number.")
            return
        if isinstance(item, Batch):  # dealt out and numbered already: never cut
            seen += len(item.index)
            yield item
            continue
        if isinstance(item, tuple | list) and len(item) == 1:
            item = item[0]  # as a loader over a TensorDataset of images alone gives it
        batch, labels = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
        if isinstance(batch, torch.Tensor) and batch.ndim == 3 and labels is None:
            batch = item = batch[None]  # a single image
        if isinstance(batch, torch.Tensor) and batch.ndim == 4:
            left = len(batch) if count is None else count - seen
            seen += len(batch)
            if left < len(batch):
                note(f"the first {count} images are read; images= names another number.")
                yield batch[:left] if labels is None else (batch[:left], labels[:left])
                return
        yield item

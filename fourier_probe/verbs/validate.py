"""`validate`: a classifier and labelled images -> a `Validation`. May import everything but training and cli."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch
from torch import Tensor, nn

from fourier_probe.data.planted import SIDE, is_planted, variant_of
from fourier_probe.errors import DataError, ModelError
from fourier_probe.io import atomic
from fourier_probe.probe.answers import Answers, answers
from fourier_probe.results import intervals
from fourier_probe.results.filenames import VALIDATE
from fourier_probe.results.records import TopOneBound
from fourier_probe.results.validation import ClassAnswers, PartAnswers, Validation
from fourier_probe.runtime.distributed import device_of
from fourier_probe.runtime.messages import note, progress
from fourier_probe.runtime.versions import versions
from fourier_probe.targets import ModelOptions, Target
from fourier_probe.verbs.disturbed import with_curvature, with_lesions
from fourier_probe.verbs.opening import (
    AnyTarget,
    Data,
    ImageOptions,
    Stream,
    device_for,
    open_any,
    open_stream,
)
from fourier_probe.verbs.probing import precision_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def validate(
    target: AnyTarget,
    data: Data | None = None,
    *,
    images: int | None = None,
    split: str = "test",
    batch_size: int = 32,
    workers: int = 0,
    skip_bad: bool = False,
    img_size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    lesions: bool = False,
    hessian: bool = False,
    device: torch.device | str | None = None,
    amp: str | torch.dtype | None = None,
    label: str | None = None,
    out: Path | str | None = None,
    force: bool = False,
    model: str | None = None,
    model_args: dict[str, object] | None = None,
    pretrained: bool = False,
    use_ema: bool | None = None,
    untrained: bool = False,
    key: str | None = None,
    prefix: str | None = None,
    ignore_extra: bool = False,
) -> Validation:
    """Top-1, top-5, loss, per class and confusion of a classifier, with 95 % intervals over images.

    On the planted task also the images whose local cue contradicts the label, apart, and the bound of this network.

    Args:
        target: a network, what the command line calls TARGET, or an opened target.
        data: a source's name, an opened source, or batches (images, labels) normalised for the network. By default
            what the target was trained on, else the bundled images.
        images: at most so many, spread evenly over the split and its classes; by default all of them.
        split: of a source: "train", "val" or "test".
        batch_size: images of a forward.
        workers: processes that read image files.
        skip_bad: leave unreadable images out, counted in the result, instead of stopping.
        img_size: (H, W) the network wants to see, pixels, where it does not say.
        mean: per channel, in [0, 1], likewise.
        std: likewise.
        lesions: also top-1 with each residual step replaced by the identity, one at a time.
        hessian: also the five largest eigenvalues of the Hessian of the loss on each of 20 minibatches of `batch_size`
            images, and the loss along two directions.
        device: where to run. A network is left where it is by default, and brought back; a named target runs on a GPU
            where there is one.
        amp: "bf16" or "fp16": precision of the forward.
        label: what tables and figures call the target.
        out: folder for validation.json, validation.csv, confusion.csv and its figure; by default nothing is written.
        force: overwrite results that are there.
        model: architecture of a checkpoint that does not say.
        model_args: its arguments.
        pretrained: for `timm:NAME`, fetch the published weights.
        use_ema: the EMA weights or the raw ones; by default EMA where the file has it.
        untrained: the same architecture before any training.
        key: where in a file the weights are.
        prefix: take the weights whose names begin with it, without it.
        ignore_extra: leave out weights that the network has no place for.

    Raises:
        DataError: the labels cannot be the model's; a top-1 at chance is a note.
        ProbeError: the target, the images or the folder cannot be used.

    >>> import fourier_probe as fp
    >>> net = fp.create("patch_resnet")
    >>> fp.validate(net, "planted", images=100).bound.top1  # doctest: +SKIP
    0.875
    """
    folder = None if out is None else atomic.output_folder(out, results=VALIDATE, force=force)
    opened = open_any(
        target, ModelOptions(model, model_args, pretrained, use_ema, untrained, key, prefix, ignore_extra), label=label
    )
    precision, device = precision_of(amp), device_for(target, device)
    result = validate_target(
        opened,
        data,
        ImageOptions(images, split, batch_size, workers, skip_bad, img_size, mean, std),
        lesions=lesions,
        hessian=hessian,
        device=device_of(device) if isinstance(device, str) else device,
        amp=precision,
    )
    if folder is not None:
        write(result, folder)
    return result


def validate_target(
    target: Target,
    data: Data | None,
    images: ImageOptions,
    *,
    lesions: bool = False,
    hessian: bool = False,
    device: torch.device | str | None = None,
    amp: torch.dtype | None = None,
) -> Validation:
    """The answers of an opened target, as a result."""
    if target.model is None:
        raise ModelError(f"{target.label} is a saved result: there is no model to validate.")
    if (lesions or hessian) and isinstance(data, Iterator):
        raise DataError("lesions and hessian read the images again, and these can be read once only: give a list.")
    stream = open_stream(target, data, images)
    with progress(f"validate {target.label}", stream.total) as advance:
        seen = answers(target.model, stream.batches, classes=stream.classes, device=device, amp=amp, progress=advance)
    result = _result(target, stream, seen, _bound(target.model, stream))
    if lesions:
        result = with_lesions(result, seen, target, data, images, device=device, amp=amp)
    if hessian:
        result = with_curvature(result, target, data, images, device=device)
    for text in result.notes:
        note(text)
    return result


def write(result: Validation, folder: Path) -> list[str]:
    """The result files, then the figure; returns the names of what was written."""
    from fourier_probe.plots import save_each

    result.save(folder, force=True)
    figures: dict[str, Callable[[], Figure]] = {"confusion": result.plot}
    if result.lesions:
        figures["lesions"] = lambda: result.plot("lesions")
    if result.curvature is not None:
        figures["hessian"] = lambda: result.plot("hessian")
    save_each(figures, folder)
    return [name for name in VALIDATE if (folder / name).exists()]


def _result(target: Target, stream: Stream, seen: Answers, bound: TopOneBound | None) -> Validation:
    n, right = len(seen.truth), seen.predicted == seen.truth
    top1 = intervals.share(int(right.sum()), n)
    pairs, counts = torch.unique(torch.stack([seen.truth, seen.predicted], 1), dim=0, return_counts=True)
    info = msgspec.structs.replace(stream.source, n=n, digest=seen.digest, size=stream.source.size or list(seen.size))
    conflict = None if stream.chosen is None else stream.chosen.conflict
    lies = None if conflict is None else torch.from_numpy(conflict)[seen.index]
    return Validation(
        label=target.label,
        target=target.provenance,
        images=info,
        top1=top1,
        top5=intervals.share(int(seen.among_five.sum()), n) if seen.classes > 5 else None,
        loss=intervals.mean(float(seen.loss.sum()), float(seen.loss.square().sum()), n),
        classes=_classes(seen, right, stream),
        answers=[(a, b, c) for (a, b), c in zip(pairs.tolist(), counts.tolist(), strict=True)],
        conflict=None if lies is None else _part(right, lies),
        agreeing=None if lies is None else _part(right, ~lies),
        bound=bound,
        notes=_chance(top1, n, seen.classes),
        versions=versions(),
    )


def _classes(seen: Answers, right: Tensor, stream: Stream) -> list[ClassAnswers]:
    named = None if stream.chosen is None else stream.chosen.classes
    names = named or [str(index) for index in range(seen.classes)]
    images, taken, hits = (
        torch.bincount(classes, minlength=seen.classes).tolist()
        for classes in (seen.truth, seen.predicted, seen.truth[right])
    )
    return [
        ClassAnswers(name=name, images=i, predicted=p, top1=intervals.share(h, i) if i else None)
        for name, i, p, h in zip(names, images, taken, hits, strict=True)
    ]


def _part(right: Tensor, part: Tensor) -> PartAnswers | None:
    n = int(part.sum())
    return PartAnswers(images=n, top1=intervals.share(int(right[part].sum()), n)) if n else None


def _chance(top1: intervals.Interval, n: int, classes: int) -> list[str]:
    """A remark where the answers cannot be told from guessing."""
    if top1.low is None or top1.high is None or top1.low > 1 / classes:
        return []
    return [
        f"top-1 is {top1.value:.1%} (95 %: {top1.low:.1%} to {top1.high:.1%}) on {n} images, no better than chance "
        f"over {classes} classes ({1 / classes:.1%}). The labels may be of other classes, the images not as the "
        "network wants them (--mean, --std, --img-size), or the network is not trained."
    ]


def _bound(model: nn.Module, stream: Stream) -> TopOneBound | None:
    """On the planted task, what is known of the largest top-1 of this network."""
    source, size = stream.source, stream.source.size
    if stream.chosen is None or not is_planted(stream.chosen.source) or not source.mean or not source.std:
        return None
    from fourier_probe.probe.window import top1_bound

    try:
        if size != [SIDE, SIDE]:
            raise ModelError(f"it is known for images of {SIDE}x{SIDE}, and these are enlarged or cut")
        return top1_bound(model, variant_of(stream.chosen.source), mean=source.mean, std=source.std)
    except ModelError as error:
        note(f"the bound of this network is left out: {str(error).rstrip('.')}.")
        return None

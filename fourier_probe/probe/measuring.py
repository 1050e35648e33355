"""Stream images through a network and add up what its probe points respond to. May import the rest of probe.

Memory does not grow with the number of images: each batch is reduced to sums inside the hooks. Under torchrun every
rank sees its share of the images and all ranks return the sums of the whole.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fourier_probe.data import Batch
from fourier_probe.data.numbered import numbered
from fourier_probe.errors import DataError, PointError
from fourier_probe.models.gpsa.attention import gated
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.cka import Pooled
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.fast import Scratch, image_statistics
from fourier_probe.probe.feeding import feeding
from fourier_probe.probe.groups import group_of, grouping_of
from fourier_probe.probe.logits import NOT_FINITE, class_scores, no_classes
from fourier_probe.probe.metrics import Statistics
from fourier_probe.probe.points import Point, find_points
from fourier_probe.probe.registered import added
from fourier_probe.probe.sums import Sums
from fourier_probe.probe.survey import survey, tell
from fourier_probe.probe.tokens import token_statistics
from fourier_probe.probe.totals import Totals, merge_ranks
from fourier_probe.trace import coverage as trace_coverage
from fourier_probe.trace.calling import eager, run


@dataclass(frozen=True)
class Listen:
    """Where to listen, and what else is summed there; the flags of `analyze` of the same names.

    Attributes:
        points: globs of module or point names, or `Point`s; empty for the model's own probe points.
        branches: among these the branches of EIT and the halves of gated attention.
        maps: also the mean 2-D log-amplitude of each point.
        strict: stop where a step cannot be read or a map lies elsewhere than said; a note otherwise.
        self_check: test where the maps lie, with six forwards of one image; see `survey`.
        tokens: also effective rank and singular values of the tokens of each image.
        cka: also keep the features of each image, a mean over positions, to compare all points by; memory then grows
            with the number of images, 4 bytes per channel.
        grid: (H, W) of token sequences whose order cannot be learnt.
    """

    points: Sequence[str] | Sequence[Point] = ()
    branches: bool = True
    maps: bool = False
    strict: bool = False
    self_check: bool = True
    tokens: bool = False
    cka: bool = False
    grid: tuple[int, int] | None = None


def measure(
    model: nn.Module,
    images: Iterable[object],
    definition: Definition,
    listen: Listen,
    *,
    device: torch.device | str | None = None,
    amp: torch.dtype | None = None,
    channels_last: bool | None = None,
    classes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Totals:
    """Sums of all images at every probe point of a model, which is left as it was; options as `results.analysis` has.

    Raises:
        DataError: no images. PointError: no points, or features that cannot be laid out.
    """
    model = eager(model)
    home = _device_of(model)
    where = torch.device(device) if device is not None else home
    try:
        model.to(where)
        totals = _stream(model, numbered(images), definition, listen, where, amp, channels_last, classes, progress)
    finally:
        model.to(home)
    totals = merge_ranks(totals)
    if not int(totals.count.sum()):
        raise DataError("there are no images to analyze: the source is empty. Give at least one image.")
    return totals


def _stream(
    model: nn.Module,
    batches: Iterator[Batch],
    definition: Definition,
    listen: Listen,
    device: torch.device,
    amp: torch.dtype | None,
    channels_last: bool | None,
    classes: int | None,
    progress: Callable[[int], None] | None,
) -> Totals:
    totals = Totals(count=torch.zeros(definition.groups, dtype=torch.int64))
    first = next(batches, None)
    if first is None:
        return totals
    totals.grouping = grouping_of(first.total)
    autocast = torch.autocast(device.type, amp) if amp is not None else contextlib.nullcontext()
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), first.images.dtype)
    with torch.inference_mode(), autocast:
        totals.points, totals.coverage = _points(model, first.images[:1].to(device, dtype), listen)
        totals.sums = {point.name: Sums(definition.groups) for point in totals.points}
        totals.images, totals.pooled = Sums(definition.groups), Pooled() if listen.cka else None
        _, *shape = first.images.shape
        totals.shape = (shape[0], shape[1], shape[2])
        gated_points = [point for point in totals.points if point.part]
        totals.gates = {p.name: gated(model.get_submodule(p.module)).gates().tolist() for p in gated_points}
        group = torch.zeros(0, dtype=torch.int64)
        metrics, scratch = added(), Scratch()

        def statistics(maps: Tensor) -> Statistics:
            computed = image_statistics(maps, definition, maps=listen.maps, metrics=metrics, scratch=scratch)
            return {**computed, **token_statistics(maps)} if listen.tokens else computed

        def reduce(point: Point, features: Tensor) -> None:
            if features.shape[0] != len(group):
                raise PointError(
                    f"probe point {point.name} gave {features.shape[0]} maps for {len(group)} images: the model merges "
                    "or splits images there; leave the point out with --points."
                )
            totals.sums[point.name].update(statistics(features), group)
            if totals.pooled is not None:
                totals.pooled.add(point.name, features)

        pair = first.images[:2].to(device, dtype)
        way = feeding(model, pair, totals.points, channels_last=channels_last)
        totals.channels_last = way.channels_last
        correct: list[Tensor] = []
        with way.weights(model), Capture(model, totals.points, reduce) as capture:
            for batch in itertools.chain([first], batches):
                numbers = torch.from_numpy(group_of(batch.index.numpy(), first.total, definition.groups))
                groups = _sent(numbers, device)
                if totals.pooled is not None:
                    totals.pooled.index.append(batch.index.numpy())
                    totals.pooled.group.append(numbers.numpy())
                seen = _sent(batch.images, device)
                scores: list[Tensor | None] = []
                if definition.axis == "true" or seen.shape[2] == seen.shape[3]:
                    totals.images.update(statistics(seen), groups)
                for part in way.parts(seen):
                    group = groups[part]
                    scores.append(class_scores(run(model, way.laid_out(seen[part], dtype))))
                    capture.check()
                totals.count += torch.bincount(numbers, minlength=definition.groups)
                totals.digest += batch.digest.sum(0)
                _count_correct(correct, totals, model, scores, batch.labels, classes)
                if progress is not None:
                    progress(len(batch.index))
        _read_correct(correct, totals)
    return totals


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """On the device; a GPU fetches them by itself, from memory that stays where it is."""
    pinned = values.pin_memory() if device.type == "cuda" and values.device.type == "cpu" else values
    return pinned.to(device, non_blocking=True)


def _points(model: nn.Module, example: Tensor, listen: Listen) -> tuple[list[Point], trace_coverage.Coverage | None]:
    """Where to listen; the coverage too where that is the model's own points."""
    ready = [point for point in listen.points if isinstance(point, Point)]
    names = [name for name in listen.points if isinstance(name, str)]
    if ready:
        return ready, None
    if names:
        return find_points(model, example, select=names, branches=listen.branches, grid=listen.grid), None
    surveyed = survey(model, example, branches=listen.branches, self_check=listen.self_check, grid=listen.grid)
    tell(surveyed.coverage, strict=listen.strict)
    return surveyed.points, surveyed.coverage


def _count_correct(
    correct: list[Tensor],
    totals: Totals,
    model: nn.Module,
    scored: Sequence[Tensor | None],
    labels: Tensor | None,
    classes: int | None,
) -> None:
    """Count, on the device, the labels that the scores of a batch, part by part, put first."""
    if labels is None or totals.no_top1:
        return
    known = [part for part in scored if part is not None]
    headless = getattr(model, "num_classes", None) == 0 or len(known) < len(scored)
    scores = None if headless else torch.cat(known)
    totals.no_top1 = no_classes(scores, labels, classes=classes)
    if scores is not None and not totals.no_top1:
        totals.labelled += len(labels)
        right = (scores.argmax(1) == _sent(labels, scores.device)).sum()
        correct.append(torch.where(scores.isfinite().all(), right, -1))


def _read_correct(correct: Sequence[Tensor], totals: Totals) -> None:
    """What was counted, once all is done: only here a GPU is waited for."""
    counts = torch.stack(list(correct)).tolist() if correct else []
    if min(counts, default=0) < 0:
        totals.no_top1 = totals.no_top1 or NOT_FINITE
    totals.correct = sum(counts)


def _device_of(model: nn.Module) -> torch.device:
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device

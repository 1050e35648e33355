"""Stream images through a network and add up what its probe points respond to: a `Spectra`. Imports probe, results.

Memory does not grow with the number of images: each batch is reduced to sums inside the hooks. Under torchrun every
rank sees its share of the images and all ranks return the result of the whole.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec
import numpy as np
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
from fourier_probe.probe.groups import Grouping, group_of, grouping_of
from fourier_probe.probe.logits import NOT_FINITE, class_scores, no_classes
from fourier_probe.probe.metrics import Statistics
from fourier_probe.probe.points import Point, find_points
from fourier_probe.probe.registered import added
from fourier_probe.probe.sums import Sums
from fourier_probe.probe.survey import survey, tell
from fourier_probe.probe.tokens import token_statistics
from fourier_probe.results.estimates import add_steps, point_spectrum
from fourier_probe.results.point import INPUT, PointSpectrum
from fourier_probe.results.records import Coverage, ImagesInfo, LeftOut, Provenance
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime.distributed import rank_and_world
from fourier_probe.runtime.messages import note
from fourier_probe.trace import coverage as trace_coverage
from fourier_probe.trace.calling import eager, run


@dataclass
class _Totals:
    """What one process has seen: sums, never images."""

    points: list[Point] = field(default_factory=list)
    gates: dict[str, list[float]] = field(default_factory=dict)  # a head, of the points on halves of gated attention
    sums: dict[str, Sums] = field(default_factory=dict)
    images: Sums | None = None  # of the images themselves
    pooled: Pooled | None = None  # features of each image, for CKA
    shape: tuple[int, int, int] = (0, 0, 0)  # of an image: C, H, W
    count: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))  # images of each group
    labelled: int = 0
    correct: int = 0
    digest: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.int64))
    channels_last: bool = False
    no_top1: str = ""  # why there is no top-1 although there are labels
    coverage: trace_coverage.Coverage | None = None  # None where points were chosen
    grouping: Grouping | None = None  # None: this process has seen no image

    def merge(self, other: _Totals) -> None:
        self.points, self.gates = self.points or other.points, self.gates or other.gates
        for name, sums in other.sums.items():
            self.sums.setdefault(name, Sums(sums.groups)).merge(sums)
        if other.images is not None:
            self.images = self.images or Sums(other.images.groups)
            self.images.merge(other.images)
        self.shape = self.shape if any(self.shape) else other.shape
        if other.pooled is not None:
            self.pooled = self.pooled or Pooled()
            self.pooled.merge(other.pooled)
        self.count = self.count + other.count
        self.labelled += other.labelled
        self.correct += other.correct
        self.digest = self.digest + other.digest
        self.channels_last = self.channels_last or other.channels_last
        self.no_top1 = self.no_top1 or other.no_top1
        self.grouping = self.grouping or other.grouping
        self.coverage = self.coverage or other.coverage


def analyze(
    model: nn.Module,
    images: Iterable[object],
    *,
    metrics: Literal["all", "diagonal"] = "all",
    definition: Definition | None = None,
    points: Sequence[str] | Sequence[Point] = (),
    branches: bool = True,
    maps: bool = False,
    tokens: bool = False,
    cka: bool = False,
    strict: bool = False,
    self_check: bool = True,
    grid: tuple[int, int] | None = None,
    device: torch.device | str | None = None,
    amp: torch.dtype | None = None,
    channels_last: bool | None = None,
    target: Provenance | None = None,
    source: ImagesInfo | None = None,
    classes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Spectra:
    """Relative log-amplitude spectra, and the other metrics, of every probe point of a model over a set of images.

    Args:
        model: any module that takes (B, C, H, W). It runs in eval mode without gradients and is left as it was; of a
            compiled one, the model inside.
        images: batches (B, C, H, W) already normalised for the model, or (batch, labels) pairs, or the `Batch`es of
            `fourier_probe.data.batches`. Read once, in order; grids are read off the first.
        metrics: "all", or "diagonal" for log-amplitude along the diagonal alone. Not used when `definition` is given.
        definition: logarithm, window, axis, groups.
        points: globs of module or point names, or `Point`s; empty for the model's own probe points.
        branches: the branches of EIT and of gated attention among these, see `find_points`.
        maps: also keep the mean 2-D log-amplitude of each point.
        tokens: also effective rank and singular values of the tokens of each image.
        cka: also keep the features of each image, a mean over positions, and compare all points by them; memory then
            grows with the number of images, 4 bytes a channel.
        strict: stop where a step cannot be read or a map lies elsewhere than said; a note otherwise.
        self_check: test where the maps lie, with six forwards of one image; see `survey`.
        grid: (H, W) of token sequences whose order cannot be learnt.
        device: where to run; where the model is by default.
        amp: run the forward under autocast to this dtype; spectra are computed in float32 or better all the same.
        channels_last: whether images and convolutions lie channels-last in memory, which changes rounding alone; by
            default in convolutional networks that give the same then.
        target: provenance of the model for the result.
        source: provenance of the images for the result: source, size, mean, std, skipped.
        classes: number of classes the labels are of, where known; top-1 is left out if the model has another.
        progress: called after each batch with the number of images in it.

    Returns:
        The result. Points whose features were not finite are in `excluded`, with the reason. Under torch.distributed
        batches that carry no index are dealt out to the ranks in turn, and every rank returns the whole result.

    Raises:
        DataError: no images, or labels that are no class indices. Labels of other classes are a note: no top-1 then.
        PointError: no points, points never called, or features that cannot be laid out.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    >>> result = analyze(model, [torch.rand(2, 3, 8, 8) for _ in range(3)])
    >>> result.images.n, result.points[-1].grid
    (6, (8, 8))
    """
    definition = definition or Definition(metrics=metrics)
    model = eager(model)
    home = _device_of(model)
    device = torch.device(device) if device is not None else home
    try:
        model.to(device)
        listen = _Listen(points, branches, maps, strict, self_check, tokens, cka, grid)
        totals = _stream(model, numbered(images), definition, listen, device, amp, channels_last, classes, progress)
    finally:
        model.to(home)
    totals = _merge_ranks(totals)
    n = int(totals.count.sum())
    if n == 0:
        raise DataError("there are no images to analyze: the source is empty. Give at least one image.")
    digest = totals.digest.numpy().astype("<i8").tobytes().hex()
    definition = replace(definition, grouping=totals.grouping)
    spectra, excluded = _results(totals, definition)
    images_point = _images(totals, definition, excluded)
    if totals.no_top1:
        note(f"top-1 is left out: {totals.no_top1}.")
    if not spectra:
        raise PointError(f"every probe point was left out: {excluded[0].name}: {excluded[0].reason}.")
    return Spectra(
        target=target or Provenance(source=type(model).__name__),
        images=msgspec.structs.replace(
            source or ImagesInfo(), n=n, digest=digest, layout="channels_last" if totals.channels_last else None
        ),
        definition=definition,
        points=spectra,
        top1=totals.correct / totals.labelled if totals.labelled and not totals.no_top1 else None,
        excluded=excluded,
        selected=bool(points),
        input=images_point,
        pooled=totals.pooled,
        coverage=None if totals.coverage is None else _coverage(totals.coverage),
    )


@dataclass(frozen=True)
class _Listen:
    """Where to listen, as `analyze` takes it."""

    points: Sequence[str] | Sequence[Point]
    branches: bool
    maps: bool
    strict: bool
    self_check: bool
    tokens: bool = False
    cka: bool = False
    grid: tuple[int, int] | None = None


def _coverage(seen: trace_coverage.Coverage) -> Coverage:
    """The coverage as the result holds it."""
    check = seen.self_check
    return Coverage(
        steps=seen.steps,
        read=seen.read,
        unread=[LeftOut(step.name, step.reason) for step in seen.unread],
        evidence=dict(seen.evidence),
        self_check=None if check is None else ". ".join([check.text(), *check.warnings()]),
    )


def _stream(
    model: nn.Module,
    batches: Iterator[Batch],
    definition: Definition,
    listen: _Listen,
    device: torch.device,
    amp: torch.dtype | None,
    channels_last: bool | None,
    classes: int | None,
    progress: Callable[[int], None] | None,
) -> _Totals:
    totals = _Totals(count=torch.zeros(definition.groups, dtype=torch.int64))
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
        totals.gates = {p.name: gated(model.get_submodule(p.module)).gates().double().tolist() for p in gated_points}
        group = torch.zeros(0, dtype=torch.int64)
        metrics, scratch = added(), Scratch()

        def statistics(maps: Tensor) -> Statistics:
            found = image_statistics(maps, definition, maps=listen.maps, metrics=metrics, scratch=scratch)
            return {**found, **token_statistics(maps)} if listen.tokens else found

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


def _points(model: nn.Module, example: Tensor, listen: _Listen) -> tuple[list[Point], trace_coverage.Coverage | None]:
    """Where to listen; the coverage too where that is the model's own points."""
    given = [point for point in listen.points if isinstance(point, Point)]
    names = [name for name in listen.points if isinstance(name, str)]
    if given:
        return given, None
    if names:
        return find_points(model, example, select=names, branches=listen.branches, grid=listen.grid), None
    found = survey(model, example, branches=listen.branches, self_check=listen.self_check, grid=listen.grid)
    tell(found.coverage, strict=listen.strict)
    return found.points, found.coverage


def _count_correct(
    correct: list[Tensor],
    totals: _Totals,
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


def _read_correct(correct: Sequence[Tensor], totals: _Totals) -> None:
    """What was counted, once all is done: only here a GPU is waited for."""
    counts = torch.stack(list(correct)).tolist() if correct else []
    if min(counts, default=0) < 0:
        totals.no_top1 = totals.no_top1 or NOT_FINITE
    totals.correct = sum(counts)


def _results(totals: _Totals, definition: Definition) -> tuple[list[PointSpectrum], list[LeftOut]]:
    spectra: list[PointSpectrum] = []
    excluded: list[LeftOut] = []
    for point in totals.points:
        meta: dict[str, object] = {name: getattr(point, name) for name in ("name", "kind", "op", "depth")}
        meta |= {"grid": point.layout.grid, "channels": point.layout.channels, "gate": totals.gates.get(point.name)}
        result = _result(totals.sums[point.name], meta, totals, definition)
        (spectra if isinstance(result, PointSpectrum) else excluded).append(result)  # type: ignore[arg-type]
    add_steps(spectra)
    for metric in added():
        broken = [p.name for p in spectra if any(not np.isfinite(s).all() for s in metric.own(p.sums or {}).values())]
        if broken:
            where = f"{len(broken)} of {len(spectra)} points, first at {broken[0]}"
            note(f"metric {metric.name!r} is not finite for some image and so has no value: {where}.")
    return spectra, excluded


def _images(totals: _Totals, definition: Definition, excluded: list[LeftOut]) -> PointSpectrum | None:
    """The same numbers of the images themselves, as the network saw them."""
    if totals.images is None or totals.images.rows is None:
        return None
    channels, *grid = totals.shape
    meta = {"name": INPUT, "kind": INPUT, "op": INPUT, "depth": 0.0, "grid": tuple(grid), "channels": channels}
    result = _result(totals.images, meta, totals, definition)
    if isinstance(result, LeftOut):
        excluded.append(result)
        return None
    return result


def _result(sums: Sums, meta: dict[str, Any], totals: _Totals, definition: Definition) -> PointSpectrum | LeftOut:
    sums = sums.cpu()
    if sums.bad is not None and int(sums.bad):
        share = f"{int(sums.bad)} of {int(totals.count.sum())} images"
        return LeftOut(meta["name"], f"spectra were not finite in {share} (features NaN, infinite, or beyond 1e18)")
    arrays = sums.arrays() | {"count": totals.count.numpy().astype(np.float64)}
    return point_spectrum(meta, arrays, None if sums.flat is None else sums.flat.numpy(), definition)


# --- batches in, ranks together --------------------------------------------------------------------------------------


def _merge_ranks(totals: _Totals) -> _Totals:
    world = rank_and_world()[1]
    if world == 1:
        return totals
    totals.sums = {name: sums.cpu() for name, sums in totals.sums.items()}
    totals.images = None if totals.images is None else totals.images.cpu()
    gathered: list[_Totals] = [totals] * world
    torch.distributed.all_gather_object(gathered, totals)
    merged = _Totals(count=torch.zeros_like(totals.count))
    for part in gathered:
        merged.merge(part)
    return merged


def _device_of(model: nn.Module) -> torch.device:
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device

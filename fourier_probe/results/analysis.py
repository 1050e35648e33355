"""Sums of what probe points respond to as a `Spectra`, or both in one call. May import probe and the rest of results.

Under torchrun every rank sees its share of the images and all ranks return the result of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

from fourier_probe.errors import PointError
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.measuring import Listen, measure
from fourier_probe.probe.registered import added
from fourier_probe.probe.sums import Sums
from fourier_probe.probe.totals import Totals
from fourier_probe.results.estimates import add_steps, point_spectrum
from fourier_probe.results.point import INPUT, PointSpectrum
from fourier_probe.results.records import Coverage, ImagesInfo, LeftOut, Provenance
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime.messages import note
from fourier_probe.trace import coverage as trace_coverage
from fourier_probe.trace.calling import eager


def analyze(
    model: nn.Module,
    images: Iterable[object],
    *,
    definition: Definition | None = None,
    listen: Listen | None = None,
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
        definition: logarithm, window, axis, metrics, groups.
        listen: where, and what else is summed there.
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
    definition, listen = definition or Definition(), listen or Listen()
    totals = measure(
        model, images, definition, listen,
        device=device, amp=amp, channels_last=channels_last, classes=classes, progress=progress,
    )  # fmt: skip
    provenance = target or Provenance(source=type(eager(model)).__name__)
    return spectra_of(
        totals, definition, target=provenance, source=source or ImagesInfo(), selected=bool(listen.points)
    )


def spectra_of(
    totals: Totals, definition: Definition, *, target: Provenance, source: ImagesInfo, selected: bool = False
) -> Spectra:
    """The result that sums are of: numbers with errors, and what was left out.

    Args:
        totals: of all images, as `probe.measuring.measure` gives them.
        definition: what they were computed by.
        target: provenance of the model.
        source: provenance of the images.
        selected: whether the points were chosen, not the model's own.

    Raises:
        PointError: every point was left out.
    """
    digest = totals.digest.numpy().astype("<i8").tobytes().hex()
    definition = replace(definition, grouping=totals.grouping)
    spectra, excluded = _results(totals, definition)
    images_point = _images(totals, definition, excluded)
    if totals.no_top1:
        note(f"top-1 is left out: {totals.no_top1}.")
    if not spectra:
        raise PointError(f"every probe point was left out: {excluded[0].name}: {excluded[0].reason}.")
    layout = "channels_last" if totals.channels_last else None
    return Spectra(
        target=target,
        images=msgspec.structs.replace(source, n=int(totals.count.sum()), digest=digest, layout=layout),
        definition=definition,
        points=spectra,
        top1=totals.correct / totals.labelled if totals.labelled and not totals.no_top1 else None,
        excluded=excluded,
        selected=selected,
        input=images_point,
        pooled=totals.pooled,
        coverage=None if totals.coverage is None else _coverage(totals.coverage),
    )


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


def _results(totals: Totals, definition: Definition) -> tuple[list[PointSpectrum], list[LeftOut]]:
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


def _images(totals: Totals, definition: Definition, excluded: list[LeftOut]) -> PointSpectrum | None:
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


def _result(sums: Sums, meta: dict[str, Any], totals: Totals, definition: Definition) -> PointSpectrum | LeftOut:
    sums = sums.cpu()
    if sums.bad is not None and int(sums.bad):
        share = f"{int(sums.bad)} of {int(totals.count.sum())} images"
        return LeftOut(meta["name"], f"spectra were not finite in {share} (features NaN, infinite, or beyond 1e18)")
    arrays = sums.arrays() | {"count": totals.count.numpy().astype(np.float64)}
    return point_spectrum(meta, arrays, None if sums.flat is None else sums.flat.numpy(), definition)


# --- batches in, ranks together --------------------------------------------------------------------------------------

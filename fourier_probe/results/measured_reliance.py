"""Reliance of a network on the halves of its attention, measured on a source: what `Spectra.reliance` holds.

For `analyze --attention` and for the analysis of a study. May import probe and data.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from fourier_probe.data import ImageSet, InputSpec, batches, choose, open_data
from fourier_probe.errors import ProbeError
from fourier_probe.probe.logits import class_scores, no_accuracy
from fourier_probe.probe.reliance import ESTIMATED_ON, Departure, Reliance, Test, departures, gated_layers, reliance
from fourier_probe.results.intervals import Interval
from fourier_probe.results.reliance import DepartureRecord, LesionRecord, RelianceRecord
from fourier_probe.runtime.messages import note, progress
from fourier_probe.trace.calling import eager, run

LOOKED_AT = 64  # images on which gate x tap is measured


def measure(
    model: nn.Module, chosen: ImageSet, spec: InputSpec, batch_size: int, *, named: bool
) -> RelianceRecord | None:
    """What the target relies on; None, with a note where it is not plain why, where that cannot be measured.

    Args:
        model: on the device to use; a copy is examined.
        chosen: the labelled images.
        spec: what the model wants to see.
        batch_size: images of a forward.
        named: whether the source was named, so that its training images may be opened by that name.
    """
    model = copy.deepcopy(eager(model)).eval()
    layers = gated_layers(model)
    if not layers:
        return None
    if chosen.labels is None:
        note("reliance is left out: the images have no labels.")
        return None
    like = next(model.parameters())
    images, labels = _read(chosen, spec, batch_size, like)
    with torch.no_grad():
        reason = no_accuracy(
            class_scores(run(model, images[:2])),
            labels,
            classes=None if chosen.classes is None else len(chosen.classes),
        )
    if reason or len(images) < 2:
        note(f"reliance is left out: {reason or 'there is one image, and none to exchange halves with'}.")
        return None
    has_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    training = _training(chosen, spec, batch_size, like) if has_norm and named else None
    tests: tuple[Test, ...] = ("exchanged", "off") if training is not None or not has_norm else ("exchanged",)
    if len(tests) == 1:
        note(
            f"halves are exchanged, not switched off: {chosen.source} has no training images to estimate BatchNorm on."
        )
    total = 2 * len(tests) * (len(layers) + (len(layers) > 1))
    with progress("reliance", total) as advance:
        rows = reliance(model, images, labels, training=training, batch_size=batch_size, tests=tests, progress=advance)
    with torch.no_grad():
        left = departures(model, images[:LOOKED_AT])
    first = rows[0]
    return RelianceRecord(
        images=len(images),
        training=None if training is None else len(training),
        top1=min(max(first.top1 - first.top1_change, 0.0), 1.0),
        lesions=[_lesion(row) for row in rows],
        departures=[_departure(row) for row in left],
    )


def _read(chosen: ImageSet, spec: InputSpec, batch_size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    read = list(batches(chosen, spec, batch_size=batch_size))
    labels = [batch.labels for batch in read if batch.labels is not None]
    return torch.cat([batch.images for batch in read]).to(like), torch.cat(labels)


def _training(chosen: ImageSet, spec: InputSpec, batch_size: int, like: Tensor) -> Tensor | None:
    """Training images of the same source, up to a thousand; None where there are none."""
    try:
        images = open_data(chosen.source, "train", limit=ESTIMATED_ON)
        return _read(choose(images, limit=ESTIMATED_ON), spec, batch_size, like)[0]
    except ProbeError:
        return None


def _lesion(row: Reliance) -> LesionRecord:
    return LesionRecord(
        layer=row.layer,
        half=row.half,
        test=row.test,
        top1=row.top1,
        loss=row.loss,
        top1_change=_interval(row.top1_change, row.top1_stderr, row.images),
        loss_change=_interval(row.loss_change, row.loss_stderr, row.images),
    )


def _interval(value: float, stderr: float, n: int) -> Interval:
    if not math.isfinite(stderr):
        return Interval(value)
    from scipy.stats import t

    half = float(t.ppf(0.975, n - 1)) * stderr
    return Interval(value, value - half, value + half)


def _departure(row: Departure) -> DepartureRecord:
    return DepartureRecord(
        layer=row.name,
        gate=row.gate,
        gate_least=row.gate_range[0],
        gate_most=row.gate_range[1],
        tap=row.tap,
        displacement=row.displacement,
        locality=row.locality,
        content=row.content,
    )

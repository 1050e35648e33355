"""Results -> the numbers the page's script draws, rounded, and thinned where they are many. May import compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fourier_probe.errors import printable
from fourier_probe.page.inputs import Entry
from fourier_probe.probe.metrics import ZERO_MEAN_WHITE_NOISE
from fourier_probe.probe.sums import Array, quantile
from fourier_probe.results.attention import AttentionRecord
from fourier_probe.results.input_level import input_level
from fourier_probe.results.intervals import Interval
from fourier_probe.results.profile import View, profile, view_of
from fourier_probe.results.reliance import RelianceRecord
from fourier_probe.results.shown import Shown
from fourier_probe.results.spectra import PointSpectrum
from fourier_probe.training.runs import Run

DIGITS, ERROR_DIGITS = 5, 3  # significant digits kept in the page
SCALARS = ("hfd_share", "slope", "variance", "token_cosine")
CURVES = ("train_loss", "val_loss", "test_loss", "train_acc", "val_acc", "test_acc", "lr")


@dataclass(frozen=True)
class Thinning:
    """What is left out of a page so that it stays small.

    Attributes:
        bins: of a curve at most; first, last usable and Nyquist bins always stay.
        branches: whether points beside the stream stay.
        bands: whether standard errors of curves stay.
        says: the sentence for the reader; empty where nothing is left out.
    """

    bins: int = 10**6
    branches: bool = True
    bands: bool = True
    says: str = ""


THINNINGS = (
    Thinning(),
    Thinning(bins=33, says="To keep this page small, curves show at most 33 of their frequencies."),
    Thinning(
        bins=25,
        branches=False,
        says="To keep this page small, curves show at most 25 of their frequencies, and only the stem and the "
        "residual stream are here: branches are in the result files.",
    ),
    Thinning(
        bins=9,
        branches=False,
        bands=False,
        says="To keep this page small, curves show at most 9 of their frequencies and no intervals, and only the stem "
        "and the residual stream are here: the rest is in the result files.",
    ),
)
"""Tried in this order until the page fits."""


def payload(entries: Sequence[Entry], thinning: Thinning) -> dict[str, Any]:
    """Everything the script needs, as plain values.

    Returns:
        `view` (quantity of the profiles, its label and where it is read), `quantile` (standard errors of a 95 %
        interval), `white` (delta of zero-mean white noise or null), `axes` (lists of frequencies and radii, named by
        index), `targets` in the order of the entries, `metrics` and `profiles` (those that are not of this package:
        key in a point, title, summary), `thinned` (a sentence or "").
    """
    results = [entry.result for entry in entries]
    view = view_of(results)
    axes: list[list[float | None]] = []
    further = further_metrics(entries)
    value = {
        "view": {"quantity": view.quantity, "at": _short(view.at), "label": view_label(view)},
        "quantile": _short(quantile(results[0].definition.groups)),
        "paper": results[0].definition.axis == "paper",
        "white": None if results[0].definition.log == "log1p" else _short(ZERO_MEAN_WHITE_NOISE),
        "targets": [_target(entry, view, thinning, axes) for entry in entries],
        "axes": axes,
        "metrics": [[_key(m), m.titled, m.info.summary] for m in further if m.kind == "scalar"],
        "profiles": [[_key(m), m.titled, m.info.summary] for m in further if m.kind == "radial"],
        "thinned": thinning.says,
    }
    return _printable(value)  # type: ignore[no-any-return]


def further_metrics(entries: Sequence[Entry]) -> list[Shown]:
    """The metrics of any result that are not of this package."""
    return list({m.name: m for entry in entries for m in entry.result.metrics if not m.ours}.values())


def _printable(value: Any) -> Any:
    """The same with every name as the tables write it: the script shows what it is given, and finds rows by it."""
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_printable(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value


def _key(metric: Shown) -> str:
    """What a point of the page calls a metric that is not of this package."""
    return f"{metric.kind}:{metric.name}"


def view_label(view: View) -> str:
    """What an axis or a column of the page says.

    >>> view_label(View("log_density", 0.857, ("7x7", "14x14"), "Grids differ."))
    'log density at r = 0.86'
    """
    return f"Δ at {view.at:.2f}π" if view.quantity == "delta" else f"log density at r = {view.at:.2f}"


def _target(entry: Entry, view: View, thinning: Thinning, axes: list[list[float | None]]) -> dict[str, Any]:
    along = profile(entry.result, view)
    high = {
        name: {"high": [_short(value), _short(error, ERROR_DIGITS)], "high_white": _short(white)}
        for name, value, error, white in zip(along.names, along.value, along.stderr, along.white, strict=True)
    }
    none = {"high": None, "high_white": None}
    stream = {id(point) for point in entry.result.stream}
    points = [point for point in entry.result.points if thinning.branches or id(point) in stream]
    return {
        "label": entry.label,
        "untrained": entry.result.target.weights == "untrained",
        "group": entry.group,
        "facets": entry.facets,
        "points": [
            _point(point, thinning, axes)
            | _further(entry, point, thinning)
            | {"stream": id(point) in stream, **high.get(point.name, none)}
            for point in points
        ],
        "input": _input(entry, view),
        "attention": [_attention(layer) for layer in entry.result.attention],
        "reliance": _reliance(entry.result.reliance),
        "training": _training(entry.run) if entry.run else None,
    }


def _input(entry: Entry, view: View) -> dict[str, object] | None:
    """The images themselves: what stands left of depth 0."""
    point, level = entry.result.input, input_level(entry.result, view)
    if point is None:
        return None
    value: dict[str, object] = {
        "name": "images",
        "op": point.op,
        "grid": "×".join(map(str, point.grid)),  # noqa: RUF001
        "alike": level is None or level.alike,
        "high": None if level is None else [_short(level.value), _short(level.stderr, ERROR_DIGITS)],
        "high_white": None if level is None else _short(level.white),
        "hfd_share_white": _short(point.hfd_share_white),
    }
    for name in SCALARS:
        value[name] = [_short(point.scalars.get(name)), _short(point.stderr_of.get(name, math.nan), ERROR_DIGITS)]
    return value | _further(entry, point, Thinning())


def _point(point: PointSpectrum, thinning: Thinning, axes: list[list[float | None]]) -> dict[str, object]:
    keep = _thinned(len(point.frequency), point.usable, thinning.bins)
    value: dict[str, object] = {
        "name": point.name,
        "op": point.op,
        "depth": _short(point.depth),
        "grid": "×".join(map(str, point.grid)),  # noqa: RUF001
        "channels": point.channels,
        "f": _index(axes, _many(point.frequency[keep])),
        "usable": int(sum(keep < point.usable)),
        "delta": _many(point.delta[keep]),
    }
    if thinning.bands and np.isfinite(point.stderr).any():
        value["stderr"] = _many(point.stderr[keep], ERROR_DIGITS)
    if point.radius is not None and point.log_density is not None and point.log_density_stderr is not None:
        keep = _thinned(len(point.radius), len(point.radius), thinning.bins)
        value |= {"r": _index(axes, _many(point.radius[keep])), "density": _many(point.log_density[keep])}
        if thinning.bands and np.isfinite(point.log_density_stderr).any():
            value["density_stderr"] = _many(point.log_density_stderr[keep], ERROR_DIGITS)
        for name in SCALARS:
            error = point.stderr_of.get(name, math.nan)
            value[name] = [_short(point.scalars.get(name)), _short(error, ERROR_DIGITS)]
        value["white"] = _short(point.scalars.get("white_delta"))
        value["hfd_share_white"] = _short(point.hfd_share_white)
    return value


def _further(entry: Entry, point: PointSpectrum, thinning: Thinning) -> dict[str, object]:
    """Metrics that are not of this package at a point: [value, stderr] of a scalar, a list over rings of a profile."""
    value: dict[str, object] = {}
    for metric in entry.result.metrics:
        if metric.ours:
            continue
        if metric.kind == "scalar":
            number, error = metric.of(point)
            value[_key(metric)] = [_short(number), _short(error, ERROR_DIGITS)]
        elif metric.name in point.profiles:
            profile = point.profiles[metric.name]
            keep = _thinned(len(profile.value), len(profile.value), thinning.bins)
            value[_key(metric)] = _many(profile.value[keep])
            if thinning.bands and np.isfinite(profile.stderr).any():
                value[f"{_key(metric)}_stderr"] = _many(profile.stderr[keep], ERROR_DIGITS)
    return value


def _attention(layer: AttentionRecord) -> dict[str, object]:
    return {
        "name": layer.name,
        "distance": [_short(value) for value in layer.distance],
        "uniform": _short(layer.uniform),
        "gate": None if layer.gate is None else [_short(value) for value in layer.gate],
    }


def _reliance(record: RelianceRecord | None) -> dict[str, object] | None:
    """Percentage points of top-1 lost with each half exchanged: a value and half of its interval, per layer."""
    if record is None:
        return None
    layers: list[dict[str, object]] = []
    for layer in record.layers:
        row: dict[str, object] = {"name": layer}
        for half in ("content", "positional"):
            lesion = record.lesion(layer, half)
            row[half] = None if lesion is None else _lost(lesion.top1_change)
        layers.append(row)
    return {"images": record.images, "top1": _short(record.top1), "layers": layers}


def _lost(change: Interval) -> list[float | None]:
    half = None if change.low is None or change.high is None else 50 * (change.high - change.low)
    return [_short(-100 * change.value), _short(half, ERROR_DIGITS)]


def _training(run: Run) -> dict[str, object] | None:
    """The log of a run, one row per epoch, and how many layers were recast at the start of which; counted from 1."""
    rows = run.metrics
    if not rows:
        return None
    switches: dict[int, int] = {}
    for row in run.conversions:
        switches[row.epoch] = switches.get(row.epoch, 0) + 1
    curves = {name: [_short(row.get(name)) for row in rows] for name in CURVES}
    return {
        "epoch": [row.epoch + 1 for row in rows],
        "curves": {name: values for name, values in curves.items() if any(value is not None for value in values)},
        "switches": sorted((epoch + 1, count) for epoch, count in switches.items()),
    }


def _thinned(count: int, usable: int, most: int) -> Array:
    """Indices of at most `most` of the usable bins, evenly spread, and of those beyond."""
    spread = np.linspace(0, usable - 1, min(usable, most)).round().astype(int)
    return np.unique(np.concatenate([spread, np.arange(usable, count)]).astype(int))


def _index(axes: list[list[float | None]], axis: list[float | None]) -> int:
    """Where this axis is in the list; points on one grid share theirs."""
    if axis not in axes:
        axes.append(axis)
    return axes.index(axis)


def _many(values: Array, digits: int = DIGITS) -> list[float | None]:
    return [_short(value, digits) for value in values]


def _short(value: float | None, digits: int = DIGITS) -> float | None:
    """A number with few digits, whole ones as integers; None where there is none.

    >>> _short(0.123456789), _short(1.0), _short(float("nan"))
    (0.12346, 1, None)
    """
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e9 else rounded

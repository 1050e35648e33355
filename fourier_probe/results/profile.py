"""What a depth profile shows, by one rule: delta on maps of one grid, else the log density, which needs no grid.

Delta is relative to the mean of a map, so it falls as maps grow: white noise of mean 3 sigma reads -3.3 on 7x7 and
-5.4 on 56x56. The log density, ln(mean power of a ring / mean power of all frequencies but 0), is 0 for white noise on
every grid. May import spectra, sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fourier_probe.errors import ResultError
from fourier_probe.probe.sums import Array, jackknife, quantile
from fourier_probe.results.estimates import estimates
from fourier_probe.results.point import PointSpectrum
from fourier_probe.results.spectra import Spectra

MOVED = 0.25  # nats by which the white level of delta differs between points from which on it is said


@dataclass(frozen=True)
class View:
    """The quantity by which points of different depth are set side by side.

    Attributes:
        quantity: "delta", or "log_density" where grids differ.
        at: frequency, pi rad/sample per axis; of the log density the radius, 1 being Nyquist of an axis.
        grids: of the points, in order of appearance, as "7x7".
        why: a sentence: which quantity it is, and why.
    """

    quantity: Literal["delta", "log_density"]
    at: float
    grids: tuple[str, ...]
    why: str

    @property
    def heading(self) -> str:
        """Of a column of a table."""
        return f"delta at {self.at:.2f} pi" if self.quantity == "delta" else f"log density at r {self.at:.2f}"

    @property
    def label(self) -> str:
        """Of an axis of a figure."""
        if self.quantity == "delta":
            return rf"$\Delta$ log amplitude at {self.at:.2f}$\pi$ (nats)"
        return f"Log density at radius {self.at:.2f} (nats)"


@dataclass(frozen=True)
class Profile:
    """The quantity of a view at each stream point, against depth.

    Attributes:
        view: the quantity, and where it is read.
        names, ops: of the points. depth: (P,) in [0, 1].
        value: (P,) nats. stderr: (P,) jackknife over images.
        white: (P,) the same of white noise, of delta with the mean and variance of each point; NaN where unknown.
        left_out: names of points whose maps are too small for it.
        quantile: standard errors of a 95 % interval.
    """

    view: View
    names: tuple[str, ...]
    ops: tuple[str, ...]
    depth: Array
    value: Array
    stderr: Array
    white: Array
    left_out: tuple[str, ...]
    quantile: float

    @property
    def label(self) -> str:
        """Of the axis of its values."""
        return self.view.label


def delta_view(frequency: float) -> View:
    """Delta at a frequency, whatever the grids."""
    return View("delta", frequency, (), "")


def common_frequency(results: Sequence[Spectra]) -> float:
    """The highest usable true frequency that every stream point with a frequency of its own has, pi rad/sample.

    Raises:
        ResultError: a result has no point with any.
    """
    for result in results:
        if not has_frequencies(result):
            raise ResultError(
                f"no probe point of {label_of(result)} has a frequency above 0: every map is a single position or two."
            )
    return min(point.highest for result in results for point in result.stream if point.highest > 0)


def has_frequencies(result: Spectra) -> bool:
    """Whether any stream point has a usable frequency above 0."""
    return any(point.highest > 0 for point in result.stream)


def view_of(results: Spectra | Sequence[Spectra]) -> View:
    """Delta where all stream points of all results have one grid, else the log density at the highest common radius.

    Raises:
        ResultError: no point has a frequency.
    """
    results = [results] if isinstance(results, Spectra) else list(results)
    frequency = common_frequency(results)
    points = [point for result in results for point in result.stream if point.highest > 0]
    grids = tuple(dict.fromkeys("x".join(map(str, point.grid)) for point in points))
    if len(grids) == 1:
        why = f"Every map is {grids[0]}, so delta is compared as it is."
        return View("delta", frequency, grids, " ".join([why, *_moved_by_the_mean(points)]))
    shown = grids if len(grids) < 7 else (*grids[:3], f"{len(grids) - 4} more", grids[-1])
    differ = f"Maps have different grids ({', '.join(shown)}) and delta depends on the grid"
    rings = [[point for point in result.stream if has_rings(point)] for result in results]
    if not all(rings):
        why = f"{differ}: compare points of one grid only, or analyze with --metrics all, which gives the log density."
        return View("delta", frequency, grids, why)
    radius = min(float(point.radius[-1]) for of_result in rings for point in of_result if point.radius is not None)
    why = (
        f"{differ}, so the log density is shown: ln of the power at radius {radius:.2f} over the mean power of all "
        "frequencies but 0, which is 0 for white noise on every grid."
    )
    return View("log_density", radius, grids, why)


def _moved_by_the_mean(points: Sequence[PointSpectrum]) -> list[str]:
    """A warning where delta changes with the mean of the maps, its reference, and not with how power is spread."""
    levels = [point.scalars.get("white_delta", math.nan) for point in points]
    known = [level for level in levels if math.isfinite(level)]
    if not known or max(known) - min(known) < MOVED:
        return []
    return [
        f"Delta also changes with the mean of the maps: that of white noise of the same mean and variance lies between "
        f"{min(known):+.2f} and {max(known):+.2f} (dashed). The log density (spectra.csv) leaves the mean out."
    ]


def profile(result: Spectra, view: View | None = None) -> Profile:
    """The profile of one result over depth, with a standard error over images per point.

    Args:
        result: one analysis.
        view: from `view_of` several results, to set them side by side; by default of this one.

    Raises:
        ResultError: delta is asked for at a frequency beyond what some point has.
    """
    view = view or view_of(result)
    delta = view.quantity == "delta"
    points = [point for point in result.stream if (point.highest > 0 if delta else has_rings(point))]
    short = next((point for point in points if delta and point.highest < view.at - 1e-9), None)
    if short is not None:
        raise ResultError(
            f"{label_of(result)}: frequency {view.at:.3f} is beyond the usable bins of {short.name} "
            f"(grid {short.grid[0]}x{short.grid[1]}, up to {short.highest:.3f})."
        )
    values = {point.name: value_at(point, view) for point in points}
    points = [point for point in points if delta or math.isfinite(values[point.name][0])]
    names = tuple(point.name for point in points)
    return Profile(
        view=view,
        names=names,
        ops=tuple(point.op for point in points),
        depth=np.array([point.depth for point in points]),
        value=np.array([values[name][0] for name in names]),
        stderr=np.array([values[name][1] for name in names]),
        white=np.array([point.scalars.get("white_delta", math.nan) if delta else 0.0 for point in points]),
        left_out=tuple(point.name for point in result.stream if point.name not in names),
        quantile=quantile(result.definition.groups),
    )


def paired(results: Sequence[Spectra]) -> bool:
    """Whether results on the same images share their image groups, so that errors of differences are paired.

    Those of version 1, and results of sources whose lengths were not all known, do not.
    """
    grouping = results[0].definition.grouping
    return grouping is not None and all(result.definition.grouping == grouping for result in results)


@dataclass(frozen=True)
class Ends:
    """The first and the last value of a profile, and the last one minus that of the first result.

    The error of the difference is paired where both results share their image groups; else the two are independent.
    """

    first: float
    last: float
    last_stderr: float
    last_difference: float
    last_difference_stderr: float


def ends_of(results: Sequence[Spectra], view: View) -> list[Ends]:
    """What a table says of each profile; the difference is to the first of the results."""
    profiles = [profile(result, view) for result in results]
    last = [result[along.names[-1]] for result, along in zip(results, profiles, strict=True)]
    differences = [
        difference_at(point, last[0], view, paired=paired([result, results[0]]))
        for result, point in zip(results, last, strict=True)
    ]
    return [
        Ends(float(along.value[0]), float(along.value[-1]), float(along.stderr[-1]), *difference)
        for along, difference in zip(profiles, differences, strict=True)
    ]


def value_at(point: PointSpectrum, view: View) -> tuple[float, float]:
    """The view's quantity at a point, and its standard error: a jackknife where the group sums are at hand."""
    if view.quantity == "delta":
        return delta_at(point, view.at)
    if point.radius is None or point.log_density is None or point.log_density_stderr is None:
        return math.nan, math.nan
    value = float(np.interp(view.at, point.radius, point.log_density))
    if point.sums is None:
        return value, float(np.interp(view.at, point.radius, point.log_density_stderr))
    return value, float(jackknife(lambda sums: {"x": values_of(point, sums, view)}, point.sums)[1]["x"])


def difference_at(
    point: PointSpectrum, reference: PointSpectrum, view: View, *, paired: bool = True
) -> tuple[float, float]:
    """The quantity of a point minus that of another on the same images, and its standard error; NaN if unknown.

    Args:
        point: of one result.
        reference: of another, or of the same one.
        view: what is compared, and where.
        paired: whether the image groups of both are the same; otherwise the two errors are taken as independent.
    """
    (ours, error), (theirs, other) = value_at(point, view), value_at(reference, view)
    if not paired:
        return ours - theirs, 0.0 if point is reference else math.hypot(error, other)
    if point.sums is None or reference.sums is None:
        return ours - theirs, math.nan
    both = {f"a {name}": array for name, array in point.sums.items()}
    both |= {f"b {name}": array for name, array in reference.sums.items()} | {"count": point.sums["count"]}

    def apart(sums: Mapping[str, Array]) -> dict[str, Array]:
        a, b = ({name[2:]: array for name, array in sums.items() if name.startswith(side)} for side in ("a ", "b "))
        return {"x": values_of(point, a, view) - values_of(reference, b, view)}

    return ours - theirs, float(jackknife(apart, both)[1]["x"])


def values_of(point: PointSpectrum, sums: Mapping[str, Array], view: View) -> Array:
    """The view's quantity (M,) at a point, from sums (M, ...) of its image statistics."""
    if view.quantity == "delta":
        amplitude = sums["log_amplitude"][:, : point.usable] / sums["count"][:, None]
        return np.asarray(amplitude @ weights_at(point, view.at))
    rings = np.asarray(point.radius, dtype=np.float64)
    weights = np.array([np.interp(view.at, rings, row) for row in np.eye(len(rings))])
    with np.errstate(invalid="ignore"):
        return np.asarray(estimates(sums, point.grid)["log_density"] @ weights)


def has_rings(point: PointSpectrum) -> bool:
    """Whether a point has a radial profile of at least two rings, as the coordinate asks for too."""
    return point.radius is not None and len(point.radius) > 1 and point.log_density is not None


def delta_at(point: PointSpectrum, frequency: float) -> tuple[float, float]:
    """Delta at a frequency between bins, and its standard error, paired over bins where the group sums are at hand."""
    bins = point.frequency[: point.usable]
    value = float(np.interp(frequency, bins, point.delta[: point.usable]))
    if point.sums is None:
        return value, float(np.interp(frequency, bins, point.stderr[: point.usable]))
    weights = weights_at(point, frequency)
    sums = {"count": point.sums["count"], "x": point.sums["log_amplitude"][:, : point.usable] @ weights}
    return value, float(jackknife(lambda s: {"x": s["x"] / s["count"]}, sums)[1]["x"])


def weights_at(point: PointSpectrum, frequency: float) -> Array:
    """Weights of the usable bins of log_amplitude that give delta at a frequency between them."""
    bins = point.frequency[: point.usable]
    weights = np.array([np.interp(frequency, bins, row) for row in np.eye(len(bins))])
    weights[0] -= 1  # delta is relative to the DC bin
    return weights


def label_of(result: Spectra) -> str:
    """What messages call a result."""
    source = str(result.target.label or result.target.source or result.target.arch or "model")
    untrained = " (untrained)" if result.target.weights == "untrained" else ""
    return source + untrained

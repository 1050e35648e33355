"""What a depth profile shows, by one rule: delta on maps of one grid, else the log density, which needs no grid.

Delta is relative to the mean of a map, so it falls as maps grow: white noise of mean 3 sigma reads -3.3 on 7x7 and
-5.4 on 56x56. The log density, ln(mean power of a ring / mean power of all frequencies but 0), is 0 for white noise on
every grid. May import comparison, spectra, sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fourier_probe.probe.sums import Array, jackknife, quantile
from fourier_probe.results.comparison import DepthProfile, common_frequency, delta_at, depth_profile, weights_at
from fourier_probe.results.estimates import estimates
from fourier_probe.results.point import PointSpectrum
from fourier_probe.results.spectra import Spectra


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
class Profile(DepthProfile):
    """A depth profile of either quantity: `value`, `stderr` and `white` are of the view's, `frequency` is `view.at`."""

    view: View

    @property
    def label(self) -> str:
        """Of the axis of its values."""
        return self.view.label


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
        return View("delta", frequency, grids, f"Every map is {grids[0]}, so delta is compared as it is.")
    shown = grids if len(grids) < 7 else (*grids[:3], f"{len(grids) - 4} more", grids[-1])
    differ = f"Maps have different grids ({', '.join(shown)}) and delta depends on the grid"
    rings = [[point for point in result.stream if _has_rings(point)] for result in results]
    if not all(rings):
        why = f"{differ}: compare points of one grid only, or analyze with --metrics all, which gives the log density."
        return View("delta", frequency, grids, why)
    radius = min(float(point.radius[-1]) for of_result in rings for point in of_result if point.radius is not None)
    why = (
        f"{differ}, so the log density is shown: ln of the power at radius {radius:.2f} over the mean power of all "
        "frequencies but 0, which is 0 for white noise on every grid."
    )
    return View("log_density", radius, grids, why)


def profile(result: Spectra, view: View | None = None) -> Profile:
    """The profile of one result over depth, with a standard error over images per point.

    Args:
        result: one analysis.
        view: from `view_of` several results, to set them side by side; by default of this one.
    """
    view = view or view_of(result)
    if view.quantity == "delta":
        return Profile(**vars(depth_profile(result, view.at)), view=view)
    points = [point for point in result.stream if _has_rings(point) and math.isfinite(value_at(point, view)[0])]
    values = [value_at(point, view) for point in points]
    names = {point.name for point in points}
    return Profile(
        frequency=view.at,
        names=tuple(point.name for point in points),
        ops=tuple(point.op for point in points),
        depth=np.array([point.depth for point in points]),
        value=np.array([value for value, _ in values]),
        stderr=np.array([error for _, error in values]),
        white=np.zeros(len(points)),
        left_out=tuple(point.name for point in result.stream if point.name not in names),
        quantile=quantile(result.definition.groups),
        view=view,
    )


@dataclass(frozen=True)
class InputLevel:
    """What a profile starts from: the quantity of the view of the images themselves.

    Attributes:
        value, stderr: in nats.
        white: the same of white noise; of delta with the mean and variance of the images.
        grid: (H, W) of the images.
        alike: whether the value may be set beside those of the points as it is: of the log density always, of delta
            where all maps have the grid of the images. Elsewhere it is read against `white`.
    """

    value: float
    stderr: float
    white: float
    grid: tuple[int, int]
    alike: bool


def input_level(result: Spectra, view: View) -> InputLevel | None:
    """The images of a result in a profile; None where they have no such value, or the result does not hold them."""
    point = result.input
    if point is None or point.highest <= 0 or (view.quantity == "log_density" and not _has_rings(point)):
        return None
    reach = point.highest if view.quantity == "delta" or point.radius is None else float(point.radius[-1])
    if view.at > reach + 1e-9:
        return None
    value, stderr = value_at(point, view)
    if not math.isfinite(value):
        return None
    delta = view.quantity == "delta"
    white = point.scalars.get("white_delta", math.nan) if delta else 0.0
    alike = not delta or view.grids == ("x".join(map(str, point.grid)),)
    return InputLevel(value, stderr, white, point.grid, alike)


def input_text(results: Sequence[Spectra], labels: Sequence[str], view: View) -> list[str]:
    """Sentences on the images themselves, as each network saw them; one where all saw the same."""
    sentences: dict[str, list[str]] = {}
    for label, result in zip(labels, results, strict=True):
        level, point = input_level(result, view), result.input
        if level is None or point is None:
            continue
        half = quantile(result.definition.groups) * level.stderr
        text = f"{view.heading} {level.value:+.2f}" + (f" ± {half:.2f}" if math.isfinite(half) else "")
        if not level.alike:
            text += f" on {point.grid[0]}x{point.grid[1]}, where white noise has {level.white:+.2f}"
        share, slope = (point.scalars.get(name, math.nan) for name in ("hfd_share", "slope"))
        text += f", HFD share {share:.3f}" if math.isfinite(share) else ""
        text += f", slope {slope:+.2f}" if math.isfinite(slope) else ""
        sentences.setdefault(text, []).append(label)
    if len(sentences) == 1 and len(next(iter(sentences.values()))) == len(results):
        return [f"The images themselves: {next(iter(sentences))}."]
    return [f"The images as {', '.join(names)} saw them: {text}." for text, names in sentences.items()]


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
    return [
        Ends(
            float(along.value[0]), float(along.value[-1]), float(along.stderr[-1]), *difference_at(point, last[0], view)
        )
        for along, point in zip(profiles, last, strict=True)
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


def _has_rings(point: PointSpectrum) -> bool:
    """Whether a point has a radial profile of at least two rings, as the coordinate asks for too."""
    return point.radius is not None and len(point.radius) > 1 and point.log_density is not None

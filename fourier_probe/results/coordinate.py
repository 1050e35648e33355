"""The inductive-bias coordinate: where a model lies between a CNN (0) and a ViT (1). May import spectra, sums, errors.

Ours. The `log_density` of a model is a function of normalised depth and radius, 0 for white noise on every grid. It is
interpolated linearly onto one grid of depths and radii; with quadrature weights that sum to one, a length is a root
mean square in nats. With c, v, m the functions of CNN, ViT and model:

    t = <m - c, v - c> / |v - c|^2,    distance = |m - c - s (v - c)| / |v - c|,    cosine = <m - c, v - c> / (...)

with s = min(max(t, 0), 1): t itself is not clamped, and the distance is that from the segment, beyond an end from that
end. Where the segment is shorter than twice the scatter of its ends over images, both are undefined.
Errors are a jackknife over the image groups that all three share, so they are paired; where groups are not shared, each
result loses its groups alone, and the variances add. They say nothing about training again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fourier_probe.errors import ResultError
from fourier_probe.probe.sums import Array, jackknife_variance, quantile
from fourier_probe.results.estimates import estimates
from fourier_probe.results.point import PointSpectrum
from fourier_probe.results.spectra import Spectra

DEPTHS = 33  # positions of depth where points do not match one to one
RADII = 16


@dataclass(frozen=True)
class Coordinate:
    """Place of one model; the errors are standard errors over images, NaN without group sums.

    Attributes:
        t: 0 at the CNN, 1 at the ViT, not clamped; NaN where undefined.
        distance: from the segment, from its nearer end where t is beyond one, over the segment's length.
        cosine: of the angle between model - CNN and ViT - CNN; NaN for the CNN itself.
        segment: length of the segment, root mean square nats. scatter: of the difference of its ends, likewise.
        matched: whether the points of all three match one to one, so that depth was not interpolated.
        quantile: standard errors of a 95 % interval, from the number of groups; NaN without errors.
        paired: whether the errors are over the same image groups of all three.
    """

    t: float
    t_stderr: float
    distance: float
    distance_stderr: float
    cosine: float
    segment: float
    scatter: float
    matched: bool
    quantile: float = float("nan")
    paired: bool = True


@dataclass(frozen=True)
class Axes:
    """The common grid: depths (D,), radii (R,), weights (D, R) that sum to one."""

    depth: Array
    radius: Array
    weight: Array
    matched: bool


def common_axes(results: Sequence[Spectra]) -> Axes:
    """The depths and radii that every result covers: no value is extrapolated.

    Radii run from the largest first ring to the smallest last ring over all points with at least two rings; points
    with fewer are left out. Depths run from the largest first to the smallest last of what is left.

    Raises:
        ResultError: a result has no radial profiles, or only at one depth; or there is nothing in common.
    """
    points = [_points(result) for result in results]
    low = max(float(p.radius[0]) for of_result in points for p in of_result if p.radius is not None)
    high = min(float(p.radius[-1]) for of_result in points for p in of_result if p.radius is not None)
    if high <= low:
        raise ResultError(f"the radial profiles have no radii in common: from {low:.2f} on, and up to {high:.2f}.")
    depths = [tuple(round(point.depth, 9) for point in of_result) for of_result in points]
    matched = len(set(depths)) == 1 and len({tuple(p.grid for p in of_result) for of_result in points}) == 1
    first, last = max(of_result[0] for of_result in depths), min(of_result[-1] for of_result in depths)
    if last <= first or any(b <= a for of_result in depths for a, b in itertools.pairwise(of_result)):
        raise ResultError(
            "the coordinate needs profiles at several depths, one a depth, in common: analyze without --points, at a "
            "size where late maps are 4x4 or larger."
        )
    depth = np.array(depths[0]) if matched else np.linspace(first, last, DEPTHS)
    radius = np.linspace(low, high, RADII)
    weight = np.outer(_trapezoid(depth), _trapezoid(radius))
    return Axes(depth, radius, weight / weight.sum(), matched)


def surface(result: Spectra, axes: Axes) -> Array:
    """`log_density` on the common grid, (1 + G, D, R): of all images, then with each image group left out.

    (1, D, R) where the result was read without its group sums, or has fewer images than groups.
    """
    points = _points(result)
    rows = [_profiles(point, axes.radius) for point in points]
    versions = min(len(row) for row in rows)
    stacked = np.stack([row[:versions] for row in rows], 1)  # (1 + G, points, R)
    depth = np.array([point.depth for point in points])
    right = np.clip(np.searchsorted(depth, axes.depth), 1, len(depth) - 1)
    share = np.clip((axes.depth - depth[right - 1]) / (depth[right] - depth[right - 1]), 0, 1)[:, None]
    return np.asarray((1 - share) * stacked[:, right - 1] + share * stacked[:, right])


def group_sizes(result: Spectra) -> Array | None:
    """Number of images of each group (G,); None where the group sums are not at hand."""
    sums = next((point.sums for point in result.points if point.sums is not None), None)
    return None if sums is None else sums["count"]


def locate(
    model: Array, cnn: Array, vit: Array, axes: Axes, *, count: Array | None = None, paired: bool = True
) -> Coordinate:
    """Where a model lies between a CNN and a ViT, by their functions on the common grid.

    Args:
        model: (1 + G, D, R), of all images, then with each image group left out; or (1, D, R) without errors.
        cnn: likewise.
        vit: likewise.
        axes: the grid.
        count: (G,) number of images of each group; None where all are of one size.
        paired: whether the groups are the same images in all three. Otherwise each loses its groups alone, the others
            staying as they are, and the variances add.
    """
    versions = min(len(model), len(cnn), len(vit))
    nan = float("nan")

    def dot(a: Array, b: Array) -> Array:
        return np.asarray((a * b * axes.weight).sum((1, 2)))

    def measures(m: Array, c: Array, v: Array) -> tuple[Array, Array, Array, Array]:
        along, apart = v - c, m - c
        squared = dot(along, along)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = dot(apart, along) / squared
            rest = apart - np.clip(t, 0, 1)[:, None, None] * along
            cosine = dot(apart, along) / np.sqrt(dot(apart, apart) * squared)
            return t, np.sqrt(dot(rest, rest) / squared), cosine, along

    def variance(values: Sequence[Array]) -> Array:
        return np.asarray(sum(_variance(value, count) for value in values)) if versions > 1 else np.full((), nan)

    surfaces = [function[:versions] for function in (model, cnn, vit)]
    together = [surfaces] if paired else _one_at_a_time(surfaces)
    t, distance, cosine, along = zip(*(measures(*surfaces_of) for surfaces_of in together), strict=True)
    segment = float(np.sqrt(dot(along[0][:1], along[0][:1])[0]))
    scatter = float(np.sqrt((variance(along) * axes.weight).sum())) if versions > 1 else nan
    rest = (segment, scatter, axes.matched, quantile(versions - 1) if versions > 1 else nan, paired)
    if not segment > 2 * (scatter if scatter == scatter else 0.0):
        return Coordinate(nan, nan, nan, nan, nan, *rest)
    errors = [float(np.sqrt(variance(values))) for values in (t, distance)]
    return Coordinate(float(t[0][0]), errors[0], float(distance[0][0]), errors[1], float(cosine[0][0]), *rest)


def _one_at_a_time(surfaces: Sequence[Array]) -> list[list[Array]]:
    """The surfaces with the groups left out of one result, the others whole; a result that stands twice varies once."""
    distinct: list[Array] = []
    for surface in surfaces:
        if not any(np.array_equal(surface, other) for other in distinct):
            distinct.append(surface)
    return [
        [groups if np.array_equal(groups, varied) else np.broadcast_to(groups[:1], groups.shape) for groups in surfaces]
        for varied in distinct
    ]


def _points(result: Spectra) -> list[PointSpectrum]:
    """The stream points with at least two rings and a finite profile."""
    points = [p for p in result.stream if p.radius is not None and len(p.radius) > 1 and p.log_density is not None]
    points = [p for p in points if p.log_density is not None and np.isfinite(p.log_density).all()]
    if not points:
        name = result.target.label or result.target.source or result.target.arch
        raise ResultError(
            f"{name} has no radial profiles: analyze it with --metrics all, at a size where maps are 4x4 or larger."
        )
    return points


def _profiles(point: PointSpectrum, radius: Array) -> Array:
    """log_density of a point at the common radii, (1 + G, R) or (1, R)."""
    rings = np.asarray(point.radius, dtype=np.float64)
    rows = np.asarray(point.log_density, dtype=np.float64)[None]
    if point.sums is not None and (point.sums["count"] > 0).all():
        total = {name: value.sum(0) for name, value in point.sums.items()}
        without = {name: total[name] - value for name, value in point.sums.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            rows = np.concatenate([rows, estimates(without, point.grid)["log_density"]])
    return np.stack([np.interp(radius, rings, row) for row in rows])


def _variance(versions: Array, count: Array | None) -> Array:
    """Variance of the first of (1 + G, ...) values from the G with a group left out."""
    return jackknife_variance(versions[0], versions[1:], np.ones(len(versions) - 1) if count is None else count)


def stderr(versions: Array, count: Array | None) -> Array:
    """Standard error of the first of (1 + G, ...) values; NaN where there is no other."""
    return np.sqrt(_variance(versions, count)) if len(versions) > 1 else np.full(versions.shape[1:], np.nan)


def _trapezoid(x: Array) -> Array:
    """Quadrature weights of the trapezoid rule; 1 for a single position."""
    if len(x) == 1:
        return np.ones(1)
    gaps = np.diff(x)
    return np.asarray((np.concatenate([gaps, [0.0]]) + np.concatenate([[0.0], gaps])) / 2)

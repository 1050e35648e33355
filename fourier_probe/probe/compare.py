"""Several results side by side: what may be compared, depth profiles, one table. May import spectra, sums, errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fourier_probe.errors import ResultError
from fourier_probe.probe.spectra import PointSpectrum, Spectra
from fourier_probe.probe.sums import Array, jackknife


@dataclass(frozen=True)
class DepthProfile:
    """The high-frequency value of each stream point against depth.

    Attributes:
        frequency: where delta is read, pi rad/sample per axis.
        names, ops: of the points. depth: (P,) in [0, 1].
        value: (P,) delta at that frequency, nats. stderr: (P,) jackknife over images.
        white: (P,) delta of white noise with the mean and variance of each point; NaN where it was not computed.
        left_out: names of points whose maps are too small to have a frequency of their own.
    """

    frequency: float
    names: tuple[str, ...]
    ops: tuple[str, ...]
    depth: Array
    value: Array
    stderr: Array
    white: Array
    left_out: tuple[str, ...]


def check_comparable(results: Sequence[Spectra]) -> None:
    """Raise unless all results come from the same raw images by the same definition.

    Raises:
        ResultError: names the two results, what differs, and both values.
    """
    first = results[0]
    for other in results[1:]:
        differing = [
            ("images", first.images.get("digest"), other.images.get("digest")),
            ("logarithm", first.definition.formula, other.definition.formula),
            ("window", first.definition.window, other.definition.window),
            ("axis", first.definition.axis, other.definition.axis),
        ]
        for what, ours, theirs in differing:
            if ours != theirs:
                if what == "images":
                    ours, theirs = (f"{r.images.get('n')} of {r.images.get('source')}" for r in (first, other))
                raise ResultError(
                    f"{_label(first)} and {_label(other)} cannot be compared: {what} {ours} and {theirs}. "
                    "Analyze both with the same --data, --images and options."
                )


def common_frequency(results: Sequence[Spectra]) -> float:
    """The highest usable true frequency that every stream point with a frequency of its own has, pi rad/sample.

    Raises:
        ResultError: no point has any.
    """
    highest = [point.highest for result in results for point in result.stream if point.highest > 0]
    if not highest:
        raise ResultError("no probe point has a frequency above 0: every map is a single position or two.")
    return min(highest)


def has_frequencies(result: Spectra) -> bool:
    """Whether any stream point has a usable frequency above 0."""
    return any(point.highest > 0 for point in result.stream)


def depth_profile(result: Spectra, frequency: float | None = None) -> DepthProfile:
    """Delta at one frequency against depth; bins are interpolated linearly.

    Args:
        result: one analysis.
        frequency: pi rad/sample; by default the highest usable frequency common to the points of this result.

    Raises:
        ResultError: `frequency` is beyond what some point has.
    """
    frequency = common_frequency([result]) if frequency is None else frequency
    points = [point for point in result.stream if point.highest > 0]
    short = [point for point in points if point.highest < frequency - 1e-9]
    if short:
        raise ResultError(
            f"{_label(result)}: frequency {frequency:.3f} is beyond the usable bins of {short[0].name} "
            f"(grid {short[0].grid[0]}x{short[0].grid[1]}, up to {short[0].highest:.3f})."
        )
    values = [_delta_at(point, frequency) for point in points]
    return DepthProfile(
        frequency=frequency,
        names=tuple(point.name for point in points),
        ops=tuple(point.op for point in points),
        depth=np.array([point.depth for point in points]),
        value=np.array([value for value, _ in values]),
        stderr=np.array([error for _, error in values]),
        white=np.array([point.scalars.get("white_delta", np.nan) for point in points]),
        left_out=tuple(point.name for point in result.stream if point.highest <= 0),
    )


def summary(results: Sequence[Spectra], labels: Sequence[str]) -> list[dict[str, Any]]:
    """One row a result: what a reader asks first, at a frequency all of them have.

    Returns:
        Rows of target, weights, top1, points, grid of the first and last point, and of the first and last point: delta
        at the common frequency and its standard error (nats), HFD share and its white-noise level, slope.
    """
    frequency = common_frequency(results)
    rows = []
    for label, result in zip(labels, results, strict=True):
        profile = depth_profile(result, frequency)
        row: dict[str, Any] = {
            "target": label,
            "weights": result.target.get("weights"),
            "top1": result.top1,
            "points": len(result.stream),
            "frequency": frequency,
        }
        for name, index in (("first", 0), ("last", -1)):
            point = result[profile.names[index]]
            row |= {
                f"{name}_point": point.name,
                f"{name}_grid": "x".join(map(str, point.grid)),
                f"{name}_delta": profile.value[index],
                f"{name}_stderr": profile.stderr[index],
                f"{name}_hfd_share": point.scalars.get("hfd_share"),
                f"{name}_hfd_share_white": point.hfd_share_white,
                f"{name}_slope": point.scalars.get("slope"),
            }
        rows.append(row)
    return rows


def _delta_at(point: PointSpectrum, frequency: float) -> tuple[float, float]:
    """Delta at a frequency between bins, and its standard error, paired over bins where the group sums are at hand."""
    bins = point.frequency[: point.usable]
    value = float(np.interp(frequency, bins, point.delta[: point.usable]))
    if point.sums is None:
        return value, float(np.interp(frequency, bins, point.stderr[: point.usable]))
    weights = np.array([np.interp(frequency, bins, row) for row in np.eye(len(bins))])
    weights[0] -= 1  # delta is relative to the DC bin
    sums = {"count": point.sums["count"], "x": point.sums["log_amplitude"][:, : point.usable] @ weights}
    _, error = jackknife(lambda s: {"x": s["x"] / s["count"]}, sums)
    return value, float(error["x"])


def _label(result: Spectra) -> str:
    source = str(result.target.get("source") or result.target.get("arch") or "model")
    untrained = " (untrained)" if result.target.get("weights") == "untrained" else ""
    return source + untrained

"""Several results side by side: what may be compared, depth profiles, tables. May import coordinate, spectra.

Every interval is a jackknife over the image groups that results on the same images share, so differences are paired;
results that do not share their groups (`coordinate.paired`) are taken as independent, and said to be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fourier_probe.errors import ResultError
from fourier_probe.probe.sums import Array, jackknife, quantile
from fourier_probe.results.coordinate import common_axes, group_sizes, locate, paired, stderr, surface
from fourier_probe.results.point import PointSpectrum
from fourier_probe.results.spectra import Spectra


@dataclass(frozen=True)
class DepthProfile:
    """The high-frequency value of each stream point against depth.

    Attributes:
        frequency: where delta is read, pi rad/sample per axis.
        names, ops: of the points. depth: (P,) in [0, 1].
        value: (P,) delta at that frequency, nats. stderr: (P,) jackknife over images.
        white: (P,) delta of white noise with the mean and variance of each point; NaN where it was not computed.
        left_out: names of points whose maps are too small to have a frequency of their own.
        quantile: standard errors of a 95 % interval.
    """

    frequency: float
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
        return rf"$\Delta$ log amplitude at {self.frequency:.2f}$\pi$ (nats)"


def check_comparable(results: Sequence[Spectra]) -> None:
    """Raise unless all results come from the same raw images by the same definition.

    Raises:
        ResultError: names the two results, what differs, and both values.
    """
    first = results[0]
    for other in results[1:]:
        differing = [
            ("images", first.images.digest, other.images.digest),
            ("logarithm", first.definition.formula, other.definition.formula),
            ("window", first.definition.window, other.definition.window),
            ("axis", first.definition.axis, other.definition.axis),
            ("number of image groups", first.definition.groups, other.definition.groups),
        ]
        for what, ours, theirs in differing:
            if ours != theirs:
                if what == "images":
                    digests = ours, theirs
                    ours, theirs = (f"{r.images.n} of {r.images.source or 'your own'}" for r in (first, other))
                    if ours == theirs:
                        ours, theirs = (f"{ours} (pixels {str(digest)[:8]})" for digest in digests)
                raise ResultError(
                    f"{_label(first)} and {_label(other)} cannot be compared: {what} {ours} and {theirs}. "
                    "Analyze both with the same --data, --images and options."
                )


def common_frequency(results: Sequence[Spectra]) -> float:
    """The highest usable true frequency that every stream point with a frequency of its own has, pi rad/sample.

    Raises:
        ResultError: a result has no point with any.
    """
    for result in results:
        if not has_frequencies(result):
            raise ResultError(
                f"no probe point of {_label(result)} has a frequency above 0: every map is a single position or two."
            )
    return min(point.highest for result in results for point in result.stream if point.highest > 0)


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
    values = [delta_at(point, frequency) for point in points]
    return DepthProfile(
        frequency=frequency,
        names=tuple(point.name for point in points),
        ops=tuple(point.op for point in points),
        depth=np.array([point.depth for point in points]),
        value=np.array([value for value, _ in values]),
        stderr=np.array([error for _, error in values]),
        white=np.array([point.scalars.get("white_delta", np.nan) for point in points]),
        left_out=tuple(point.name for point in result.stream if point.highest <= 0),
        quantile=quantile(result.definition.groups),
    )


KEYS = {"model": "arch", "data-scale": "data_scale", "schedule": "schedule", "epoch": "epoch", "seed": "seed"}
"""What results can be set side by side by, and the field of `target` that says it."""


def key_of(result: Spectra, by: str) -> object:
    """The value of a key of `KEYS` for one result.

    Raises:
        ResultError: the result does not say; a run or a checkpoint of ours does.
    """
    value = getattr(result.target, KEYS[by])
    if by == "data-scale" and result.target.train_images:
        value = result.target.train_images
    if value is None:
        raise ResultError(
            f"{_label(result)} does not say its {by}: --by {by} takes runs and checkpoints of `fourier-probe train`."
        )
    return value


def summary(results: Sequence[Spectra], labels: Sequence[str]) -> list[dict[str, Any]]:
    """One row a result: what a reader asks first, at a frequency all of them have.

    Returns:
        Rows of target, model, data_scale, schedule, seed, epoch, weights, top1, points, grid of the first and last
        point, and of the first and last point: delta at the common frequency and its standard error (nats), HFD share
        and its white-noise level, slope. `hfd_share_difference` is that share of the last point minus the first
        result's, with its standard error, `paired` or not. `quantile`: standard errors of a 95 % interval.
    """
    frequency = common_frequency(results)
    rows: list[dict[str, object]] = []
    reference: PointSpectrum | None = None
    for label, result in zip(labels, results, strict=True):
        profile = depth_profile(result, frequency)
        row: dict[str, object] = {
            "target": label,
            "model": result.target.arch,
            **{name: getattr(result.target, name) for name in ("data_scale", "schedule", "seed", "epoch")},
            "weights": result.target.weights,
            "top1": result.top1,
            "points": len(result.stream),
            "frequency": frequency,
            "quantile": profile.quantile,
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
        point = result[profile.names[-1]]
        reference = reference or point
        same = paired([result, results[0]])
        difference, error = hfd_share_difference(point, reference, paired=same)
        row |= {"paired": same} | {"hfd_share_difference": difference, "hfd_share_difference_stderr": error}
        rows.append(row)
    return rows


def hfd_share_difference(point: PointSpectrum, reference: PointSpectrum, *, paired: bool = True) -> tuple[float, float]:
    """HFD share of a point minus another's on the same images, and its standard error; NaN where unknown.

    Args:
        point: of one result.
        reference: of the same or another result.
        paired: whether the image groups of both are the same; otherwise the two errors are taken as independent.
    """
    nan = float("nan")
    shares = [p.scalars.get("hfd_share", nan) for p in (point, reference)]
    if not paired:
        errors = [p.stderr_of.get("hfd_share", nan) for p in (point, reference)]
        return shares[0] - shares[1], 0.0 if point is reference else math.hypot(*errors)
    if point.sums is None or reference.sums is None or "live" not in point.sums or "live" not in reference.sums:
        return shares[0] - shares[1], nan
    sums = {"count": point.sums["count"]}
    for name, of_point in (("a", point.sums), ("b", reference.sums)):
        sums |= {f"{name}_share": of_point["share"], f"{name}_live": of_point["live"]}
    value, error = jackknife(
        lambda s: {"x": s["a_share"] / s["a_live"] - s["b_share"] / s["b_live"]},
        sums,
    )
    return float(value["x"]), float(error["x"])


def _error_of(sums: dict[str, Array]) -> float:
    if not sums:
        return float("nan")
    return float(jackknife(lambda s: {"x": s["x"] / s["count"]}, sums)[1]["x"])


def common_table(results: Sequence[Spectra], labels: Sequence[str]) -> list[dict[str, object]]:
    """`log_density` of every result interpolated onto common depths and radii, a row per value; see `coordinate`."""
    axes = common_axes(results)
    rows = []
    for label, result in zip(labels, results, strict=True):
        values = surface(result, axes)
        errors = stderr(values, group_sizes(result))
        rows += [
            {"target": label, "depth": d, "radius": r, "log_density": values[0, i, j], "stderr": errors[i, j]}
            for i, d in enumerate(axes.depth)
            for j, r in enumerate(axes.radius)
        ]
    return rows


def coordinates(
    results: Sequence[Spectra], labels: Sequence[str], cnn: Spectra, vit: Spectra
) -> list[dict[str, object]]:
    """The inductive-bias coordinate of every result between two ends, and of white noise; a row each.

    One grid of depths and radii serves all, so that rows are comparable.
    """
    axes = common_axes([*results, cnn, vit])
    ends, count = (surface(cnn, axes), surface(vit, axes)), group_sizes(cnn)
    rows = [
        (label, locate(surface(result, axes), *ends, axes, count=count, paired=paired([result, cnn, vit])))
        for label, result in zip(labels, results, strict=True)
    ]
    white = locate(np.zeros_like(ends[0]), *ends, axes, count=count, paired=paired([cnn, vit]))
    return [{"target": label, **asdict(row)} for label, row in [*rows, ("white noise", white)]]


def delta_at(point: PointSpectrum, frequency: float) -> tuple[float, float]:
    """Delta at a frequency between bins, and its standard error, paired over bins where the group sums are at hand."""
    bins = point.frequency[: point.usable]
    value = float(np.interp(frequency, bins, point.delta[: point.usable]))
    if point.sums is None:
        return value, float(np.interp(frequency, bins, point.stderr[: point.usable]))
    weights = weights_at(point, frequency)
    return value, _error_of(
        {"count": point.sums["count"], "x": point.sums["log_amplitude"][:, : point.usable] @ weights}
    )


def weights_at(point: PointSpectrum, frequency: float) -> Array:
    """Weights of the usable bins of log_amplitude that give delta at a frequency between them."""
    bins = point.frequency[: point.usable]
    weights = np.array([np.interp(frequency, bins, row) for row in np.eye(len(bins))])
    weights[0] -= 1  # delta is relative to the DC bin
    return weights


def _label(result: Spectra) -> str:
    source = str(result.target.label or result.target.source or result.target.arch or "model")
    untrained = " (untrained)" if result.target.weights == "untrained" else ""
    return source + untrained

"""Several results side by side: what may be compared, and tables. May import coordinate, profile, spectra.

Every interval is a jackknife over the image groups that results on the same images share, so differences are paired;
results that do not share their groups (`profile.paired`) are taken as independent, and said to be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fourier_probe.errors import ResultError
from fourier_probe.probe.sums import jackknife
from fourier_probe.results.coordinate import common_axes, group_sizes, locate, stderr, surface
from fourier_probe.results.point import PointSpectrum
from fourier_probe.results.profile import common_frequency, delta_view, label_of, paired, profile
from fourier_probe.results.spectra import Spectra


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
                    f"{label_of(first)} and {label_of(other)} cannot be compared: {what} {ours} and {theirs}. "
                    "Analyze both with the same --data, --images and options."
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
            f"{label_of(result)} does not say its {by}: --by {by} takes runs and checkpoints of `fourier-probe train`."
        )
    return value


def scale_text(scale: float) -> str:
    """A share of the training images, or their number.

    >>> scale_text(0.1), scale_text(3000)
    ('10 %', '3,000 images')
    """
    return f"{scale:,} images" if isinstance(scale, int) else f"{100 * scale:g} %"


def summary(results: Sequence[Spectra], labels: Sequence[str]) -> list[dict[str, Any]]:
    """One row per result: what a reader asks first, at a frequency all of them have.

    Returns:
        Rows of target, model, data_scale, schedule, seed, epoch, weights, top1, points, grid of the first and last
        point, and of the first and last point: delta at the common frequency and its standard error (nats), HFD share
        and its white-noise level, slope. `hfd_share_difference` is that share of the last point minus the first
        result's, with its standard error, `paired` or not. `quantile`: standard errors of a 95 % interval.
    """
    view = delta_view(common_frequency(results))
    rows: list[dict[str, object]] = []
    reference: PointSpectrum | None = None
    for label, result in zip(labels, results, strict=True):
        along = profile(result, view)
        row: dict[str, object] = {
            "target": label,
            "model": result.target.arch,
            **{name: getattr(result.target, name) for name in ("data_scale", "schedule", "seed", "epoch")},
            "weights": result.target.weights,
            "top1": result.top1,
            "points": len(result.stream),
            "frequency": view.at,
            "quantile": along.quantile,
        }
        for name, index in (("first", 0), ("last", -1)):
            point = result[along.names[index]]
            row |= {
                f"{name}_point": point.name,
                f"{name}_grid": "x".join(map(str, point.grid)),
                f"{name}_delta": along.value[index],
                f"{name}_stderr": along.stderr[index],
                f"{name}_hfd_share": point.scalars.get("hfd_share"),
                f"{name}_hfd_share_white": point.hfd_share_white,
                f"{name}_slope": point.scalars.get("slope"),
            }
        point = result[along.names[-1]]
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

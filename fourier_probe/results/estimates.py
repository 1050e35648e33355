"""From group sums to numbers with errors. May import point, records, and the sums and metrics of probe."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fourier_probe.probe.definition import Definition
from fourier_probe.probe.frequency import frequencies, ring_radii, usable_bins, white_noise_hfd_share
from fourier_probe.probe.metrics import DEAD
from fourier_probe.probe.registered import METRICS
from fourier_probe.probe.sums import Array, Estimates, jackknife
from fourier_probe.results.point import Change, PointSpectrum, RadialProfile, Singular, Step


def estimates(sums: Mapping[str, Array], grid: tuple[int, int]) -> Estimates:
    """Everything reported of a point, from sums (M, ...) of image statistics; the leading axis is kept.

    Args:
        sums: "count" (M,) and the sums of `image_statistics`.
        grid: (H, W) of the maps.
    """
    amplitude = sums["log_amplitude"] / sums["count"][:, None]
    out: Estimates = {"log_amplitude": amplitude, "delta": amplitude - amplitude[:, :1]}
    metrics = (METRICS.get(name) for name in METRICS)
    out |= {m.name: value for m in metrics if (value := m.value(sums, grid)) is not None}
    if "singular" in sums:
        out["singular"] = sums["singular"] / sums["ranked"][:, None]
    return out


def point_spectrum(
    meta: Mapping[str, Any], sums: dict[str, Array], flat: Array | None, definition: Definition
) -> PointSpectrum:
    """Numbers and errors of one point.

    Args:
        meta: name, kind, op, depth, grid, channels.
        sums: (G, ...) group sums with "count" (G,).
        flat: (C,) largest relative standard deviation of each channel.
        definition: as used in the sums.
    """
    grid = (int(meta["grid"][0]), int(meta["grid"][1]))
    maps = sums.pop("map", None)
    value, error = jackknife(lambda s: estimates(s, grid), sums)
    frequency = np.asarray(frequencies(grid, definition.axis))
    usable = len(frequency) if definition.axis == "paper" else usable_bins(grid)
    point = PointSpectrum(
        **{**meta, "grid": grid},
        frequency=frequency,
        usable=usable,
        log_amplitude=value["log_amplitude"],
        delta=value["delta"],
        stderr=error["delta"],
        sums=sums,
    )
    if maps is not None:
        both = {"map": maps, "count": sums["count"]}
        mean, spread = jackknife(lambda s: {"map": s["map"] / s["count"][:, None, None]}, both)
        point.map, point.map_stderr = mean["map"], spread["map"] if np.isfinite(spread["map"]).all() else None
    if "log_density" in value:
        point.radius = np.asarray(ring_radii(grid))
        point.log_density, point.log_density_stderr = value["log_density"], error["log_density"]
        point.hfd_share_white = white_noise_hfd_share(grid)
    for metric in (METRICS.get(name) for name in METRICS if name in value and name != "log_density"):
        if metric.kind == "radial":
            point.profiles[metric.name] = RadialProfile(value[metric.name], error[metric.name])
        else:
            point.scalars[metric.name] = float(value[metric.name])
            point.stderr_of[metric.name] = float(error[metric.name])
    if "singular" in value:
        point.singular = Singular(value["singular"], error["singular"])
    if flat is not None:
        point.dead_channels = float(np.mean(flat <= DEAD))
    return point


def add_steps(points: Sequence[PointSpectrum]) -> None:
    """Fill in `step`: a point minus the point before it on the stream, where both have the same grid.

    Does this attention, MLP or convolution raise or lower each frequency? Of log_amplitude and of delta, which differ:
    a step that raises every frequency and DC still more lowers delta. Errors are paired over image groups.
    """
    stream = [point for point in points if point.kind in ("stem", "residual")]
    for before, after in itertools.pairwise(stream):
        if before.grid == after.grid:
            after.step = _step(before, after)


def _step(before: PointSpectrum, after: PointSpectrum) -> Step:
    if before.sums is None or after.sums is None:
        nothing = np.full(len(after.frequency), np.nan)
        amplitude = Change(after.log_amplitude - before.log_amplitude, nothing)
        return Step(before.name, amplitude, Change(after.delta - before.delta, nothing))
    sums = {"count": after.sums["count"], "x": after.sums["log_amplitude"] - before.sums["log_amplitude"]}

    def changes(s: Mapping[str, Array]) -> Estimates:
        amplitude = s["x"] / s["count"][:, None]
        return {"log_amplitude": amplitude, "delta": amplitude - amplitude[:, :1]}

    value, error = jackknife(changes, sums)
    amplitude, delta = (Change(value[name], error[name]) for name in ("log_amplitude", "delta"))
    return Step(before.name, amplitude, delta)

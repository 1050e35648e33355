"""From group sums to numbers with errors. May import point, records, and the sums and metrics of probe."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fourier_probe.probe import metrics as spectrum
from fourier_probe.probe.metrics import DEAD, Definition
from fourier_probe.probe.sums import Array, Estimates, jackknife
from fourier_probe.results.point import Change, PointSpectrum, Step
from fourier_probe.results.records import SCALARS


def estimates(sums: Mapping[str, Array], grid: tuple[int, int]) -> Estimates:
    """Everything reported of a point, from sums (M, ...) of image statistics; the leading axis is kept.

    Args:
        sums: "count" (M,) and the sums of `image_statistics`.
        grid: (H, W) of the maps.
    """
    count = sums["count"]
    amplitude = sums["log_amplitude"] / count[:, None]
    out: Estimates = {"log_amplitude": amplitude, "delta": amplitude - amplitude[:, :1]}
    if "power" in sums:
        mean_power = sums["power"] / max(grid[0] * grid[1] - 1, 1)
        density = np.log(sums["ring"] / mean_power[:, None])
        out |= {
            "log_density": density,
            "hfd_share": sums["share"] / sums["live"],
            "hfd_share_pooled": sums["high"] / sums["power"],
            "slope": _slope(np.asarray(spectrum.ring_radii(grid)), density),
            "variance": sums["variance"] / count,
            "ac_dc": np.sqrt(sums["ac"] / sums["dc"]),
            "token_cosine": sums["cosine"] / sums["pairs"],
            "white_delta": sums["white"] / count - amplitude[:, 0] + (0.0 if grid[0] * grid[1] > 1 else np.nan),
        }
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
    frequency = np.asarray(spectrum.frequencies(grid, definition.axis))
    usable = len(frequency) if definition.axis == "paper" else spectrum.usable_bins(grid)
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
        point.radius = np.asarray(spectrum.ring_radii(grid))
        point.log_density, point.log_density_stderr = value["log_density"], error["log_density"]
        point.scalars = {name: float(value[name]) for name in SCALARS}
        point.stderr_of = {name: float(error[name]) for name in SCALARS}
        point.hfd_share_white = spectrum.white_noise_hfd_share(grid)
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


def _slope(radii: Array, density: Array) -> Array:
    """Least-squares slope (M,) of log_density (M, R) on ln r; NaN under 4 rings."""
    if len(radii) < 4:
        return np.full(len(density), np.nan)
    x = np.log(radii) - np.log(radii).mean()
    return np.asarray((density - density.mean(1, keepdims=True)) @ x / (x @ x))

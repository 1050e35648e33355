"""A result as pandas frames: tidy rows, and the short table a notebook shows. Imports point and shown.

Everything a CSV file or a table says comes from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fourier_probe.io.tables import plain_frame
from fourier_probe.results.point import INPUT, Array, PointSpectrum
from fourier_probe.results.shown import Shown

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "target index point kind op depth grid_h grid_w channels profile frequency usable log_amplitude delta log_density "
    "stderr metric value"
).split()
"""Of a tidy frame; `metric` and `value` are those of scalars, and of radial metrics beside the log density."""
Cell = str | float | int | None


def tidy(target: str | None, points: Sequence[PointSpectrum], images: PointSpectrum | None = None) -> pd.DataFrame:
    """A row per point and frequency, diagonal and radial, and per point and scalar; empty where there is no value.

    The images themselves come first, with index -1 and no depth.
    """
    import pandas as pd

    rows: list[list[Cell]] = []
    none: list[Cell] = [None, None, None]
    for index, p in [*([] if images is None else [(-1, images)]), *enumerate(points)]:
        depth = None if p.kind == INPUT else p.depth
        head: list[Cell] = [target, index, p.name, p.kind, p.op, depth, *p.grid, p.channels]
        for k, frequency in enumerate(p.frequency):
            values = [_finite(x) for x in (p.log_amplitude[k], p.delta[k])]
            rows.append(
                [*head, "diagonal", frequency, int(k < p.usable), *values, None, _finite(p.stderr[k]), None, None]
            )
        if p.radial is not None:
            for radius, density, error in zip(p.radial.radius, p.radial.log_density, p.radial.stderr, strict=True):
                rows.append([*head, "radial", radius, 1, None, None, _finite(density), _finite(error), None, None])
        for name, profile in p.profiles.items():
            for radius, number, error in zip(_radii(p), profile.value, profile.stderr, strict=True):
                rows.append([*head, "radial", radius, 1, *none, _finite(error), name, _finite(number)])
        for name, scalar in p.scalars.items():
            rows.append(
                [*head, "scalar", None, 1, *none, _finite(p.stderr_of.get(name, np.nan)), name, _finite(scalar)]
            )
    return pd.DataFrame(rows, columns=COLUMNS).astype({"index": int, "usable": int})


def short(
    points: Sequence[PointSpectrum],
    values: Mapping[str, tuple[float, float]],
    heading: str,
    metrics: Sequence[Shown],
    quantile: float,
) -> pd.DataFrame:
    """A row per point.

    Args:
        points: of a result.
        values: name -> delta at one frequency and half of its 95 % interval, where the point has it.
        heading: what these are, with the frequency.
        metrics: what else is shown; of those that are not of this package the interval too.
        quantile: standard errors of a 95 % interval.
    """
    import pandas as pd

    nothing = (np.nan, np.nan)
    rows = [
        {
            "point": p.name,
            "op": p.op,
            "depth": INPUT if p.kind == INPUT else p.depth,
            "grid": "x".join(map(str, p.grid)),
            "channels": p.channels,
            heading: values.get(p.name, nothing)[0],
            "± 95 %": values.get(p.name, nothing)[1],
            **_further(p, points, metrics, quantile),
        }
        for p in points
    ]
    return pd.DataFrame(rows)


def csv(frame: pd.DataFrame) -> str:
    """A frame as CSV, without its index; empty where there is no value."""
    return plain_frame(frame)


def _further(
    point: PointSpectrum, points: Sequence[PointSpectrum], metrics: Sequence[Shown], quantile: float
) -> dict[str, float]:
    cells: dict[str, float] = {}
    for metric in metrics:
        at = metric.at(points)
        value, stderr = metric.of(point, at)
        heading = metric.titled if at is None else f"{metric.titled} at r {at:.2f}"
        cells[heading] = value
        if not metric.ours:
            cells[f"{heading} ± 95 %"] = quantile * stderr
    return cells


def _radii(point: PointSpectrum) -> Array:
    return np.empty(0) if point.radius is None else point.radius


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

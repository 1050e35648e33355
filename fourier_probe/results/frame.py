"""A result as pandas frames: tidy rows, and the short table a notebook shows. Imports point and records.

Everything a CSV file or a table says comes from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fourier_probe.results.point import INPUT, PointSpectrum
from fourier_probe.results.records import ScalarInfo

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "target index point kind op depth grid_h grid_w channels profile frequency usable log_amplitude delta log_density "
    "stderr"
).split()
SHORT = ("hfd_share", "slope")
"""Scalars of the short table; beside them those that this version does not know."""
Cell = str | float | int | None


def tidy(target: str | None, points: Sequence[PointSpectrum], images: PointSpectrum | None = None) -> pd.DataFrame:
    """A row per point and frequency, diagonal and radial; empty where there is no value.

    The images themselves come first, with index -1 and no depth.
    """
    import pandas as pd

    rows: list[list[Cell]] = []
    for index, p in [*([] if images is None else [(-1, images)]), *enumerate(points)]:
        depth = None if p.kind == INPUT else p.depth
        head: list[Cell] = [target, index, p.name, p.kind, p.op, depth, *p.grid, p.channels]
        for k, frequency in enumerate(p.frequency):
            values = [_finite(x) for x in (p.log_amplitude[k], p.delta[k])]
            rows.append([*head, "diagonal", frequency, int(k < p.usable), *values, None, _finite(p.stderr[k])])
        if p.radial is not None:
            for radius, density, error in zip(p.radial.radius, p.radial.log_density, p.radial.stderr, strict=True):
                rows.append([*head, "radial", radius, 1, None, None, _finite(density), _finite(error)])
    return pd.DataFrame(rows, columns=COLUMNS).astype({"index": int, "usable": int})


def short(
    points: Sequence[PointSpectrum],
    values: Mapping[str, tuple[float, float]],
    heading: str,
    scalars: Mapping[str, ScalarInfo],
) -> pd.DataFrame:
    """A row per point.

    Args:
        points: of a result.
        values: name -> delta at one frequency and half of its 95 % interval, where the point has it.
        heading: what these are, with the frequency.
        scalars: of the metrics that are shown, by name.
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
            **{_title(info): p.scalars.get(name, np.nan) for name, info in scalars.items()},
        }
        for p in points
    ]
    return pd.DataFrame(rows)


def csv(frame: pd.DataFrame) -> str:
    """A frame as CSV, without its index; empty where there is no value."""
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def _title(info: ScalarInfo) -> str:
    return f"{info.label} ({info.unit})" if info.unit else info.label


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

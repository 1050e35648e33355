"""Which metrics a result holds, and how each is called: by the file it is read from, else by the registry.

May import point, records, and the metrics of probe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fourier_probe.probe.registered import METRICS, OURS, Kind
from fourier_probe.results.point import Array, PointSpectrum
from fourier_probe.results.records import MetricInfo


@dataclass(frozen=True)
class Shown:
    """A metric of a result.

    Attributes:
        name: in files. info: label, unit, summary. kind: a number per point, or per ring.
        ours: whether it is of this package.
    """

    name: str
    info: MetricInfo
    kind: Kind
    ours: bool

    @property
    def titled(self) -> str:
        """Of an axis or a column."""
        return self.info.title

    def at(self, points: Sequence[PointSpectrum]) -> float | None:
        """The radius at which a radial metric is tabulated: the largest that all points have; None of a scalar."""
        radii = [
            float(p.radius[-1]) for p in points if self.name in p.profiles and p.radius is not None and len(p.radius)
        ]
        return min(radii, default=None) if self.kind == "radial" else None

    def of(self, point: PointSpectrum, at: float | None = None) -> tuple[float, float]:
        """Value and standard error at a point, of a radial metric at a radius; NaN where it has none."""
        if self.kind == "scalar":
            return point.scalars.get(self.name, np.nan), point.stderr_of.get(self.name, np.nan)
        profile = point.profiles.get(self.name)
        if profile is None or at is None or point.radius is None or not len(point.radius):
            return np.nan, np.nan
        return float(np.interp(at, point.radius, profile.value)), float(np.interp(at, point.radius, profile.stderr))

    def along(self, points: Sequence[PointSpectrum]) -> tuple[Array, Array, Array]:
        """Depth, value and standard error of the points that have it."""
        at = self.at(points)
        rows = [(p.depth, *self.of(p, at)) for p in points]
        depth, value, stderr = np.array([row for row in rows if row[1] == row[1]]).reshape(-1, 3).T
        return depth, value, stderr


def registered(kind: Kind) -> dict[str, MetricInfo]:
    """Every registered metric of a kind; `log_density`, which has a place of its own in files, is not among them."""
    metrics = (METRICS.get(name) for name in METRICS if name != "log_density")
    return {m.name: MetricInfo(m.label, m.unit, m.summary) for m in metrics if m.kind == kind}


def shown(points: Sequence[PointSpectrum], carried: Mapping[str, MetricInfo]) -> list[Shown]:
    """The metrics that points hold: scalars, then radial ones; ours first, then registered ones, then the others.

    Args:
        points: of one result.
        carried: what its file says of them.
    """
    held: list[tuple[Kind, Iterable[str]]] = [
        ("scalar", {name for point in points for name in point.scalars}),
        ("radial", {name for point in points for name in point.profiles}),
    ]
    rows = []
    for kind, names in held:
        known = registered(kind)
        for name in [*(n for n in known if n in names), *sorted(set(names) - known.keys())]:
            info = carried.get(name) or known.get(name) or MetricInfo(name)
            rows.append(Shown(name, info, kind, name in OURS))
    return rows

"""What attentions, MLPs and convolutions do to high frequencies, step by step. May import profile."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fourier_probe.probe.sums import Array, jackknife, quantile
from fourier_probe.results.point import PointSpectrum
from fourier_probe.results.profile import View, difference_at, value_at, values_of, view_of
from fourier_probe.results.spectra import Spectra


@dataclass(frozen=True)
class Step:
    """One step: the quantity of the view at the point that it makes, minus that at the point before it.

    Attributes:
        name: of the point after the step.
        depth: of that point.
        change: nats; above 0 the step raised high frequencies.
        stderr: over images, paired.
    """

    name: str
    depth: float
    change: float
    stderr: float


@dataclass(frozen=True)
class StepChanges:
    """What the steps of one kind do, together.

    Attributes:
        op: "attention", "mlp", "conv" or the like.
        quantity: of the view, "delta" or "log_density".
        frequency: where it is read.
        change: mean over the steps, nats. stderr: of the mean, over images, paired.
        median: of the steps, nats; where one step is far from the others it says what most of them do.
        raised: how many of the steps are above 0.
        quantile: standard errors of a 95 % interval.
        each: the steps, from the input to the output.
    """

    op: str
    quantity: str
    frequency: float
    change: float
    stderr: float
    median: float
    raised: int
    quantile: float
    each: tuple[Step, ...]

    @property
    def steps(self) -> int:
        """How many there are."""
        return len(self.each)

    @property
    def carrier(self) -> Step | None:
        """The one step without which the mean would have the other sign; None where no single step decides it."""
        if self.steps < 3:
            return None
        largest = max(self.each, key=lambda step: step.change * math.copysign(1, self.change))
        return largest if (self.change * self.steps - largest.change) * self.change < 0 else None


def step_changes(result: Spectra, view: View | None = None) -> list[StepChanges]:
    """What the steps of a network do to high frequencies, by kind of step; steps that change the grid are left out.

    Args:
        result: one analysis.
        view: the quantity, from `view_of` several results to set them side by side; by default of this one.
    """
    if result.selected:  # neighbours in the list need not be neighbours in the network
        return []
    view = view or view_of(result)
    stream = [point for point in result.stream if point.kind in ("stem", "residual")]
    gap = 1.5 * min((b.depth - a.depth for a, b in itertools.pairwise(stream)), default=0.0)  # a point was left out
    pairs: dict[str, list[tuple[PointSpectrum, PointSpectrum]]] = {}
    for before, after in itertools.pairwise(stream):
        known = all(_reaches(point, view) for point in (before, after))
        if before.grid == after.grid and known and after.depth - before.depth <= gap:
            pairs.setdefault(after.op, []).append((before, after))
    return [_changes(op, steps, view, quantile(result.definition.groups)) for op, steps in sorted(pairs.items())]


def _reaches(point: PointSpectrum, view: View) -> bool:
    """Whether a point has the quantity of a view at its frequency."""
    reach = point.highest
    if view.quantity == "log_density":
        reach = float(point.radius[-1]) if point.radius is not None and len(point.radius) else 0.0
    return reach >= view.at - 1e-9 and math.isfinite(value_at(point, view)[0])


def _changes(
    op: str, pairs: Sequence[tuple[PointSpectrum, PointSpectrum]], view: View, standard_errors: float
) -> StepChanges:
    steps = tuple(Step(after.name, after.depth, *difference_at(after, before, view)) for before, after in pairs)
    changes = np.array([step.change for step in steps])
    return StepChanges(
        op=op,
        quantity=view.quantity,
        frequency=view.at,
        change=float(changes.mean()),
        stderr=_error_of_mean(pairs, view),
        median=float(np.median(changes)),
        raised=int((changes > 0).sum()),
        quantile=standard_errors,
        each=steps,
    )


def _error_of_mean(pairs: Sequence[tuple[PointSpectrum, PointSpectrum]], view: View) -> float:
    """Standard error over images of the mean of several steps; NaN where group sums are not at hand."""
    points = {point.name: point for pair in pairs for point in pair}
    sums: dict[str, Array] = {}
    for name, point in points.items():
        if point.sums is None:
            return math.nan
        sums |= {f"{name}\0{key}": value for key, value in point.sums.items()} | {"count": point.sums["count"]}

    def mean(grouped: Mapping[str, Array]) -> dict[str, Array]:
        own: dict[str, dict[str, Array]] = {name: {} for name in points}
        for key, value in grouped.items():
            name, separator, field = key.partition("\0")
            if separator:
                own[name][field] = value
        values = {name: values_of(point, own[name], view) for name, point in points.items()}
        return {"x": np.mean([values[after.name] - values[before.name] for before, after in pairs], axis=0)}

    return float(jackknife(mean, sums)[1]["x"])

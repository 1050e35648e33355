"""Accuracies of cells of runs on Axes: every seed, the mean with its interval, and paired differences.

May import plots and results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fourier_probe.papers.exhibit import Row
from fourier_probe.plots.style import PAGE, canvas, foot, literal, most_columns

COLOR, MARKED = "#1f4e79", "#b5482a"
SEED = 0.24  # rows below its mean that a seed's dot lies


def cells_figure(
    rows: Sequence[Row],
    seeds: Mapping[str, Sequence[float]],
    *,
    key: str,
    minus: str,
    split: str,
    reference: str,
    marked: str | None = None,
    notes: Sequence[str] = (),
) -> Figure:
    """One line per cell: at left its accuracy, at right its difference from one of the cells, paired by seed.

    Args:
        rows: with `test_acc`, `half`, and of the difference `minus`, `minus_half` where there is one; shares.
        seeds: name of a cell -> accuracy of each seed.
        key: column with the name of a cell.
        minus: column with the difference.
        split: of the images, for the axis.
        reference: the cell that is subtracted.
        marked: a cell in another colour.
        notes: what else to say below.
    """
    columns = most_columns(2, PAGE / 2)
    figure = canvas(PAGE, 0.5 + (0.4 + 0.28 * len(rows)) * (2 // columns))
    grid = figure.subplots(2 // columns, columns, squeeze=False, width_ratios=[3, 2][:columns], sharey=columns == 2)
    left, right = grid.flat
    for y, row in enumerate(rows):
        color = MARKED if row[key] == marked else COLOR
        dots = [100 * value for value in seeds[row[key]]]
        left.plot(dots, [y + SEED] * len(dots), "o", ms=3, mew=0, color=color, alpha=0.6)
        _bar(left, 100 * row["test_acc"], 100 * row["half"], y, color)
        if minus in row:
            _bar(right, 100 * row[minus], 100 * row[f"{minus}_half"], y, color)
    right.axvline(0, color="0.45", linestyle=":", linewidth=0.8, zorder=0)
    for ax in (left, right) if columns == 1 else (left,):
        ax.set_yticks(range(len(rows)), [literal(row[key]) for row in rows])
    for ax in (left, right):
        ax.set_ylim(len(rows) - 0.5, -0.5)
    left.set_xlabel(f"{split} top-1 (%)")
    right.set_xlabel(f"minus {literal(reference)}, paired by seed\n(percentage points)")
    handles = [
        Line2D([], [], linestyle="", marker="o", ms=3, mew=0, color=COLOR, alpha=0.6, label="one seed"),
        Line2D([], [], marker="D", ms=4, color=COLOR, label="mean, 95 % over seeds (Student's t)"),
    ]
    foot(figure, handles, notes)
    return figure


def _bar(ax: Axes, value: float, half: float, y: float, color: str) -> None:
    error = half if np.isfinite(half) else None
    ax.errorbar([value], [y], xerr=error, marker="D", ms=4, capsize=2, color=color)


def dodged(index: int, count: int, step: float) -> float:
    """Where the error bars of one of several curves stand beside the others', in units of the axis.

    >>> [dodged(place, 3, 0.5) for place in range(3)]
    [-0.5, 0.0, 0.5]
    """
    return step * (index - (count - 1) / 2)

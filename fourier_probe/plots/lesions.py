"""The lesion profile on Axes: top-1 without each residual step, by depth. Sees results, never models."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourier_probe.plots.style import COLUMN, canvas, figure_of, foot, short_title, style
from fourier_probe.results.validation import Lesion, Validation

MARKS = {"attention": ("o", "#8c510a"), "mlp": ("s", "#35978f"), "conv": ("^", "#1f4e79"), "downsample": ("D", "0.35")}


def draw_lesions(ax: Axes, result: Validation) -> Axes:
    """Top-1 without each step against depth, with 95 % intervals over images; the whole network is the dashed line."""
    rows = result.lesions or []
    ax.plot([row.depth for row in rows], [row.top1.value for row in rows], color="0.75", linewidth=0.8, zorder=1)
    for op in dict.fromkeys(row.op for row in rows):
        own = [row for row in rows if row.op == op]
        mark, color = MARKS.get(op, ("o", "0.35"))
        values = [row.top1.value for row in own]
        ax.errorbar([row.depth for row in own], values, _bars(own), fmt=mark, ms=3.5, capsize=1.5, elinewidth=0.7,
                    color=color, label=short_title(op))  # fmt: skip
    ax.axhline(result.top1.value, color="0.45", linestyle="--", linewidth=0.8, label="whole network")
    highest = max([result.top1.value, *(row.top1.high or row.top1.value for row in rows)])
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(0, min(1.05, 1.15 * highest) or 1.05)
    ax.set_xlabel("Normalized depth of the removed step")
    ax.set_ylabel("Top-1 (share of images)")
    return ax


def lesions_figure(result: Validation, *, ax: Axes | None = None) -> Figure:
    """The lesion profile of a validation; on `ax`, whose figure is returned, or alone."""
    title = f"{short_title(result.label)}: one step removed, n = {result.images.n}"
    with style():
        if ax is not None:
            draw_lesions(ax, result).set_title(title)
            if result.lesions:
                ax.legend(loc="lower left", bbox_to_anchor=(0, 1.08), ncols=4)
            return figure_of(ax)
        figure = canvas(1.25 * COLUMN, 0.8 * COLUMN + 0.3)
        axes = draw_lesions(figure.subplots(), result)
        axes.set_title(title)
        foot(figure, axes.get_legend_handles_labels()[0], [f"Bars: 95 % over {result.images.n} images."])
        return figure


def _bars(rows: list[Lesion]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Distances from the values to the ends of their intervals, (2, rows)."""
    ends = [(row.top1.value if row.top1.low is None else row.top1.low,
             row.top1.value if row.top1.high is None else row.top1.high) for row in rows]  # fmt: skip
    return np.array(
        [[row.top1.value - low, high - row.top1.value] for row, (low, high) in zip(rows, ends, strict=True)]
    ).T

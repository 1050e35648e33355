"""A confusion matrix on Axes. Sees results, never models."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourier_probe.plots.style import COLUMN, canvas, figure_of, short_title, style
from fourier_probe.results.validation import Validation

NAMED, COUNTED = 24, 12  # classes, at most, whose names and counts are written


def draw_confusion(ax: Axes, result: Validation) -> Axes:
    """Share of the images of each true class (row) taken for each class (column); a class without images is grey."""
    matrix = result.matrix
    images = matrix.sum(1, keepdims=True)
    share = np.divide(matrix, images, out=np.full(matrix.shape, np.nan), where=images > 0)
    drawn = ax.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ax.set_facecolor("0.8")
    count = len(matrix)
    if count <= NAMED:
        names = [short_title(row.name) for row in result.classes]
        ax.set_xticks(range(count), names, rotation=0 if count < 4 else 90)
        ax.set_yticks(range(count), names)
    if count <= COUNTED:
        for (truth, answer), images_here in np.ndenumerate(matrix):
            color = "white" if share[truth, answer] > 0.5 else "0.2"
            ax.text(answer, truth, str(images_here), ha="center", va="center", fontsize=6, color=color)
    ax.set_xlabel("Answer" if count <= NAMED else "Answer (index of the class)")
    ax.set_ylabel("Class" if count <= NAMED else "Class (index)")
    bar = ax.figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.03)
    bar.outline.set_linewidth(0.5)
    bar.set_label("Share of the class")
    return ax


def confusion_figure(result: Validation, *, ax: Axes | None = None) -> Figure:
    """The confusion matrix of a validation; on `ax`, whose figure is returned, or alone."""
    top1, ends = result.top1, ""
    if top1.low is not None and top1.high is not None:
        ends = f" (95 %: {100 * top1.low:.1f} to {100 * top1.high:.1f})"
    title = f"{short_title(result.label)}: top-1 {top1.value:.1%}{ends}, n = {result.images.n}"
    with style():
        if ax is not None:
            draw_confusion(ax, result).set_title(title)
            return figure_of(ax)
        figure = canvas(1.15 * COLUMN, COLUMN)
        draw_confusion(figure.subplots(), result)
        figure.suptitle(title, fontsize=8)
        return figure

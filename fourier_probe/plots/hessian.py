"""Curvature of the loss on Axes: eigenvalues of the Hessian per minibatch, and the loss landscape. Sees results."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourier_probe.plots.style import COLUMN, canvas, short_title, style
from fourier_probe.results.validation import Curvature, Validation


def draw_eigenvalues(ax: Axes, curvature: Curvature) -> Axes:
    """Every eigenvalue of every minibatch by its rank, and the mean over minibatches."""
    values = np.array(curvature.eigenvalues)
    ranks = np.arange(1, values.shape[1] + 1)
    ax.plot(ranks, values.T, "o", ms=3, color="#8c510a", alpha=0.5)
    ax.plot(ranks, values.mean(0), color="0.35", linewidth=1, label="mean over minibatches")
    ax.set_xticks(ranks)
    ax.set_xlabel("Rank of the eigenvalue")
    ax.set_ylabel("Eigenvalue of the Hessian")
    ax.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    ax.legend()
    return ax


def draw_landscape(ax: Axes, curvature: Curvature) -> Axes:
    """Loss over two filter-normalised directions, contours in nats; the cross is the network itself."""
    at, loss = np.array(curvature.at), np.array(curvature.loss)
    drawn = ax.contourf(at, at, loss, levels=14, cmap="viridis")
    ax.plot([0], [0], "+", color="white", ms=6)
    ax.set_aspect("equal")
    ax.set_xlabel("Second direction")
    ax.set_ylabel("First direction")
    ax.figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.03).set_label("Loss (nats)")
    return ax


def hessian_figure(result: Validation, *, ax: Axes | None = None) -> Figure:
    """Eigenvalues, and beside them the landscape; on `ax` the eigenvalues alone."""
    curvature = result.curvature
    if curvature is None:
        raise ValueError("no curvature was measured")
    title = f"{short_title(result.label)}: {len(curvature.eigenvalues)} minibatches of {curvature.batch_size}"
    with style():
        if ax is not None:
            draw_eigenvalues(ax, curvature).set_title(title)
            return ax.get_figure(root=True) or Figure()
        figure = canvas(2 * COLUMN, 0.85 * COLUMN)
        axes = figure.subplots(1, 2)
        figure.suptitle(title, fontsize=8)
        draw_eigenvalues(axes[0], curvature)
        draw_landscape(axes[1], curvature)
        return figure

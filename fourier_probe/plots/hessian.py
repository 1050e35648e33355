"""Curvature of the loss on Axes: eigenvalues of the Hessian per minibatch, and the loss landscape. Sees results."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from fourier_probe.plots.style import COLUMN, canvas, figure_of, short_title, style
from fourier_probe.results.validation import Curvature, Validation


def draw_eigenvalues(ax: Axes, curvature: Curvature) -> Axes:
    """Every eigenvalue of every minibatch by its rank, and the mean over minibatches with its 95 % interval."""
    values = np.array(curvature.eigenvalues)
    ranks = np.arange(1, values.shape[1] + 1)
    ax.plot(ranks, values.T, "o", ms=3, color="#8c510a", alpha=0.35, mew=0)
    means = curvature.ranked()
    ends = [(mean.value, mean.value) if mean.low is None or mean.high is None else (mean.low, mean.high)
            for mean in means]  # fmt: skip
    bars = [[mean.value - low, high - mean.value] for mean, (low, high) in zip(means, ends, strict=True)]
    label = "mean, 95 % over minibatches" if means[0].low is not None else "mean over minibatches"
    ax.errorbar(ranks + 0.12, [mean.value for mean in means], np.array(bars).T, color="0.25", marker="o", ms=2.5,
                linewidth=0.9, elinewidth=0.9, capsize=2, label=label)  # fmt: skip
    ax.set_xlim(0.5, len(ranks) + 0.5)
    ax.set_xticks(ranks)
    ax.set_xlabel("Rank of the eigenvalue")
    ax.set_ylabel("Eigenvalue of the Hessian")
    ax.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    ax.legend()
    return ax


def draw_landscape(ax: Axes, curvature: Curvature) -> Axes:
    """Loss over two filter-normalised directions, contours in nats, evenly in its logarithm; the cross is the network.

    Raises:
        ValueError: a loss is not finite.
    """
    at, loss = np.array(curvature.at), np.array(curvature.loss, np.float64)
    low, high = max(float(loss.min()), 1e-6), float(loss.max())
    high = high if high > low else 2 * low
    drawn = ax.contourf(at, at, loss.clip(low, high), levels=np.geomspace(low, high, 13), cmap="viridis",
                        norm=LogNorm(low, high))  # fmt: skip
    ax.plot([0], [0], "+", color="white", ms=6)
    ax.set_aspect("equal")
    ax.set_xlabel("Second direction")
    ax.set_ylabel("First direction")
    bar = ax.figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.03, ticks=np.geomspace(low, high, 5), format="{x:.2g}")
    bar.minorticks_off()
    bar.set_label("Loss (nats, logarithmic)")
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
            return figure_of(ax)
        figure = canvas(2 * COLUMN, 0.85 * COLUMN)
        axes = figure.subplots(1, 2)
        figure.suptitle(title, fontsize=8)
        draw_eigenvalues(axes[0], curvature)
        draw_landscape(axes[1], curvature)
        return figure

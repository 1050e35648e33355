"""Heat maps of noise in the Fourier plane on Axes. Sees arrays, never models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fourier_probe.plots.spectra import short_title
from fourier_probe.plots.style import COLUMN, style

Z95 = 1.96  # standard errors of a 95 % interval of a share of many images, which is binomial: no jackknife


def draw_heat_map(ax: Axes, plane: NDArray[np.float64], *, low: float | None = None, high: float | None = None) -> Axes:
    """Values over the Fourier plane, DC in the middle, axes in units of pi rad/sample; what was not measured is grey.

    Args:
        ax: to draw on.
        plane: (H, W) from `full_plane`.
        low: lower end of the colour scale; that of the values by default.
        high: its upper end.
    """
    H, W = plane.shape
    left, bottom = -(W // 2 + 0.5) * 2 / W, -(H // 2 + 0.5) * 2 / H  # the edge of the first bin
    image = ax.imshow(
        plane,
        origin="lower",
        extent=(left, left + 2, bottom, bottom + 2),
        cmap="magma",
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    ax.set_facecolor("0.8")
    ax.set_xticks([-1, 0, 1], [r"$-\pi$", "0", r"$\pi$"])
    ax.set_yticks([-1, 0, 1], [r"$-\pi$", "0", r"$\pi$"])
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    bar.outline.set_linewidth(0.5)
    return ax


def heat_map_figure(planes: Mapping[str, NDArray[np.float64]]) -> Figure:
    """One panel a quantity, each with its own scale; up to four in a row."""
    columns = min(len(planes), 4)
    rows = -(-len(planes) // columns)
    with style():
        figure = Figure(figsize=(0.85 * COLUMN * columns, 0.8 * COLUMN * rows))
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax, (title, plane) in zip(axes.flat, planes.items(), strict=False):
            draw_heat_map(ax, plane)
            ax.set_title(short_title(title))
        for ax in axes.flat[len(planes) :]:
            ax.set_visible(False)
        return figure


def bands_figure(accuracy: NDArray[np.float64], error: NDArray[np.float64], clean: float) -> Figure:
    """Accuracy under band-limited noise against the middle of the band, and without noise as a line.

    Args:
        accuracy: (bands,) share correct.
        error: (bands,) its standard error over images.
        clean: share correct without noise.
    """
    with style():
        figure = Figure(figsize=(COLUMN, 2.4))
        ax = figure.subplots()
        bands = len(accuracy)
        middle = (np.arange(bands) + 0.5) / bands
        ax.errorbar(middle, accuracy, Z95 * error, marker="o", ms=3, capsize=1.5, elinewidth=0.7, color="#1f4e79")
        ax.axhline(clean, color="0.45", linestyle="--", linewidth=0.8)
        ax.annotate("no noise", (0.02, clean), xycoords=("axes fraction", "data"), xytext=(0, 1.5),
                    textcoords="offset points", fontsize=6, color="0.35")  # fmt: skip
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.05)
        ax.set_xlabel(r"Frequency of the noise ($\pi$ rad/sample)")
        ax.set_ylabel("Top-1 accuracy")
        return figure

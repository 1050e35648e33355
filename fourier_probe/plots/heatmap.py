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
    """Values over the Fourier plane, DC in the middle, axes in rad/sample; what was not measured is grey.

    Where only every so many frequencies were measured, each is a block as large as the step to the next. Nyquist of an
    even side, the same at -pi and pi, is drawn at both.

    Args:
        ax: to draw on.
        plane: (H, W) from `full_plane`.
        low: lower end of the colour scale; that of the values by default.
        high: its upper end.
    """
    step = _stride(plane)
    rows, columns = (_measured(side, step) for side in plane.shape)
    bottom, top, left, right = (edge for k, side in zip((rows, columns), plane.shape, strict=True) for edge in
                                ((k[0] - step / 2) * 2 / side, (k[-1] + step / 2) * 2 / side))  # fmt: skip
    image = ax.imshow(
        plane[np.ix_(*((k + side // 2) % side for k, side in zip((rows, columns), plane.shape, strict=True)))],
        origin="lower",
        extent=(left, right, bottom, top),
        cmap="magma",
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    ax.set_facecolor("0.8")
    ax.set_xticks([-1, 0, 1], [r"$-\pi$", "0", r"$\pi$"])
    ax.set_yticks([-1, 0, 1], [r"$-\pi$", "0", r"$\pi$"])
    ax.set_xlim(min(left, -1), max(right, 1))
    ax.set_ylim(min(bottom, -1), max(top, 1))
    ax.set_xlabel("Horizontal frequency (rad/sample)")
    ax.set_ylabel("Vertical frequency (rad/sample)")
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
        for index, ax in enumerate(axes.flat):
            if index % columns:
                ax.set_ylabel("")
            if index + columns < len(planes):
                ax.set_xlabel("")
        for ax in axes.flat[len(planes) :]:
            ax.set_visible(False)
        return figure


def _stride(plane: NDArray[np.float64]) -> int:
    """The step between frequencies that were measured: the largest that divides all of them."""
    ky, kx = (index - side // 2 for index, side in zip(np.nonzero(np.isfinite(plane)), plane.shape, strict=True))
    return int(np.gcd.reduce(np.concatenate([ky, kx]))) or max(plane.shape)


def _measured(side: int, step: int) -> NDArray[np.int64]:
    """Multiples of the step among the frequencies of one axis from -Nyquist to Nyquist, cycles an image."""
    k = np.arange(-(side // 2), side // 2 + 1)
    return np.asarray(k[k % step == 0])


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

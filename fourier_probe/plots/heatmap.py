"""Heat maps of noise in the Fourier plane on Axes. Sees results, never models."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from fourier_probe.plots.style import COLUMN, canvas, foot, most_columns, panel_columns, short_title, style
from fourier_probe.results.heatmap import HeatMap

UNITS = {"error": "Top-1 error (share of images)", "change": "Relative change of features, |Δf| / |f|"}


def draw_heat_map(
    ax: Axes, plane: NDArray[np.float64], *, unit: str = "", low: float | None = None, high: float | None = None
) -> Axes:
    """Values over the Fourier plane, DC in the middle, axes in rad/sample; what was not measured is grey.

    Where only every so many frequencies were measured, each is a block as large as the step to the next. Nyquist of an
    even side, the same at -pi and pi, is drawn at both.

    Args:
        ax: to draw on.
        plane: (H, W) from `full_plane`.
        unit: what the colour bar says.
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
    bar.set_label(unit)
    return ax


def heat_map_figure(heat: HeatMap, *, ax: Axes | None = None) -> Figure:
    """A heat map: a panel per quantity, each with its own scale, up to three in a row; of bands, one panel.

    Args:
        heat: what was measured.
        ax: draw the first quantity here instead; its figure is returned.
    """
    with style():
        if ax is not None:
            _draw_first(ax, heat)
            ax.set_title(heat.title)
            return ax.get_figure(root=True) or Figure()
        panels = 1 if heat.definition.kind == "bands" else len(heat.quantities)
        columns = panel_columns(panels, most_columns(3, COLUMN))
        rows = -(-panels // columns)
        figure = canvas(1.05 * COLUMN * columns, 0.85 * COLUMN * rows + 0.3)
        axes = figure.subplots(rows, columns, squeeze=False)
        figure.suptitle(heat.title, fontsize=8)
        if heat.definition.kind == "bands":
            _draw_first(axes[0, 0], heat)
            clean = [Line2D([], [], color="0.45", linestyle="--", linewidth=0.8, label="without noise")]
            foot(figure, clean * (heat.clean_error is not None), [f"Bars: 95 % over {heat.images.n} images."])
            return figure
        for panel, quantity in zip(axes.flat, heat.quantities, strict=False):
            draw_heat_map(panel, heat.plane(quantity), unit=UNITS[quantity.split(":")[0]])
            if quantity != "error":
                panel.set_title(short_title(quantity.removeprefix("change:")))
        for index, panel in enumerate(axes.flat):
            if index % columns:
                panel.set_ylabel("")
            if index + columns < panels:
                panel.set_xlabel("")
        for panel in axes.flat[panels:]:
            panel.set_visible(False)
        scales = "Each panel has a colour scale of its own. " if panels > 1 else ""
        foot(figure, notes=[f"{scales}No interval is drawn: heatmap.csv has 95 % over {heat.images.n} images."])
        return figure


def _draw_first(ax: Axes, heat: HeatMap) -> None:
    if heat.definition.kind == "bands":
        draw_bands(ax, heat)
    else:
        draw_heat_map(ax, heat.plane(heat.quantities[0]), unit=UNITS[heat.quantities[0].split(":")[0]])


def _stride(plane: NDArray[np.float64]) -> int:
    """The step between frequencies that were measured: the largest that divides all of them."""
    ky, kx = (index - side // 2 for index, side in zip(np.nonzero(np.isfinite(plane)), plane.shape, strict=True))
    return int(np.gcd.reduce(np.concatenate([ky, kx]))) or max(plane.shape)


def _measured(side: int, step: int) -> NDArray[np.int64]:
    """Multiples of the step among the frequencies of one axis from -Nyquist to Nyquist, cycles an image."""
    k = np.arange(-(side // 2), side // 2 + 1)
    return np.asarray(k[k % step == 0])


def draw_bands(ax: Axes, heat: HeatMap) -> Axes:
    """Accuracy under band-limited noise against the middle of the band, and without noise as a line.

    Bars are 95 % intervals over images. Without labels, the change of features at each point instead.
    """
    middle = [sum(row.band) / 2 for row in heat.responses if row.band is not None]
    labelled = heat.clean_error is not None
    for quantity in heat.quantities[:1] if labelled else heat.quantities:
        found = [heat.value(row, quantity) for row in heat.responses]
        rows = np.array([[np.nan] * 3 if x is None else [x.value, x.low, x.high] for x in found], dtype=np.float64)
        value, low, high = (1 - rows[:, [0, 2, 1]]).T if labelled else rows.T
        bars = np.stack([value - low, high - value]) if np.isfinite([low, high]).all() else None
        color = "#1f4e79" if labelled else None
        name = short_title(quantity.removeprefix("change:"))
        ax.errorbar(middle, value, bars, marker="o", ms=3, capsize=1.5, elinewidth=0.7, color=color, label=name)
    if heat.clean_error is not None:
        clean = 1 - heat.clean_error.value
        ax.axhline(clean, color="0.45", linestyle="--", linewidth=0.8)
        ax.set_ylim(0, 1.05)
    else:
        ax.legend()
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"Frequency of the noise ($\pi$ rad/sample)")
    ax.set_ylabel("Top-1 accuracy (share of images)" if labelled else UNITS["change"])
    return ax

"""Heat maps of noise in the Fourier plane on Axes. Sees results, never models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from fourier_probe.plots.sensitivity import draw_sensitivity
from fourier_probe.plots.style import (
    COLUMN,
    canvas,
    categories,
    figure_of,
    foot,
    hide,
    most_columns,
    ordered_colors,
    panel_columns,
    short_title,
    style,
    wrapped_title,
)
from fourier_probe.results.heatmap import NAMES, HeatMap, NoiseResponse
from fourier_probe.results.heatmap_set import HeatMaps

BAR = (1.04, 0, 0.05, 1)  # left, bottom, width and height of a colour bar, in sides of its map
MANY = 9  # panels, above which they are small
NAMED = 8  # lines, above which they are coloured in order and some alone are named
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
    bar = ax.figure.colorbar(image, cax=ax.inset_axes(BAR))  # as high as the map, beside it, whatever else is drawn
    bar.outline.set_linewidth(0.5)
    bar.set_label(unit)
    return ax


def heat_map_figure(heat: HeatMap, *, ax: Axes | None = None) -> Figure:
    """A heat map: a panel per quantity, each with its own scale; of bands and filters, lines.

    Beside it stands the sensitivity spectrum, where there is one.

    Args:
        heat: what was measured.
        ax: draw the first quantity here instead; its figure is returned.
    """
    with style():
        if ax is not None:
            _draw_first(ax, [heat])
            ax.set_title(wrapped_title(heat.title, 60))
            return figure_of(ax)
        if heat.definition.kind != "frequencies":
            return _lines_figure([heat], heat.title)
        panels = len(heat.quantities) + (heat.sensitivity is not None)
        side = COLUMN if panels <= MANY else 0.62 * COLUMN
        columns = panel_columns(panels, most_columns(3 if panels <= MANY else 6, side))
        rows = -(-panels // columns)
        figure = canvas(1.05 * side * columns, 0.85 * side * rows + 0.3)
        figure.set_layout_engine("compressed", w_pad=0.1)  # panels are square
        axes = figure.subplots(rows, columns, squeeze=False)
        _title(figure, heat.title)
        _draw_planes(list(axes.flat), heat)
        for index, panel in enumerate(axes.flat[: len(heat.quantities)]):
            if index % columns or panels > MANY:
                panel.set_ylabel("")
            if index + columns < panels or panels > MANY:
                panel.set_xlabel("")
        hide(axes.flat[panels:])
        scales = "Each panel has a colour scale of its own. " if panels > 1 else ""
        scales += "Axes: frequency, rad/sample, vertical upwards. " if panels > MANY else ""
        scales += f"Named panels: {UNITS['change'][0].lower()}{UNITS['change'][1:]}. " if heat.points else ""
        foot(figure, notes=[f"{scales}No interval is drawn: heatmap.csv has 95 % over {heat.images.n} images."])
        return figure


def heat_maps_figure(heats: HeatMaps, *, ax: Axes | None = None) -> Figure:
    """Several targets: of full maps a row of panels each, the error on one scale; of bands and filters a line each.

    Args:
        heats: what was measured.
        ax: draw the first quantity here instead: the lines, or the map of the first target.
    """
    maps = list(heats)
    with style():
        if ax is not None:
            _draw_first(ax, maps, heats.labels)
            return figure_of(ax)
        if maps[0].definition.kind != "frequencies":
            return _lines_figure(maps, f"n = {maps[0].images.n} images", heats.labels)
        columns = max(len(heat.quantities) + (heat.sensitivity is not None) for heat in maps)
        figure = canvas(1.05 * COLUMN * columns, 0.9 * COLUMN * len(maps))
        figure.set_layout_engine("constrained", w_pad=0.1)
        parts = figure.subfigures(len(maps), 1, squeeze=False)[:, 0]
        errors = np.concatenate([np.full(1, np.nan), *(heat.plane().ravel() for heat in maps if heat.clean_error)])
        for part, heat in zip(parts, maps, strict=True):
            part.suptitle(_wrapped(heat.title, figure.get_figwidth()), fontsize=8)
            axes = part.subplots(1, columns, squeeze=False)[0]
            scale = (float(np.nanmin(errors)), float(np.nanmax(errors))) if np.isfinite(errors).any() else None
            _draw_planes(list(axes), heat, scale)
            hide(axes[len(heat.quantities) + (heat.sensitivity is not None) :])
        return figure


def _draw_planes(axes: list[Axes], heat: HeatMap, error_scale: tuple[float, float] | None = None) -> None:
    small = len(heat.quantities) + (heat.sensitivity is not None) > MANY
    for panel, quantity in zip(axes, heat.quantities, strict=False):
        low, high = error_scale if error_scale and quantity == "error" else (None, None)
        unit = ("Top-1 error" if small else UNITS["error"]) if quantity == "error" else ""  # the foot has the other
        draw_heat_map(panel, heat.plane(quantity), unit=unit, low=low, high=high)
        if quantity != "error":
            panel.set_title(short_title(quantity.removeprefix("change:")))
    if heat.sensitivity is not None:
        panel = draw_sensitivity(axes[len(heat.quantities)], [heat])
        for ax in panel.figure.axes if small else []:
            ax.xaxis.label.set_fontsize(6)
            ax.yaxis.label.set_fontsize(6)


def _lines_figure(heats: list[HeatMap], title: str, labels: list[str] | None = None) -> Figure:
    """Bands: one panel, and the sensitivity beside it; filters: a panel for each kind."""
    first = heats[0]
    kinds: list[str] = list(FILTERS) if first.definition.kind == "filters" else ["bands"]
    beside = first.definition.kind == "bands" and any(heat.sensitivity is not None for heat in heats)
    panels = len(kinds) + beside
    columns = panel_columns(panels, most_columns(3, COLUMN))
    rows = -(-panels // columns)
    named = min(NAMED, sum(len(heat.quantities) if heat.clean_error is None else 1 for heat in heats))
    figure = canvas(COLUMN * columns, 0.8 * COLUMN * rows + 0.4 + 0.13 * (-(-named // 3)))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    _title(figure, title)
    for index, (panel, kind) in enumerate(zip(axes, kinds, strict=False)):
        if kind == "bands":
            draw_bands(panel, heats, labels)
        else:
            draw_filters(panel, heats, kind, labels)
        if index % columns:
            panel.set_ylabel("")
    handles = axes[0].get_legend_handles_labels()[0] if _needs_legend(heats) else []
    lines = len(handles)
    if lines > NAMED:
        handles = [handles[round(k * (lines - 1) / (NAMED - 1))] for k in range(NAMED)]
    if any(heat.clean_error is not None for heat in heats):
        without = "without noise" if first.definition.eps is not None else "unfiltered"
        handles = [*handles, Line2D([], [], color="0.45", linestyle="--", linewidth=0.8, label=without)]
    notes = [f"Bars: 95 % over {first.images.n} images."]
    if lines > NAMED:
        notes = [f"{lines} lines, in order from dark to bright; some are named. No interval is drawn: "
                 f"{NAMES[first.definition.kind]}.csv has 95 % over {first.images.n} images."]  # fmt: skip
    if any(heat.clean_error is not None for heat in heats):
        notes.append(f"Accuracy: 1 minus the error of {NAMES[first.definition.kind]}.csv.")
    if beside:
        draw_sensitivity(axes[len(kinds)], heats, labels)
        ranked = any(heat.prediction() is not None for heat in heats)
        more = "; in its legend, the rank correlation with the error" if ranked else ""
        notes.append(f"Right: the gradient's power by radius{more}.")
    hide(axes[panels:])
    foot(figure, handles, notes)
    return figure


def _title(figure: Figure, title: str) -> None:
    figure.suptitle(_wrapped(title, figure.get_figwidth()), fontsize=8)


def _wrapped(title: str, inches: float) -> str:
    return wrapped_title(title, int(14 * inches))


def _needs_legend(heats: Sequence[HeatMap]) -> bool:
    return len(heats) > 1 or heats[0].clean_error is None


def _draw_first(ax: Axes, heats: list[HeatMap], labels: list[str] | None = None) -> None:
    heat = heats[0]
    if heat.definition.kind == "bands":
        draw_bands(ax, heats, labels)
    elif heat.definition.kind == "filters":
        draw_filters(ax, heats, "low", labels)
    else:
        draw_heat_map(ax, heat.plane(heat.quantities[0]), unit=UNITS[heat.quantities[0].split(":")[0]])
        return
    if _needs_legend(heats):
        ax.legend()


def _stride(plane: NDArray[np.float64]) -> int:
    """The step between frequencies that were measured: the largest that divides all of them."""
    ky, kx = (index - side // 2 for index, side in zip(np.nonzero(np.isfinite(plane)), plane.shape, strict=True))
    return int(np.gcd.reduce(np.concatenate([ky, kx]))) or max(plane.shape)


def _measured(side: int, step: int) -> NDArray[np.int64]:
    """Multiples of the step among the frequencies of one axis from -Nyquist to Nyquist, cycles an image."""
    k = np.arange(-(side // 2), side // 2 + 1)
    return np.asarray(k[k % step == 0])


def draw_bands(ax: Axes, heats: Sequence[HeatMap], labels: Sequence[str] | None = None) -> Axes:
    """Accuracy under band-limited noise against the middle of the band, and without noise as a line.

    Bars are 95 % intervals over images. Without labels of the classes, the change of features at each point instead.
    """
    rows = [[row for row in heat.responses if row.band is not None] for heat in heats]
    at = [[math.fsum(row.band or ()) / 2 for row in of] for of in rows]
    _draw_lines(ax, heats, rows, at, labels)
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"Frequency of the noise ($\pi$ rad/sample)")
    return ax


FILTERS = {
    "low": r"Low-pass: up to ($\pi$ rad/sample)",
    "high": r"High-pass, mean kept: beyond ($\pi$ rad/sample)",
    "removed": r"Middle of the removed band ($\pi$ rad/sample)",
}


def draw_filters(ax: Axes, heats: Sequence[HeatMap], kind: str, labels: Sequence[str] | None = None) -> Axes:
    """Accuracy on filtered images against the cut-off, or the middle of the removed band, and unfiltered as a line."""
    rows = [[row for row in heat.responses if row.filter == kind] for heat in heats]
    at = [[row.cutoff if row.cutoff is not None else math.fsum(row.band or ()) / 2 for row in of] for of in rows]
    _draw_lines(ax, heats, rows, at, labels)
    ax.set_xlim(-0.03, 1.03)
    ax.set_xlabel(FILTERS[kind])
    return ax


def _draw_lines(
    ax: Axes,
    heats: Sequence[HeatMap],
    rows: Sequence[Sequence[NoiseResponse]],
    at: Sequence[Sequence[float]],
    labels: Sequence[str] | None,
) -> None:
    """Accuracy, or changes of features where no heat map has labels, with bars and a legend where it is needed."""
    labelled = any(heat.clean_error is not None for heat in heats)
    lines = len(heats) if labelled else sum(len(heat.quantities) for heat in heats)
    colors = iter(categories(lines) if lines <= NAMED else ordered_colors(lines))
    for heat, of, x, label in zip(heats, rows, at, labels or [""] * len(heats), strict=True):
        if labelled and heat.clean_error is None:
            continue  # said in a note of that heat map
        for quantity in ["error"] if labelled else heat.quantities:
            color = next(colors)
            intervals = [heat.value(row, quantity) for row in of]
            values = np.array([[np.nan] * 3 if v is None else [v.value, v.low, v.high] for v in intervals], np.float64)
            value, low, high = (1 - values[:, [0, 2, 1]]).T if labelled else values.T
            drawn = lines <= NAMED and np.isfinite([low, high]).all()
            bars = np.stack([value - low, high - value]) if drawn else None
            point = "" if labelled else short_title(quantity.removeprefix("change:"))
            name = ", ".join(part for part in (short_title(label) if label else "", point) if part)
            ax.errorbar(x, value, bars, marker="o", ms=3, capsize=1.5, elinewidth=0.7, color=color, label=name)
        if heat.clean_error is not None:
            clean = 1 - heat.clean_error.value
            ax.axhline(clean, color=color if len(heats) > 1 else "0.45", linestyle="--", linewidth=0.8)
    if labelled:
        ax.set_ylim(0, 1.05)
    ax.set_ylabel("Top-1 accuracy (share of images)" if labelled else UNITS["change"])

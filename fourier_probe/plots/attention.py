"""Attention measures on Axes: how far heads look, how they differ, what they pass. Sees results, never models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import cm, colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from fourier_probe.plots.reliance import NOT_RELIANCE, draw_reliance
from fourier_probe.plots.style import (
    PAGE,
    canvas,
    depth_colors,
    foot,
    hide,
    most_columns,
    panel_columns,
    short_title,
    style,
)
from fourier_probe.probe.sums import quantile
from fourier_probe.results.attention import AttentionRecord
from fourier_probe.results.information import InformationRecord
from fourier_probe.results.reliance import RelianceRecord

GROUPS = 20  # of images, for the intervals
FLOOR = 1e-6  # of a response: below is rounding
NUMBERED = 12  # layers, at most, that all have a tick


def draw_distance(ax: Axes, layers: Sequence[AttentionRecord]) -> Axes:
    """Mean attention distance, a dot per head, a bar at their mean; dashed: attention that is uniform."""
    positions, shades = _positions(layers), _shades(layers)
    for position, color, layer in zip(positions, shades, layers, strict=True):
        ax.plot([position] * len(layer.distance), layer.distance, "o", ms=2.5, mew=0, color=color)
    means = [np.mean(layer.distance) for layer in layers]
    ax.plot(positions, means, color="0.25", linewidth=0.8, marker="_", ms=7)
    uniform = [layer.uniform for layer in layers]
    ax.plot(positions, uniform, color="0.45", linestyle="--", linewidth=0.8, zorder=1)
    if len(layers) == 1:  # no line between points: a level
        ax.axhline(uniform[0], color="0.45", linestyle="--", linewidth=0.8, zorder=1)
    highest = max(max(layer.uniform, *layer.distance) for layer in layers)
    ax.set_ylim(0, 1.06 * highest)
    ax.set_ylabel("Attention distance (pixels)")
    return _number(ax, len(layers))


def draw_diversity(ax: Axes, layers: Sequence[AttentionRecord]) -> Axes:
    """Head diversity of each layer: the standard deviation over heads of the mean attention distance."""
    positions, shades = _positions(layers), _shades(layers)
    spread = [float(np.std(layer.distance)) for layer in layers]
    errors = [quantile(GROUPS) * error for layer in layers if (error := layer.diversity_error) is not None]
    bars = errors if len(errors) == len(layers) else None
    ax.errorbar(positions, spread, bars, color="0.25", linewidth=0.8, elinewidth=0.7, capsize=1.5)
    for position, color, value in zip(positions, shades, spread, strict=True):
        ax.plot([position], [value], "o", ms=3.5, mew=0, color=color)
    tops = [value + error for value, error in zip(spread, bars or [0.0] * len(spread), strict=True)]
    ax.set_ylim(0, 1.06 * max(tops) or 1.0)
    ax.set_ylabel("Head diversity (pixels)")
    return _number(ax, len(layers))


def draw_response(ax: Axes, layers: Sequence[AttentionRecord]) -> Axes:
    """Spectral response of the attention maps, mean over heads, one curve per layer: the gain at each frequency.

    The scale is logarithmic; what is below a millionth, as of attention that is uniform, is rounding and not drawn.
    """
    lowest = 1.0
    for color, layer in zip(_shades(layers), layers, strict=True):
        response = np.mean(layer.response, axis=0)
        drawn = np.where(response >= FLOOR, response, np.nan)
        ax.plot(layer.frequency, drawn, color=color, marker=".", ms=3)
        lowest = min(lowest, float(np.nanmin(drawn, initial=1.0)))
    ax.set_yscale("log")
    ax.set_ylim(lowest / 1.5, 1.5)
    ax.set_xlim(-0.04, 1.04)
    ax.set_xticks([0, 0.5, 1.0], ["0", r"0.5$\pi$", r"1.0$\pi$"])
    ax.set_xlabel("Frequency per axis")
    ax.set_ylabel("Response of the map")
    return ax


def draw_gates(ax: Axes, layers: Sequence[AttentionRecord]) -> Axes:
    """Gates of the gated layers, a dot per head: 1 is positional, 0 is content."""
    for position, layer in zip(_positions(layers), layers, strict=True):
        if layer.gate is not None:
            ax.plot([position] * len(layer.gate), layer.gate, "o", ms=2.5, mew=0, color="#1f4e79")
    ax.set_ylim(0, 1.04)
    ax.set_ylabel("Gate (1: positional)")
    return _number(ax, len(layers))


def draw_nmi(ax: Axes, information: Sequence[InformationRecord], t95: float) -> Axes:
    """NMI of queries and keys, a dot per head, the mean over heads with its 95 % interval over images as a line."""
    positions = _positions(information)
    for position, color, record in zip(positions, _shades(information), information, strict=True):
        ax.plot([position] * len(record.nmi), record.nmi, "o", ms=2.5, mew=0, color=color)
    errors = [math.nan if record.mean_stderr is None else t95 * record.mean_stderr for record in information]
    bars = errors if np.isfinite(errors).all() else None
    ax.errorbar(positions, [record.mean for record in information], bars, color="0.25", linewidth=0.8, elinewidth=0.7,
                capsize=1.5)  # fmt: skip
    _number(ax, len(information))
    ax.set_ylim(0, 1.06 * max(max(record.nmi) for record in information) or 0.05)
    ax.set_ylabel("NMI of queries and keys")
    return ax


def attention_figure(
    layers: Sequence[AttentionRecord],
    title: str,
    information: Sequence[InformationRecord] = (),
    reliance: RelianceRecord | None = None,
) -> Figure:
    """Distance, diversity and response by layer, gates and NMI where there are any; colours are depth, shallow dark.

    A gate is no measure of reliance: beside the gates is what exchanging each half costs, or that it is not known.
    """
    gated = any(layer.gate is not None for layer in layers)
    with style():
        panels: list[Callable[[Axes], Axes]] = []
        if layers:
            panels += [lambda ax: draw_distance(ax, layers), lambda ax: draw_diversity(ax, layers)]
            panels += [lambda ax: draw_response(ax, layers)]
        if gated:
            panels.append(lambda ax: draw_gates(ax, layers))
            if reliance is not None:
                panels.append(lambda ax: draw_reliance(ax, reliance))
        if information:
            panels.append(lambda ax: draw_nmi(ax, information, quantile(GROUPS)))
        columns = panel_columns(len(panels), most_columns(2 if len(panels) == 4 else 3, PAGE / 3))
        rows = -(-len(panels) // columns)
        figure = canvas(PAGE * max(columns, 1.5) / 3 * (1.1 if columns == 2 else 1), 0.4 + 2.1 * rows)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for ax, draw in zip(axes, panels, strict=False):
            draw(ax)
        hide(axes[len(panels) :])
        if layers:
            _layer_colorbar(figure, axes[2], layers)
        figure.suptitle(short_title(title), fontsize=8)
        handles = [
            Line2D([], [], linestyle="", marker="o", ms=2.5, color="0.25", label="one head"),
            Line2D([], [], color="0.25", linewidth=0.8, marker="_", ms=7, label="mean over heads"),
            Line2D([], [], color="0.45", linestyle="--", linewidth=0.8, label="if attention were uniform"),
        ]
        counts = sorted({layer.images for layer in layers if layer.images})
        seen = f"{counts[0]} images" if len(counts) == 1 else "images"
        bars = _intervals_said(layers, information, seen)
        if gated and reliance is not None:
            bars += f" Of top-1 lost: 95 % over {reliance.images} images."
        halves = [handle for ax in axes for handle in ax.get_legend_handles_labels()[0]]
        notes = [bars, *([NOT_RELIANCE] if gated and reliance is None else [])]
        foot(figure, [*(handles if layers else handles[:2]), *halves], notes)
        return figure


def _intervals_said(layers: Sequence[AttentionRecord], information: Sequence[InformationRecord], seen: str) -> str:
    """Which of the bars are intervals."""
    known = any(layer.diversity_error is not None for layer in layers)
    known = known or any(record.mean_stderr is not None for record in information)
    bars = f"Bars of diversity and NMI: 95 % over {seen}." if known else f"Means over {seen}; no interval is drawn."
    return f"{bars} Diversity: standard deviation over heads." if layers else bars


def _layer_colorbar(figure: Figure, ax: Axes, layers: Sequence[AttentionRecord]) -> None:
    """What the colours of the responses are: the order of the layers."""
    if len(layers) == 1:
        return
    norm = colors.Normalize(1, len(layers))
    bar = figure.colorbar(cm.ScalarMappable(norm, depth_colors()), ax=ax, pad=0.02, aspect=30)
    bar.set_label("Attention layer")
    bar.outline.set_linewidth(0.5)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))


def _positions(layers: Sequence[AttentionRecord] | Sequence[InformationRecord]) -> range:
    """The layers in their order, from 1."""
    return range(1, len(layers) + 1)


def _shades(layers: Sequence[AttentionRecord] | Sequence[InformationRecord]) -> list[object]:
    """A colour per layer, by its order."""
    last = max(len(layers) - 1, 1)
    return [depth_colors()(at / last) for at in range(len(layers))]


def _number(ax: Axes, layers: int) -> Axes:
    """An axis over the layers in their order, from 1, with ticks at whole numbers."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True) if layers > NUMBERED else FixedLocator(range(1, layers + 1)))
    ax.set_xlim(0.5, layers + 0.5)
    ax.set_xlabel("Attention layer, in order")
    return ax

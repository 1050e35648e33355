"""Reliance on the halves of attention, on Axes. Sees results, never models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fourier_probe.plots.style import COLUMN, canvas, categories, foot, hide, most_columns, short_title, style
from fourier_probe.results.intervals import Interval
from fourier_probe.results.reliance import RelianceRecord

HALVES = ("content", "positional")
NAMED = 16  # layers, at most, that are named
LEVEL = 20  # characters of all names, at most, that stand side by side under a panel
NOT_RELIANCE = "A gate is no measure of reliance, which was not measured here (analyze --attention, labelled images)."


def draw_reliance(ax: Axes, record: RelianceRecord, test: str = "exchanged") -> Axes:
    """Top-1 lost without each half, percentage points, by layer; bars are 95 % intervals over images."""
    layers = record.layers
    positions = np.arange(len(layers))
    for turn, (half, color) in enumerate(zip(HALVES, reversed(categories(2)), strict=True)):
        rows = [record.lesion(layer, half, test) for layer in layers]
        ends = np.array([_lost(None if row is None else row.top1_change) for row in rows])
        bars = np.stack([ends[:, 0] - ends[:, 1], ends[:, 2] - ends[:, 0]])
        errors = bars if np.isfinite(bars).all() else None
        ax.bar(positions + 0.38 * (turn - 0.5), ends[:, 0], 0.36, color=color, label=half, yerr=errors,
               error_kw={"elinewidth": 0.7, "capsize": 1.5})  # fmt: skip
    ax.axhline(0, color="0.3", linewidth=0.6)
    if len(layers) <= NAMED:
        _name(ax, layers)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("Layer, in order; the last: all layers")
    ax.set_ylabel("Top-1 lost (percentage points)")
    ax.set_title({"exchanged": "half from another image", "off": "half off"}.get(test, test))
    ax.margins(y=0.1)
    return ax


def _name(ax: Axes, names: Sequence[str]) -> None:
    """The layers at their ticks, turned where they would lie on each other."""
    turned, side = (30, "right") if len(names) > 1 and sum(map(len, names)) > LEVEL else (0, "center")
    ax.set_xticks(range(len(names)), list(map(short_title, names)), rotation=turned, ha=side)


def _lost(change: Interval | None) -> tuple[float, float, float]:
    """Percentage points lost, and the ends of the interval; NaN where there are none."""
    ends = (None,) * 3 if change is None else (change.value, change.high, change.low)
    lost, low, high = (np.nan if end is None else -100 * end for end in ends)
    return lost, low, high


def draw_gates(ax: Axes, record: RelianceRecord) -> Axes:
    """Gates, their range over heads, and gate x attention on the kernel's own tap, by recast layer."""
    positions = np.arange(len(record.departures))
    gates = np.array([[row.gate, row.gate_least, row.gate_most] for row in record.departures])
    ax.vlines(positions - 0.08, gates[:, 1], gates[:, 2], color="#1f4e79", linewidth=0.8)
    ax.plot(positions - 0.08, gates[:, 0], "o", color="#1f4e79", label="gate (1: positional)")
    taps = [np.nan if row.tap is None else row.tap for row in record.departures]
    ax.plot(positions + 0.08, taps, "s", color="0.45", label="gate x own tap (1: convolution)")
    if len(positions) <= NAMED:
        _name(ax, [row.layer for row in record.departures])
    ax.set_xlim(-0.6, len(positions) - 0.4)
    ax.set_ylim(0, 1.04)
    ax.set_ylabel("Gate, and gate x tap")
    ax.set_title("by its parameters")
    return ax


def reliance_figure(record: RelianceRecord, title: str) -> Figure:
    """Exchanged halves, halves off where that was measured, and the gates beside them."""
    with style():
        tests = [test for test in ("exchanged", "off") if any(row.test == test for row in record.lesions)]
        panels = len(tests) + bool(record.departures)
        columns = most_columns(panels, COLUMN)
        rows = -(-panels // columns)
        figure = canvas(0.8 * COLUMN * panels, 0.5 + 2.3 * rows)
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        hide(grid[panels:])
        axes = grid[:panels]
        for panel, test in zip(axes, tests, strict=False):
            draw_reliance(panel, record, test)
        tops = [panel.get_ylim() for panel in axes[: len(tests)]]
        for panel in axes[: len(tests)]:  # the same axis where panels are compared
            panel.set_ylim(min(low for low, _ in tops), max(high for _, high in tops))
        if record.departures:
            draw_gates(axes[-1], record)
        figure.suptitle(f"{short_title(title)}: top-1 {record.top1:.1%}, n = {record.images}", fontsize=8)
        handles = [handle for panel in (axes[0], axes[-1]) for handle in panel.get_legend_handles_labels()[0]]
        shown = handles if record.departures else handles[: len(HALVES)]
        lines = " Lines: range of the gates over heads." if record.departures else ""
        foot(figure, shown, [f"Bars: change of top-1, with 95 % over images, paired.{lines}"], columns=4)
        return figure

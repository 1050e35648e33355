"""Training losses on Axes: the whole of a training, and around each of its switches. Takes numbers, no runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fourier_probe.plots.style import COLUMN, PAGE, canvas, depth_colors, figure_of, short_title, style

Losses = Sequence[tuple[int, float]]
"""(steps that are done, mean loss of those since the pair before), in order."""

Curves = Mapping[str, tuple[Losses, Sequence[int]]]
"""Of each run, by name: its losses, and the steps at which layers were recast."""


def window(losses: Losses, switches: Sequence[int]) -> int:
    """Steps on either side of a switch that are drawn: a tenth of the training, less where the switches are closer."""
    last, rows = losses[-1][0], len(losses)
    gaps = [later - switch for switch, later in itertools.pairwise(switches)]
    return max(min([last // 10, *gaps]), 4 * max(1, last // rows))


def draw_losses(ax: Axes, losses: Losses, switches: Sequence[int]) -> Axes:
    """Loss against step, a dashed line at each switch."""
    ax.plot(*zip(*losses, strict=True), color="0.2", linewidth=0.8)
    for switch in switches:
        ax.axvline(switch, color="0.45", linestyle="--", linewidth=0.6, zorder=0)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_xlabel("Step" + (" (dashed: recast)" if switches else ""))
    ax.set_ylabel("Training loss (nats)")
    return ax


def around(losses: Losses, switch: int, steps: int) -> list[tuple[int, float]]:
    """Losses near a switch, by steps since it; a row that ends at the switch has only steps before it."""
    return [(step - switch, loss) for step, loss in losses if abs(step - switch) <= steps]


def draw_switches(ax: Axes, losses: Losses, switches: Sequence[int]) -> Axes:
    """Loss against steps since each switch, one curve per switch, coloured from the first to the last."""
    steps, cmap = window(losses, switches), depth_colors()
    for index, switch in enumerate(switches):
        near = around(losses, switch, steps)
        if near:
            color = cmap(index / max(len(switches) - 1, 1))
            ax.plot(*zip(*near, strict=True), color=color, marker=".", ms=2.5, linewidth=0.8, label=f"step {switch}")
    ax.axvline(0, color="0.45", linestyle="--", linewidth=0.6, zorder=0)
    ax.set_xlim(-steps, steps)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_xlabel("Steps since the switch")
    ax.set_ylabel("Training loss (nats)")
    if len(switches) <= 6:
        ax.legend(fontsize=6, title="switch at", title_fontsize=6)
    return ax


def loss_figure(runs: Curves, *, ax: Axes | None = None) -> Figure:
    """The loss of one run over its whole training."""
    (name, (losses, switches)), *_ = runs.items()
    with style():
        if ax is not None:
            draw_losses(ax, losses, switches)
            return figure_of(ax)
        figure = canvas(1.6 * COLUMN, 0.8 * COLUMN)
        draw_losses(figure.subplots(), losses, switches).set_title(short_title(name))
        return figure


def switches_figure(runs: Curves, *, ax: Axes | None = None) -> Figure:
    """One row per run: the loss of the whole training, and around each switch on one scale of loss."""
    with style():
        if ax is not None:
            (losses, switches), *_ = runs.values()
            draw_switches(ax, losses, switches)
            return figure_of(ax)
        figure = canvas(PAGE, 2.1 * len(runs))
        for row, (name, (losses, switches)) in zip(
            figure.subplots(len(runs), 2, squeeze=False), runs.items(), strict=True
        ):
            draw_losses(row[0], losses, switches).set_title(short_title(name))
            draw_switches(row[1], losses, switches)
            near = [loss for switch in switches for _, loss in around(losses, switch, window(losses, switches))]
            low, high = np.min(near), np.max(near)
            row[1].set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
        return figure

"""Attention measures on Axes: how far heads look, and how gated they are. Sees results, never models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fourier_probe.plots.spectra import short_title
from fourier_probe.plots.style import COLUMN, PAGE, depth_colors, style


def draw_distance(ax: Axes, layers: Sequence[dict[str, Any]]) -> Axes:
    """Mean attention distance, a dot a head, the mean over heads as a line; dashed: attention that is uniform."""
    depth, cmap = np.arange(len(layers)), depth_colors()
    for place, layer in enumerate(layers):
        color = cmap(place / max(len(layers) - 1, 1))
        ax.plot([place] * len(layer["distance"]), layer["distance"], "o", ms=2.5, mew=0, color=color)
    ax.plot(depth, [np.mean(layer["distance"]) for layer in layers], color="0.25", linewidth=0.8)
    ax.plot(depth, [layer["uniform"] for layer in layers], color="0.45", linestyle="--", linewidth=0.8)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(-0.5, len(layers) - 0.5)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("Attention layer")
    ax.set_ylabel("Attention distance (pixels)")
    return ax


def draw_response(ax: Axes, layers: Sequence[dict[str, Any]]) -> Axes:
    """Spectral response of the attention maps, mean over heads, one curve a layer: the gain at each frequency."""
    cmap = depth_colors()
    for place, layer in enumerate(layers):
        response = np.mean(layer["response"], axis=0)
        ax.plot(layer["frequency"], response, color=cmap(place / max(len(layers) - 1, 1)))
    ax.set_xlim(0, 1.04)
    ax.set_ylim(0, 1.05)
    ax.set_xticks([0, 0.5, 1.0], ["0", r"0.5$\pi$", r"1.0$\pi$"])
    ax.set_xlabel("Frequency per axis")
    ax.set_ylabel("Response of the map")
    return ax


def draw_gates(ax: Axes, layers: Sequence[dict[str, Any]]) -> Axes:
    """Gates of the gated layers, a dot a head: 1 is positional, 0 is content."""
    for place, layer in enumerate(layers):
        if layer["gate"] is not None:
            ax.plot([place] * len(layer["gate"]), layer["gate"], "o", ms=2.5, mew=0, color="#1f4e79")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(-0.5, len(layers) - 0.5)
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("Attention layer")
    ax.set_ylabel("Gate (1: positional)")
    return ax


def attention_figure(layers: Sequence[dict[str, Any]], title: str) -> Figure:
    """Distance and response by layer, and gates where there are any; colours are depth, shallow dark."""
    gated = any(layer["gate"] is not None for layer in layers)
    with style():
        figure = Figure(figsize=(PAGE if gated else 2 * 0.95 * COLUMN, 2.4))
        axes = np.atleast_1d(figure.subplots(1, 3 if gated else 2))
        draw_distance(axes[0], layers)
        draw_response(axes[1], layers)
        if gated:
            draw_gates(axes[2], layers)
        axes[0].set_title(short_title(title))
        return figure

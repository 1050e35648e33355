"""The sensitivity spectrum on Axes: power of the gradient by radius. Sees results, never models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourier_probe.plots.style import COLUMN, canvas, categories, foot, short_title, style
from fourier_probe.results.heatmap import HeatMap
from fourier_probe.results.heatmap_set import HeatMaps


def draw_sensitivity(ax: Axes, heats: Sequence[HeatMap], labels: Sequence[str] | None = None) -> Axes:
    """The sensitivity spectrum with its 95 % interval; of one heat map also the mean error over the same radii."""
    for heat, color, label in zip(heats, categories(len(heats)), labels or [""] * len(heats), strict=True):
        spectrum = heat.sensitivity
        if spectrum is None:
            continue
        ends = [[np.nan] * 2 if p.low is None else [p.low, p.high] for p in spectrum.log_power]
        low, high = np.array(ends, np.float64).T
        predicted = heat.prediction()
        rank = "" if predicted is None else f"rank correlation {predicted[0]:+.2f}"
        name = ", ".join(part for part in (short_title(label) if label else "", rank) if part)
        ax.plot(spectrum.radius, [p.value for p in spectrum.log_power], color=color, label=name or "gradient",
                marker="o" if len(spectrum.radius) < 20 else None, ms=2.5)  # fmt: skip
        ax.fill_between(spectrum.radius, low, high, color=color, alpha=0.25, linewidth=0)
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"Frequency ($\pi$ rad/sample)")
    ax.set_ylabel("ln power of d loss / d image")
    pairs = heats[0].over_radii() if len(heats) == 1 else []
    if pairs and heats[0].definition.kind == "frequencies":
        other = ax.twinx()
        radius, error, _ = zip(*pairs, strict=True)
        other.plot(radius, error, color="0.45", linestyle="--", linewidth=0.9)
        other.set_ylabel("Mean error over the ring (dashed)")
    if ax.get_legend_handles_labels()[0]:
        ax.legend()
    return ax


def sensitivity_figure(heats: HeatMaps) -> Figure:
    """The sensitivity spectra of several targets in one panel; of one also its mean error over the rings."""
    with style():
        figure = canvas(1.4 * COLUMN, 0.9 * COLUMN)
        draw_sensitivity(figure.subplots(), list(heats), heats.labels)
        foot(figure, notes=[f"Bands: 95 % over {heats[0].images.n} images."])
        return figure

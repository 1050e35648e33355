"""Spectra of a training on Axes: how they move from epoch to epoch. Sees results, never models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib import cm, colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fourier_probe.plots.spectra import BANDED, depth_colorbar, images_span
from fourier_probe.plots.style import PAGE, canvas, depth_colors, foot, frequency_axis, most_columns, short_title, style
from fourier_probe.results.profile import View, common_frequency, delta_view, profile
from fourier_probe.results.spectra import Spectra

BINS = 5  # of a curve that shows a shape
EPOCHS = "viridis_r"  # colours from the first epoch to the last


def draw_epochs(ax: Axes, results: Sequence[Spectra], at: float | View, switches: Sequence[int] = ()) -> Axes:
    """High frequencies against epoch, one curve per stream point, coloured by depth, 95 % bands over images.

    Args:
        ax: to draw on.
        results: analyses of one run on the same images, in order of epoch.
        at: the frequency where delta is read, pi rad/sample per axis; or a view, which may be of the log density.
        switches: epochs at whose start layers were recast, drawn as dashed lines.
    """
    view = at if isinstance(at, View) else delta_view(at)
    profiles = [profile(result, view) for result in results]
    epochs, cmap = [result.epoch for result in results], depth_colors()
    names = profiles[0].names
    banded = names if len(names) <= BANDED else (names[0], names[-1])
    for name, depth in zip(names, profiles[0].depth, strict=True):
        at_point = [(e, p, p.names.index(name)) for e, p in zip(epochs, profiles, strict=True) if name in p.names]
        x = np.array([epoch for epoch, _, _ in at_point])
        y = np.array([profile.value[index] for _, profile, index in at_point])
        band = np.array([profile.quantile * profile.stderr[index] for _, profile, index in at_point])
        ax.plot(x, y, color=cmap(depth), marker="o", ms=2.5)
        if np.isfinite(band).all() and name in banded:
            ax.fill_between(x, y - band, y + band, color=cmap(depth), alpha=0.25, linewidth=0)
    for epoch in sorted(set(switches)):
        ax.axvline(epoch, color="0.45", linestyle="--", linewidth=0.6, zorder=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("Epoch" + (" (dashed: recast)" if switches else ""))
    ax.set_ylabel(profiles[0].label)
    return ax


def draw_last_point(ax: Axes, results: Sequence[Spectra]) -> Axes:
    """Delta against frequency, one curve per epoch, at the last stream point that has five frequencies or more.

    Where no point has as many, at the last of those that have most.
    """
    last = max(result.epoch for result in results)
    bins = [min(point.usable, BINS) for point in results[0].stream]
    richest = max(range(len(bins)), key=lambda index: (bins[index], index))
    chosen = results[0].stream[richest].name
    for result in results:
        point = next((point for point in result.stream if point.name == chosen), None)
        if point is None:
            continue
        color = mpl.colormaps[EPOCHS](result.epoch / max(last, 1))
        ax.plot(point.frequency[: point.usable], point.delta[: point.usable], color=color, marker=".", ms=3)
        ax.set_title(f"{short_title(point.name)}, {point.grid[0]}x{point.grid[1]}")
    frequency_axis(ax)
    ax.set_ylabel(r"$\Delta$ log amplitude (nats)")
    return ax


def epochs_figure(
    runs: Sequence[Sequence[Spectra]],
    titles: Sequence[str],
    switches: Sequence[Sequence[int]],
    *,
    view: View | None = None,
) -> Figure:
    """One row per run: high frequencies of every point against epoch, and the spectrum of a late point by epoch.

    Args:
        runs: analyses of each run, in order of epoch.
        titles: of the runs.
        switches: epochs at which each run recast layers.
        view: what is drawn, from `view_of` all results; by default delta at the highest common frequency.
    """
    at = view or common_frequency([result for run in runs for result in run])
    with style():
        columns = most_columns(2, PAGE / 2)
        figure = canvas(PAGE, 0.3 + 2.4 * len(runs) * (2 // columns))
        shared: Literal["col", "none"] = "col" if columns == 2 else "none"
        axes = figure.subplots(2 // columns * len(runs), columns, squeeze=False, sharey=shared).reshape(len(runs), 2)
        for row, run, title, when in zip(axes, runs, titles, switches, strict=True):
            draw_epochs(row[0], run, at, when)
            row[0].set_title(short_title(title))
            draw_last_point(row[1], run)
            depth_colorbar(figure, row[0])
            norm = colors.Normalize(0, max(result.epoch for result in run))
            bar = figure.colorbar(cm.ScalarMappable(norm=norm, cmap=EPOCHS), ax=row[1], pad=0.02, aspect=30)
            bar.set_label("Epoch")
            bar.outline.set_linewidth(0.5)
        results = [result for run in runs for result in run]
        which = ", of the first and the last point" if any(len(result.stream) > BANDED for result in results) else ""
        foot(figure, notes=[f"Bands: 95 % over {images_span(results)}{which}; nothing about training again."])
        return figure

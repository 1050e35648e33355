"""Any metric of results against depth, and radial metrics against radius. Sees results, never models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourier_probe.errors import ResultError
from fourier_probe.plots.spectra import depth_colorbar
from fourier_probe.plots.style import (
    COLUMN,
    MARKERS,
    PAGE,
    canvas,
    categories,
    depth_colors,
    figure_of,
    hide,
    legend_titles,
    short_title,
    style,
    wrapped_title,
)
from fourier_probe.probe.sums import quantile
from fourier_probe.results.shown import Shown
from fourier_probe.results.spectra import Spectra

LABEL = 40  # characters of a line beside an axis


def draw_metric(
    ax: Axes, result: Spectra, metric: Shown, *, color: object = "#1f4e79", marker: str = "o", label: str | None = None
) -> Axes:
    """A metric of the stream against depth, with 95 % intervals over images; a radial one at its largest radius."""
    depth, value, stderr = metric.along(result.stream)
    error = quantile(result.definition.groups) * stderr if np.isfinite(stderr).all() and len(stderr) else None
    ax.errorbar(depth, value, error, color=color, label=label, marker=marker, ms=3, capsize=1.5, elinewidth=0.7)
    at = metric.at(result.stream)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("Normalized depth")
    ax.set_ylabel(wrapped_title(metric.titled if at is None else f"{metric.titled} at radius {at:.2f}", LABEL))
    return ax


def draw_radial(ax: Axes, result: Spectra, metric: Shown) -> Axes:
    """A radial metric against radius, one curve per stream point, coloured by depth, with 95 % intervals."""
    t95 = quantile(result.definition.groups)
    for point in result.stream:
        profile = point.profiles.get(metric.name)
        if profile is None or point.radius is None or not len(point.radius):
            continue
        color = depth_colors()(point.depth)
        ax.plot(point.radius, profile.value, color=color, marker="." if len(point.radius) < 3 else None)
        if np.isfinite(profile.stderr).all():
            band = t95 * profile.stderr
            ax.fill_between(point.radius, profile.value - band, profile.value + band, color=color, alpha=0.25, lw=0)
    ax.set_xlim(0, 1.04)
    ax.set_xlabel("Radius (1: Nyquist of an axis)")
    ax.set_ylabel(wrapped_title(metric.titled, LABEL))
    return ax


def metrics_figure(results: Sequence[Spectra], titles: Sequence[str]) -> Figure:
    """Every metric that is not of this package: one panel each over depth, and of one result radial ones over radius.

    Raises:
        ResultError: no result holds any.
    """
    metrics = {metric.name: metric for result in results for metric in result.metrics if not metric.ours}
    if not metrics:
        raise ResultError("these results hold no metric beside those of this package: register one with --plugin.")
    with style():
        columns = min(len(metrics), 3)
        rows = -(-len(metrics) // columns)
        figure = canvas(COLUMN if columns == 1 else PAGE, 2.6 * rows)
        axes = figure.subplots(rows, columns, squeeze=False)
        radial = []
        for ax, metric in zip(axes.flat, metrics.values(), strict=False):
            if len(results) == 1 and metric.kind == "radial":
                draw_radial(ax, results[0], metric)
                radial.append(ax)
                continue
            styles = zip(categories(len(results)), itertools.cycle(MARKERS))
            for result, title, (color, marker) in zip(results, legend_titles(titles), styles, strict=False):
                if any(own.name == metric.name for own in result.metrics):
                    draw_metric(ax, result, metric, color=color, marker=marker, label=title)
        hide(axes.flat[len(metrics) :])
        if radial:
            depth_colorbar(figure, radial)
        if len(results) > 1:
            axes.flat[columns - 1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        else:
            figure.suptitle(short_title(titles[0]))
        return figure


def metric_of_one(result: Spectra, metric: Shown, title: str, *, ax: Axes | None = None) -> Figure:
    """One metric of one result, in axes of the caller's where they are given; returns their figure."""
    with style():
        drawn: Axes = canvas(COLUMN, 2.6).subplots() if ax is None else ax
        figure = figure_of(drawn)
        if metric.kind == "scalar":
            draw_metric(drawn, result, metric)
        else:
            draw_radial(drawn, result, metric)
            if ax is None:
                depth_colorbar(figure, drawn)
        drawn.set_title(short_title(title))
    return figure

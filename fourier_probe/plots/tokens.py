"""How many directions tokens use, on Axes. Sees results, never models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from fourier_probe.errors import ResultError
from fourier_probe.plots.spectra import depth_colorbar
from fourier_probe.plots.style import PAGE, categories, depth_colors, short_title, style
from fourier_probe.probe.sums import quantile
from fourier_probe.results.point import PointSpectrum
from fourier_probe.results.spectra import Spectra


def draw_rank(ax: Axes, points: Sequence[PointSpectrum], t95: float) -> Axes:
    """Effective rank of the tokens of an image against depth, 95 % over images; dashed: the most there could be."""
    depth = [point.depth for point in points]
    value = [point.scalars["effective_rank"] for point in points]
    error = [t95 * point.stderr_of.get("effective_rank", math.nan) for point in points]
    ax.errorbar(depth, value, error if np.isfinite(error).all() else None, color=categories(1)[0], marker="o", ms=3,
                capsize=1.5, elinewidth=0.7)  # fmt: skip
    most = [min(math.prod(point.grid), point.channels) for point in points]
    ax.plot(depth, most, color="0.45", linestyle="--", linewidth=0.8)
    ax.set_yscale("log")
    ax.set_ylim(0.9, 1.3 * max(most))
    _plain_ticks(ax.yaxis)
    ax.set_xlim(-0.03, 1.03)
    ax.set_xlabel("Normalized depth")
    ax.set_ylabel("Effective rank (dashed: the most)")
    return ax


def draw_singular(ax: Axes, points: Sequence[PointSpectrum], t95: float) -> Axes:
    """The spectrum ln(s_i / s_1) against i, one curve per point, coloured by depth; bands are 95 % over images."""
    for point in points:
        if point.singular is None:
            continue
        value, error = point.singular.value, point.singular.stderr
        number, color = np.arange(1, len(value) + 1), depth_colors()(point.depth)
        ax.plot(number, value, color=color, linewidth=0.9, marker="." if len(value) < 3 else None)
        if np.isfinite(error).all():
            ax.fill_between(number, value - t95 * error, value + t95 * error, color=color, alpha=0.2, linewidth=0)
    ax.set_xscale("log")
    _plain_ticks(ax.xaxis)
    ax.set_xlabel("Number of the singular value")
    ax.set_ylabel("ln of it over the first (nats)")
    return ax


def _plain_ticks(axis: Axis) -> None:
    """Powers of two on a logarithmic axis of whole numbers, written out."""
    axis.set_major_locator(LogLocator(base=2, numticks=9))
    axis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axis.set_minor_locator(NullLocator())


def tokens_figure(result: Spectra, title: str) -> Figure:
    """Effective rank against depth, and the spectra behind it, of the stream.

    Raises:
        ResultError: the result does not hold them.
    """
    points = [point for point in result.stream if point.singular is not None]
    if not points:
        raise ResultError("this result holds no singular values of tokens: analyze with --tokens.")
    t95 = quantile(result.definition.groups)
    with style():
        figure = Figure(figsize=(PAGE, 2.5))
        axes = figure.subplots(1, 2)
        draw_rank(axes[0], points, t95)
        draw_singular(axes[1], points, t95)
        depth_colorbar(figure, list(axes))
        figure.suptitle(short_title(title), fontsize=8)
        return figure

"""Spectra and depth profiles on Axes. Sees results, never models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import cm, colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fourier_probe.errors import ResultError
from fourier_probe.plots.style import (
    ATTENTION_SHADE,
    COLUMN,
    DOWNSAMPLE_SHADE,
    MARKERS,
    PAGE,
    categories,
    depth_colors,
    short_title,
    style,
    wrapped_title,
)
from fourier_probe.probe.metrics import ZERO_MEAN_WHITE_NOISE
from fourier_probe.probe.sums import quantile
from fourier_probe.results.comparison import DepthProfile
from fourier_probe.results.profile import InputLevel, View, input_level, profile, view_of
from fourier_probe.results.spectra import Spectra


def draw_spectra(ax: Axes, result: Spectra, *, intervals: bool = True) -> Axes:
    """Delta against frequency, one curve a stream point, coloured by depth.

    The band is the 95 % jackknife interval over images. Nyquist, a real coefficient half ln 2 lower than its
    neighbours, is drawn apart as an open circle. Triangles in the right margin are the level of white noise with the
    mean and variance of each point; the dotted line is that of zero-mean white noise.

    Source: the layout of Park & Kim 2022, figure 2; the axis is the true one unless the result says "paper".
    """
    cmap = depth_colors()
    for point in (point for point in result.stream if point.highest > 0):
        color, usable = cmap(point.depth), point.usable
        frequency, delta = point.frequency[:usable], point.delta[:usable]
        ax.plot(frequency, delta, color=color, marker="." if usable < 3 else None)
        if intervals and np.isfinite(point.stderr).all():
            band = quantile(result.definition.groups) * point.stderr[:usable]
            ax.fill_between(frequency, delta - band, delta + band, color=color, alpha=0.25, linewidth=0)
        if usable < len(point.frequency):
            ax.plot(point.frequency[usable:], point.delta[usable:], "o", mfc="none", mec=color, ms=3, mew=0.7)
        white = point.scalars.get("white_delta", np.nan)
        if np.isfinite(white):
            place = ax.get_yaxis_transform()  # x in widths of the axes, y in nats
            ax.plot([1.02], [white], marker="<", ms=3, mew=0, color=color, transform=place, clip_on=False)
    if result.definition.log != "log1p":  # its logarithm has a scale, and so no such level
        _white_level(ax, ZERO_MEAN_WHITE_NOISE, "white noise, zero mean")
    ax.margins(y=0.08)
    ax.set_xlim(0, 1.04)
    ax.set_xticks([0, 0.5, 1.0], ["0", r"0.5$\pi$", r"1.0$\pi$"])
    ax.set_xlabel("Frequency per axis" + (" (paper's axis)" if result.definition.axis == "paper" else ""))
    ax.set_ylabel(r"$\Delta$ log amplitude (nats)")
    return ax


def _white_level(ax: Axes, level: float, label: str) -> None:
    ax.axhline(level, color="0.45", linestyle=":", linewidth=0.8, zorder=0)
    place, above = (0.02, level), (0, 1.5)  # widths of the axes and nats; points
    look: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 5.5}
    ax.annotate(label, place, xytext=above, color="0.35", **look)


def grid_span(grids: Sequence[str]) -> str:
    """The grids of points in a few words."""
    return ", ".join(grids) if len(grids) < 6 else f"{', '.join(grids[:2])} ... {grids[-1]}"


def marker_legend(figure: Figure, results: Sequence[Spectra] = ()) -> None:
    """Say, below the panels, what the open circles and the triangles are; and the grids, where delta is of several."""
    handles = [
        Line2D([], [], linestyle="", marker="o", mfc="none", mec="0.3", ms=3, mew=0.7, label="Nyquist"),
        Line2D([], [], linestyle="", marker="<", color="0.3", ms=3, label="white noise, same mean and variance"),
    ]
    points = [point for result in results for point in result.stream if point.highest > 0]
    grids = list(dict.fromkeys("x".join(map(str, point.grid)) for point in points))
    note = rf"$\Delta$ depends on the grid, here {grid_span(grids)}" if len(grids) > 1 else None
    figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=6, handletextpad=0.1, borderpad=0.1,
                  title=note, title_fontsize=6, alignment="left")  # fmt: skip


def draw_depth_profile(
    ax: Axes,
    profile: DepthProfile,
    *,
    color: Any = "#1f4e79",
    marker: str = "o",
    label: str | None = None,
    shade: bool = True,
) -> Axes:
    """A profile against depth, delta or log density, with 95 % intervals over images.

    With `shade` the steps of attention are shaded grey and those that subsample blue, from the step before to the step,
    and a dashed line is the level of white noise: of delta with each point's own mean and variance, since delta depends
    on the grid; of log density it is 0.
    """
    if shade:
        before = np.concatenate([[0.0], profile.depth[:-1]])
        for start, end, op in zip(before, profile.depth, profile.ops, strict=True):
            fill = {"attention": ATTENTION_SHADE, "downsample": DOWNSAMPLE_SHADE}.get(op)
            if fill and end > start:
                ax.axvspan(start, end, color=fill, linewidth=0, zorder=0)
        ax.plot(profile.depth, profile.white, color="0.45", linestyle="--", linewidth=0.8)
    error = profile.quantile * profile.stderr if np.isfinite(profile.stderr).all() else None
    x, y = profile.depth, profile.value
    ax.errorbar(x, y, error, color=color, label=label, marker=marker, ms=3, capsize=1.5, elinewidth=0.7)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("Normalized depth")
    ax.set_ylabel(profile.label)
    return ax


INPUT_PLACE = -0.11  # of the images themselves, left of depth 0


def draw_input(ax: Axes, level: InputLevel, *, quantile: float, color: Any = "0.15", label: str | None = None) -> Axes:
    """The images themselves at the left of a depth profile that is drawn already.

    A filled diamond may be set beside the points as it is. A hollow one is delta on another grid, which is read against
    the dash beside it, the level of white noise of the same mean and variance. Where either lies far outside the
    profile, an arrow at the border and a number say so, and the profile keeps its scale.
    """
    low, high = ax.get_ylim()
    room = high - low
    shown = np.clip(level.value, low - room, high + room)
    face = color if level.alike else "white"
    if shown == level.value:
        error = quantile * level.stderr if np.isfinite(level.stderr) else None
        ax.errorbar([INPUT_PLACE], [shown], error, marker="D", ms=4, mfc=face, mec=color, mew=0.8, color=color,
                    capsize=1.5, linestyle="", label=label)  # fmt: skip
        if not level.alike and low - room <= level.white <= high + room:
            ax.plot([INPUT_PLACE - 0.025, INPUT_PLACE + 0.025], [level.white] * 2, color="0.45", linewidth=0.9)
    else:
        edge, up = (0.03, False) if level.value < low else (0.97, True)
        ax.plot([INPUT_PLACE], [edge], marker="^" if up else "v", ms=4, mfc=face, mec=color, mew=0.8, label=label,
                transform=ax.get_xaxis_transform(), clip_on=False, linestyle="")  # fmt: skip
        beside = "" if level.alike else f" (white {level.white:.1f})"
        ax.annotate(f"{level.value:.1f}{beside}", (INPUT_PLACE, edge), (4, 0), xycoords=ax.get_xaxis_transform(),
                    textcoords="offset points", fontsize=5.5, va="center", color=color)  # fmt: skip
    ax.axvline(INPUT_PLACE / 2, color="0.8", linewidth=0.6, zorder=0)
    ax.set_xlim(1.6 * INPUT_PLACE, 1.02)
    ax.set_xticks([INPUT_PLACE, 0, 0.5, 1], ["input", "0", "0.5", "1"])
    return ax


def _draw_inputs(ax: Axes, results: Sequence[Spectra], view: View, looks: Sequence[Any]) -> None:
    """The images of results beside their profiles: once where all networks saw the same, else in each one's colour."""
    levels = [(input_level(result, view), result, color) for result, color in zip(results, looks, strict=True)]
    known = [(level, result, color) for level, result, color in levels if level is not None]
    if len({(result.images.digest, level.value) for level, result, _ in known}) == 1 and len(known) == len(results):
        known = [(known[0][0], known[0][1], "0.15")]
    for level, result, color in known:
        draw_input(ax, level, quantile=quantile(result.definition.groups), color=color)


def input_text(results: Sequence[Spectra]) -> str:
    """What a hollow mark is, for a legend; empty where there is none."""
    view = view_of(results)
    levels = [level for result in results if (level := input_level(result, view)) is not None]
    grids = sorted({level.grid for level in levels if not level.alike})
    shown = ", ".join("x".join(map(str, grid)) for grid in grids)
    return f"input: {shown}, read against white noise there" if grids else ""


def shade_legend(ax: Axes, profile: DepthProfile, more: str = "") -> None:
    """Say what the shades and the dashed line mean, where there are any, and `more`."""
    handles: list[Any] = [
        Patch(facecolor=color, edgecolor="0.5", linewidth=0.5, label=label)
        for op, color, label in (
            ("attention", ATTENTION_SHADE, "attention"),
            ("downsample", DOWNSAMPLE_SHADE, "subsampling"),
        )
        if op in profile.ops
    ]
    if np.isfinite(profile.white).any():
        handles.append(Line2D([], [], color="0.45", linestyle="--", linewidth=0.8, label="white noise"))
    if handles or more:
        ax.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, handlelength=1.0, frameon=False,
            title=more or None, title_fontsize=6,
        )  # fmt: skip


def depth_colorbar(figure: Figure, axes: Axes | Sequence[Axes]) -> None:
    """The colour bar of depth beside one Axes or several."""
    mappable = cm.ScalarMappable(norm=colors.Normalize(0, 1), cmap=depth_colors())
    bar = figure.colorbar(mappable, ax=axes, pad=0.05, aspect=30)
    bar.set_label("Normalized depth")
    bar.outline.set_linewidth(0.5)


# --- whole figures ---------------------------------------------------------------------------------------------------


def spectra_figure(results: Sequence[Spectra], titles: Sequence[str]) -> Figure:
    """Spectra side by side, one panel a result, shared axes, one colour bar."""
    with style():
        columns = min(len(results), 4)
        rows = -(-len(results) // columns)
        width = COLUMN if columns == 1 else PAGE
        figure = Figure(figsize=(width, 2.6 * rows))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for ax, result, title in zip(axes.flat, results, titles, strict=False):
            draw_spectra(ax, result)
            fitting = short_title(title) if columns < 3 else wrapped_title(title)
            ax.set_title(fitting, fontsize=8 if len(title) <= 24 else 6)
        for ax in axes.flat[len(results) :]:
            ax.set_visible(False)
        for index, ax in enumerate(axes.flat):
            ax.label_outer()
            if index + columns >= len(results) > index:  # the last panel of its column
                ax.xaxis.set_tick_params(labelbottom=True)
                ax.set_xlabel(axes.flat[0].get_xlabel() or "Frequency per axis")
        marker_legend(figure, results)
        depth_colorbar(figure, list(axes.flat))
        return figure


def depth_figure(results: Sequence[Spectra], titles: Sequence[str]) -> Figure:
    """Depth profiles overlaid, or one with its steps shaded: delta on maps of one grid, else the log density."""
    with style():
        figure = Figure(figsize=(COLUMN if len(results) == 1 else 0.7 * PAGE, 2.6))
        ax, view, alone = figure.subplots(), view_of(results), len(results) == 1
        profiles = [profile(result, view) for result in results]
        looks = categories(len(results))
        for each, title, color, marker in zip(profiles, titles, looks, itertools.cycle(MARKERS), strict=False):
            draw_depth_profile(ax, each, color=color, marker=marker, label=short_title(title), shade=alone)
        _draw_inputs(ax, results, view, looks)
        more = input_text(results)
        if alone:
            ax.set_title(short_title(titles[0]))
            shade_legend(ax, profiles[0], more)
        else:
            if view.quantity == "log_density":
                _white_level(ax, 0.0, "white noise")
            ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
            if more:
                ax.set_title(more, fontsize=6)
        if view.quantity == "delta" and len(view.grids) > 1:  # no radial profiles: the grids are named instead
            ax.annotate(f"grids differ: {grid_span(view.grids)}", (0.02, 0.02), xycoords="axes fraction", fontsize=5.5)
        return figure


def spectra_of_one(result: Spectra, title: str, *, ax: Axes | None = None) -> Figure:
    """The spectra of one result, in axes of the caller's where they are given; returns their figure."""
    if ax is None:
        return spectra_figure([result], [title])
    with style():
        draw_spectra(ax, result)
        ax.set_title(short_title(title))
    return figure_of(ax)


def depth_of_one(result: Spectra, title: str, *, ax: Axes | None = None) -> Figure:
    """The depth profile of one result, likewise."""
    if ax is None:
        return depth_figure([result], [title])
    with style():
        draw_depth_profile(ax, profile(result), label=short_title(title), shade=True)
        _draw_inputs(ax, [result], view_of(result), ["0.15"])
        ax.set_title(short_title(title))
    return figure_of(ax)


def figure_of(ax: Axes) -> Figure:
    """The figure that axes belong to.

    Raises:
        ResultError: they belong to none.
    """
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ResultError("these axes belong to no figure: give those of matplotlib's subplots.")
    return figure

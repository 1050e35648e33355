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
from numpy.typing import NDArray

from fourier_probe.plots.style import (
    ATTENTION_SHADE,
    COLUMN,
    DOWNSAMPLE_SHADE,
    MARKERS,
    PAGE,
    canvas,
    categories,
    depth_colors,
    figure_of,
    foot,
    frequency_axis,
    legend_titles,
    panel_columns,
    short_title,
    style,
    wrapped_title,
)
from fourier_probe.probe.metrics import ZERO_MEAN_WHITE_NOISE
from fourier_probe.probe.sums import quantile
from fourier_probe.results.input_level import InputLevel, input_level
from fourier_probe.results.point import PointSpectrum
from fourier_probe.results.profile import Profile, View, difference_at, profile, view_of
from fourier_probe.results.spectra import Spectra

BANDED = 8  # curves, at most, that all have a band; of more, the bands of the first and last do not run together


def draw_spectra(ax: Axes, result: Spectra) -> Axes:
    """Delta against frequency, one curve per stream point, coloured by depth.

    The band is the 95 % jackknife interval over images; of more than 8 curves, of the first and the last only. Nyquist,
    a real coefficient half ln 2 lower than its neighbours, is drawn apart as an open circle. Triangles in the right
    margin are the level of white noise with the mean and variance of each point; the dotted line is that of zero-mean
    white noise.

    Source: the layout of Park & Kim 2022, figure 2; the axis is the true one unless the result says "paper".
    """
    cmap, points = depth_colors(), _drawn(result)
    for point in points:
        color, usable = cmap(point.depth), point.usable
        frequency, delta = point.frequency[:usable], point.delta[:usable]
        width = 0.8 if len(points) > BANDED else 1.1
        ax.plot(frequency, delta, color=color, marker="." if usable < 3 else None, linewidth=width)
        if any(point is other for other in _banded(points)):
            band = quantile(result.definition.groups) * point.stderr[:usable]
            ax.fill_between(frequency, delta - band, delta + band, color=color, alpha=0.25, linewidth=0)
        if usable < len(point.frequency):
            ax.plot(point.frequency[usable:], point.delta[usable:], "o", mfc="none", mec=color, ms=3, mew=0.7)
        white = point.scalars.get("white_delta", np.nan)
        if np.isfinite(white):
            beside = ax.get_yaxis_transform()  # x in widths of the axes, y in nats
            ax.plot([1.02], [white], marker="<", ms=3, mew=0, color=color, transform=beside, clip_on=False)
    if result.definition.log != "log1p":  # its logarithm has a scale, and so no such level
        _white_level(ax, ZERO_MEAN_WHITE_NOISE, "white noise, zero mean")
    ax.margins(y=0.08)
    frequency_axis(ax)
    if result.definition.axis == "paper":
        ax.set_xlabel(f"{ax.get_xlabel()} (paper's axis)")
    ax.set_ylabel(r"$\Delta$ log amplitude (nats)")
    return ax


def _white_level(ax: Axes, level: float, label: str) -> None:
    ax.axhline(level, color="0.45", linestyle=":", linewidth=0.8, zorder=0)
    ax.annotate(label, (0, level), (3, 1.5), textcoords="offset points", fontsize=5.5, color="0.35")


def grid_span(grids: Sequence[str]) -> str:
    """The grids of points in a few words."""
    return ", ".join(grids) if len(grids) < 6 else f"{', '.join(grids[:2])} ... {grids[-1]}"


def spectra_foot(figure: Figure, results: Sequence[Spectra]) -> None:
    """Say, below the panels, what bands, open circles and triangles are; and the grids, where delta is of several."""
    points = [point for result in results for point in _drawn(result)]
    handles: list[Any] = []
    if any(point.usable < len(point.frequency) for point in points):
        hollow: dict[str, Any] = {"marker": "o", "mfc": "none", "mec": "0.3", "ms": 3, "mew": 0.7}
        handles.append(Line2D([], [], linestyle="", label="Nyquist", **hollow))
    if any(np.isfinite(point.scalars.get("white_delta", np.nan)) for point in points):
        label = "white noise, same mean and variance"
        handles.append(Line2D([], [], linestyle="", marker="<", color="0.3", ms=3, label=label))
    grids = list(dict.fromkeys("x".join(map(str, point.grid)) for point in points))
    notes = [rf"$\Delta$ depends on the grid, here {grid_span(grids)}."] if len(grids) > 1 else []
    foot(figure, handles, [_bands_note(results), *notes], columns=2)


def _bands_note(results: Sequence[Spectra]) -> str:
    """Which bands are drawn, and over how many images."""
    drawn = [_drawn(result) for result in results]
    if not any(_banded(points) for points in drawn):
        return ""
    which = ", of the first and the last point" if any(len(points) > BANDED for points in drawn) else ""
    return f"Bands: 95 % over {images_span(results)}{which}."


def images_span(results: Sequence[Spectra]) -> str:
    """How many images results are of.

    >>> images_span([])
    'images'
    """
    counts = sorted({result.images.n for result in results})
    return f"{counts[0]} images" if len(counts) == 1 else "images"


def _drawn(result: Spectra) -> list[PointSpectrum]:
    return [point for point in result.stream if point.highest > 0]


def _banded(points: Sequence[PointSpectrum]) -> list[PointSpectrum]:
    """The points whose band is drawn: all of a few, else the first and the last."""
    chosen = points if len(points) <= BANDED else (points[0], points[-1])
    return [point for point in chosen if np.isfinite(point.stderr).all()]


def draw_depth_profile(
    ax: Axes,
    profile: Profile,
    *,
    color: object = "#1f4e79",
    marker: str = "o",
    label: str | None = None,
    shade: bool = True,
    steps: NDArray[np.float64] | None = None,
) -> Axes:
    """A profile against depth, delta or log density, with 95 % intervals over images.

    With `shade` the steps of attention are shaded grey and those that subsample blue, from the step before to the step,
    and a dashed line is the level of white noise: of delta with each point's own mean and variance, since delta depends
    on the grid; of log density it is 0.

    Args:
        ax: to draw on.
        profile: the values.
        color: of the line.
        marker: of the points.
        label: of a legend.
        shade: whether steps and white noise are drawn too.
        steps: (P,) standard errors of each value minus the one before, paired over images (`step_errors`). The bars
            are then of the step to each point, and a band is of the values.
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
    if steps is not None and error is not None:
        ax.fill_between(x, y - error, y + error, color=color, alpha=0.15, linewidth=0)
        error = profile.quantile * steps
    ax.errorbar(x, y, error, color=color, label=label, marker=marker, ms=3, capsize=1.5, elinewidth=0.7)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("Normalized depth")
    ax.set_ylabel(profile.label)
    return ax


INPUT_PLACE = -0.11  # of the images themselves, left of depth 0


def draw_input(ax: Axes, level: InputLevel, *, quantile: float, color: object) -> Axes:
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
                    capsize=1.5, linestyle="")  # fmt: skip
        if not level.alike and low - room <= level.white <= high + room:
            ax.plot([INPUT_PLACE - 0.025, INPUT_PLACE + 0.025], [level.white] * 2, color="0.45", linewidth=0.9)
    else:
        edge, up = (0.03, False) if level.value < low else (0.97, True)
        ax.plot([INPUT_PLACE], [edge], marker="^" if up else "v", ms=4, mfc=face, mec=color, mew=0.8,
                transform=ax.get_xaxis_transform(), clip_on=False, linestyle="")  # fmt: skip
        beside = "" if level.alike else f" (white {level.white:.1f})"
        ax.annotate(f"{level.value:.1f}{beside}", (INPUT_PLACE, edge), (4, 0), xycoords=ax.get_xaxis_transform(),
                    textcoords="offset points", fontsize=5.5, va="center", color=color)  # fmt: skip
    ax.axvline(INPUT_PLACE / 2, color="0.8", linewidth=0.6, zorder=0)
    ax.set_xlim(1.6 * INPUT_PLACE, 1.02)
    ax.set_xticks([INPUT_PLACE, 0, 0.5, 1], ["input", "0", "0.5", "1"])
    return ax


def _draw_inputs(ax: Axes, results: Sequence[Spectra], view: View, colors: Sequence[object]) -> None:
    """The images of results beside their profiles: once where all networks saw the same, else in each one's colour."""
    levels = [(input_level(result, view), result, color) for result, color in zip(results, colors, strict=True)]
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
    return f"input: {shown}, read against the dash, white noise there." if grids else ""


def step_errors(result: Spectra, view: View) -> NDArray[np.float64] | None:
    """(P,) standard error over images of each value of a profile minus the one before; None where sums are not known.

    The question of a depth profile is what each step did, and every image passes through both sides of it: the paired
    error is often a tenth of the error of either value. The first point has none (NaN).
    """
    points = [result[name] for name in profile(result, view).names]
    if len(points) < 2 or any(point.sums is None for point in points):
        return None
    after = [difference_at(point, before, view)[1] for before, point in itertools.pairwise(points)]
    return np.array([np.nan, *after]) if np.isfinite(after).all() else None


def shade_handles(profile: Profile) -> list[Any]:
    """Artists that say what the shades and the dashed line mean, where there are any."""
    handles: list[Any] = [
        Patch(facecolor=color, edgecolor="0.5", linewidth=0.5, label=label)
        for op, color, label in (
            ("attention", ATTENTION_SHADE, "attention step"),
            ("downsample", DOWNSAMPLE_SHADE, "subsampling step"),
        )
        if op in profile.ops
    ]
    if np.isfinite(profile.white).any():
        handles.append(Line2D([], [], color="0.45", linestyle="--", linewidth=0.8, label="white noise"))
    return handles


def depth_colorbar(figure: Figure, axes: Axes | Sequence[Axes]) -> None:
    """The colour bar of depth beside one Axes or several."""
    mappable = cm.ScalarMappable(norm=colors.Normalize(0, 1), cmap=depth_colors())
    bar = figure.colorbar(mappable, ax=axes, pad=0.05, aspect=30)
    bar.set_label("Normalized depth")
    bar.outline.set_linewidth(0.5)


# --- whole figures ---------------------------------------------------------------------------------------------------


def spectra_figure(results: Sequence[Spectra], titles: Sequence[str]) -> Figure:
    """Spectra side by side, one panel per result, shared axes, one colour bar."""
    with style():
        columns = panel_columns(len(results))
        rows = -(-len(results) // columns)
        figure = canvas(COLUMN if columns == 1 else PAGE, 0.35 + 2.4 * rows)
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for ax, result, title in zip(axes.flat, results, titles, strict=False):
            draw_spectra(ax, result)
            fitting = short_title(title) if columns < 3 else wrapped_title(title)
            ax.set_title(fitting, fontsize=8 if max(map(len, titles)) <= 24 or columns < 3 else 6)
        label_outer(axes, len(results), axes.flat[0].get_xlabel(), axes.flat[0].get_ylabel())
        depth_colorbar(figure, list(axes.flat))
        spectra_foot(figure, results)
        return figure


def label_outer(axes: NDArray[Any], panels: int, xlabel: str, ylabel: str) -> None:
    """Hide what is beyond the panels, and name axes at the left edge and below the last panel of each column."""
    columns = axes.shape[1]
    for index, ax in enumerate(axes.flat):
        ax.set_visible(index < panels)
        ax.set_ylabel("" if index % columns else ylabel)
        last = index + columns >= panels
        ax.set_xlabel(xlabel if last else "")
        ax.xaxis.set_tick_params(labelbottom=last)
        ax.yaxis.set_tick_params(labelleft=index % columns == 0)


def depth_figure(results: Sequence[Spectra], titles: Sequence[str]) -> Figure:
    """Depth profiles overlaid, or one with its steps shaded: delta on maps of one grid, else the log density."""
    with style():
        alone = len(results) == 1
        figure = canvas(COLUMN if alone else 0.75 * PAGE, 2.8)
        ax, view = figure.subplots(), view_of(results)
        profiles = [profile(result, view) for result in results]
        known = any(np.isfinite(along.stderr).all() for along in profiles)
        note = f"Bars: 95 % over {images_span(results)}." if known else ""
        handles: list[Any] = []
        colors = categories(len(results))
        if alone:
            steps = step_errors(results[0], view)
            draw_depth_profile(ax, profiles[0], steps=steps)
            ax.set_title(short_title(titles[0]))
            handles = shade_handles(profiles[0])
            if steps is not None:
                note = f"95 % over {images_span(results)}; bars: of the step to a point, paired; band: of its value."
        else:
            entries = zip(profiles, legend_titles(titles), colors, itertools.cycle(MARKERS), strict=False)
            for along, title, color, marker in entries:
                draw_depth_profile(ax, along, color=color, marker=marker, label=title, shade=False)
            if view.quantity == "log_density":
                _white_level(ax, 0.0, "white noise")
            side_legend(figure, ax)
        _draw_inputs(ax, results, view, ["0.15"] if alone else colors)
        differ = view.quantity == "delta" and len(view.grids) > 1  # no radial profiles: the grids are named instead
        grids = rf"$\Delta$ depends on the grid, here {grid_span(view.grids)}." * differ
        foot(figure, handles, [note, grids, input_text(results)])
        return figure


def side_legend(figure: Figure, ax: Axes) -> None:
    """The legend on the right of wide figures, above those of one column."""
    if figure.get_figwidth() > 1.2 * COLUMN:
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    else:
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", fontsize=6)


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
        draw_depth_profile(ax, profile(result), label=short_title(title))
        _draw_inputs(ax, [result], view_of(result), ["0.15"])
        ax.set_title(short_title(title))
    return figure_of(ax)

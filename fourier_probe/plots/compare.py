"""Several results on Axes: panels by two keys, step changes, the coordinate, density. Sees results, never models."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fourier_probe.plots.spectra import (
    depth_colorbar,
    draw_depth_profile,
    draw_spectra,
    images_span,
    label_outer,
    shade_handles,
    side_legend,
    spectra_foot,
    step_errors,
)
from fourier_probe.plots.style import (
    MARKERS,
    PAGE,
    canvas,
    categories,
    foot,
    legend_titles,
    panel_columns,
    short_title,
    style,
    wrapped_title,
)
from fourier_probe.results.coordinate import common_axes, surface
from fourier_probe.results.profile import View, profile, view_of
from fourier_probe.results.spectra import Spectra
from fourier_probe.results.steps import StepChanges

OPS = ("attention", "mlp", "conv", "downsample", "embed")


def panels_figure(cells: Mapping[tuple[str, str], Spectra], rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Spectra in a grid of panels with shared axes, a row per model and a column per data scale, schedule or the like.

    Args:
        cells: (row, column) -> result; a cell that is missing stays empty.
        rows: labels from top to bottom.
        columns: labels from left to right.
    """
    with style():
        figure = canvas(max(PAGE * len(columns) / 4, 3.5), 0.5 + 1.9 * len(rows))
        axes = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
        for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
            ax = axes[i, j]
            if (row, column) in cells:
                draw_spectra(ax, cells[row, column])
            else:
                ax.text(0.5, 0.5, "no run", transform=ax.transAxes, ha="center", va="center", color="0.5")
            named = wrapped_title(column)
            ax.set_title(f"{wrapped_title(row)}\n{named}" if len(rows) > 1 else named, fontsize=7)
            ax.label_outer()
        depth_colorbar(figure, list(axes.flat))
        spectra_foot(figure, list(cells.values()))
        return figure


def draw_steps(ax: Axes, tables: Sequence[Sequence[StepChanges]], labels: Sequence[str], view: View) -> Axes:
    """Step change of high frequencies by what the step did: a dot per step, the mean with its interval, the median.

    Args:
        ax: to draw on.
        tables: of `results.steps.step_changes`, one per target.
        labels: of the targets.
        view: the quantity of the changes.
    """
    ops = [op for op in OPS if any(kind.op == op for table in tables for kind in table)]
    width = 0.8 / len(tables)
    titles = legend_titles(labels)
    for index, (table, title, color) in enumerate(zip(tables, titles, categories(len(tables)), strict=True)):
        for kind in table:
            x = ops.index(kind.op) - 0.4 + width * (index + 0.5)
            ax.plot([x] * kind.steps, [step.change for step in kind.each], "o", ms=3, mew=0, color=color, alpha=0.45)
            error = kind.quantile * kind.stderr if np.isfinite(kind.stderr) else None
            ax.errorbar([x], [kind.change], error, marker="D", ms=4, color=color, capsize=2, mec="white", mew=0.4)
            ax.plot([x], [kind.median], "_", ms=13, mew=1.2, color=color)
        ax.plot([], [], "D", ms=4, color=color, label=title)
    ax.axhline(0, color="0.45", linewidth=0.6, linestyle=":", zorder=0)
    ax.set_xticks(range(len(ops)), [{"mlp": "MLP", "conv": "convolution"}.get(op, op) for op in ops])
    ax.set_xlim(-0.5, len(ops) - 0.5)
    quantity = rf"$\Delta$ at {view.at:.2f}$\pi$" if view.quantity == "delta" else f"log density at r {view.at:.2f}"
    ax.set_ylabel(f"Step change of\n{quantity} (nats)")
    return ax


def zigzag_figure(results: Sequence[Spectra], titles: Sequence[str]) -> Figure:
    """Depth profiles side by side on shared axes, what each step is shaded: where attention lowers and an MLP raises.

    Bars are of the step to each point, paired over images.
    """
    with style():
        columns = panel_columns(len(results))
        rows = -(-len(results) // columns)
        figure = canvas(PAGE, 0.5 + 2.4 * rows)
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        view = view_of(results)
        profiles = [profile(result, view) for result in results]
        handles: dict[str, Any] = {}
        for ax, result, along, title in zip(axes.flat, results, profiles, titles, strict=False):
            draw_depth_profile(ax, along, steps=step_errors(result, view))
            ax.set_title(short_title(title) if columns < 3 else wrapped_title(title))
            handles |= {handle.get_label(): handle for handle in shade_handles(along)}
        label_outer(axes, len(results), "Normalized depth", view.label)
        seen = images_span(results)
        bars = "bars: of the step to a point, paired over images; band: of its value" if any(
            point.sums is not None for point in results[0].stream
        ) else "bars: of the values"  # fmt: skip
        foot(figure, list(handles.values()), [f"95 % over {seen}; {bars}. Not shaded: MLPs and convolutions."])
        return figure


def steps_figure(tables: Sequence[Sequence[StepChanges]], labels: Sequence[str], view: View) -> Figure:
    """Do attentions lower and MLPs raise the high frequencies? See `draw_steps`."""
    with style():
        figure = canvas(0.75 * PAGE, 2.7)
        ax = figure.subplots()
        draw_steps(ax, tables, labels, view)
        side_legend(figure, ax)
        foot(
            figure,
            notes=["Dots: one step each. Lines: their median. Diamonds: their mean, with 95 % over images, paired."],
        )
        return figure


def draw_coordinate(ax: Axes, rows: Sequence[dict[str, Any]]) -> Axes:
    """The inductive-bias coordinate t against the distance from the segment, with 95 % intervals over images."""
    placed = [row for row in rows if np.isfinite(row["t"])]
    titles = legend_titles([row["target"] for row in placed])
    for row, label, color, marker in zip(
        placed, titles, categories(len(placed)), itertools.cycle(MARKERS), strict=False
    ):
        errors = [row["quantile"] * row[f"{name}_stderr"] for name in ("t", "distance")]
        x, y = ([error] if np.isfinite(error) else None for error in errors)
        ax.errorbar(row["t"], row["distance"], y, x, color=color, marker=marker, capsize=1.5, linestyle="", label=label)
    ax.plot([0, 1], [0, 0], color="0.3", linewidth=1.2, zorder=0)
    text: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "top", "fontsize": 6.5, "color": "0.3"}
    ax.annotate("CNN", (0, 0), (0, -4), **text)
    ax.annotate("ViT", (1, 0), (0, -4), **text)
    ax.set_xlabel("Inductive-bias coordinate t")
    ax.set_ylabel("Distance from the segment\nover its length")
    ax.margins(0.08)
    ax.set_ylim(bottom=-0.12 * max([1.0, *(row["distance"] for row in placed)]))
    return ax


def coordinate_figure(rows: Sequence[dict[str, object]]) -> Figure:
    """Where targets lie between a CNN and a ViT; see `results.coordinate`."""
    with style():
        figure = canvas(0.75 * PAGE, 2.7)
        ax = figure.subplots()
        draw_coordinate(ax, rows)
        side_legend(figure, ax)
        foot(figure, notes=["Bars: 95 % over images. The line from CNN to ViT is the segment."])
        return figure


def density_figure(results: Sequence[Spectra], titles: Sequence[str]) -> Figure:
    """`log_density` over depth and radius, all results on one grid by linear interpolation; 0 is white noise."""
    axes_of = common_axes(results)
    values = [surface(result, axes_of)[0] for result in results]
    limit = max(float(np.abs(value).max()) for value in values)
    norm = colors.TwoSlopeNorm(0, -limit, limit)
    columns = panel_columns(len(results))
    rows = -(-len(results) // columns)
    with style():
        figure = canvas(max(PAGE * columns / 4, 3.5), 0.4 + 1.7 * rows)
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for ax, value, title in zip(axes.flat, values, titles, strict=False):
            mesh = ax.pcolormesh(
                axes_of.radius, axes_of.depth, value, cmap="RdBu_r", norm=norm, shading="gouraud", rasterized=True
            )
            ax.set_title(wrapped_title(title), fontsize=7 if len(title) <= 22 else 6)
            ax.xaxis.set_major_locator(MaxNLocator(4))
        label_outer(axes, len(results), "Radius (1: Nyquist)", "Normalized depth")
        bar = figure.colorbar(mesh, ax=list(axes.flat), pad=0.02, aspect=30)
        bar.set_label("Log density (nats; 0: white)")
        bar.outline.set_linewidth(0.5)
        foot(
            figure, notes=[f"Means over {images_span(results)}; no interval is drawn: density.csv has standard errors."]
        )
        return figure

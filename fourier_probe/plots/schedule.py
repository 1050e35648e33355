"""A schedule on Axes: which layer is a convolution, and when it becomes attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fourier_probe.plots.style import COLUMN, canvas, foot, short_title, style

CONVOLUTION, RAMP, ATTENTION = "#cfe3f5", "#7d93b8", "#2b3f73"
_NAMED = 24  # layers whose names still fit


def draw_schedule(
    ax: Axes,
    layers: Sequence[str],
    switches: Mapping[str, int],
    epochs: int,
    *,
    ends: Mapping[str, int] | None = None,
) -> Axes:
    """One bar a layer, the first layer on top: pale while it is a convolution, dark once it is attention.

    Args:
        ax: to draw on.
        layers: names in execution order; those that do not switch stay pale.
        switches: layer -> epoch at whose start it converts.
        epochs: length of the training.
        ends: layer -> epoch at which a soft conversion is over.
    """
    over = ends or {}
    for row, layer in enumerate(layers):
        start = switches.get(layer, epochs)
        end = over.get(layer, start)
        for left, right, color in ((0, start, CONVOLUTION), (start, end, RAMP), (end, epochs, ATTENTION)):
            if right > left:
                ax.barh(row, right - left, left=left, height=0.8, color=color, linewidth=0)
        if layer in switches and len(layers) <= _NAMED:
            late = start > 0.85 * epochs  # no room on the right of the switch
            ax.annotate(
                str(start),
                (start, row),
                xytext=(-2 if late else 2, 0),
                textcoords="offset points",
                va="center",
                ha="right" if late else "left",
                fontsize=6,
                color="black" if late or end > start else "white",
            )
    ax.set_xlim(0, epochs)
    ax.set_ylim(len(layers) - 0.5, -0.5)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("Epoch")
    if len(layers) <= _NAMED:
        ax.set_yticks(range(len(layers)), [short_title(layer) for layer in layers])
    else:
        ax.set_ylabel("Layer, in execution order")
    return ax


def schedule_figure(
    layers: Sequence[str],
    switches: Mapping[str, int],
    epochs: int,
    *,
    ends: Mapping[str, int] | None = None,
    title: str = "",
) -> Figure:
    """`draw_schedule` in a column's width, with a legend below."""
    with style():
        height = 0.9 + 0.17 * min(len(layers), _NAMED)
        figure = canvas(COLUMN, height)
        ax = figure.add_subplot()
        draw_schedule(ax, layers, switches, epochs, ends=ends)
        if title:
            ax.set_title(short_title(title))
        schedule_foot(figure, soft=bool(ends))
    return figure


def schedule_foot(figure: Figure, *, soft: bool) -> None:
    """Say what the colours are."""
    parts = [("convolution", CONVOLUTION), *([("on the way", RAMP)] if soft else []), ("attention", ATTENTION)]
    note = "Numbers: the epoch at whose start a layer is converted."
    foot(figure, [Patch(color=color, label=label) for label, color in parts], [note])

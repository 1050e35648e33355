"""Responses of kernels on Axes: what each layer passes, by its kernel alone. Sees results, never models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fourier_probe.errors import ResultError
from fourier_probe.plots.spectra import depth_colorbar
from fourier_probe.plots.style import PAGE, canvas, depth_colors, short_title, style
from fourier_probe.results.kernels import KernelRecord

Line = Literal["-", "--", "-.", ":"]
LOOKS: dict[str, tuple[Line, str]] = {
    "dense": ("-", "o"),
    "grouped": ("-.", "^"),
    "depthwise": ("--", "s"),
    "transposed": ("-", "v"),
    "attention": (":", "D"),
}
"""Line and marker of each kind of layer."""


def draw_responses(ax: Axes, kernels: Sequence[KernelRecord], t95: float) -> Axes:
    """The ln of power over the sum of squared taps against radius, one curve per layer, coloured by depth.

    The band is a 95 % interval, over output channels; of attention over images.
    """
    for kernel in kernels:
        color = depth_colors()(kernel.depth)
        value = np.array([math.nan if number is None else number for number in kernel.log_power])
        error = np.array([math.nan if number is None else number for number in kernel.stderr])
        ax.plot(kernel.radius, value, color=color, linestyle=LOOKS[kernel.kind][0], linewidth=0.9)
        if np.isfinite(error).all():
            ax.fill_between(
                kernel.radius, value - t95 * error, value + t95 * error, color=color, alpha=0.2, linewidth=0
            )
    ax.axhline(0, color="0.45", linestyle=":", linewidth=0.8, zorder=0)
    ax.set_xlim(0, 1)
    ax.set_xlabel("Radius (1: Nyquist of an axis)")
    ax.set_ylabel("ln power / squared taps (nats)")
    return ax


def draw_tilts(ax: Axes, kernels: Sequence[KernelRecord], t95: float) -> Axes:
    """Power at Nyquist over that at frequency 0, in nats, against depth; below 0 a layer smooths."""
    for kernel in kernels:
        if kernel.tilt is None:
            continue
        error = None if kernel.tilt_stderr is None else t95 * kernel.tilt_stderr
        ax.errorbar([kernel.depth], [kernel.tilt], error, marker=LOOKS[kernel.kind][1], ms=3.5, mec="white", mew=0.3,
                    color=depth_colors()(kernel.depth), capsize=1.5, elinewidth=0.7, linestyle="")  # fmt: skip
    ax.axhline(0, color="0.45", linestyle=":", linewidth=0.8, zorder=0)
    ax.set_xlim(-0.04, 1.04)
    ax.set_xlabel("Normalized depth")
    ax.set_ylabel("Tilt: at radius 1 minus at 0 (nats)")
    return ax


def kernels_figure(kernels: Sequence[KernelRecord], title: str, t95: float) -> Figure:
    """Responses, and tilt against depth, of all layers of more than one tap.

    Raises:
        ResultError: there is none.
    """
    shown = [kernel for kernel in kernels if kernel.taps > 1]
    if not shown:
        raise ResultError("no layer has a kernel of more than one tap: there is no response to draw.")
    with style():
        figure = canvas(PAGE, 2.7)
        axes = figure.subplots(1, 2)
        draw_responses(axes[0], shown, t95)
        draw_tilts(axes[1], shown, t95)
        kinds = [kind for kind in LOOKS if any(kernel.kind == kind for kernel in shown)]
        handles = [
            Line2D([], [], color="0.3", ls=LOOKS[kind][0], marker=LOOKS[kind][1], ms=3.5, label=kind) for kind in kinds
        ]
        flat = len(kernels) - len(shown)
        note = f"{flat} kernels of one tap, flat at 0, are not drawn" if flat else None
        figure.legend(handles=handles, loc="outside lower left", ncols=5, fontsize=6, title=note, title_fontsize=6,
                      alignment="left")  # fmt: skip
        depth_colorbar(figure, list(axes))
        figure.suptitle(short_title(title), fontsize=8)
        return figure

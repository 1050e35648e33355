"""CKA matrices on Axes. Sees results, never models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from fourier_probe.errors import ResultError
from fourier_probe.plots.style import hide, literal, short_title, style
from fourier_probe.results.cka import CkaRecord

NAMED = 14  # points, at most, that are all named
WRITTEN = 8  # points, at most, whose values stand in the cells


def draw_cka(ax: Axes, record: CkaRecord, t95: float) -> AxesImage:
    """CKA of every pair of points, shallow ones below and at the left; the title has the widest half interval."""
    value = np.array([[math.nan if number is None else number for number in row] for row in record.value])
    error = np.array([[math.nan if number is None else number for number in row] for row in record.stderr])
    image = ax.imshow(value, vmin=0, vmax=1, cmap="magma", origin="lower", interpolation="nearest")
    _names(ax, record)
    ax.set_xlabel(short_title(record.b))
    ax.set_ylabel(short_title(record.a))
    if max(value.shape) <= WRITTEN:
        for (i, j), number in np.ndenumerate(value):
            if math.isfinite(number):
                ax.text(j, i, f"{number:.2f}", ha="center", va="center", fontsize=5, color="k" if number > 0.6 else "w")
    widest = np.nanmax(error, initial=-1.0) if np.isfinite(error).any() else -1.0
    half = rf", $\pm$ {t95 * widest:.2f} at most" if widest >= 0 else ""
    ax.set_title(f"CKA, n = {record.images}{half}", fontsize=6)
    return image


def _names(ax: Axes, record: CkaRecord) -> None:
    for names, put, turned in ((record.rows, ax.set_yticks, 0), (record.columns, ax.set_xticks, 90)):
        step = max(-(-len(names) // NAMED), 1)
        at = range(0, len(names), step)
        put(list(at), [literal(names[i] if len(names[i]) <= 18 else f"...{names[i][-15:]}") for i in at],
            fontsize=5, rotation=turned)  # fmt: skip


def cka_figure(records: Sequence[CkaRecord], title: str, t95: float) -> Figure:
    """One panel per pair of networks, the same colours in all; `t95` standard errors are a 95 % interval.

    Raises:
        ResultError: there is none.
    """
    if not records:
        raise ResultError("there is no CKA in these results: analyze or compare with --cka.")
    columns = min(len(records), 3)
    rows = -(-len(records) // columns)
    with style():
        figure = Figure(figsize=(0.9 + 2.5 * columns, 2.6 * rows + (0.2 if title else 0)))
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax, record in zip(axes.flat, records, strict=False):
            image = draw_cka(ax, record, t95)
        hide(axes.flat[len(records) :])
        bar = figure.colorbar(image, ax=list(axes.flat[: len(records)]), pad=0.02, aspect=30)
        bar.set_label("CKA (1: the same but for rotation and scale)", fontsize=6)
        bar.outline.set_linewidth(0.5)
        if title:
            figure.suptitle(short_title(title), fontsize=8)
        return figure

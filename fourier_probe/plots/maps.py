"""Mean 2-D spectra on Axes, one panel per point, DC in the middle. Sees results, never models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from fourier_probe.errors import ResultError
from fourier_probe.plots.style import ShownFigure, literal, style
from fourier_probe.probe.sums import quantile
from fourier_probe.results.point import INPUT, Array, PointSpectrum
from fourier_probe.results.spectra import Spectra

Scale = Literal["common", "panel"]
ACROSS = 7  # panels in a row, at most
SIDE, GAP, ABOVE, TITLE, LEFT = 0.86, 0.09, 0.3, 0.34, 0.25  # of a panel, beside it, above it, of a title; inches


def draw_map(ax: Axes, values: Array, norm: Normalize, cmap: str) -> AxesImage:
    """A map (H, W) with DC in the middle; axes in pi rad/sample, vertical upwards as in a heat map.

    On an even grid the Nyquist frequency is one bin, -pi and pi in one: it is drawn at both borders.
    """
    H, W = values.shape
    edges = [side * (size // 2 * 2 + 1) / size for size in (W, H) for side in (-1, 1)]
    values = np.pad(values, ((0, 1 - H % 2), (0, 1 - W % 2)), mode="wrap")
    image = ax.imshow(values, norm=norm, cmap=cmap, extent=tuple(edges), aspect="auto", origin="lower")
    ax.set_box_aspect(1)
    ax.set_xlim(-1.0, 1.0)
    ax.set_ylim(-1.0, 1.0)
    ax.set_xticks([-1, 0, 1], [r"$-\pi$", "0", r"$\pi$"])
    ax.set_yticks([-1, 0, 1], [r"$-\pi$", "0", r"$\pi$"])
    ax.tick_params(labelsize=5, length=1.5, pad=1)
    return image


def centred(point: PointSpectrum) -> Array:
    """The map minus its mean over all frequencies but 0: 0 where the power is that of white noise, on every grid."""
    values = np.asarray(point.map, dtype=np.float64)
    rest = _without_dc(values)
    return np.asarray(values - (rest.mean() if rest.size else values.mean()))


def maps_figure(results: Sequence[Spectra], titles: Sequence[str], *, scale: Scale = "common") -> Figure:
    """Mean 2-D log-amplitude of every point, one block of panels per result, the images first.

    Args:
        results: with maps.
        titles: of the results.
        scale: "common": one colour scale for all panels, of the log amplitude minus its mean over all frequencies but 0
            (0 is white noise). "panel": each panel from its own least to its own largest value but that at 0, printed
            above it.

    Raises:
        ResultError: no point has a map, or there is no such scale.
    """
    if scale not in ("common", "panel"):
        raise ResultError(f"map_scale {scale!r}: expected common or panel.")
    blocks = [(title, result, _rows(result)) for result, title in zip(results, titles, strict=True)]
    blocks = [block for block in blocks if block[2]]
    if not blocks:
        raise ResultError("no point of these results has a 2-D map: analyze with --maps.")
    shown = [point for _, _, rows in blocks for row in rows for point in row]
    common = _common_norm([point for point in shown if point.kind != INPUT] or shown)
    columns = max(len(row) for _, _, rows in blocks for row in rows)
    width = LEFT + max(columns, 2) * (SIDE + GAP) + (0.95 if scale == "common" else 0.1)
    height = 0.4 + sum(TITLE + len(rows) * (SIDE + ABOVE) for _, _, rows in blocks)
    with style():
        figure = ShownFigure(figsize=(width, height))
        figure.set_layout_engine("none")  # every panel has its place
        top, image = height, None
        for title, result, rows in blocks:
            top -= TITLE
            figure.text(LEFT / width, (top + 0.01) / height, literal(title[: 16 * max(columns, 2)]), fontsize=8)
            for turn, row in enumerate(rows):
                top -= SIDE + ABOVE
                for column, point in enumerate(row):
                    rectangle = (LEFT + column * (SIDE + GAP)) / width, top / height, SIDE / width, SIDE / height
                    ax = figure.add_axes(rectangle)
                    image = _panel(ax, point, common, scale, quantile(result.definition.groups))
                    if column:
                        ax.set_yticklabels([])
                    if turn + 1 < len(rows) and len(rows[turn + 1]) > column:
                        ax.set_xticklabels([])
        if scale == "common" and image is not None:
            length = min(height - 0.9, 3.0)
            rectangle = (width - 0.8) / width, (height - 0.45 - length) / height, 0.1 / width, length / height
            bar = figure.colorbar(image, cax=figure.add_axes(rectangle), extend="max")
            bar.set_label("log amplitude minus mean (nats)" if length > 1.5 else "nats", fontsize=6)
            bar.ax.tick_params(labelsize=6)
            bar.outline.set_linewidth(0.5)
        figure.text(LEFT / width, 0.05 / height, _foot(scale, shown), fontsize=6)
        return figure


def _panel(ax: Axes, point: PointSpectrum, common: Normalize, scale: Scale, t95: float) -> AxesImage:
    values = np.asarray(point.map, dtype=np.float64)
    grid = "x".join(map(str, point.grid))
    more = "" if point.map_stderr is None else rf" $\pm${t95 * float(point.map_stderr.max()):.2f}"
    if scale == "common":
        image = draw_map(ax, centred(point), common, "RdBu_r")
    else:
        rest = _without_dc(values)
        rest = rest if rest.size else values
        low, high = float(rest.min()), float(rest.max())
        image = draw_map(ax, values, Normalize(low, high if high > low else low + 1), "magma")
        more = f" {low:.1f} to {high:.1f}"
    beside = point.kind == "branch"
    ax.set_title(f"{_short(point.name)}\n{grid}{more}", fontsize=5, pad=2, linespacing=1.0,
                 color="#1f4e79" if beside else "black", style="italic" if beside else "normal")  # fmt: skip
    return image


def _foot(scale: Scale, shown: Sequence[PointSpectrum]) -> str:
    """What the axes are, and the numbers above the panels."""
    axes = "Frequency per axis (rad/sample), 0 in the middle, vertical upwards."
    if scale == "panel":
        return f"{axes} Above: grid, least to largest value."
    known = any(point.map_stderr is not None for point in shown)
    return f"{axes} Above: grid{', widest 95 % over images' if known else ''}."


def _short(name: str) -> str:
    """A name that fits a panel: its end counts most."""
    return literal(name if len(name) <= 20 else f"...{name[-17:]}")


def _rows(result: Spectra) -> list[list[PointSpectrum]]:
    """Panels in rows, a step behind its branches, in one with them; none is alone in the last, where that can be."""
    steps: list[list[PointSpectrum]] = [[]]
    for point in _all(result):
        if point.map is not None:
            steps[-1].append(point)
            if point.kind != "branch" or result.selected:
                steps.append([])
    steps = [step for step in steps if step]
    count = sum(map(len, steps))
    across = min(ACROSS, max(math.ceil(math.sqrt(count)), min(count, 5), min(max(map(len, steps), default=1), ACROSS)))
    choices = [_laid(steps, wide) for wide in (*range(across, ACROSS + 1), *range(across - 1, 2, -1))]
    return next((rows for rows in choices if len(rows) < 2 or len(rows[-1]) > 1), choices[0] if choices else [])


def _laid(steps: Sequence[Sequence[PointSpectrum]], across: int) -> list[list[PointSpectrum]]:
    """Steps in rows of at most so many panels, a step in one row where it fits."""
    rows: list[list[PointSpectrum]] = [[]]
    for step in steps:
        if len(rows[-1]) + len(step) > across and rows[-1]:
            rows.append([])
        for point in step:
            if len(rows[-1]) == across:  # more branches than fit
                rows.append([])
            rows[-1].append(point)
    return [row for row in rows if row]


def _all(result: Spectra) -> list[PointSpectrum]:
    return [*([] if result.input is None or result.input.kind != INPUT else [result.input]), *result.points]


def _common_norm(points: Sequence[PointSpectrum]) -> Normalize:
    """Symmetric about 0, as far as any panel goes without its frequency 0, but for the outermost hundredth."""
    rests = [np.abs(_without_dc(centred(point))) for point in points]
    rests = [rest for rest in rests if rest.size]
    most = max((float(np.quantile(rest, 0.99)) for rest in rests), default=1.0)
    return TwoSlopeNorm(0.0, -max(most, 1e-3), max(most, 1e-3))


def _without_dc(values: Array) -> Array:
    """All values of a map but that in the middle, which is frequency 0."""
    H, W = values.shape
    return np.delete(values.ravel(), (H // 2) * W + W // 2)

"""What `fourier-probe analyze` prints: one row per point, then what was measured beside. Imports results."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fourier_probe.probe.sums import quantile
from fourier_probe.results.input_level import input_level
from fourier_probe.results.parts import parts_of
from fourier_probe.results.profile import has_frequencies, profile, view_of
from fourier_probe.results.records import weights_text
from fourier_probe.results.spectra import PointSpectrum, Spectra
from fourier_probe.results.text_table import TextTable, plus_minus

if TYPE_CHECKING:
    import pandas as pd

    from fourier_probe.results.reliance import RelianceRecord

FEW = 60
"""Images under which intervals are a little narrow."""


def tables_of(result: Spectra, label: str) -> list[TextTable]:
    """The table of points and what its columns mean, the parts measured beside, and remarks."""
    tables = [_points_table(result, label)]
    for part in parts_of(result):
        if part.short is not None:
            tables += _part_table(part.title, part.short(result), part.reading)
    if result.reliance is not None:
        tables.append(_reliance_table(result.reliance))
    if 20 <= result.images.n < FEW:
        few = f"Under {FEW} images the intervals are a little narrow: give more with --images."
        tables.append(TextTable("", (), (), few))
    return tables


def _points_table(result: Spectra, label: str) -> TextTable:
    heading, meaning, values = _levels(result)
    further = [(metric, metric.at(result.points)) for metric in result.metrics if not metric.ours]
    t95 = quantile(result.definition.groups)
    rows = tuple(
        (
            point.name,
            point.op,
            "x".join(map(str, point.grid)),
            str(point.channels),
            "input" if point is result.input else f"{point.depth:.2f}",
            values.get(point.name, "-"),
            _shown(point.scalars.get("hfd_share") if _has_low(point) else None, "{:.3f}".format),
            _shown(point.hfd_share_white if _has_low(point) else None, "{:.3f}".format),
            _shown(point.scalars.get("slope"), "{:+.2f}".format),
            *(_interval(*metric.of(point, at), t95) for metric, at in further),
        )
        for point in ([] if result.input is None else [result.input]) + result.points
    )
    headings = [metric.titled if at is None else f"{metric.titled} at r {at:.2f}" for metric, at in further]
    top1 = "" if result.top1 is None else f", top-1 {100 * result.top1:.1f} %"
    weights = weights_text(result.target.weights)
    caption = (
        f"{meaning.rstrip('.')}; nats, ± 95 % over images. HFD share: part of the power beyond half the Nyquist "
        "frequency; white: that of white noise on the same grid. slope: of ln power density on ln frequency, 0 for "
        "white noise."
    )
    return TextTable(
        f"{label}{weights}: {result.images.text}{top1}",
        ("point", "op", "grid", "ch", "depth", heading, "HFD share", "white", "slope", *headings),
        rows,
        caption if result.coverage is None else f"{caption}\ncoverage: {result.coverage.text()}.",
    )


def _levels(result: Spectra) -> tuple[str, str, dict[str, str]]:
    """Heading and meaning of the column of the depth profile, and its cell for each point that has one."""
    if not has_frequencies(result):
        return "delta", "delta: ln amplitude relative to DC, nats", {}
    view = view_of(result)
    meaning, along = view.why, profile(result, view)

    halves = along.quantile * along.stderr
    values = dict(zip(along.names, map(plus_minus, along.value, halves), strict=True))
    if (level := input_level(result, view)) is not None:
        values["input"] = plus_minus(level.value, along.quantile * level.stderr)
        if not level.alike:
            values["input"] += " *"
            white = f": read it against white noise, {level.white:+.2f}" if level.white == level.white else ""
            meaning = f"{meaning.rstrip('.')}. * of another grid{white}"
    return view.heading, meaning, values


def _has_low(point: PointSpectrum) -> bool:
    """Whether a map has frequencies below half of Nyquist beside 0: on 2x2 maps the share of the others is 1 always."""
    return point.hfd_share_white is not None and point.hfd_share_white < 1


def _shown(value: float | None, form: Callable[[float], str]) -> str:
    return form(value) if value is not None and value == value else "-"


def _interval(value: float, stderr: float, t95: float) -> str:
    if value != value:
        return "-"
    return f"{value:.4g}" + (f" ± {t95 * stderr:.2g}" if stderr == stderr else "")


def _part_table(title: str, frame: pd.DataFrame | None, reading: str) -> list[TextTable]:
    """A short table of what was measured beside the spectra; each ± with the number before it."""
    if frame is None or frame.empty:
        return []
    names = [name for name in frame.columns if not name.startswith("±")]
    after = dict(zip(frame.columns, frame.columns[1:], strict=False))

    def cell(row: pd.Series, name: str) -> str:
        value, half = row[name], row.get(after.get(name, ""), None)
        if value is None or value != value:
            return "-"
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        error = half if isinstance(half, float) and str(after.get(name)).startswith("±") and half == half else None
        return text if error is None else f"{text} ± {error:.2g}"

    rows = tuple(tuple(cell(row, name) for name in names) for _, row in frame.iterrows())
    return [TextTable(title, tuple(names), rows, reading)]


def _reliance_table(record: RelianceRecord) -> TextTable:
    """Top-1 lost without each half by layer, and what the parameters say."""
    frame = record.table()

    def cell(at: int, value: float) -> str:
        return "-" if value != value else f"{value:+.1f}" if at < 4 else f"{value:.2f}"

    again = "" if record.training is None else f", BatchNorm estimated again on {record.training} training images"
    return TextTable(
        f"reliance: change of top-1 without a half, percentage points, {record.images} images, intact "
        f"{100 * record.top1:.1f} %",
        ("layer", *frame.columns),
        tuple((str(layer), *(cell(*column) for column in enumerate(values))) for layer, *values in frame.itertuples()),
        f"exchanged: the half comes from another image; off: it is switched off{again}. gate x tap: 1 is the "
        "convolution; displacement in pixels. A gate alone is no measure of reliance.",
    )

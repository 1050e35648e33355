"""The section of further measures: for each that a result holds its figure, its short table, and how it is read.

May import results.parts, results.answer_parts and plots; escapes everything. Figures are PNG in the page itself.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib as mpl
import pandas as pd

from fourier_probe.page.answered import Answered
from fourier_probe.page.inputs import Entry
from fourier_probe.plots.style import style
from fourier_probe.results.answer_parts import CKA_PARTS, HEATMAP_PARTS, VALIDATION_PARTS
from fourier_probe.results.heatmap import HeatMap, TargetRecord
from fourier_probe.results.parts import Part, Result, parts_of
from fourier_probe.results.records import Provenance
from fourier_probe.results.similarity import Similarity
from fourier_probe.results.validation import Validation

ROOM = 2_500_000  # bytes of figures in a page; from the first beyond on they are left out, and said to be
ELSEWHERE = ("metrics",)  # parts that have a place of their own in the page
DOTS = 110  # per inch


@dataclass(frozen=True)
class _Shown:
    """One measure of one result, or of several in one figure: what stands above it, what draws it, and its table."""

    name: str
    title: str
    reading: str
    label: str
    draw: Callable[[], str | None]
    table: str
    notes: tuple[str, ...] = ()


def section(entries: Sequence[Entry], answered: Answered | None = None) -> str:
    """The measures of all results, one after the other, each target's beside its label; empty where there is none."""
    measures: dict[str, list[_Shown]] = {}
    for shown in _all(entries, answered or Answered()):
        measures.setdefault(shown.name, []).append(shown)
    room, left_out, blocks = ROOM, 0, []
    for name, of in measures.items():
        figures = []
        for shown in of:
            figure = shown.draw() if not left_out else None  # drawing costs most of a large page's time
            if left_out or len(figure or "") > room:
                figure, left_out = None, left_out + 1
            room -= len(figure or "")
            figures.append(_html(shown, figure))
        blocks.append(
            f'<section id="measure-{escape(name)}"><h3>{escape(of[0].title)}</h3>{"".join(figures)}'
            f'<p class="note"><b>How to read this.</b> {escape(of[0].reading)}</p></section>'
        )
    if not blocks:
        return ""
    omitted = f'<p class="note">To keep this page small, {left_out} figures are in the result files alone.</p>'
    return (
        f'<section id="measures" aria-labelledby="measures-title"><h2 id="measures-title">Further measures</h2>'
        f"{''.join(blocks)}{omitted if left_out else ''}</section>"
    )


def link(html: str) -> str:
    """The entry of the list of sections, where there is such a section."""
    return '<a href="#measures">Measures</a>' if html else ""


def provenance(answered: Answered) -> str:
    """Of what network and images each result beside the analyses is; empty where there is none."""
    results: list[tuple[str, str, Provenance | TargetRecord, Validation | HeatMap | Similarity]] = [
        ("Validation", label, result.target, result) for label, result in answered.validations
    ]
    for group in answered.heat_maps:
        results += [("Heat map", label, heat.target, heat) for label, heat in zip(group.labels, group, strict=True)]
    for each in answered.similarities:
        results += [("CKA", label, target, each) for label, target in zip(each.labels, each.targets, strict=True)]
    if not results:
        return ""
    rows = []
    for kind, label, target, result in results:
        images = result.images
        split = f", {images.split} split" if images.split else ""
        rows.append(
            {
                "": kind,
                "target": label,
                "file": target.source,
                "SHA-256": target.sha256,
                "images": f"{images.text}{split}",
                "digest of the pixels": images.digest,
                "noise": _noise(result),
                "versions": ", ".join(f"{name} {version}" for name, version in result.versions.items()),
            }
        )
    title = "Validations and heat maps" + ", comparisons by CKA" * bool(answered.similarities)
    return f"<h3>{title}</h3>{_scrolled(pd.DataFrame(rows), title)}"


def _noise(result: Validation | HeatMap | Similarity) -> str | None:
    if not isinstance(result, HeatMap):
        return None
    definition = result.definition
    return definition.kind if definition.eps is None else f"{definition.kind}, L2 norm {definition.eps:.3g}"


def _all(entries: Sequence[Entry], answered: Answered) -> Iterator[_Shown]:
    """Measure by measure, in the order of each list of parts."""
    names = list(dict.fromkeys(part.name for entry in entries for part in parts_of(entry.result)))
    for name in names:
        for entry in entries:
            for part in parts_of(entry.result):
                if part.name == name and name not in ELSEWHERE:
                    yield _measure(part, entry.result, entry.label)
    for cka_part in CKA_PARTS:
        for similarity in answered.similarities:
            yield _measure(cka_part, similarity, similarity.label)
    for validation_part in VALIDATION_PARTS:
        for label, result in answered.validations:
            if validation_part.present(result):
                yield _measure(validation_part, result, label, tuple(result.notes))
    for heat_part in HEATMAP_PARTS:
        for heats in answered.heat_maps:
            if heat_part.present(heats):
                notes = tuple(dict.fromkeys(note for heat in heats for note in heat.notes))
                yield _measure(heat_part, heats, ", ".join(heats.labels), notes)


def _measure(part: Part[Result], result: Result, label: str, notes: tuple[str, ...] = ()) -> _Shown:
    frame = None if part.short is None else part.short(result)
    table = "" if frame is None or frame.empty else _table(frame, f"{part.title} of {label}")
    return _Shown(part.name, part.title, part.reading, label, lambda: _figure(part, result, label), table, notes)


def _html(shown: _Shown, figure: str | None) -> str:
    alternative = escape(f"{shown.title} of {shown.label}", quote=True)
    image = "" if figure is None else f'<img alt="{alternative}" src="data:image/png;base64,{figure}">'
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in shown.notes)
    return f'<figure class="measure"><figcaption>{escape(shown.label)}</figcaption>{image}{notes}{shown.table}</figure>'


def _figure(part: Part[Result], result: Result, label: str) -> str | None:
    """The figure as base64; None where it cannot be drawn: its numbers are in the table."""
    buffer = io.BytesIO()
    try:
        figure = part.draw(result, label)
        with style(), mpl.rc_context({"savefig.dpi": DOTS}):
            figure.savefig(buffer, format="png", metadata={"Software": None})
    except Exception:  # whatever a drawing raises, the page is made
        return None
    return base64.b64encode(buffer.getvalue()).decode()


def _table(frame: pd.DataFrame, title: str) -> str:
    """A folded table; a column that begins with ± is the half interval of the one before it."""
    return f"<details><summary>Table</summary>{_scrolled(frame, title)}</details>"


def _scrolled(frame: pd.DataFrame, title: str) -> str:
    head = "".join(f'<th scope="col">{escape(str(name).strip())}</th>' for name in frame.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row) + "</tr>"
        for row in frame.itertuples(index=False)
    )
    return (
        f'<div class="scroll" role="region" aria-label="{escape(title, quote=True)}" tabindex="0"><table><thead>'
        f"<tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if math.isfinite(value) else "-"
    return "-" if value is None else str(value)

"""The section of further measures: for each that a result holds its figure, its short table, and how it is read.

May import results.parts and plots; escapes everything. Figures are PNG in the page itself.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape

import matplotlib as mpl
import pandas as pd

from fourier_probe.page.inputs import Entry
from fourier_probe.plots.style import style
from fourier_probe.results.parts import Part, parts_of

ROOM = 2_500_000  # bytes of figures in a page; those beyond are left out, and said to be
ELSEWHERE = ("metrics",)  # parts that have a place of their own in the page
DOTS = 110  # per inch


def section(entries: Sequence[Entry]) -> str:
    """The measures of all results, one after the other, each target's beside its label; empty where there is none."""
    parts: dict[str, Part] = {}
    for entry in entries:
        parts |= {part.name: part for part in parts_of(entry.result) if part.name not in ELSEWHERE}
    room = ROOM
    blocks = []
    left_out = 0
    for name, part in parts.items():
        shown = []
        for entry in entries:
            if not part.present(entry.result):
                continue
            figure = _figure(part, entry)
            if figure is not None and len(figure) > room:
                figure, left_out = None, left_out + 1
            room -= len(figure or "")
            shown.append(_of(part, entry, figure))
        blocks.append(
            f'<section id="measure-{escape(name)}"><h3>{escape(part.title)}</h3>{"".join(shown)}'
            f'<p class="note"><b>How to read this.</b> {escape(part.reading)}</p></section>'
        )
    if not blocks:
        return ""
    said = f'<p class="note">To keep this page small, {left_out} figures are in the result files alone.</p>'
    return (
        f'<section id="measures" aria-labelledby="measures-title"><h2 id="measures-title">Further measures</h2>'
        f"{''.join(blocks)}{said if left_out else ''}</section>"
    )


def link(html: str) -> str:
    """The entry of the list of sections, where there is such a section."""
    return '<a href="#measures">Measures</a>' if html else ""


def _of(part: Part, entry: Entry, figure: str | None) -> str:
    alternative = escape(f"{part.title} of {entry.label}", quote=True)
    image = "" if figure is None else f'<img alt="{alternative}" src="data:image/png;base64,{figure}">'
    frame = None if part.short is None else part.short(entry.result)
    table = "" if frame is None or frame.empty else _table(frame, f"{part.title} of {entry.label}")
    return f'<figure class="measure"><figcaption>{escape(entry.label)}</figcaption>{image}{table}</figure>'


def _figure(part: Part, entry: Entry) -> str | None:
    """The figure as base64; None where it cannot be drawn: its numbers are in the table."""
    buffer = io.BytesIO()
    try:
        figure = part.draw(entry.result, entry.label)
        with style(), mpl.rc_context({"savefig.dpi": DOTS}):
            figure.savefig(buffer, format="png", metadata={"Software": None})
    except Exception:  # whatever a drawing raises, the page is made
        return None
    return base64.b64encode(buffer.getvalue()).decode()


def _table(frame: pd.DataFrame, title: str) -> str:
    """A folded table; a column that begins with ± is the half interval of the one before it."""
    head = "".join(f'<th scope="col">{escape(str(name).strip())}</th>' for name in frame.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row) + "</tr>"
        for row in frame.itertuples(index=False)
    )
    return (
        f'<details><summary>Table</summary><div class="scroll" role="region" aria-label="{escape(title, quote=True)}" '
        f'tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>'
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if math.isfinite(value) else "-"
    return "-" if value is None else str(value)

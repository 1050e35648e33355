"""The page as one string: template, style, script, tables and data put together. May import payload, tables.

What the template has for analyses is left out of a page without any. All parts are escaped where they are made.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from fourier_probe.errors import ResultError, printable
from fourier_probe.page import measures, tables
from fourier_probe.page.answered import Answered
from fourier_probe.page.inputs import Entry
from fourier_probe.page.payload import THINNINGS, Thinning, payload

LIMIT = 5_000_000  # bytes of a page


def render(entries: Sequence[Entry], answered: Answered | None = None, *, title: str | None = None) -> str:
    """The report as HTML: the same string for the same results.

    Args:
        entries: from `gather`; may be empty where something was answered.
        answered: validations and heat maps.
        title: the heading; the labels by default.

    Raises:
        ResultError: even thinned, the page would be larger than `LIMIT`.
    """
    answered = answered or Answered()
    title = title or _title([entry.label for entry in entries] or answered.labels)
    further = measures.section(entries, answered)
    if not entries:
        return _alone(answered, title, further)
    parts = _parts(entries, title, further, measures.provenance(answered))
    for thinning in THINNINGS:
        html = _page(parts | _numbers(entries, thinning), of_analyses=True)
        if len(html.encode()) <= LIMIT:
            return html
    raise ResultError(
        f"{len(entries)} results with {sum(len(entry.result.points) for entry in entries)} points make a page above "
        f"{LIMIT / 1e6:.0f} MB, even with most frequencies left out: name fewer results."
    )


def _alone(answered: Answered, title: str, further: str) -> str:
    """A page of validations and heat maps, without any analysis: nothing to pick or hover."""
    labels = answered.labels
    who = f"{labels[0]} answers" if len(labels) == 1 else f"{len(labels)} networks answer"
    parts = {
        "title": escape(title),
        "lede": escape(f"What {who}: {answered.about}."),
        "definition": "",
        "data": json.dumps({"targets": [], "metrics": [], "profiles": [], "view": {"label": ""}}),
        "measures": further,
        "measures_link": measures.link(further),
        "provenance": measures.provenance(answered),
        "excluded": "",
        "attention_hidden": " hidden",
        "training_hidden": " hidden",
    }
    return _page(parts, of_analyses=False)


def _numbers(entries: Sequence[Entry], thinning: Thinning) -> dict[str, str]:
    """The parts that change with what is left out."""
    data = payload(entries, thinning)
    attention = any(target["attention"] for target in data["targets"])
    training = any(target["training"] for target in data["targets"])
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return {
        "data": text.replace("<", "\\u003c"),  # neither </script> nor <!-- can end or open anything
        "view": escape(data["view"]["label"]),
        "thinned": f'<p class="note">{escape(thinning.says)}</p>' if thinning.says else "",
        "profile_notes": tables.metric_notes(data["profiles"]),
        "metric_notes": tables.metric_notes(data["metrics"]),
        "attention_hidden": "" if attention else " hidden",
        "training_hidden": "" if training else " hidden",
    }


def _parts(entries: Sequence[Entry], title: str, further: str, answered: str) -> dict[str, str]:
    """The parts that are there in full, whatever is left out of the charts."""
    groups = tables.groups_table(entries)
    return {
        "title": escape(title),
        "lede": tables.lede(entries),
        "definition": tables.definition_text(entries),
        "filters": tables.filters(entries),
        "groups": groups,
        "summary": _folded(tables.summary_table(entries), len(entries), bool(groups)),
        "view_why": tables.view_text(entries),
        "axis_note": tables.axis_note(entries),
        "images": tables.images_text(entries),
        "left_out": tables.left_out_text(entries),
        "reliance": tables.reliance_text(entries),
        "measures": further,
        "measures_link": measures.link(further),
        "provenance": tables.provenance(entries) + answered,
        "excluded": tables.excluded_text(entries),
    }


def _page(parts: dict[str, str], *, of_analyses: bool) -> str:
    """The template with its parts, style and script."""
    from jinja2 import Environment, StrictUndefined

    script = _file("chart.js") + _file("page.js")
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    jinja = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 - parts are escaped
    filled = jinja.from_string(_file("page.html")).render(
        parts, of_analyses=of_analyses, style=_file("page.css"), script=script, script_hash=hashed
    )
    return printable(filled, lines=True)


def _folded(table: str, results: int, grouped: bool) -> str:
    """A table of many results folds under that of their groups."""
    if not grouped or results <= tables.MANY:
        return table
    return f"<details><summary>Every result ({results})</summary>{table}</details>"


def _title(labels: Sequence[str]) -> str:
    """The labels, three at most; of many their number."""
    if len(labels) > tables.MANY:
        return f"{len(labels)} networks"
    if len(labels) == 1:
        return labels[0]
    shown, more = (labels[:2], f"{len(labels) - 2} more") if len(labels) > 3 else (labels[:-1], labels[-1])
    return f"{', '.join(shown)} and {more}"


def _file(name: str) -> str:
    return files("fourier_probe.page").joinpath(name).read_text(encoding="utf-8")

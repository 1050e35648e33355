"""The tables and sentences of the page, as HTML that needs no script. May import compare; escapes everything."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from fourier_probe.page.inputs import Entry
from fourier_probe.page.payload import further_metrics, view_label
from fourier_probe.probe.sums import quantile
from fourier_probe.results.input_level import input_text
from fourier_probe.results.intervals import over_seeds
from fourier_probe.results.profile import ends_of, profile, view_of
from fourier_probe.results.side_by_side import paired, summary

COLORS = 7  # classes t0 to t6 of page.css
MANY = 12  # results above which the page has filters, and columns with one value are left out
_DASH = '<span class="none">–</span>'  # noqa: RUF001
Cell = tuple[str, float | str | None]
"""What a cell shows, as HTML, and the value it is sorted by."""


def summary_table(entries: Sequence[Entry]) -> str:
    """One row a target, with buttons to sort by; columns that no target has a value for are left out."""
    results = [entry.result for entry in entries]
    rows, view = summary(results, [entry.label for entry in entries]), view_of(results)
    at, ends = view_label(view), ends_of(results, view)
    named = all(entry.label.startswith(entry.model or "") for entry in entries)  # what a label says needs no column
    columns: dict[str, list[Cell]] = {
        "Target": [_target(row["target"], index) for index, row in enumerate(rows)],
        "Model": [_text(None if named else entry.model) for entry in entries],
        "Weights": [_text(row["weights"]) for row in rows],
        "Schedule": [_text(entry.schedule) for entry in entries],
        "Data scale": [_number(row["data_scale"], "{:.4g}") for row in rows],
        "Seed": [_number(row["seed"], "{:.0f}") for row in rows],
        "Epoch": [_number(row["epoch"], "{:.0f}") for row in rows],
        "Top-1": [_number(row["top1"], "{:.1%}") for row in rows],
        "Points": [_number(row["points"], "{:d}") for row in rows],
        "Last grid": [_text(row["last_grid"].replace("x", "×")) for row in rows],  # noqa: RUF001
        f"{at[0].upper()}{at[1:]}, last point": [
            _number(end.last, "{:+.2f}", row["quantile"] * end.last_stderr) for end, row in zip(ends, rows, strict=True)
        ],
        "HFD share (white)": [
            _number(row["last_hfd_share"], "{:.3f}", beside=row["last_hfd_share_white"]) for row in rows
        ],
        "Slope": [_number(row["last_slope"], "{:+.2f}") for row in rows],
        **_further(entries),
    }
    shown = {name: cells for name, cells in columns.items() if _tells(name, cells)}
    numeric = {name: any(isinstance(value, float) for _, value in cells) for name, cells in shown.items()}
    head = "".join(
        f'<th scope="col"{" class=number" * numeric[name]}><button type="button">{escape(name)}</button></th>'
        for name in shown
    )
    body = "".join(
        f'<tr data-target="{index}">'
        + "".join(
            _cell(cells[index], "th" if column == 0 else "td", numeric[name])
            for column, (name, cells) in enumerate(shown.items())
        )
        + "</tr>"
        for index in range(len(rows))
    )
    return f'<table id="summary-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _further(entries: Sequence[Entry]) -> dict[str, list[Cell]]:
    """Scalar metrics that are not of this package, at the last point of the stream."""
    columns: dict[str, list[Cell]] = {}
    for metric in further_metrics(entries):
        if metric.kind == "scalar":
            cells = []
            for entry in entries:
                value, stderr = metric.of(entry.result.stream[-1])
                cells.append(_number(value, "{:.4g}", quantile(entry.result.definition.groups) * stderr))
            columns[metric.titled] = cells
    return columns


def _tells(name: str, cells: Sequence[Cell]) -> bool:
    """Whether a column says something: no column without values; of many results, none with one value only."""
    values = {value for _, value in cells}
    alike = name in ("Weights", "Schedule", "Data scale", "Seed", "Points") and len(values) == 1 and len(cells) > MANY
    return values != {None} and not alike


def groups_table(entries: Sequence[Entry]) -> str:
    """Mean and 95 % interval over seeds of results that differ in their seed alone; empty where none do."""
    results = [entry.result for entry in entries]
    view = view_of(results)
    at, ends = view_label(view), ends_of(results, view)
    groups = {entry.group: [index for index, other in enumerate(entries) if other.group == entry.group]
              for entry in entries}  # fmt: skip
    if not any(len(members) > 1 for members in groups.values()):
        return ""
    rows = []
    for group, members in groups.items():
        top1 = [result.top1 for index in members if (result := results[index]).top1 is not None]
        share = [ends_share for index in members if (ends_share := _last_share(entries[index])) is not None]
        value, half = over_seeds([ends[index].last for index in members])
        cells = [
            _number(len(members), "{:d}"),
            _over_seeds(top1, "{:.1%}"),
            _number(value, "{:+.2f}", half),
            _over_seeds(share, "{:.3f}"),
        ]
        rows.append((group, cells))
    heads = ["Model, schedule, data", "Seeds", "Top-1", f"{at[0].upper()}{at[1:]}, last point", "HFD share"]
    head = "".join(
        f'<th scope="col"{" class=number" * (k > 0)}><button type="button">{escape(name)}</button></th>'
        for k, name in enumerate(heads)
    )
    body = "".join(
        f'<tr data-group="{escape(group, quote=True)}">{_cell((escape(group), group), "th", False)}'
        + "".join(_cell(cell, "td", True) for cell in cells)
        + "</tr>"
        for group, cells in rows
    )
    return (
        '<h3>Over seeds</h3><div class="scroll" role="region" aria-label="Means over seeds" tabindex="0">'
        f'<table id="groups-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        '<p class="note">Mean ± 95 %, Student\'s t over seeds, where a row has two or more.</p>'
    )


def _over_seeds(values: Sequence[float], form: str) -> Cell:
    if not values:
        return _text(None)
    mean, half = over_seeds(values)
    percent = form.endswith("%}")
    return _number(mean, form, 100 * half if percent else half, points=percent)


def _last_share(entry: Entry) -> float | None:
    stream = [point for point in entry.result.stream if point.highest > 0]
    return stream[-1].scalars.get("hfd_share") if stream else None


def filters(entries: Sequence[Entry]) -> str:
    """Menus that leave only some models, schedules or parts of the data; empty for a few results."""
    if len(entries) <= MANY:
        return ""
    menus = []
    for name in entries[0].facets:
        values = sorted({entry.facets[name] for entry in entries})
        if len(values) > 1:
            options = "".join(f'<option value="{escape(v, quote=True)}">{escape(v)}</option>' for v in values)
            menu = f'<select data-facet="{name}"><option value="">all</option>{options}</select>'
            menus.append(f"<label>{name} {menu}</label>")
    return f'<div class="controls filters needs-script" id="filters">{"".join(menus)}<span id="filtered"></span></div>'


def provenance(entries: Sequence[Entry]) -> str:
    """Where every number comes from: a list of what all results share, and a table of what each has of its own."""
    images, definition = entries[0].result.images, entries[0].result.definition
    split = f", {images.split} split" if images.split else ""
    terms = {
        "Images": escape(f"{images.text}{split}"),
        "Digest of the raw pixels": _code(images.digest),
        "Logarithm": escape(definition.formula),
        "Window": definition.window,
        "Frequency axis": definition.axis,
        "Intervals": _intervals(entries),
    }
    columns: dict[str, list[str]] = {}
    for entry in entries:
        for name, value in _fields(entry).items():
            columns.setdefault(name, []).append(value)
    shared = [name for name, values in columns.items() if len(set(values)) == 1]
    terms |= {name: columns[name][0] for name in shared if columns[name][0] != _DASH}
    listed = f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{value}</dd>' for name, value in terms.items())}</dl>"
    own = {name: values for name, values in columns.items() if name not in shared}
    if not own:
        return listed
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("Target", *own))
    body = "".join(
        f'<tr><th scope="row">{_target(entry.label, index)[0]}</th>'
        + "".join(f"<td>{values[index]}</td>" for values in own.values())
        + "</tr>"
        for index, entry in enumerate(entries)
    )
    return (
        f'{listed}<div class="scroll" role="region" aria-label="Provenance of every target" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _intervals(entries: Sequence[Entry]) -> str:
    """What the intervals are over, and whether those of differences are paired."""
    results = [entry.result for entry in entries]
    text = f"95 %, jackknife over {results[0].definition.groups} groups of images"
    if len(results) > 1:
        text += ", paired" if paired(results) else ", not paired: the results do not share their groups"
    old = sum(result.definition.grouping is None for result in results)
    if old:
        text += f"; {old} of version 1, groups by image index: too wide where classes cycle through the file"
    return text


def images_text(entries: Sequence[Entry]) -> str:
    """What the images themselves have of what the profiles show; empty where no result holds them."""
    results = [entry.result for entry in entries]
    text = " ".join(input_text(results, [entry.label for entry in entries], view_of(results)))
    return f'<p class="note">{escape(text)}</p>' if text else ""


def metric_notes(metrics: Sequence[Sequence[str]]) -> str:
    """How to read metrics that are not of this package: their name in the page, title and summary."""
    return "".join(
        f'<p data-of="{escape(key, quote=True)}" hidden><b>{escape(title)}.</b> {escape(summary)} Intervals are of '
        "95 % over images and say nothing about training another network.</p>"
        for key, title, summary in metrics
    )


def left_out_text(entries: Sequence[Entry]) -> str:
    """Points of the stream that the depth profile cannot show; empty where there are none."""
    view = view_of([entry.result for entry in entries])
    names = [(entry.label, profile(entry.result, view).left_out) for entry in entries]
    sentence = "; ".join(f"{escape(', '.join(left_out))} of {escape(label)}" for label, left_out in names if left_out)
    return f'<p class="note">Too small for the depth profile, and so left out: {sentence}.</p>' if sentence else ""


def _fields(entry: Entry) -> dict[str, str]:
    """What one result says of itself, as HTML."""
    target, result = entry.result.target, entry.result
    arguments = target.model_args
    return {
        "File": _code(target.source),
        "SHA-256": _code(target.sha256),
        "Architecture": _escaped(target.arch),
        "Arguments": _code(json.dumps(arguments, default=str) if arguments else None),
        "Weights": _escaped(target.weights),
        "Trained on": _code(target.data),
        "Data scale": _escaped(target.data_scale),
        "Schedule": _escaped(target.schedule),
        "Seed": _escaped(target.seed),
        "Epoch": _escaped(target.epoch),
        "Pixels": _escaped("×".join(map(str, result.images.size or []))),  # noqa: RUF001
        "Mean": _escaped(_numbers(result.images.mean)),
        "Standard deviation": _escaped(_numbers(result.images.std)),
        "Versions": _escaped(", ".join(f"{name} {version}" for name, version in dict(result.versions).items())),
        "Analyzed": _escaped(result.created),
    }


def lede(entries: Sequence[Entry]) -> str:
    """What was compared, in a sentence or two."""
    images = entries[0].result.images
    count = len(entries)
    split = f" ({images.split} split)" if images.split else ""
    who = f"{count} networks see" if count > 1 else f"{entries[0].label} sees"
    untrained = sum(entry.result.target.weights == "untrained" for entry in entries)
    aside = ""
    if untrained:
        every = "It is" if count == 1 else "All are" if untrained == count else f"{untrained} of them are"
        aside = f" {every} untrained."
    again = " the same" if count > 1 else ""
    return escape(f"What {who} in{again} {images.text}{split}, frequency by frequency.{aside}")


def view_text(entries: Sequence[Entry]) -> str:
    """Which quantity profiles and the summary show, and why."""
    return escape(view_of([entry.result for entry in entries]).why)


def definition_text(entries: Sequence[Entry]) -> str:
    """How delta is defined here: logarithm, window, axis."""
    definition = entries[0].result.definition
    window = "no window" if definition.window == "none" else f"a {definition.window.capitalize()} window"
    axis = (
        "on the true axis, bin k of an N × N map at 2k/N"  # noqa: RUF001
        if definition.axis == "true"
        else "on the published axis, which draws the last bin at 1.0π wherever it lies"
    )
    return (
        "<b>Δ(f) = a(f) − a(0)</b>, in nats, where a(f) is the mean over images and channels of "  # noqa: RUF001
        f'<span class="formula">{escape(definition.formula)}</span> along the diagonal of the 2-D Fourier transform F '
        f"of a feature map, with {window}, {axis} (π rad/sample per axis)."
    )


def axis_note(entries: Sequence[Entry]) -> str:
    """How far to the right a curve goes, and why."""
    if entries[0].result.definition.axis == "paper":
        return "The axis is the published one: the last bin is drawn at π wherever it lies."
    return "The axis is the true one: curves of small maps end before π."


def excluded_text(entries: Sequence[Entry]) -> str:
    """How much of each network was read, and what was left out, with the reasons; empty where nothing is known."""
    read = [
        f"<li>{escape(entry.label)}: {escape(entry.result.coverage.text())}</li>"
        for entry in entries
        if entry.result.coverage is not None
    ]
    left_out = [
        f"<li>{escape(entry.label)}: {escape(unread.name)}, {escape(unread.reason)}</li>"
        for entry in entries
        for unread in (*entry.result.excluded, *(entry.result.coverage.unread if entry.result.coverage else ()))
    ]
    parts = (("Coverage:", read), ("Left out of the analyses:", left_out))
    return "".join(f"<p>{title}</p><ul>{''.join(items)}</ul>" for title, items in parts if items)


def _target(label: str, index: int) -> Cell:
    dash = f"t{index % COLORS} d{index // COLORS % 3}"  # as in page.js
    return f'<span class="swatch {dash}" aria-hidden="true"></span>{escape(label)}', label


def _text(value: object) -> Cell:
    return (_DASH, None) if value is None else (escape(str(value)), str(value))


def _number(
    value: object, form: str, half: float | None = None, beside: float | None = None, points: bool = False
) -> Cell:
    """A number with its 95 % interval, which may be in percentage points, or a reference in brackets."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return _DASH, None
    text = form.format(value).replace("-", "−")  # noqa: RUF001
    if half is not None and math.isfinite(half):
        text += f' <span class="aside">± {half:.{1 if points else 2}f}</span>'
    if beside is not None and math.isfinite(beside):
        text += f' <span class="aside">({form.format(beside)})</span>'
    return text, float(value)


def _cell(cell: Cell, tag: str, numeric: bool) -> str:
    text, value = cell
    scope = ' scope="row"' if tag == "th" else ""
    key = "" if value is None else escape(str(value), quote=True)
    return f'<{tag}{scope}{" class=number" * numeric} data-value="{key}">{text}</{tag}>'


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values or [])


def _escaped(value: object) -> str:
    return _DASH if value is None or value == "" else escape(str(value))


def _code(value: object) -> str:
    return _DASH if value is None or value == "" else f"<code>{escape(str(value))}</code>"


def reliance_text(entries: Sequence[Entry]) -> str:
    """What stands beside gates: that they are no measure of reliance, what is, and of which results it is not known."""
    gated = [entry for entry in entries if any(layer.gated for layer in entry.result.attention)]
    if not gated:
        return ""
    unknown = [entry.label for entry in gated if entry.result.reliance is None]
    text = " A gate is no measure of reliance: a layer may leave its convolution through its positions, and redundant "
    text += "layers hide each other."
    if len(unknown) < len(gated):
        text += (
            " Reliance is what top-1 loses, with 95 % over images, when one half of a layer, or of all layers "
            "together, is taken from another image."
        )
    if unknown:
        names = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        text += f" It was not measured of {names}: analyze --attention does on labelled images of its classes."
    return escape(text)

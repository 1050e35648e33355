"""What `fourier-probe compare` prints, as tables of text. Imports the rest of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fourier_probe.results.cka import most_alike
from fourier_probe.results.input_level import input_text
from fourier_probe.results.profile import ends_of
from fourier_probe.results.side_by_side import KEYS, key_of, paired, scale_text
from fourier_probe.results.text_table import TextTable, plus_minus

if TYPE_CHECKING:
    from fourier_probe.results.comparison import Comparison
    from fourier_probe.results.spectra import Spectra


def tables_of(comparison: Comparison) -> list[TextTable]:
    """The summary, what steps do, seeds as one arm, the coordinate, and similarity; those that have rows."""
    tables = [
        summary_table(comparison),
        _steps_table(comparison),
        _arms_table(comparison),
        _coordinate_table(comparison),
        _cka_table(comparison),
    ]
    return [table for table in tables if table.rows]


def summary_table(comparison: Comparison) -> TextTable:
    """What a reader asks first of each result."""
    t95 = comparison.rows[0]["quantile"]
    named = [] if comparison.by == "model" else [comparison.by]
    ends = ends_of(comparison.results, comparison.view)
    cells = [
        (
            row["target"],
            *(_key_text(result, name) for name in named),
            str(row["weights"]),
            plus_minus(row["top1"], None, "{:.1%}"),
            str(row["points"]),
            plus_minus(end.first, None, "{:+.2f}"),
            _interval(end.last, end.last_stderr, "{:+.2f}", t95),
            _interval(end.last_difference, end.last_difference_stderr, "{:+.2f}", t95) if index else "-",
            plus_minus(row["last_hfd_share"], None, "{:.3f}") + _in_brackets(row["last_hfd_share_white"]),
            _interval(row["hfd_share_difference"], row["hfd_share_difference_stderr"], "{:+.3f}", t95)
            if index
            else "-",
            plus_minus(row["last_slope"], None, "{:+.2f}"),
            f"{row['first_grid']} to {row['last_grid']}",
        )
        for index, (row, end, result) in enumerate(zip(comparison.rows, ends, comparison.results, strict=True))
    ]
    columns = ("target", *named, "weights", "top-1", "points", "first", "last", "last, minus first target",
               "HFD last (white)", "HFD, minus first target", "slope last", "grid")  # fmt: skip
    seen = comparison.results[0].images
    pairs = "paired" if paired(comparison.results) else "not paired (no shared image groups)"
    title = f"{seen.text}; {comparison.view.heading}, nats, ± 95 % over images, {pairs}"
    return TextTable(
        title,
        columns,
        tuple(cells),
        " ".join(
            [
                comparison.view.why,
                *input_text(comparison.results, comparison.labels, comparison.view),
                *_coverage(comparison),
            ]
        ),
    )


def _key_text(result: Spectra, by: str) -> str:
    if getattr(result.target, KEYS[by]) is None:
        return "-"
    key = key_of(result, by)
    return scale_text(key) if by == "data-scale" and isinstance(key, int | float) else str(key)


def _coverage(comparison: Comparison) -> list[str]:
    """A sentence on how much of each network was read, where that is known; one for all where many are read whole."""
    coverages = [result.coverage for result in comparison.results]
    if len(coverages) > 3 and all(known is not None and known.read == known.steps for known in coverages):
        return [f"Coverage: every step of the {len(coverages)} networks is read."]
    read = [
        f"{label} {result.coverage.text()}"
        for label, result in zip(comparison.labels, comparison.results, strict=True)
        if result.coverage is not None
    ]
    return [f"Coverage: {'; '.join(read)}."] if read else []


def _steps_table(comparison: Comparison) -> TextTable:
    kinds = [
        (label, kind) for label, changes in zip(comparison.labels, comparison.steps, strict=True) for kind in changes
    ]
    cells = tuple(
        (label, kind.op, _interval(kind.change, kind.stderr, "{:+.3f}", kind.quantile), f"{kind.median:+.3f}",
         f"{kind.raised} of {kind.steps}")
        for label, kind in kinds
    )  # fmt: skip
    title = f"what each step does: {comparison.view.heading} after it minus before it, nats"
    caption = (
        "A step is one attention, MLP or convolution block; above 0 it raises high frequencies. Mean ± 95 % over "
        "images, paired; a step that changes the grid is left out."
    )
    for label, kind in kinds:
        if (step := kind.carrier) is not None:
            caption += (
                f" The mean of {label}, {kind.op}, hangs on one step, {step.name} ({step.change:+.2f}): read the "
                "median."
            )
    return TextTable(title, ("target", "step", "mean over steps", "median step", "raising it"), cells, caption)


def _arms_table(comparison: Comparison) -> TextTable:
    cells = tuple(
        (
            arm.arm,
            str(arm.seeds),
            plus_minus(arm.value, arm.half),
            plus_minus(arm.top1, arm.top1_half, "{:.1%}"),
        )
        for arm in comparison.over_seeds
    )
    columns = ("arm", "seeds", f"{comparison.view.heading} at the last point, nats", "top-1")
    return TextTable("seeds as one arm: mean ± 95 %, Student's t over seeds", columns, cells)


def _coordinate_table(comparison: Comparison) -> TextTable:
    if not comparison.places:
        return TextTable("", (), ())
    t95, first = comparison.rows[0]["quantile"], comparison.places[0]
    cells = tuple(
        (
            row["target"],
            _interval(row["t"], row["t_stderr"], "{:+.2f}", t95) if row["t"] == row["t"] else "undefined",
            _interval(row["distance"], row["distance_stderr"], "{:.2f}", t95),
            plus_minus(row["cosine"], None, "{:+.2f}"),
        )
        for row in comparison.places
    )
    how = "points match one to one" if first["matched"] else "depths and radii interpolated onto a common grid"
    scatter = f"{first['scatter']:.2f}" if first["scatter"] == first["scatter"] else "unknown (no image groups)"
    title = f"between CNN (0) and ViT (1): segment {first['segment']:.2f} nats, scatter of its ends {scatter}; {how}"
    undefined = "The two ends lie closer together than twice their scatter over images: t is undefined."
    caption = undefined if first["t"] != first["t"] else ""
    return TextTable(title, ("target", "t", "distance / segment", "cosine"), cells, caption)


def _cka_table(comparison: Comparison) -> TextTable:
    t95 = comparison.rows[0]["quantile"]
    cells = []
    for record in comparison.cka:
        best = most_alike(record)
        if record.own or best is None:
            continue
        ends = [_interval(*record.at(at, at), "{:.3f}", t95) for at in (0, -1)]
        pair = f"{record.rows[best[0]]} and {record.columns[best[1]]}"
        cells.append((record.a, record.b, *ends, pair, _interval(*record.at(*best), "{:.3f}", t95)))
    columns = ("target", "with", "first points", "last points", "most alike", "CKA")
    seen = comparison.cka[0].images if comparison.cka else 0
    return TextTable(f"similarity of layers: linear CKA, {seen} images, ± 95 % over images", columns, tuple(cells))


def _interval(value: float | None, error: float | None, form: str, t95: float) -> str:
    return plus_minus(value, None if error is None else t95 * error, form)


def _in_brackets(value: float | None) -> str:
    return "" if value is None or value != value else f" ({value:.3f})"

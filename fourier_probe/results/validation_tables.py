"""What `fourier-probe validate` prints: all images, parts, classes; then what was measured beside. Imports results."""

from __future__ import annotations

from fourier_probe.results.intervals import Interval
from fourier_probe.results.records import weights_text
from fourier_probe.results.text_table import TextTable
from fourier_probe.results.validation import Validation

SHOWN = 20  # classes in the table


def tables_of(result: Validation) -> list[TextTable | str]:
    """All images, parts, classes; then top-5, loss, lesions, curvature and bound."""
    frame = result.table()
    rows = tuple(
        (str(name), str(images), *("-" if value != value else f"{value:.1f}" for value in values))
        for name, images, *values in frame.head(SHOWN + 3).itertuples()
    )
    title = f"{result.label}{weights_text(result.target.weights)}: {result.images.text}"
    tables: list[TextTable | str] = [TextTable(title, ("of", "images", "top-1, %", "from", "to"), rows)]
    if len(frame) > SHOWN + 3:
        tables.append(f"and {len(frame) - SHOWN - 3} classes more, in validation.csv")
    if result.top5 is not None:
        tables.append(f"top-5 {100 * result.top5.value:.1f} %")
    if result.loss is not None:
        tables.append(f"loss {result.loss.value:.4f} nats")
    if result.lesions:
        tables.append(_lesion_table(result))
    if result.curvature is not None:
        largest, batches = result.curvature.largest.value, len(result.curvature.eigenvalues)
        tables.append(f"largest eigenvalue of the Hessian {largest:.3g}, mean of {batches} minibatches")
    if result.bound is not None:
        tables.append(f"planted task: {result.bound}")
    tables.append("from, to: 95 % over images (Wilson).")
    return tables


def _lesion_table(result: Validation) -> TextTable:
    rows = tuple(
        (row.name, row.op, f"{row.depth:.2f}", f"{100 * row.top1.value:.1f}",
         *(f"{100 * value:+.1f}" for value in _ends(row.top1_change)))
        for row in result.lesions or []
    )  # fmt: skip
    columns = ("step", "op", "depth", "top-1, %", "change", "from", "to")
    return TextTable("one residual step replaced by the identity", columns, rows)


def _ends(interval: Interval) -> tuple[float, float, float]:
    low, high = interval.low, interval.high
    return interval.value, interval.value if low is None else low, interval.value if high is None else high

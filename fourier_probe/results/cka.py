"""CKA matrices as a part of a result, and their tables. Imports bounds.

The definitions are those of `probe.cka`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from fourier_probe.results.bounds import Correlation, Count, Share, Size

if TYPE_CHECKING:
    import pandas as pd

TITLE = "Similarity of layers (CKA)"
READING = (
    "Linear CKA of positions-averaged features: 1 where two layers say the same of the images but for rotation "
    "and scale, 0 where they share nothing; unbiased, so values a little below 0 are 0. ± 95 % over images."
)


class CkaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """CKA of the points of one network (`a`, rows) with those of another or its own (`b`, columns).

    Attributes:
        a, b: labels. rows, columns: names of points. row_depth, column_depth: of each, 0 to 1.
        value, stderr: (rows, columns); null where there is no such number.
        images, minibatch: how many images, and how many of them at a time.
    """

    a: str
    b: str
    rows: Annotated[list[str], Meta(min_length=1)]
    columns: Annotated[list[str], Meta(min_length=1)]
    row_depth: list[Share]
    column_depth: list[Share]
    value: list[list[Correlation | None]]
    stderr: list[list[Size | None]]
    images: Count
    minibatch: Count

    def __post_init__(self) -> None:
        for name in ("value", "stderr"):
            matrix = getattr(self, name)
            if len(matrix) != len(self.rows) or any(len(row) != len(self.columns) for row in matrix):
                raise ValueError(f"`{name}` is not of {len(self.rows)} rows and {len(self.columns)} columns")
        if len(self.row_depth) != len(self.rows) or len(self.column_depth) != len(self.columns):
            raise ValueError("`row_depth` and `column_depth` are not of as many points")

    @property
    def own(self) -> bool:
        """Whether the two are one network."""
        return self.a == self.b

    def at(self, row: int, column: int) -> tuple[float, float]:
        """One value and its standard error; NaN where there is none."""
        value, error = self.value[row][column], self.stderr[row][column]
        return (math.nan if value is None else value), (math.nan if error is None else error)


def cka_frame(records: Sequence[CkaRecord]) -> pd.DataFrame:
    """A row per pair of points."""
    import pandas as pd

    rows = [
        {
            "a": record.a,
            "b": record.b,
            "row": row,
            "column": column,
            "cka": record.value[i][j],
            "stderr": record.stderr[i][j],
        }
        for record in records
        for i, row in enumerate(record.rows)
        for j, column in enumerate(record.columns)
    ]
    return pd.DataFrame(rows, columns=["a", "b", "row", "column", "cka", "stderr"])


def cka_table(record: CkaRecord, t95: float) -> pd.DataFrame:
    """A row per point of one network: CKA with the point before it, with the first and with the last."""
    import pandas as pd

    rows = []
    last = len(record.columns) - 1
    for at, name in enumerate(record.rows):
        row: dict[str, str | float] = {"point": name, "depth": record.row_depth[at]}
        for mark, (heading, other) in enumerate((("with the one before", at - 1), ("first", 0), ("last", last))):
            value, error = record.at(at, other) if other >= 0 else (math.nan, math.nan)
            row |= {heading: value, "±" + " " * mark: t95 * error}
        rows.append(row)
    return pd.DataFrame(rows)


def most_alike(record: CkaRecord) -> tuple[int, int] | None:
    """The pair of points of two networks with the largest CKA; None where there is no number."""
    known = [(value, i, j) for i, row in enumerate(record.value) for j, value in enumerate(row) if value is not None]
    return max(known)[1:] if known else None

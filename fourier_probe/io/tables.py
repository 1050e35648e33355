"""Tables as CSV, in and out: numbers to 9 digits; a damaged row is named by its line. Imports errors, decode."""

from __future__ import annotations

import csv
import io
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from fourier_probe.errors import ProbeError
from fourier_probe.io import atomic
from fourier_probe.io.decode import convert, read_text

if TYPE_CHECKING:
    import pandas as pd

Row = TypeVar("Row", bound=msgspec.Struct)
Record = Mapping[str, object]


def to_csv(rows: Sequence[Record], columns: Sequence[str] | None = None, *, nan: str = "nan") -> str:
    """CSV with a header: floats to 9 digits, whole numbers as they are, what a row lacks or is None left empty.

    Args:
        rows: column -> value.
        columns: all of them, in order; by default those of the rows, in order of appearance.
        nan: how NaN is written.

    >>> print(to_csv([{"epoch": 0, "loss": 1 / 3}, {"epoch": 1, "loss": None}]), end="")
    epoch,loss
    0,0.333333333
    1,
    """
    import pandas as pd

    names = list(columns if columns is not None else dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name), nan) for name in names] for row in rows]
    return pd.DataFrame(cells, columns=names, dtype=object).to_csv(index=False, lineterminator="\n")


def write_csv(path: Path, rows: Sequence[Record], columns: Sequence[str] | None = None) -> None:
    """`to_csv` into a file, whole or not at all."""
    atomic.write_text(path, to_csv(rows, columns))


def write_frame(path: Path, frame: pd.DataFrame, *, index: bool = False) -> None:
    """A table of pandas as CSV, whole or not at all; numbers in full, so that they are read back as they were."""
    atomic.write_text(path, frame.to_csv(index=index, lineterminator="\n"))


def read_csv(path: Path, kind: type[Row], error: type[ProbeError]) -> list[Row]:
    """The rows of a table, each a `kind`, whose fields are the columns; an empty cell or an absent column is absent.

    A file that was cut is found by its last line, which has no line break, or by a row with fewer cells than the
    header has columns (pandas would fill it up).

    Raises:
        error: the table is cut or damaged; names the file, the line, and the column.
    """
    text = read_text(path, error)
    if not text:
        raise error(f"{path} is empty: expected a header, {', '.join(kind.__struct_fields__[:3])}, ...")
    if not text.endswith("\n"):
        raise error(
            f"{path}, line {text.count(chr(10)) + 1}: the last line has no end: the file was cut there, perhaps in "
            "the middle of a number. Copy it again from where it is whole."
        )
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = next(reader)
        if len(set(header)) != len(header):
            raise error(f"{path}, line 1: a column is there twice.")
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if len(cells) != len(header):
                raise error(f"{where}: expected {len(header)} cells, got {len(cells)}: the file is cut or damaged.")
            row = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            rows.append(convert(row, kind, where, error, text=True))
    except csv.Error as problem:
        raise error(f"{path}, line {reader.line_num}: {problem}: the file is cut or damaged.") from problem
    return rows


def _cell(value: object, nan: str) -> str:
    if value is None:
        return ""
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return nan if value != value else f"{float(value):.9g}"
    return str(value)

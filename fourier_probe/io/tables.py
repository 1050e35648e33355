"""Tables as CSV, in and out: numbers to 9 digits; a damaged row is named by its line. Imports errors, decode."""

from __future__ import annotations

import csv
import io
import numbers
import re
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
_FORMULA, _SIGNS, _CALLS = frozenset("=@\t\r"), frozenset("+-"), re.compile(r"[(|!=]")


def plain(text: str) -> str:
    """Text that a spreadsheet shows and does not run: one that begins as a formula gets an apostrophe in front.

    Names come from files and folders of others. One that begins with + or - is left as it is where nothing is called.

    >>> plain("=HYPERLINK(1)"), plain("+attn"), plain("-1+cmd|' /C calc'!A0"), plain("'=1")
    ("'=HYPERLINK(1)", '+attn', "'-1+cmd|' /C calc'!A0", "''=1")
    """
    first = text.lstrip("'")
    return f"'{text}" if first[:1] in _FORMULA or (first[:1] in _SIGNS and _CALLS.search(first)) else text


def _written(text: str) -> str:
    """The text that `plain` was given."""
    return text[1:] if text[:1] == "'" and plain(text[1:]) == text else text


def plain_frame(frame: pd.DataFrame, *, index: bool = False) -> str:
    """A table of pandas as CSV, its text and its headings `plain`."""
    import pandas as pd

    shown = frame.copy()
    for place in range(len(frame.columns)):
        if not pd.api.types.is_numeric_dtype(frame.iloc[:, place]):
            shown.isetitem(place, frame.iloc[:, place].map(_plain_cell, na_action="ignore").to_list())
    shown.columns = pd.Index([_plain_cell(name) for name in frame.columns])
    if index:
        shown.index = pd.Index([_plain_cell(name) for name in frame.index], name=frame.index.name)
    text: str = shown.to_csv(index=index, lineterminator="\n")
    return text


def _plain_cell(value: object) -> object:
    return plain(value) if isinstance(value, str) else value


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
    return pd.DataFrame(cells, columns=list(map(plain, names)), dtype=object).to_csv(index=False, lineterminator="\n")


def write_csv(path: Path, rows: Sequence[Record], columns: Sequence[str] | None = None) -> None:
    """`to_csv` into a file, whole or not at all."""
    atomic.write_text(path, to_csv(rows, columns))


def write_frame(path: Path, frame: pd.DataFrame, *, index: bool = False) -> None:
    """A table of pandas as CSV, whole or not at all; numbers in full, so that they are read back as they were."""
    atomic.write_text(path, plain_frame(frame, index=index))


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
            row = {name: _written(cell) for name, cell in zip(header, cells, strict=True) if cell}
            rows.append(convert(row, kind, where, error, text=True))
    except csv.Error as problem:
        raise error(f"{path}, line {reader.line_num}: {problem}: the file is cut or damaged.") from problem
    return rows


def _cell(value: object, nan: str) -> str:
    if value is None:
        return ""
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return nan if value != value else f"{float(value):.9g}"
    return plain(value) if isinstance(value, str) else str(value)

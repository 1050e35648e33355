"""An exhibit: a figure or table of a paper made from finished runs, with its numbers and an honest caption.

May import plots; knows nothing of runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from fourier_probe.errors import ResultError, printable
from fourier_probe.io import atomic
from fourier_probe.io.tables import to_csv
from fourier_probe.plots.style import save

Row = dict[str, Any]


class MissingRunsError(ResultError):
    """The runs that an exhibit is made of are not there; the message says what to run."""


@dataclass(frozen=True)
class Exhibit:
    """What a registered figure makes.

    Attributes:
        figure: to be written as PDF and PNG.
        rows: the numbers, for NAME.csv.
        caption: data, n, seeds, interval, hardware, and "our reading" where it is.
        more: further tables, suffix -> rows, for NAME-SUFFIX.csv.
        table: columns of the LaTeX table, heading -> key of a row or function of it; none where it is no table.
        name: of the figure, and of its files.

    >>> Exhibit(Figure(), [{"run": "a", "top1": 0.5}], "Top-1 of every run.")
    Exhibit('figure', 1 rows: Top-1 of every run....)
    """

    figure: Figure
    rows: list[Row]
    caption: str
    more: dict[str, list[Row]] = field(default_factory=dict)
    table: dict[str, str | Callable[[Row], str]] = field(default_factory=dict)
    name: str = "figure"

    def __repr__(self) -> str:
        return f"Exhibit({self.name!r}, {len(self.rows)} rows: {self.caption[:60]}...)"

    def endings(self) -> list[str]:
        """What the names of its files end in."""
        tables = [".csv", *(f"-{table}.csv" for table in self.more), *[".tex"] * bool(self.table)]
        return [".pdf", ".png", *tables, ".txt"]

    def files(self) -> list[str]:
        """The names of its files."""
        return [self.name + ending for ending in self.endings()]

    def to_frame(self) -> pd.DataFrame:
        """The numbers as a table of pandas."""
        return pd.DataFrame(self.rows)

    def write(self, folder: Path) -> list[Path]:
        """NAME.pdf, .png, .csv, .txt (the caption), further tables and, for a table, .tex; returns the paths."""
        rows_of = {".csv": self.rows, **{f"-{key}.csv": rows for key, rows in self.more.items()}}
        texts = {end: to_csv(rows, nan="") for end, rows in rows_of.items()}
        if self.table:
            texts[".tex"] = to_latex(self.rows, self.table, self.caption)
        texts[".txt"] = printable(self.caption) + "\n"
        for end, text in texts.items():
            atomic.write_text(folder / f"{self.name}{end}", text)
        return [*save(self.figure, folder / self.name), *(folder / f"{self.name}{end}" for end in texts)]


def to_latex(rows: Sequence[Row], columns: dict[str, str | Callable[[Row], str]], caption: str) -> str:
    r"""A `booktabs` table.

    >>> print(to_latex([{"a": "x_1"}], {"model": "a"}, "100 % ours."))
    % needs \usepackage{booktabs}
    \begin{table}
    \centering
    \caption{100 \% ours.}
    \begin{tabular}{l}
    \toprule
    model \\
    \midrule
    x\_1 \\
    \bottomrule
    \end{tabular}
    \end{table}
    <BLANKLINE>
    """

    def cell(row: Row, column: str | Callable[[Row], str]) -> str:
        value = row.get(column) if isinstance(column, str) else column(row)
        return "--" if value is None or value == "" or value != value else _escaped(str(value))

    frame = pd.DataFrame([[cell(row, column) for column in columns.values()] for row in rows])
    table = frame.set_axis([_escaped(heading) for heading in columns], axis="columns").style.hide(axis="index")
    text = table.to_latex(
        caption=_escaped(caption),
        column_format=f"l{'r' * (len(columns) - 1)}",
        hrules=True,
        position_float="centering",
    )
    return f"% needs \\usepackage{{booktabs}}\n{text}"


_SPECIAL: dict[str, str | int | None] = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", ">": "$>$", "<": "$<$"},
    **{character: f"{{{character}}}" for character in "[]*"},  # at the beginning of a row LaTeX takes them for its own
}


def _escaped(text: str) -> str:
    return re.sub("-(?=-)", "-{}", printable(text).translate(str.maketrans(_SPECIAL)))  # two hyphens would be a dash

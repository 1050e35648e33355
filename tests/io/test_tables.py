"""CSV in and out: what is written is read back, and a table that was cut is refused with its line."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from fourier_probe.errors import ResultError
from fourier_probe.io.tables import read_csv, to_csv, write_csv, write_frame


class Row(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    epoch: int
    loss: float | None = None


ROWS: list[dict[str, object]] = [
    {"name": "a,b", "epoch": 0, "loss": 1 / 3},
    {"name": 'say "so"', "epoch": 12_345_678_901_234, "loss": None},
    {"name": "ü", "epoch": -1, "loss": 1e-30},
]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ROWS, ["name", "epoch", "loss"])
    rows = read_csv(tmp_path / "t.csv", Row, ResultError)
    assert [row.name for row in rows] == ["a,b", 'say "so"', "ü"]
    assert [row.epoch for row in rows] == [0, 12_345_678_901_234, -1]  # no whole number goes through a float
    assert rows[0].loss == pytest.approx(1 / 3, rel=1e-9)
    assert rows[1].loss is None


def test_cells() -> None:
    rows: list[dict[str, object]] = [{"a": True, "b": 0.1 + 0.2}, {"b": math.nan, "c": "x"}]
    assert to_csv(rows) == "a,b,c\nTrue,0.3,\n,nan,x\n"
    assert to_csv(rows, ["c", "b"], nan="") == "c,b\n,0.3\nx,\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "t.csv is empty: expected a header, name, epoch, loss"),
        (b"name,epoch,loss\na,1,0.25\nb,2,0.2", "t.csv, line 3: the last line has no end: the file was cut there"),
        (b"name,epoch,loss\na,1,0.25\nb,2\n", "t.csv, line 3: expected 3 cells, got 2"),
        (b"name,epoch,loss\na,1,0.25,7\n", "t.csv, line 2: expected 3 cells, got 4"),
        (b"name,epoch,loss\na,1,0.2x\n", "t.csv, line 2: loss is '0.2x': expected a number"),
        (b"name,epoch,loss\na,1.5,0.2\n", "t.csv, line 2: epoch is '1.5': expected a whole number"),
        (b"name,epoch,loss\na,1_0,0.2\n", "t.csv, line 2: epoch is '1_0'"),
        (b"name,epoch,loss\na,,0.2\n", "t.csv, line 2: .*missing required field epoch"),
        (b"name,epoch,lost\na,1,0.2\n", "t.csv, line 2: unknown field 'lost'. Did you mean loss"),
        (b"name,epoch,epoch\na,1,2\n", "t.csv, line 1: a column is there twice"),
        (b"name,epoch,loss\na,1,\xff\n", "t.csv, line 2: expected UTF-8 text, got byte 0xff"),
        (b"name,epoch,loss\n\na\0,1,2\n", "t.csv, line 3: expected UTF-8 text, got byte 0x00"),
        (b'name,epoch,loss\n"a,1,2\n', "t.csv, line 2: .*cut or damaged"),
        (b"name,epoch,loss\n" + b"a" * 200_000 + b",1,2\n", "t.csv, line 2: .*cut or damaged"),
    ],
)
def test_damage_is_named_by_its_line(text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(ResultError, match=message):
        read_csv(tmp_path / "t.csv", Row, ResultError)


def test_lines_of_another_system_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfname,epoch\r\na,1\r\n")
    assert read_csv(tmp_path / "t.csv", Row, ResultError) == [Row("a", 1)]


FORMULAS = ("=1+1", "@SUM(1)", "-2+3+cmd|' /C calc'!A0", "\t=1", "'=1", "+1(2)")
PLAIN = ("stem", "+attn", "-", "'quoted", "a=b", "")


def test_no_name_is_a_formula_in_a_spreadsheet_and_every_name_comes_back(tmp_path: Path) -> None:
    names = [*FORMULAS, *PLAIN[:-1]]
    write_csv(tmp_path / "t.csv", [{"name": name, "epoch": -1} for name in names])
    with (tmp_path / "t.csv").open(newline="") as file:
        cells = [row[0] for row in csv.reader(file)][1:]
    assert cells == [f"'{name}" for name in FORMULAS] + list(PLAIN[:-1])
    assert [row.name for row in read_csv(tmp_path / "t.csv", Row, ResultError)] == names
    frame = pd.DataFrame({"=class": ["=1", None], "value": [-1.5, 2.0]}, index=pd.Index(["@a", "b"], name="class"))
    write_frame(tmp_path / "f.csv", frame, index=True)
    assert (tmp_path / "f.csv").read_text().splitlines() == ["class,'=class,value", "'@a,'=1,-1.5", "b,,2.0"]
    assert list(frame.columns) == ["=class", "value"]

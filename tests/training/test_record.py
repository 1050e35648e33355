"""Run folders as typed records: shipped ones read as written; what was cut or is of a later version is said."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fourier_probe.errors import TrainingError
from fourier_probe.training.runs import Run, read_runs

SHIPPED = Path(__file__).parents[2] / "checkpoints"


def test_every_shipped_run_reads_as_it_was_written() -> None:
    """Files of version 0.1: each value is there, and what was not yet recorded has its default."""
    runs = read_runs(SHIPPED)
    listed = sum(
        len(json.loads(path.read_text())) for path in SHIPPED.glob("**/manifest.json") if path.parent.name != "real"
    )
    assert len(runs) == listed >= 106
    for run in runs:
        assert_within(json.loads((run.path / "config.json").read_text()), msgspec.to_builtins(run.record))
        for name, rows in (("metrics.csv", run.metrics), ("conversions.csv", run.conversions)):
            with (run.path / name).open(newline="") as file:
                for cells, row in zip(csv.DictReader(file), rows, strict=True):
                    read = msgspec.to_builtins(row)
                    assert all(same(cell, read[column]) for column, cell in cells.items())


def same(cell: str, value: object) -> bool:
    return value is None if cell == "" else str(value) == cell or float(cell) == value


def assert_within(written: Any, read: Any) -> None:
    if isinstance(written, dict):
        for key, value in written.items():
            assert_within(value, read[key])
    elif isinstance(written, list):
        for one, other in zip(written, read, strict=True):
            assert_within(one, other)
    else:
        assert written == read


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shipped = next(run for run in read_runs(SHIPPED) if run.config.schedule == "linear")
    for name in ("config.json", "metrics.csv", "conversions.csv"):
        shutil.copy(shipped.path / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(("name", "what"), [("metrics.csv", "epochs"), ("conversions.csv", "converted layers")])
def test_a_finished_run_has_all_its_rows(name: str, what: str, run: Path) -> None:
    lines = (run / name).read_text().splitlines(keepends=True)
    (run / name).write_text("".join(lines[:-1]))
    with pytest.raises(
        TrainingError, match=rf"{name} has {len(lines) - 2} rows, and config.json says {len(lines) - 1} {what}"
    ):
        _ = Run.read(run).metrics, Run.read(run).conversions


def test_a_row_that_is_missing_in_the_middle(run: Path) -> None:
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(TrainingError, match=r"metrics.csv, line 3: expected epoch 1, got 2"):
        _ = Run.read(run).metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "is version 2 and this fourier-probe reads 1 to 1: update"),
        ({"versoin": 1}, "unknown field 'versoin'. Did you mean version"),
        ({"config": {"epoch": 3}}, "unknown field 'config.epoch'. Did you mean epochs"),
        ({"config": {"lr": "fast"}}, "config.lr: expected float, got str"),
        ({"config": {"lr": -1.0}}, "--lr is -1.0: expected a number above 0"),
        ({"config": []}, "is no run's: it has no config in it"),
        ({"plan": {"steps": 3}}, "plan: missing required field epochs"),
        ({"input": {"size": "x", "mean": [0.5], "std": [1]}}, "input.size: expected array, got str"),
        ({"result": {"epochs": "all"}}, "result.epochs: expected int"),
    ],
)
def test_what_a_record_may_not_hold(change: dict[str, Any], message: str, run: Path) -> None:
    record = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(TrainingError, match=message):
        Run.read(run)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"holds no run: it has no config.json"):
        Run.read(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(TrainingError, match=r"cannot read .*config.json: a folder, not a regular file"):
        Run.read(tmp_path)


def test_a_run_is_a_table_and_a_frame() -> None:
    run = Run.read(Path(__file__).parents[2] / "checkpoints" / "cifar_convit-cifar100-10pc-0c09ab8d")
    table, frame = run.table(), run.to_frame()
    assert list(table.columns) == ["loss", "accuracy"] and "validation" in table.index
    assert len(frame) == run.result.epochs and {"epoch", "train_loss"} <= set(frame.columns)  # type: ignore[union-attr]
    assert "<table" in run._repr_html_() and run.to_json()["arch"] == run.record.arch

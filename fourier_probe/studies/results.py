"""What came of a study, in one tidy table: results.csv, a row per run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fourier_probe.errors import ProbeError
from fourier_probe.io.tables import write_csv
from fourier_probe.results.text_table import TextTable
from fourier_probe.studies.tasks import Task
from fourier_probe.training.runs import Run

FIRST = ("name", "model", "data", "data_scale", "schedule", "seed", "epochs")
LAST = (
    "state", "error", "train_loss", "train_acc", "val_loss", "val_acc", "ema_val_loss", "ema_val_acc", "test_loss",
    "test_acc", "best_val_acc", "parameters", "multiply_adds", "mean_multiply_adds", "epochs_trained", "seconds",
    "fork", "path",
)  # fmt: skip
"""Losses in nats, accuracies 0 to 1; parameters and multiply-adds of an image in the last epoch, and their mean over
epochs; seconds of training, those of the run it was forked from included."""


def columns(axes: Sequence[str]) -> tuple[str, ...]:
    """Columns of results.csv: what a run is, what the plan varies, what came of it."""
    return (*FIRST, *(name for name in axes if name not in FIRST), *LAST)


def write_results(out: Path, tasks: Sequence[Task], axes: Sequence[str]) -> list[dict[str, object]]:
    """results.csv, whole, a row per run in the order of the plan; returns its rows, None for what is not known.

    Args:
        out: folder of the study.
        tasks: its runs.
        axes: the options that the plan varies.
    """
    table = [_row(task, axes) for task in tasks]
    write_csv(out / "results.csv", table, columns(axes))
    return table


def results_table(rows: Sequence[Mapping[str, Any]], name: str) -> TextTable:
    """The rows of results.csv as the command line prints them."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    columns = ("run", "state", "epochs", "val, %", "test, %", "params", "M mult-adds", "s")
    cells = tuple(
        (
            row["name"],
            row["state"],
            str(row["epochs_trained"] or "-"),
            percent(row["val_acc"]),
            percent(row["test_acc"]),
            "-" if row["parameters"] is None else f"{row['parameters']:,}",
            "-" if row["mean_multiply_adds"] is None else f"{row['mean_multiply_adds'] / 1e6:.1f}",
            "-" if row["seconds"] is None else f"{row['seconds']:.0f}",
        )
        for row in rows
    )
    return TextTable(f"{name}: top-1 with the last weights; multiply-adds per image, mean over epochs", columns, cells)


def _row(task: Task, axes: Sequence[str]) -> dict[str, object]:
    config = task.entry.config
    row: dict[str, object] = dict.fromkeys(columns(axes))
    row |= {name: _cell(getattr(config, name)) for name in (*FIRST[1:], *axes)}
    row |= {"name": task.name, "state": task.state, "error": task.error or None, "path": str(task.folder)}
    if not (task.folder / "config.json").exists():
        return row
    try:
        run = Run.read(task.folder)
        metrics = run.metrics
    except ProbeError as error:
        return row | {"error": task.error or " ".join(str(error).split())}
    known = {name: value for name in LAST if metrics and (value := metrics[-1].get(name)) is not None}
    row |= known | dict(run.result.numbers() if run.result else ())
    if row["best_val_acc"] is None:
        name = "ema_val_acc" if config.model_ema else "val_acc"
        row["best_val_acc"] = max((value for epoch in metrics if (value := epoch.get(name)) is not None), default=None)
    row["mean_multiply_adds"] = _mean([epoch.multiply_adds for epoch in metrics])
    row["seconds"] = sum(epoch.seconds or 0.0 for epoch in metrics) if metrics else None
    row["epochs_trained"] = run.result.epochs if run.result else len(metrics)
    row["fork"] = Path(run.record.fork).name if run.record.fork else None
    return row


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list | tuple) else value

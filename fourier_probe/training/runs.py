"""Runs as records, for tables and figures: config, logs, conversions, spectra. Reads folders, never models.

May import config, folder and, once spectra are asked for, probe.spectra (which brings torch).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fourier_probe.errors import ResultError, TrainingError
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.folder import read_record

if TYPE_CHECKING:
    from fourier_probe.results.spectra import Spectra


@dataclass(frozen=True)
class Run:
    """One run folder, read when asked.

    Attributes:
        path: the folder.
        config: what was asked for.
        record: all of config.json.
        note: options that tell it from other runs of the same model, schedule, scale and seed, for labels.
    """

    path: Path
    config: TrainConfig
    record: dict[str, Any]
    note: str = ""

    @classmethod
    def read(cls, path: Path) -> Run:
        """The run in a folder; raises TrainingError where there is none, or it is damaged."""
        record = read_record(path)
        return cls(path, TrainConfig.from_json(record["config"]), record)

    @property
    def result(self) -> dict[str, Any] | None:
        """What came of it: epochs, losses and accuracies by split; none while it is unfinished."""
        result: dict[str, Any] | None = self.record.get("result")
        return result

    @cached_property
    def metrics(self) -> list[dict[str, float | None]]:
        """metrics.csv, a row an epoch; empty cells are None."""
        return [{key: _number(value) for key, value in row.items()} for row in _rows(self.path / "metrics.csv")]

    @cached_property
    def conversions(self) -> list[dict[str, str]]:
        """conversions.csv, a row a converted layer."""
        return _rows(self.path / "conversions.csv")

    @cached_property
    def spectra(self) -> Spectra | None:
        """The analysis of its last weights on test images that lies in the folder (`fourier-probe sweep` makes it)."""
        from fourier_probe.results.spectra import Spectra

        if not (self.path / "spectra.json").exists():
            return None
        found = Spectra.load(self.path)
        epochs = (self.record.get("plan") or {}).get("epochs")
        pairs = [(found.target.get("epoch"), epochs), (found.target.get("seed"), self.config.seed)]
        if self.result is not None and any(None not in pair and pair[0] != pair[1] for pair in pairs):
            of, run = zip(*pairs, strict=True)
            raise ResultError(
                f"{self.path / 'spectra.json'} is of epoch and seed {of} and the run of {run}: remove it, and analyze "
                "the run again."
            )
        return found

    @cached_property
    def trajectory(self) -> list[Spectra]:
        """Spectra while it trained, by epoch: what --probe-every wrote."""
        from fourier_probe.results.spectra import Spectra

        found = [Spectra.load(path) for path in (self.path / "spectra").glob("epoch-*.json")]
        return sorted(found, key=lambda result: int(result.target["epoch"]))


def read_runs(folder: Path) -> list[Run]:
    """Every run in a folder or below it, finished or not, in order of path; a config.json that is no run's is no run.

    Raises:
        TrainingError: there is none, or one is damaged.
    """
    found = sorted(path.parent for path in folder.rglob("config.json") if (path.parent / "metrics.csv").exists())
    if not found:
        raise TrainingError(f"there is no run in {folder}: `fourier-probe train` and `fourier-probe sweep` make them.")
    return [Run.read(path) for path in found]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _number(cell: str | None) -> float | None:
    try:
        return float(cell) if cell else None
    except ValueError as error:
        raise TrainingError(f"a cell of metrics.csv is {cell!r}, no number: the file is damaged.") from error

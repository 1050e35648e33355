"""Runs as records, for tables and figures: config, logs, conversions, spectra. Reads folders, never models.

May import record and, once spectra are asked for, results.spectra (which brings torch).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fourier_probe.errors import ResultError, TrainingError
from fourier_probe.results.drawing import drawing
from fourier_probe.results.text_table import TextTable
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.record import (
    Conversion,
    EpochRow,
    PlanRecord,
    RunRecord,
    RunResult,
    StepRow,
    read_conversions,
    read_metrics,
    read_record,
    read_steps,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fourier_probe.results.reliance import RelianceRecord
    from fourier_probe.results.spectra import Spectra

SPLITS = {
    "train": "training",
    "val": "validation",
    "ema_val": "validation, EMA",
    "test": "test (once)",
    "test_conflict": "test, where cue and label conflict",
}


@dataclass(frozen=True, repr=False)
class Run:
    """One run folder, read when asked.

    Attributes:
        path: the folder.
        record: all of config.json.
        note: options that tell it from other runs of the same model, schedule, scale and seed, for labels.

    >>> Run.read(Path("nowhere"))
    Traceback (most recent call last):
    fourier_probe.errors.TrainingError: ...
    """

    path: Path
    record: RunRecord
    note: str = ""

    @classmethod
    def read(cls, path: Path) -> Run:
        """The run in a folder; raises TrainingError where there is none, or it is damaged."""
        return cls(path, read_record(path))

    def __repr__(self) -> str:
        config, result = self.config, self.result
        name = "test_acc" if result is not None and result.test_acc is not None else "val_acc"
        accuracy = None if result is None else getattr(result, name)
        state = "unfinished" if result is None else f"{result.epochs} epochs"
        reached = "" if accuracy is None else f", {name} {accuracy:.4f}"
        return f"Run({str(self.path)!r}, {config.model}, {config.schedule}, seed {config.seed}, {state}{reached})"

    @property
    def config(self) -> TrainConfig:
        """What was asked for."""
        return self.record.config

    @property
    def plan(self) -> PlanRecord:
        """What that came to on its data; raises TrainingError where config.json does not say."""
        if self.record.plan is None:
            raise TrainingError(f"{self.path / 'config.json'} has no plan: its epochs and schedule are not known.")
        return self.record.plan

    @property
    def result(self) -> RunResult | None:
        """What came of it: epochs, losses and accuracies by split; none while it is unfinished."""
        return self.record.result

    @cached_property
    def metrics(self) -> list[EpochRow]:
        """metrics.csv, one row per epoch; raises TrainingError where it is damaged, or lacks trained epochs."""
        rows = read_metrics(self.path)
        self._check_count("metrics.csv", len(rows), None if self.result is None else self.result.epochs, "epochs")
        return rows

    @cached_property
    def steps(self) -> list[StepRow]:
        """steps.csv, a row every `--log-interval` steps; raises TrainingError where it is damaged."""
        return read_steps(self.path)

    @cached_property
    def conversions(self) -> list[Conversion]:
        """conversions.csv, one row per converted layer; raises as `metrics` does."""
        rows = read_conversions(self.path)
        plan = self.record.plan
        planned = None if plan is None or self.result is None else len(plan.schedule.epochs)
        self._check_count("conversions.csv", len(rows), planned, "converted layers")
        return rows

    def _check_count(self, name: str, rows: int, expected: int | None, what: str) -> None:
        """A log of a finished run has a row for all that was done, or it was cut at the end of a line."""
        if expected and rows != expected and (self.path / name).exists():
            raise TrainingError(
                f"{self.path / name} has {rows} rows, and config.json says {expected} {what}: the file was cut or "
                "changed. Copy it again from where it is whole."
            )

    @cached_property
    def spectra(self) -> Spectra | None:
        """The analysis of its last weights on test images that lies in the folder (`fourier-probe sweep` makes it)."""
        from fourier_probe.results.spectra import Spectra

        if not (self.path / "spectra.json").exists():
            return None
        result = Spectra.load(self.path)
        epochs = None if self.record.plan is None else self.record.plan.epochs
        pairs = [(result.target.epoch, epochs), (result.target.seed, self.config.seed)]
        if self.result is not None and any(None not in pair and pair[0] != pair[1] for pair in pairs):
            of, run = zip(*pairs, strict=True)
            raise ResultError(
                f"{self.path / 'spectra.json'} is of epoch and seed {of} and the run of {run}: remove it, and analyze "
                "the run again."
            )
        return result

    def to_json(self) -> dict[str, object]:
        """Plain values: what config.json holds."""
        plain: dict[str, object] = msgspec.to_builtins(self.record)
        return plain

    def to_frame(self) -> pd.DataFrame:
        """metrics.csv: one row per epoch."""
        import pandas as pd

        return pd.DataFrame([msgspec.structs.asdict(row) for row in self.metrics])

    def table(self) -> pd.DataFrame:
        """Loss and accuracy of the last weights by kind of images: training, validation, test."""
        import pandas as pd

        known = dict(self.result.numbers() if self.result else ())
        rows = {
            label: (known.get(f"{name}_loss"), known.get(f"{name}_acc"))
            for name, label in SPLITS.items()
            if f"{name}_loss" in known or f"{name}_acc" in known
        }
        return pd.DataFrame(
            rows.values(), index=pd.Index(rows, name="images"), columns=["loss", "accuracy"], dtype=float
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{self.table().to_html(float_format='{:.4f}'.format, na_rep='')}"

    def tables(self) -> list[TextTable | str]:
        """What `fourier-probe train` prints: what came of it, and where it is."""
        cells = [
            (str(name), "-" if loss != loss else f"{loss:.3f}", f"{100 * accuracy:.2f}")
            for name, loss, accuracy in self.table().dropna(subset="accuracy").itertuples()
        ]
        epochs = self.result.epochs if self.result else 0
        columns = ("images", "loss, nats", "top-1, %")
        tables: list[TextTable | str] = [TextTable(f"{self.record.arch}, {epochs} epochs", columns, tuple(cells))]
        if self.result is not None and self.result.bound is not None:
            tables.append(f"planted task: {self.result.bound}")
        best = ", best.pt" * (self.path / "best.pt").exists()
        return [*tables, f"written to {self.path}: config.json, metrics.csv, conversions.csv, last.pt{best}"]

    def plot(self, name: str = "loss", *, ax: Axes | None = None) -> Figure:
        """The training loss by step.

        Args:
            name: "loss", all of it; "switches", around each switch.
            ax: to draw on; its figure is returned.

        Raises:
            TrainingError: there is no steps.csv, or there are no switches, or no such drawing.
        """
        if name not in ("loss", "switches"):
            raise TrainingError(f"a run has no drawing {name!r}: expected loss or switches.")
        if not self.steps:
            raise TrainingError(f"{self.path} has no steps.csv, which --log-interval writes: its losses are not known.")
        if name == "switches" and not self.conversions:
            raise TrainingError(f"{self.path} has converted no layer: it has no switches.")
        draw = drawing("run-loss" if name == "loss" else "run-switches")
        switches = sorted({row.epoch * self.plan.steps for row in self.conversions})
        losses = [(row.step, row.loss) for row in self.steps]
        return draw({self.path.name: (losses, switches)}, ax=ax)

    def reliance(self) -> RelianceRecord | None:
        """What it relies on of the halves of its attention, where an analysis with attention lies in the folder."""
        return None if self.spectra is None else self.spectra.reliance

    @cached_property
    def trajectory(self) -> list[Spectra]:
        """Spectra while it trained, by epoch: what --probe-every wrote."""
        from fourier_probe.results.spectra import Spectra

        analyses = [Spectra.load(path) for path in (self.path / "spectra").glob("epoch-*.json")]
        return sorted(analyses, key=lambda result: result.epoch)


def read_runs(folder: Path) -> list[Run]:
    """Every run in a folder or below it, finished or not, in order of path; a config.json that is no run's is no run.

    Raises:
        TrainingError: there is none, or one is damaged.
    """
    folders = sorted(path.parent for path in folder.rglob("config.json") if (path.parent / "metrics.csv").exists())
    if not folders:
        raise TrainingError(f"there is no run in {folder}: `fourier-probe train` and `fourier-probe sweep` make them.")
    return [Run.read(path) for path in folders]

"""The run folder: claimed by one process at a time, every file in it whole.

| file | holds |
|---|---|
| config.json | what was asked for, what came of it, versions |
| metrics.csv | a row per epoch |
| steps.csv | a row every `--log-interval` steps |
| conversions.csv | a row per converted layer: both sides of its switch |
| last.pt | everything needed to go on |
| best.pt | the weights with the best validation accuracy |
| epoch-NNN.pt | as last.pt, after NNN epochs: to fork from |
| spectra/ | spectra while training |
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from fourier_probe import plugins
from fourier_probe.errors import OutputError, TrainingError
from fourier_probe.io import atomic
from fourier_probe.io.locks import held
from fourier_probe.io.tables import write_csv
from fourier_probe.runtime import messages
from fourier_probe.training.record import CONVERSIONS, METRICS, STEPS, RunRecord, StepRow, read_record

_FILES = ("config.json", "metrics.csv", "steps.csv", "conversions.csv", "last.pt", "best.pt", "epoch-*.pt")


class RunFolder:
    """One run's files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextlib.contextmanager
    def claim(cls, path: Path, *, resume: bool = False, force: bool = False) -> Iterator[RunFolder]:
        """Hold the folder for a run, before any work is done.

        Raises:
            OutputError: it cannot be written, or holds a run and neither `resume` nor `force` is given.
            BusyError: another process is training there at this moment.
        """
        try:
            atomic.output_folder(path, results=_FILES, force=force or resume)
        except OutputError as error:
            if "already holds" not in str(error):
                raise
            raise OutputError(
                f"{path} already holds a run: pass --resume to continue it, --force to overwrite it, or another --out."
            ) from error
        with held(path):
            yield cls(path)

    def clear(self) -> None:
        """Remove the files of an earlier run."""
        for pattern in _FILES:
            for file in self.path.glob(pattern):
                file.unlink()
        for name in ("spectra.json", "spectra.npz", "spectra.csv"):  # an analysis of the weights that go
            (self.path / name).unlink(missing_ok=True)
        for folder in ("spectra", "tensorboard"):
            shutil.rmtree(self.path / folder, ignore_errors=True)

    @property
    def last(self) -> Path:
        """Everything needed to go on."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """The best weights by validation."""
        return self.path / "best.pt"

    def epoch(self, epochs: int) -> Path:
        """The state after so many epochs."""
        return self.path / f"epoch-{epochs:03d}.pt"

    def spectra(self, epochs: int) -> Path:
        """Spectra after so many epochs."""
        return self.path / "spectra" / f"epoch-{epochs:03d}.json"

    def write_config(self, record: RunRecord) -> None:
        """config.json."""
        atomic.write_json(self.path / "config.json", msgspec.to_builtins(record))

    def read_config(self) -> RunRecord:
        """config.json as it was written; raises TrainingError where there is none, or it is damaged."""
        return read_record(self.path)

    def write_steps(self, rows: Sequence[StepRow]) -> None:
        """steps.csv, whole."""
        write_csv(self.path / "steps.csv", [msgspec.structs.asdict(row) for row in rows], STEPS)

    def write_logs(self, metrics: Sequence[Mapping[str, object]], conversions: Sequence[Mapping[str, object]]) -> None:
        """metrics.csv and conversions.csv, whole."""
        write_csv(self.path / "metrics.csv", metrics, METRICS)
        write_csv(self.path / "conversions.csv", conversions, CONVERSIONS)


def check_record(record: RunRecord, again: Mapping[str, object], folder: str) -> None:
    """Refuse a run's record that would make, download or run anything that the user did not name.

    Args:
        record: config.json.
        again: options that the user gave again; these are not looked at.
        folder: of the run, for messages.

    Raises:
        DataError: its data have to be named again (`data.trust`).
        TrainingError: so has its model, which is a Python file, or an argument that fetches or opens something.
    """
    from fourier_probe.checkpoints.description import NOT_ARCHITECTURE
    from fourier_probe.data.trust import NamedData, data_of, shown  # brings torch

    if differing := plugins.differing(record.versions):
        messages.note(f"{folder} was {differing}.")
    config = record.config
    if "data" not in again:
        data_of(None, NamedData(config.data, folder, True, record.data_fingerprint))
    if "model" not in again and ":" in config.model:
        raise TrainingError(
            f"{folder} was trained with the model {shown(config.model)}, which is not made because a file says so: "
            f"pass --model {shown(config.model)} if you trust it."
        )
    fetching = [name for name in sorted(NOT_ARCHITECTURE) if name in config.model_args]
    if fetching and "model_args" not in again:
        raise TrainingError(
            f"{folder} was trained with --model-arg {fetching[0]}, which may fetch or open something and is not "
            "followed because a file says so: pass the --model-arg options again if you trust them."
        )
    if config.initial_checkpoint and "initial_checkpoint" not in again and not RunFolder(Path(folder)).last.exists():
        raise TrainingError(
            f"{folder} has no last.pt yet and began from a file, which is not opened because a file says so: pass "
            f"--initial-checkpoint {shown(config.initial_checkpoint)} again."
        )
    if config.pretrained and "pretrained" not in again:
        raise TrainingError(
            f"{folder} began from published weights, which are not fetched because a file says so: pass --pretrained."
        )

"""The run folder: claimed by one process at a time, every file in it whole.

| file | holds |
|---|---|
| config.json | what was asked for, what came of it, versions |
| metrics.csv | a row an epoch |
| conversions.csv | a row a converted layer: both sides of its switch |
| last.pt | everything needed to go on |
| best.pt | the weights with the best validation accuracy |
| epoch-NNN.pt | as last.pt, after NNN epochs: to fork from |
| spectra/ | spectra while training |
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from fourier_probe.data.trust import NamedData, data_of, read_fingerprint, shown
from fourier_probe.errors import OutputError, TrainingError
from fourier_probe.io import atomic

METRICS = (
    "epoch", "step", "lr", "train_loss", "train_acc", "val_loss", "val_acc", "ema_val_loss", "ema_val_acc", "test_loss",
    "test_acc", "test_conflict_acc", "converted", "parameters", "multiply_adds", "seconds", "images_per_second",
)  # fmt: skip
"""Columns of metrics.csv: losses in nats, accuracies 0 to 1, the model and its cost for one image during the epoch."""
TIMES = ("seconds", "images_per_second")
"""Columns in which two runs of one config may differ."""
CONVERSIONS = ("layer", "epoch", "loss_before", "acc_before", "loss_after", "acc_after", "ratio", "images")
_FILES = ("config.json", "metrics.csv", "conversions.csv", "last.pt", "best.pt", "epoch-*.pt")
_LOCK = ".lock"
FETCHING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""Arguments of timm's models that may fetch or open something."""


class BusyError(OutputError):
    """Another process holds the folder."""


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

    def write_config(self, record: dict[str, Any]) -> None:
        """config.json."""
        atomic.write_json(self.path / "config.json", record)

    def read_config(self) -> dict[str, Any]:
        """config.json as it was written.

        Raises:
            TrainingError: there is none, or it is damaged.
        """
        return read_record(self.path)

    def write_logs(self, metrics: Sequence[dict[str, Any]], conversions: Sequence[dict[str, Any]]) -> None:
        """metrics.csv and conversions.csv, whole."""
        atomic.write_text(self.path / "metrics.csv", table(METRICS, metrics))
        atomic.write_text(self.path / "conversions.csv", table(CONVERSIONS, conversions))


def read_record(path: Path) -> dict[str, Any]:
    """A run's config.json; raises TrainingError where there is none, or it is damaged."""
    file = path / "config.json"
    try:
        record = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise TrainingError(f"{path} holds no run: it has no config.json.") from error
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot read {file}: {error}.") from error
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise TrainingError(f"{file} is no run's: it has no config in it.")
    return record


def check_record(record: dict[str, Any], given: Mapping[str, Any], folder: str) -> None:
    """Refuse a run's record that would make, download or run anything that the user did not name.

    Args:
        record: config.json.
        given: options that the user gave again; these are not looked at.
        folder: of the run, for messages.

    Raises:
        DataError: its data have to be named again (`data.trust`).
        TrainingError: so has its model, which is a Python file, or an argument that fetches or opens something.
    """
    config: dict[str, Any] = record["config"]
    source = config.get("data")
    if "data" not in given and isinstance(source, str):
        data_of(None, NamedData(source, folder, True, read_fingerprint(record.get("data_fingerprint"))))
    model = config.get("model")
    if "model" not in given and isinstance(model, str) and ":" in model:
        raise TrainingError(
            f"{folder} was trained with the model {shown(model)}, which is not made because a file says so: pass "
            f"--model {shown(model)} if you trust it."
        )
    arguments = config.get("model_args")
    fetching = [name for name in FETCHING if isinstance(arguments, dict) and name in arguments]
    if fetching and "model_args" not in given:
        raise TrainingError(
            f"{folder} was trained with --model-arg {fetching[0]}, which may fetch or open something and is not "
            "followed because a file says so: pass the --model-arg options again if you trust them."
        )
    if config.get("pretrained") and "pretrained" not in given:
        raise TrainingError(
            f"{folder} began from published weights, which are not fetched because a file says so: pass --pretrained."
        )


def table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """CSV with a header; floats to 9 digits, what a row lacks left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(_cell(row.get(column)) for column in columns)
    return text.getvalue()


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep a folder to this process, made if missing; it goes again where the block fails before it put a file there.

    Raises:
        BusyError: another process holds it.
    """
    with atomic.made(path):
        lock = _locked(path)
        try:
            yield
        finally:
            if lock is not None:
                if [file.name for file in path.iterdir()] == [_LOCK]:
                    (path / _LOCK).unlink()
                lock.close()


def _locked(path: Path) -> IO[bytes] | None:
    """A lock on a folder that the system lets go of when its holder dies, however it dies; none where it has no locks.

    Raises:
        BusyError: another process holds it.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return None
    file = (path / _LOCK).open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise BusyError(f"another process is training into {path} now: wait for it, or choose another --out.") from (
            error
        )
    except OSError:  # a file system without locks
        file.close()
        return None
    return file

"""What a run folder's files hold, typed: config.json, a row of metrics.csv, a row of conversions.csv.

What an older file lacks has the default given here; a field that is not here is refused. Imports config and io.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from fourier_probe import plugins
from fourier_probe.data.trust import Fingerprint
from fourier_probe.errors import TrainingError, printable
from fourier_probe.io import decode
from fourier_probe.io.tables import read_csv
from fourier_probe.results.bounds import Count, Share, Size
from fourier_probe.results.records import TopOneBound
from fourier_probe.training.config import TrainConfig

VERSION = 1


class InputRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model's input: size in pixels, mean and std by channel."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class ImageCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Images by split, of which digest, and how many were left out; None where there is no such split."""

    train: Count = 0
    val: Count | None = None
    test: Count | None = None
    digest: str = ""
    skipped: Count | msgspec.UnsetType = msgspec.UNSET


class ScheduleRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Layer -> epoch at whose start it converts, in execution order, and where a soft switch ends."""

    kind: str = "none"
    epochs: dict[str, int] = {}
    ends: dict[str, int] = {}


class PlanRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a run is: epochs or rounds (`unit`) in all, steps of one, images per step; and what converts when."""

    epochs: Count
    steps: Count = 0
    unit: str = "epoch"
    batch: Count = 0
    schedule: ScheduleRecord = ScheduleRecord()


class Environment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What exact repetition depends on beside the config."""

    torch: str = ""
    device: str = "unknown device"
    threads: Count = 0
    world: Count = 1

    def changed(self, now: Environment) -> str:
        """What differs between two environments, in words; empty if nothing."""
        pairs = ((name, getattr(self, name), getattr(now, name)) for name in self.__struct_fields__)
        return ", ".join(f"{name} {before} -> {after}" for name, before, after in pairs if before != after)


class Resumed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a run went on under other conditions than before: after so many epochs and steps of the next one."""

    epoch: int
    step: int
    environment: Environment


class RunResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What came of a run: losses in nats, accuracies 0 to 1, the epochs trained; `bound`: see `TopOneBound`."""

    train_loss: Size | None = None
    train_acc: Share | None = None
    val_loss: Size | None = None
    val_acc: Share | None = None
    ema_val_loss: Size | None = None
    ema_val_acc: Share | None = None
    test_loss: Size | None = None
    test_acc: Share | None = None
    test_conflict_acc: Share | None = None
    best_val_acc: Share | None = None
    epochs: Count = 0
    bound: TopOneBound | None = None

    def numbers(self) -> Iterator[tuple[str, float]]:
        """Name and value of each loss and accuracy that is known."""
        for name in self.__struct_fields__:
            if name not in ("epochs", "bound") and (value := getattr(self, name)) is not None:
                yield name, value


class InitialRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file that a run began from, as named, and the SHA-256 of its bytes.

    Attributes:
        weights, epoch: which of its weights, trained for how long. mean, std: of its input.
        head: what is new of the head; empty where it is the file's.
        recast: layers that were attention already -> width of their queries and keys.
        content: those of them that are another architecture than GPSA -> `content_stride` and `content_maps`.
    """

    source: str
    sha256: str
    weights: str = "raw"
    epoch: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    head: str = ""
    recast: dict[str, int] = {}
    content: dict[str, tuple[int, int]] = {}


class RunRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """config.json: what was asked for, what it came to, and what came of it; no result while it is unfinished.

    `environment` is where the run began; `resumed`, where and when it went on under others.
    """

    config: TrainConfig
    fork: str | None = None
    arch: str | None = None
    model_args: dict[str, Any] = {}
    initial: InitialRecord | None = None
    input: InputRecord | None = None
    data_fingerprint: Fingerprint | None = None
    images: ImageCounts = ImageCounts()
    classes: int | None = None
    plan: PlanRecord | None = None
    environment: Environment = Environment()
    resumed: tuple[Resumed, ...] | msgspec.UnsetType = msgspec.UNSET
    versions: dict[str, str] = {}
    created: str = ""
    result: RunResult | None = None
    version: int = VERSION

    @property
    def environments(self) -> tuple[Environment, ...]:
        """Every one that the run was trained in, in order."""
        return (self.environment, *(each.environment for each in self.resumed or ()))


class EpochRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of metrics.csv: losses in nats, accuracies 0 to 1, the model and its cost for one image in the epoch."""

    epoch: Count
    step: Count | None = None
    lr: Size | None = None
    train_loss: float | None = None
    train_acc: Share | None = None
    val_loss: float | None = None
    val_acc: Share | None = None
    ema_val_loss: float | None = None
    ema_val_acc: Share | None = None
    test_loss: float | None = None
    test_acc: Share | None = None
    test_conflict_acc: Share | None = None
    converted: Count | None = None
    parameters: Count | None = None
    multiply_adds: Count | None = None
    seconds: Size | None = None
    images_per_second: Size | None = None

    def get(self, name: str) -> float | None:
        """A column by name; None where there is none."""
        value: float | None = getattr(self, name, None)
        return value


class Conversion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of conversions.csv: a converted layer, both sides of its switch, on so many images."""

    layer: str
    epoch: Count
    loss_before: float | None = None
    acc_before: Share | None = None
    loss_after: float | None = None
    acc_after: Share | None = None
    ratio: float | None = None
    images: Count | None = None


class StepRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of steps.csv: means over the steps since the row before, which were taken with so many layers converted.

    Attributes:
        step: steps that are done. lr: of the last of them.
        loss: nats. acc: 0 to 1. images: seen in these steps. converted: layers that were attention.
    """

    step: Count
    lr: Size
    loss: float
    acc: Share
    images: Count
    converted: Count = 0


STEPS = StepRow.__struct_fields__
METRICS = EpochRow.__struct_fields__
CONVERSIONS = Conversion.__struct_fields__


def read_record(folder: Path) -> RunRecord:
    """A run's config.json.

    Raises:
        TrainingError: there is none, it is damaged, or a field of it is unknown or of another type.
    """
    file = folder / "config.json"
    try:
        values = decode.read_json(file, TrainingError)
    except TrainingError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise TrainingError(f"{folder} holds no run: it has no config.json.") from error
        raise
    if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
        raise TrainingError(f"{file} is no run's: it has no config in it.")
    version = values.get("version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise TrainingError(
            f"{file} is version {version} and this fourier-probe reads 1 to {VERSION}: update fourier-probe."
        )
    try:
        return decode.convert(values, RunRecord, str(file), TrainingError)
    except TrainingError as error:
        recorded = values.get("versions")
        named = recorded.items() if isinstance(recorded, dict) else ()
        differing = plugins.differing({name: digest for name, digest in named if isinstance(digest, str)})
        if differing:  # what is unknown here may be known there
            raise TrainingError(f"{error} The run was {printable(differing, 500)}.") from error
        raise


def read_metrics(folder: Path) -> list[EpochRow]:
    """metrics.csv, one row per epoch; none where there is no file.

    Raises:
        TrainingError: it is cut or damaged, or an epoch is missing in the middle.
    """
    file = folder / "metrics.csv"
    rows = read_csv(file, EpochRow, TrainingError) if file.exists() else []
    for index, row in enumerate(rows):
        if row.epoch != index:
            raise TrainingError(f"{file}, line {index + 2}: expected epoch {index}, got {row.epoch}: it is damaged.")
    return rows


def read_conversions(folder: Path) -> list[Conversion]:
    """conversions.csv, one row per converted layer; none where there is no file. Raises as `read_metrics` does."""
    file = folder / "conversions.csv"
    return read_csv(file, Conversion, TrainingError) if file.exists() else []


def read_steps(folder: Path) -> list[StepRow]:
    """steps.csv, a row every so many steps; none where there is no file.

    Raises:
        TrainingError: it is cut or damaged, or its steps do not grow.
    """
    file = folder / "steps.csv"
    rows = read_csv(file, StepRow, TrainingError) if file.exists() else []
    for index, (row, later) in enumerate(itertools.pairwise(rows)):
        if later.step <= row.step:
            raise TrainingError(f"{file}, line {index + 3}: step {later.step} follows step {row.step}: it is damaged.")
    return rows

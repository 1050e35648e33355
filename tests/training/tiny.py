"""A run that takes a second: 64 images of 12x12 pixels, a ResNet of 4 channels that converts six layers."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fourier_probe import checkpoints
from fourier_probe.training import Progress, Tick, TrainConfig, train

CLASSES = 4


def make_data(path: Path, *, train: int = 64, size: int = 12, channels: int = 1, classes: int = CLASSES) -> Path:
    """Images whose class shows in their brightness, so that something can be learned."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", train), ("test", 16)):
        labels = np.arange(count) % classes
        noise = rng.integers(0, 60, (count, size, size, channels))
        arrays[f"{split}_images"] = (noise + 45 * labels[:, None, None, None]).astype(np.uint8)
        arrays[f"{split}_labels"] = labels
    np.savez(path, **arrays)
    return path


def make_photos(folder: Path) -> Path:
    """Two classes of twelve image files."""
    rng = np.random.default_rng(0)
    for index in range(24):
        path = folder / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(path)
    return folder


def tiny(data: Path, **more: Any) -> TrainConfig:
    """Three steps an epoch, four epochs; `linear` converts at epochs 1 to 3."""
    given: dict[str, Any] = {
        "model": "cifar_resnet8",
        "model_args": {"width": 4},
        "data": str(data),
        "val_split": 0.25,
        "batch_size": 16,
        "epochs": 4,
        "early_epoch": 3,
        "late_epoch": 1,
        "crop_padding": 1,
        "max_key_grid": 16,
        "log_interval": 2,
        "workers": 0,
        "device": "cpu",
    }
    return TrainConfig.of({**given, **more})


class At(Progress):
    """Does something after a step (epoch, steps done), or after an epoch (epoch, None)."""

    def __init__(self, when: tuple[int, int | None], what: Callable[[], None]) -> None:
        self.when, self.what = when, what
        self.notes: list[str] = []

    def step(self, tick: Tick) -> None:
        if (tick.epoch, tick.step) == self.when:
            self.what()

    def epoch(self, row: dict[str, Any]) -> None:
        if (row["epoch"], None) == self.when:
            self.what()

    def note(self, text: str) -> None:
        self.notes.append(text)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def stop_at(config: TrainConfig, out: Path, when: tuple[int, int | None]) -> None:
    """Train until a real SIGTERM arrives at a step."""
    try:
        train(config, out, progress=At(when, terminate))
    except SystemExit as end:
        assert end.code == 143
    else:
        raise AssertionError("the run was not stopped")


def last(run: Path) -> dict[str, Any]:
    return checkpoints.read(run / "last.pt").payload


def log(run: Path, name: str = "metrics.csv", *, times: bool = False) -> list[dict[str, str]]:
    """A log without its time columns."""
    with (run / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    dropped = () if times else ("seconds", "images_per_second")
    return [{key: value for key, value in row.items() if key not in dropped} for row in rows]


def same(first: Any, second: Any, where: str = "") -> str:
    """Where two nested values differ, bit by bit; empty if nowhere."""
    if isinstance(first, Tensor):
        return "" if first.dtype == second.dtype and torch.equal(first, second) else where
    if isinstance(first, dict):
        if list(first) != list(second):
            return f"{where}: {list(first)} {list(second)}"
        return next((d for k in first if (d := same(first[k], second[k], f"{where}[{k}]"))), "")
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            return f"{where}: length"
        pairs = zip(first, second, strict=True)
        return next((d for i, (a, b) in enumerate(pairs) if (d := same(a, b, f"{where}[{i}]"))), "")
    return "" if first == second else f"{where}: {first} {second}"


def assert_same_run(one: Path, other: Path) -> None:
    """Bit-identical weights, average, optimizer, random state and logs, time columns aside."""
    first, second = last(one), last(other)
    for payload in (first, second):
        for row in payload["rows"]:
            del row["seconds"], row["images_per_second"]
        for key in ("digest",):
            payload.pop(key)
    assert same(first, second) == ""
    assert log(one) == log(other)
    for name in ("conversions.csv", "steps.csv"):
        assert log(one, name) == log(other, name)

"""Which layers convert and when, recipes, the trainer, the run folder. Names are imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fourier_probe.training.config import TrainConfig
    from fourier_probe.training.config_files import read_config
    from fourier_probe.training.progress import Progress, Tick
    from fourier_probe.training.schedule import PRSSchedule
    from fourier_probe.training.trainer import train

_HOME = {
    "PRSSchedule": "schedule",
    "Progress": "progress",
    "Tick": "progress",
    "TrainConfig": "config",
    "read_config": "config_files",
    "train": "trainer",
}

__all__ = ["PRSSchedule", "Progress", "Tick", "TrainConfig", "read_config", "train"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'fourier_probe.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fourier_probe.training.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

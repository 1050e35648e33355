"""A whole study from a plan: many runs, each once, picked up where they stopped. Names are imported when first used.

from fourier_probe.studies import SweepPlan, sweep

rows = sweep(SweepPlan.read("studies/small.toml"), "runs/small", jobs=2)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fourier_probe.studies.estimate import Estimate, estimate
    from fourier_probe.studies.plan import Analysis, Entry, SweepPlan
    from fourier_probe.studies.run import sweep
    from fourier_probe.studies.tasks import Task
    from fourier_probe.studies.watch import Watch

_HOME = {
    "Analysis": "plan",
    "Entry": "plan",
    "Estimate": "estimate",
    "SweepPlan": "plan",
    "Task": "tasks",
    "Watch": "watch",
    "estimate": "estimate",
    "sweep": "run",
}

__all__ = ["Analysis", "Entry", "Estimate", "SweepPlan", "Task", "Watch", "estimate", "sweep"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'fourier_probe.studies' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fourier_probe.studies.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

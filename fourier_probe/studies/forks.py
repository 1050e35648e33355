"""Runs that share a convolutional beginning train it once: which run keeps its state where, and which begins there.

Runs that differ in `SCHEDULE_FIELDS` only are a family. Until the first switch of either, two of them are the same run,
bit for bit; so the one whose first switch is latest (`none`: never) is the base, and the others begin at its state
right before their own first switch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from fourier_probe.errors import ProbeError
from fourier_probe.studies.tasks import Task
from fourier_probe.training.config import SCHEDULE_FIELDS, TrainConfig
from fourier_probe.training.naming import content


def family(config: TrainConfig) -> str:
    """Equal for runs that differ in their schedule only."""
    rest = {name: value for name, value in content(config).items() if name not in SCHEDULE_FIELDS}
    return json.dumps(rest, sort_keys=True)


def families(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks by family, in order of appearance."""
    by_family: dict[str, list[Task]] = {}
    for task in tasks:
        by_family.setdefault(family(task.entry.config), []).append(task)
    return list(by_family.values())


def plan_forks(tasks: Sequence[Task], first_switch: Callable[[TrainConfig], float]) -> None:
    """Set `fork` of the runs that can begin from another, and `keep` of those they begin from.

    A run that has begun goes on from its own state. A state that some finished run still has is used as it is.

    Args:
        tasks: of the study, looked at.
        first_switch: the epoch of a config's first switch, infinite for none; where it raises ProbeError the run stays
            on its own, and will say why itself.
    """
    for members in families(tasks):
        if len(members) < 2 or not any(task.standing == "new" for task in members):
            continue
        first: dict[str, float] = {}
        for task in members:
            try:
                first[task.name] = first_switch(task.entry.config)
            except ProbeError:
                continue
        known = sorted((task for task in members if task.name in first), key=lambda task: -first[task.name])  # stable
        for index, task in enumerate(known):
            if task.standing == "new" and 1 <= first[task.name] < math.inf:
                _fork(task, int(first[task.name]), known, index, first)


def _fork(task: Task, epoch: int, known: list[Task], index: int, first: dict[str, float]) -> None:
    others = [other for other in known if other is not task and first[other.name] >= epoch]
    base = next((other for other in others if other.state_after(epoch).exists()), None)
    if base is None:  # one before it in the order, so that no two wait for each other
        able = (other for other in known[:index] if other.standing in ("new", "resume") and other.fork is None)
        base = next((other for other in able if other.standing == "new" or other.epochs_done() < epoch), None)
        if base is None:
            return
        if first[base.name] != epoch:  # else the trainer keeps it anyway
            base.keep = tuple(sorted({*base.keep, epoch}))
    task.fork = (base, epoch)


def ready(task: Task) -> bool:
    """Whether a task need not wait: what it forks from is there, or will never be."""
    if task.fork is None:
        return True
    base, epoch = task.fork
    if base.state not in ("waiting", "running"):
        return True
    every = base.entry.config.probe_every  # a fork takes over the spectra too, which are written after the state
    probed = not every or epoch % every != 0 or (base.folder / "spectra" / f"epoch-{epoch:03d}.json").exists()
    return probed and base.state_after(epoch).exists()


def clean(tasks: Sequence[Task]) -> None:
    """Remove the states kept for forks only, where every run of the family is finished."""
    for members in families(tasks):
        if all(task.state == "finished" for task in members):
            for task in members:
                config = task.entry.config
                for epoch in task.lengthened():
                    if epoch not in config.checkpoint_at and not (
                        config.checkpoint_every and epoch % config.checkpoint_every == 0
                    ):
                        task.state_after(epoch).unlink(missing_ok=True)

"""What a sweep would do, and how long it would take; nothing is written. May import the rest of studies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fourier_probe.results.text_table import TextTable
from fourier_probe.studies.estimate import Estimate, estimate
from fourier_probe.studies.local import cores
from fourier_probe.studies.plan import SweepPlan
from fourier_probe.studies.run import prepare
from fourier_probe.studies.tasks import Task


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: what it is, how long it takes, and where it would begin.

    Attributes:
        at_epoch: of a `constant` schedule that is given its epoch; null else.
        epochs, steps: of the whole run. steps_left: without what it shares with another, or has done.
        seconds: of these.
        state: "new", "resume", "finished" or "failed". error: why it would fail. fork: RUN@EPOCH.
    """

    name: str
    model: str
    model_args: dict[str, Any]
    data_scale: float
    schedule: str
    seed: int
    at_epoch: float | None
    epochs: int
    steps: int
    steps_left: int
    seconds: float
    state: str
    error: str | None
    fork: str | None

    @classmethod
    def of(cls, task: Task, cost: Estimate) -> PlannedRun:
        """A task and what it will cost."""
        config = task.entry.config
        return cls(
            name=task.name,
            model=config.model,
            model_args=config.model_args,
            data_scale=config.data_scale,
            schedule=config.schedule,
            seed=config.seed,
            at_epoch=config.at_epoch if config.schedule == "constant" and config.at_epoch >= 0 else None,
            epochs=cost.epochs,
            steps=cost.steps,
            steps_left=cost.steps_left,
            seconds=cost.seconds,
            state="failed" if cost.error else task.standing,
            error=cost.error or None,
            fork=f"{task.fork[0].name}@{task.fork[1]}" if task.fork else None,
        )

    def cells(self) -> tuple[str, ...]:
        """As a row of a table."""
        return (
            self.name,
            " ".join([self.model, *(f"{key}={value}" for key, value in self.model_args.items())]),
            f"{self.data_scale:g}",
            self.schedule + ("" if self.at_epoch is None else f" at {self.at_epoch:g}"),
            str(self.seed),
            str(self.epochs),
            f"{self.steps:,}",
            f"{self.seconds / 60:.1f}",
            self.state,
            self.fork or "-",
        )


@dataclass(frozen=True)
class DryRun:
    """A study that was not run.

    Attributes:
        name: of the plan. folder: where its runs would go. jobs: runs at a time. threads: of each.
        runs: in the order of the plan.
    """

    name: str
    folder: Path
    jobs: int
    threads: int
    runs: tuple[PlannedRun, ...]

    def __repr__(self) -> str:
        return f"DryRun({self.name!r}: {len(self.runs)} runs, about {self.minutes:.0f} min with {self.jobs} at a time)"

    @property
    def minutes(self) -> float:
        """Until all is done."""
        return sum(run.seconds for run in self.runs) / 60 / self.jobs

    def to_json(self) -> list[dict[str, object]]:
        """Plain values, a dictionary for each run."""
        return [asdict(run) for run in self.runs]

    def tables(self) -> list[TextTable | str]:
        """A row per run, then how long it all takes."""
        columns = ("run", "model", "scale", "schedule", "seed", "epochs", "steps", "min", "state", "fork from")
        title = f"{self.name}: {len(self.runs)} runs in {self.folder}, nothing written"
        steps, minutes = sum(run.steps_left for run in self.runs), self.minutes
        about = f"{minutes:.1f}" if minutes < 10 else f"{minutes:.0f}"
        return [
            TextTable(title, columns, tuple(run.cells() for run in self.runs)),
            f"{steps:,} steps are left, about {about} min with --jobs {self.jobs}, by steps measured here on "
            f"{self.threads} threads a run.",
        ]


def dry_run(plan: SweepPlan, folder: Path, *, jobs: int = 1) -> DryRun:
    """What a plan would do in a folder as it stands, by steps that are measured here.

    Args:
        plan: the study.
        folder: of its runs.
        jobs: runs at a time.
    """
    threads = max(1, cores() // jobs)
    tasks = prepare(plan, folder)
    costs = estimate(tasks, threads=threads)
    runs = tuple(PlannedRun.of(task, cost) for task, cost in zip(tasks, costs, strict=True))
    return DryRun(plan.name, folder, jobs, threads, runs)

"""A study from plan to table. Running it again is the recovery: what is finished stays, what is not goes on."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fourier_probe.errors import OutputError, TrainingError
from fourier_probe.io import atomic
from fourier_probe.io.locks import BusyError, held
from fourier_probe.studies.forks import clean, plan_forks
from fourier_probe.studies.local import run_local
from fourier_probe.studies.plan import SweepPlan
from fourier_probe.studies.results import write_results
from fourier_probe.studies.tasks import Task, find_tasks
from fourier_probe.studies.watch import Watch
from fourier_probe.training.stop import Stop

if TYPE_CHECKING:
    from fourier_probe.studies.layouts import Layouts
    from fourier_probe.training.config import TrainConfig


def sweep(
    plan: SweepPlan,
    out: Path | str,
    *,
    jobs: int = 1,
    launcher: str = "local",
    slurm: Mapping[str, object] | None = None,
    watch: Watch | None = None,
) -> list[dict[str, object]]:
    """Run what a plan means; returns the rows of results.csv (`studies.results`), failed runs among them.

    Args:
        plan: the study.
        out: its folder: a run folder for each, and results.csv, written anew after every run.
        jobs: runs at a time.
        launcher: `local` processes, or `slurm` through submitit.
        slurm: parameters of submitit's executor.
        watch: who listens.

    Raises:
        OutputError: the folder cannot be written, or another sweep is at work there.
        TrainingError: submitit is missing, or does not take its parameters.
        SystemExit, KeyboardInterrupt: after SIGTERM or Ctrl-C, once the runs at work have saved. (Those of a cluster
            go on; the next call waits for them.)
    """
    out, watch = Path(out), watch or Watch()
    if launcher not in ("local", "slurm"):
        raise TrainingError(f"launcher is {launcher!r}: expected local or slurm.")
    executor: object = None
    if launcher == "slurm":
        from fourier_probe.studies.cluster import make_executor

        executor = make_executor(out, {"slurm_array_parallelism": jobs, **(slurm or {})})
    elif slurm:
        raise TrainingError("parameters for submitit were given, but the launcher is local: choose slurm.")
    with _alone(out), Stop() as stop:
        tasks = prepare(plan, out)
        for note in plan.notes:
            watch.note(note)
        write_results(out, tasks, plan.axes)
        watch.begin(tasks)

        def ended(_task: Task) -> None:
            write_results(out, tasks, plan.axes)
            clean(tasks)

        if executor is None:
            run_local(tasks, jobs=jobs, stop=stop, watch=watch, ended=ended)
        else:
            from fourier_probe.studies.cluster import run_cluster

            run_cluster(tasks, executor, stop=stop, watch=watch, ended=ended)
        clean(tasks)
        table = write_results(out, tasks, plan.axes)
        if stop.requested:
            stop.leave()
    return table


def prepare(plan: SweepPlan, out: Path) -> list[Task]:
    """The runs of a study as they stand in its folder, with what each would be forked from. Writes nothing."""
    layouts: list[Layouts] = []

    def first_switch(config: TrainConfig) -> float:
        from fourier_probe.studies.layouts import Layouts

        if config.schedule == "none":
            return math.inf
        if not layouts:
            layouts.append(Layouts())
        return layouts[0].of(config).first_switch

    tasks = find_tasks(plan, out)
    plan_forks(tasks, first_switch)
    return tasks


def failures(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Name and error of each run that failed."""
    return [(row["name"], row["error"] or "no message") for row in rows if row["state"] == "failed"]


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder of the study against another sweep."""
    atomic.output_folder(out)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(out))
        except BusyError as error:
            raise OutputError(f"another sweep is at work in {out}: wait for it, or choose another --out.") from error
        yield

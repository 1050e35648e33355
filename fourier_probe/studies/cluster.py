"""Runs of a study as job arrays of a cluster, through submitit (an extra: `pip install 'fourier-probe[slurm]'`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fourier_probe.errors import ProbeError, TrainingError
from fourier_probe.io import atomic
from fourier_probe.io.decode import decode_json
from fourier_probe.studies.child import Child
from fourier_probe.studies.tasks import Task
from fourier_probe.studies.watch import Watch
from fourier_probe.training.stop import Stop

LOOK = 1.0  # seconds between two looks at the jobs
DEFAULTS: dict[str, object] = {"name": "fourier-probe", "timeout_min": 24 * 60, "cpus_per_task": 4}


class RemoteRun:
    """What submitit calls on a node: the same child as on this machine, requeued where its time runs out."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._child: Child | None = None

    def __call__(self) -> int:
        """Run; returns the exit code of the child."""
        self._child = Child(Path(self.folder), threads=int(os.environ.get("SLURM_CPUS_PER_TASK", "0")))
        try:
            return self._child.wait()
        except BaseException:
            self._child.terminate()
            raise

    def checkpoint(self) -> object:
        """Before a timeout or preemption: save, and go on from there in a new job."""
        import submitit

        if self._child is not None:
            self._child.terminate()
            self._child.wait()
        return submitit.helpers.DelayedSubmission(RemoteRun(self.folder))

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "_child": None}


def make_executor(out: Path, parameters: Mapping[str, object]) -> object:
    """A submitit executor that keeps its files in OUT/submitit. Starts and writes nothing.

    Args:
        out: folder of the study.
        parameters: for `update_parameters`, above `DEFAULTS`; `cluster` chooses the executor (`local` tries it out
            without a cluster).

    Raises:
        TrainingError: submitit or the cluster's commands are missing, or a parameter is wrong.
    """
    try:
        import submitit
    except ImportError as error:
        raise TrainingError("--launcher slurm needs submitit: pip install 'fourier-probe[slurm]'.") from error
    settings = {**DEFAULTS, **parameters}
    cluster = str(settings.pop("cluster", "slurm"))
    if cluster != "slurm":
        settings = {key: value for key, value in settings.items() if not key.startswith("slurm_")}
    try:
        executor = submitit.AutoExecutor(folder=out / "submitit", cluster=cluster)
        executor.update_parameters(**settings)
    except (RuntimeError, ValueError, NameError, AssertionError, TypeError) as error:
        raise TrainingError(f"submitit: {' '.join(str(error).split())} (see --slurm-arg)") from error
    return executor


def run_cluster(
    tasks: Sequence[Task], executor: Any, *, stop: Stop, watch: Watch, ended: Callable[[Task], None]
) -> None:
    """Submit every waiting task, bases before forks, and wait for them.

    Forks are an array of their own, which Slurm holds back until the bases have ended (`afterany`: where a base failed
    its forks train from the start); other executors are waited for here. Jobs of an earlier call that are still there
    are waited for, not submitted again.

    Args:
        tasks: of the study.
        executor: of submitit.
        stop: SIGTERM and Ctrl-C end the waiting, not the jobs.
        watch: who listens.
        ended: called after each run.
    """
    record = Path(str(executor.folder).replace("%j", "")) / "jobs.json"
    jobs: dict[str, tuple[Task, object]] = {}
    known = _known(record)
    for task in tasks:
        if task.state == "waiting" and task.name in known:
            job = getattr(executor, "_executor", executor).job_class(folder=executor.folder, job_id=known[task.name])
            if not job.done(force_check=True):
                jobs[task.name] = (task, job)
                task.started()
    waiting = [task for task in tasks if task.state == "waiting"]
    bases = [task for task in waiting if task.fork is None]
    forks = [task for task in waiting if task.fork is not None]
    first = _submit(bases, executor, jobs, record, watch, ended)
    if executor.cluster == "slurm":
        masters = sorted({str(job.job_id).partition("_")[0] for job in first})
        if masters:
            before = dict(executor.parameters.get("additional_parameters") or {})
            after = {**before, "dependency": f"afterany:{':'.join(masters)}"}
            executor.update_parameters(slurm_additional_parameters=after)
        _submit(forks, executor, jobs, record, watch, ended)
        _wait(tasks, jobs, stop, watch, ended)
    else:
        _wait(tasks, jobs, stop, watch, ended)
        if not stop.requested:
            _submit(forks, executor, jobs, record, watch, ended)
            _wait(tasks, jobs, stop, watch, ended)
    if stop.requested and jobs:
        watch.note(f"{len(jobs)} jobs go on without this command; the same command waits for them again.")


def _submit(
    tasks: Sequence[Task],
    executor: Any,
    jobs: dict[str, tuple[Task, Any]],
    record: Path,
    watch: Watch,
    ended: Callable[[Task], None],
) -> list[Any]:
    able = []
    for task in tasks:
        try:
            task.write_job()
            able.append(task)
        except ProbeError as error:
            task.failed(str(error))
            watch.ended(task)
            ended(task)
    if not able:
        return []
    record.parent.mkdir(parents=True, exist_ok=True)
    try:
        with executor.batch():  # an array
            submitted = [executor.submit(RemoteRun(str(task.folder.resolve()))) for task in able]
    except (RuntimeError, OSError) as error:
        raise TrainingError(f"submitit could not submit: {' '.join(str(error).split())}") from error
    for task, job in zip(able, submitted, strict=True):
        jobs[task.name] = (task, job)
        task.started()
        watch.started(task)
    atomic.write_json(record, {**_known(record), **{task.name: str(job.job_id) for task, job in jobs.values()}})
    return submitted


def _wait(
    tasks: Sequence[Task],
    jobs: dict[str, tuple[Task, Any]],
    stop: Stop,
    watch: Watch,
    ended: Callable[[Task], None],
) -> None:
    while jobs and not stop.requested:
        for name, (task, job) in list(jobs.items()):
            if job.done():
                del jobs[name]
                _ended(task, job)
                watch.ended(task)
                ended(task)
        watch.tick(tasks)
        time.sleep(LOOK)


def _ended(task: Task, job: Any) -> None:
    error = job.exception()
    task.ended(int(job.result()) if error is None else 1)
    if error is not None:  # the job never came to an end of its own
        task.failed(f"job {job.job_id}: {str(error).strip().splitlines()[-1] if str(error).strip() else job.state}")


def _known(record: Path) -> dict[str, str]:
    """Run -> job of an earlier call; raises TrainingError where the record is damaged: jobs would run twice."""
    return decode_json(record, dict[str, str], TrainingError) if record.exists() else {}

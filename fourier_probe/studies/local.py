"""Runs of a study as processes of this machine, a few at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from fourier_probe.errors import ProbeError
from fourier_probe.studies.child import Child
from fourier_probe.studies.forks import ready
from fourier_probe.studies.tasks import Task
from fourier_probe.studies.watch import Watch
from fourier_probe.training.stop import Stop

LOOK = 0.2  # seconds between two looks at the children


def run_local(tasks: Sequence[Task], *, jobs: int, stop: Stop, watch: Watch, ended: Callable[[Task], None]) -> None:
    """Run every waiting task; returns when none is left, or `stop` was requested and the children have saved.

    Args:
        tasks: of the study; those that are not waiting stay as they are.
        jobs: processes at a time.
        stop: SIGTERM and Ctrl-C.
        watch: who listens.
        ended: called after each run.
    """
    threads = max(1, cores() // jobs)  # of the CPU, a process
    gpus = visible_gpus() if jobs > 1 else []
    children: dict[int, tuple[Task, Child]] = {}  # by slot
    asked = False
    try:
        while True:
            for slot, (task, child) in list(children.items()):
                code = child.poll()
                if code is not None:
                    del children[slot]
                    task.ended(code)
                    watch.ended(task)
                    ended(task)
            if stop.requested and not asked:
                asked = True
                watch.note(f"stopping: {len(children)} runs are saving.")
                for _, child in children.values():
                    child.terminate()
            waiting = [] if asked else [task for task in tasks if task.state == "waiting"]
            free = [slot for slot in range(jobs) if slot not in children]
            for slot, task in zip(free, [task for task in _order(waiting) if ready(task)], strict=False):
                made = _start(task, threads, gpus[slot % len(gpus)] if gpus else None, watch, ended)
                if made is not None:
                    children[slot] = (task, made)
            if not children and (asked or not any(task.state == "waiting" for task in tasks)):
                return
            watch.tick(tasks)
            time.sleep(LOOK)
    except BaseException:  # a second Ctrl-C
        for _, child in children.values():
            child.kill()
        raise


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that runs are dealt out to, where there are several; empty otherwise."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name for name in visible.split(",") if name]
    else:
        import torch

        names = [str(index) for index in range(torch.cuda.device_count())]
    return names if len(names) > 1 else []


def _order(waiting: list[Task]) -> list[Task]:
    """Those that others wait for first, else in the order of the plan."""
    return sorted(waiting, key=lambda task: not any(other.fork and other.fork[0] is task for other in waiting))


def _start(task: Task, threads: int, gpu: str | None, watch: Watch, ended: Callable[[Task], None]) -> Child | None:
    task.started()
    try:
        task.write_job()
        child = Child(task.folder, threads=threads, gpu=gpu)
    except (ProbeError, OSError) as error:
        task.failed(str(error))
        watch.ended(task)
        ended(task)
        return None
    watch.started(task)
    return child

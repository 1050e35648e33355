"""A sweep as the command line shows it: a live table where stderr is a terminal, else a line for each start and end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fourier_probe.errors import ProbeError
from fourier_probe.studies.watch import Watch
from fourier_probe.training.runs import Run

if TYPE_CHECKING:
    from fourier_probe.studies.tasks import Task

SPACE = 8  # lines of a terminal that the table leaves free


class _Notes(Watch):
    def __init__(self, console: Console) -> None:
        self.console = console

    def note(self, text: str) -> None:
        self.console.print(f"note: {text}", soft_wrap=True)


class _Lines(_Notes):
    def begin(self, tasks: Sequence[Task]) -> None:
        done = sum(task.state == "finished" for task in tasks)
        self.note(f"{len(tasks)} runs, {done} of them finished already.")
        for task in tasks:
            if task.state == "failed":
                self.console.print(f"{task.name}: failed: {task.error}", soft_wrap=True)

    def started(self, task: Task) -> None:
        how = f", from {task.fork[0].name}@{task.fork[1]}" if task.fork and task.standing == "new" else ""
        again = " again" if task.standing == "resume" else ""
        self.console.print(f"{task.name}: started{again}{how}", soft_wrap=True)

    def ended(self, task: Task) -> None:
        took = f"{task.seconds:.0f} s" if task.seconds is not None else "not started"
        what = f"failed: {task.error}" if task.state == "failed" else task.state
        self.console.print(f"{task.name}: {what} ({took})", soft_wrap=True)


class _Table(_Notes):
    """The table is drawn anew a few times a second."""

    def __init__(self, console: Console, live: Live) -> None:
        super().__init__(console)
        self.live, self.last = live, 0.0

    def begin(self, tasks: Sequence[Task]) -> None:
        self.live.update(progress_table(tasks, self.console.height - SPACE))

    def tick(self, tasks: Sequence[Task]) -> None:
        if time.monotonic() - self.last > 0.5:
            self.last = time.monotonic()
            self.live.update(progress_table(tasks, self.console.height - SPACE))


@contextlib.contextmanager
def drawn() -> Iterator[Watch]:
    """Who draws a sweep on stderr."""
    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield _Table(console, live)


def progress_table(tasks: Sequence[Task], space: int) -> Table:
    """The runs that matter now: at work, failed, just ended, next; as many as fit.

    Args:
        tasks: of the study.
        space: lines there are.
    """
    order = {"running": 0, "failed": 1, "interrupted": 2, "waiting": 3, "finished": 4}
    ranked = sorted(tasks, key=lambda task: (order[task.state], task.seconds is None))
    shown = {id(task) for task in ranked[: max(3, space)]}
    count = {state: sum(task.state == state for task in tasks) for state in order}
    title = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("run", "state", "val acc, %", "time"):
        table.add_column(column, justify="left" if column in ("run", "state") else "right", overflow="ellipsis")
    for task in tasks:
        if id(task) not in shown:
            continue
        state, accuracy = task.state, ""
        if task.state in ("running", "finished"):
            done, epochs, value = _standing(task)
            accuracy = "" if value is None else f"{100 * value:.1f}"
            if task.state == "running":
                state = f"running epoch {done}/{epochs}" if done < epochs else "running analysis"
        if task.state == "failed":
            state = f"failed: {task.error}"
        minutes, seconds = divmod(round(task.running_for), 60)
        table.add_row(*map(Text, (task.name, state, accuracy, f"{minutes}:{seconds:02d}" if task.running_for else "")))
    return table


def _standing(task: Task) -> tuple[int, int, float | None]:
    """Epochs done, epochs in all, and the last validation accuracy."""
    try:
        run = Run.read(task.folder)
        epochs, metrics = run.plan.epochs, run.metrics
    except ProbeError:  # not begun
        return 0, task.entry.config.epochs, None
    return len(metrics), epochs, metrics[-1].val_acc if metrics else None

"""`fourier-probe sweep`: a plan file -> its runs, each once, and one table of what came of them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fourier_probe.cli import options

if TYPE_CHECKING:
    from fourier_probe.studies import SweepPlan, Task, Watch

SPACE = 8  # lines of a terminal that the table leaves free


@click.command()
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--jobs", "-j", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time.")
@click.option(
    "--launcher",
    type=click.Choice(["local", "slurm"]),
    default="local",
    show_default=True,
    help="Processes here, or job arrays through submitit.",
)
@click.option(
    "--slurm-arg",
    "slurm",
    metavar="KEY=VALUE",
    multiple=True,
    callback=options.key_values,
    help="Parameter of submitit, such as timeout_min=600 or slurm_partition=gpu; repeat.",
)
@click.option("--dry-run", is_flag=True, help="Print runs, steps and an estimate of time; write nothing.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the runs.  [default: runs/PLAN]")
@click.option("--json", "as_json", is_flag=True, help="Print the rows of results.csv as JSON.")
def command(
    plan: Path, jobs: int, launcher: str, slurm: dict[str, Any], dry_run: bool, out: Path | None, as_json: bool
) -> None:
    """Run the study of a PLAN file; the same command again does what is left of it.

    The plan (TOML) multiplies models, data scales, schedules and seeds; `docs/sweep.md` has it all. A run's folder is
    named by its content. Finished runs are skipped, interrupted and failed ones go on, and runs that share a
    convolutional beginning are forked. Results are gathered in OUT/results.csv. Exit codes: 1 if a run failed (the
    others go on), 143 and 130 after SIGTERM and Ctrl-C, with every run saved.

    \b
    fourier-probe sweep studies/small.toml --dry-run
    fourier-probe sweep studies/small.toml --jobs 2
    fourier-probe sweep study.toml --launcher slurm --jobs 16 --slurm-arg slurm_partition=gpu --slurm-arg gpus_per_node=1
    """  # noqa: D301, E501
    if slurm and launcher != "slurm":
        raise click.UsageError("--slurm-arg is for --launcher slurm.")
    from fourier_probe.studies import SweepPlan, sweep
    from fourier_probe.studies.run import failures

    study = SweepPlan.read(plan)
    folder = out or Path("runs") / study.name
    if dry_run:
        _dry_run(study, folder, jobs, as_json)
        return
    with drawn() as watch:
        rows = sweep(study, folder, jobs=jobs, launcher=launcher, slurm=slurm, watch=watch)
    if as_json:
        click.echo(json.dumps(rows, allow_nan=False))
    else:
        _print(rows, study.name)
        options.say(f"written to {folder}: results.csv and {len(rows)} run folders")
    failed = failures(rows)
    for name, error in failed:
        click.echo(f"failed: {name}: {error}", err=True)
    if failed:
        click.echo(f"error: {len(failed)} of {len(rows)} runs failed; the same command tries them again.", err=True)
        click.get_current_context().exit(1)


@contextlib.contextmanager
def drawn() -> Iterator[Watch]:
    """A live table on stderr where that is a terminal; else a line when a run starts or ends."""
    from rich.console import Console
    from rich.live import Live

    from fourier_probe.studies import Watch

    console = Console(stderr=True, markup=False, highlight=False)

    class Lines(Watch):
        def begin(self, tasks: Sequence[Task]) -> None:
            done = sum(task.state == "finished" for task in tasks)
            self.note(f"{len(tasks)} runs, {done} of them finished already.")
            for task in tasks:
                if task.state == "failed":
                    console.print(f"{task.name}: failed: {task.error}", soft_wrap=True)

        def started(self, task: Task) -> None:
            how = f", from {task.fork[0].name}@{task.fork[1]}" if task.fork and task.found == "new" else ""
            again = " again" if task.found == "resume" else ""
            console.print(f"{task.name}: started{again}{how}", soft_wrap=True)

        def ended(self, task: Task) -> None:
            took = f"{task.seconds:.0f} s" if task.seconds is not None else "not started"
            what = f"failed: {task.error}" if task.state == "failed" else task.state
            console.print(f"{task.name}: {what} ({took})", soft_wrap=True)

        def note(self, text: str) -> None:
            console.print(f"note: {text}", soft_wrap=True)

    if not console.is_terminal:
        yield Lines()
        return

    class Table(Watch):
        """The table is drawn anew a few times a second."""

        last = 0.0

        def begin(self, tasks: Sequence[Task]) -> None:
            live.update(progress_table(tasks, console.height - SPACE))

        def tick(self, tasks: Sequence[Task]) -> None:
            if time.monotonic() - self.last > 0.5:
                self.last = time.monotonic()
                live.update(progress_table(tasks, console.height - SPACE))

        def note(self, text: str) -> None:
            console.print(f"note: {text}", soft_wrap=True)

    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield Table()


def progress_table(tasks: Sequence[Task], space: int) -> Any:
    """The runs that matter now: at work, failed, just ended, next; as many as fit.

    Args:
        tasks: of the study.
        space: lines there are.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

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
    from fourier_probe.errors import ProbeError
    from fourier_probe.training.runs import Run

    try:
        run = Run.read(task.folder)
        epochs, metrics = run.plan.epochs, run.metrics
    except ProbeError:  # not begun
        return 0, task.entry.config.epochs, None
    return len(metrics), epochs, metrics[-1].val_acc if metrics else None


def _dry_run(study: SweepPlan, folder: Path, jobs: int, as_json: bool) -> None:
    from fourier_probe.studies.estimate import estimate
    from fourier_probe.studies.local import cores
    from fourier_probe.studies.run import prepare

    for note in study.notes:
        options.note(note)
    tasks = prepare(study, folder)
    estimates = estimate(tasks, threads=max(1, cores() // jobs))
    rows: list[dict[str, Any]] = []
    for task, each in zip(tasks, estimates, strict=True):
        config = task.entry.config
        rows.append(
            {
                "name": task.name,
                **{key: getattr(config, key) for key in ("model", "model_args", "data_scale", "schedule", "seed")},
                "at_epoch": config.at_epoch if config.schedule == "constant" and config.at_epoch >= 0 else None,
                "epochs": each.epochs,
                "steps": each.steps,
                "steps_left": each.steps_left,
                "seconds": each.seconds,
                "state": "failed" if each.error else task.found,
                "error": each.error or None,
                "fork": f"{task.fork[0].name}@{task.fork[1]}" if task.fork else None,
            }
        )
    if as_json:
        click.echo(json.dumps(rows, allow_nan=False))
        return
    columns = ["run", "model", "scale", "schedule", "seed", "epochs", "steps", "min", "state", "fork from"]
    table = [
        [
            row["name"],
            " ".join([row["model"], *(f"{key}={value}" for key, value in row["model_args"].items())]),
            f"{row['data_scale']:g}",
            row["schedule"] + ("" if row["at_epoch"] is None else f" at {row['at_epoch']:g}"),
            str(row["seed"]),
            str(row["epochs"]),
            f"{row['steps']:,}",
            f"{row['seconds'] / 60:.1f}",
            row["state"],
            row["fork"] or "-",
        ]
        for row in rows
    ]
    options.table(f"{study.name}: {len(rows)} runs in {folder}, nothing written", columns, table)
    for row in rows:
        if row["error"]:
            click.echo(f"{row['name']} would fail: {row['error']}", err=True)
    minutes = sum(row["seconds"] for row in rows) / 60 / jobs
    steps = sum(row["steps_left"] for row in rows)
    about = f"{minutes:.1f}" if minutes < 10 else f"{minutes:.0f}"
    click.echo(
        f"{steps:,} steps are left, about {about} min with --jobs {jobs}, by steps measured here on "
        f"{max(1, cores() // jobs)} threads a run."
    )


def _print(rows: Sequence[dict[str, Any]], name: str) -> None:
    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    columns = ["run", "state", "epochs", "val, %", "test, %", "params", "M mult-adds", "s"]
    table = [
        [
            row["name"],
            row["state"],
            str(row["epochs_trained"] or "-"),
            percent(row["val_acc"]),
            percent(row["test_acc"]),
            "-" if row["parameters"] is None else f"{row['parameters']:,}",
            "-" if row["mean_multiply_adds"] is None else f"{row['mean_multiply_adds'] / 1e6:.1f}",
            "-" if row["seconds"] is None else f"{row['seconds']:.0f}",
        ]
        for row in rows
    ]
    options.table(f"{name}: top-1 with the last weights; multiply-adds an image, mean over epochs", columns, table)

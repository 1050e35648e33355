"""`fourier-probe sweep`: a plan file -> its runs, each once, and one table of what came of them."""

from __future__ import annotations

from pathlib import Path

import click

from fourier_probe.cli import options, printing


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
    help="Parameter of submitit, such as timeout_min=600 (minutes) or slurm_partition=gpu; repeat.",
)
@click.option("--dry-run", is_flag=True, help="Print runs, steps and an estimate of time; write nothing.")
@click.option("--out", type=options.FILE_PATH, help="Folder of the runs.  [default: runs/PLAN]")
@options.json_option("Print the rows of results.csv as JSON.")
def command(
    plan: Path, jobs: int, launcher: str, slurm: dict[str, object], dry_run: bool, out: Path | None, as_json: bool
) -> None:
    """Run the study of a PLAN file; the same command again does what is left of it.

    The plan (TOML) multiplies models, data scales, schedules and seeds; `docs/sweep.md` has it all. A run's folder is
    named by its content. Finished runs are skipped, interrupted and failed ones go on, and runs that share a
    convolutional beginning are forked. Results are gathered in OUT/results.csv. Exit codes: 1 if a run failed (the
    others go on), 143 and 130 after SIGTERM and Ctrl-C, with every run saved.

    \b
    fourier-probe sweep studies/small.toml --dry-run
    fourier-probe sweep studies/small.toml --jobs 2
    fourier-probe sweep study.toml --launcher slurm --jobs 16 \\
      --slurm-arg slurm_partition=gpu --slurm-arg gpus_per_node=1
    """  # noqa: D301
    if slurm and launcher != "slurm":
        raise click.UsageError("--slurm-arg is for --launcher slurm.")
    from fourier_probe.studies import SweepPlan, sweep
    from fourier_probe.studies.drawn import drawn
    from fourier_probe.studies.results import results_table
    from fourier_probe.studies.run import failures
    from fourier_probe.verbs import sweep as verbs

    study = SweepPlan.read(plan)
    folder = out or Path("runs") / study.name
    if dry_run:
        foreseen = verbs.sweep(study, out=folder, jobs=jobs, dry_run=True)
        printing.answer(as_json, foreseen.to_json, foreseen.tables)
        for run in foreseen.runs:
            if run.error and not as_json:
                click.echo(f"{run.name} would fail: {run.error}", err=True)
        return
    with printing.going_on(), drawn() as watch:
        rows = sweep(study, folder, jobs=jobs, launcher=launcher, slurm=slurm, watch=watch)
    written = f"written to {folder}: results.csv and {len(rows)} run folders"
    printing.answer(as_json, lambda: rows, lambda: [results_table(rows, study.name), written])
    failed = failures(rows)
    for name, error in failed:
        click.echo(f"failed: {name}: {error}", err=True)
    if failed:
        click.echo(f"error: {len(failed)} of {len(rows)} runs failed; the same command tries them again.", err=True)
        click.get_current_context().exit(1)

"""`fourier-probe figures`: the papers' figures and tables from finished runs."""

from __future__ import annotations

from pathlib import Path

import click

from fourier_probe.cli import options
from fourier_probe.errors import ResultError, suggest
from fourier_probe.io import atomic

SUFFIXES = (".pdf", ".png", ".csv", ".tex", ".txt", "-crossover.csv")


@click.command()
@click.argument("names", nargs=-1)
@click.option("--list", "listing", is_flag=True, help="List the figures and what they show.")
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("checkpoints"),
    show_default=True,
    help="Folder of finished runs, as `fourier-probe sweep` leaves them.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("figures"), show_default=True)
@click.option("--force", is_flag=True, help="Overwrite figures that are there.")
def command(names: tuple[str, ...], listing: bool, runs: Path, out: Path, force: bool) -> None:
    """Draw the figures NAMES (all without any) from finished runs: PDF, PNG, CSV, caption, and LaTeX for tables.

    Nothing is trained. Figures whose runs are missing are named, with the line of a sweep plan that would make them;
    that is an error only for figures named on the command line.

    \b
    fourier-probe figures --list
    fourier-probe figures --runs runs/small --out figures/small
    fourier-probe figures schedule-table gates-by-depth --runs runs/study
    """  # noqa: D301
    from fourier_probe.papers import EXHIBITS, MissingRunsError
    from fourier_probe.papers.exhibit import data_sets
    from fourier_probe.training.runs import read_runs

    if listing:
        options.table("figures", ["name", "shows"], [[name, shows] for name, (_, shows) in EXHIBITS.items()])
        return
    unknown = next((name for name in names if name not in EXHIBITS), None)
    if unknown is not None:
        raise ResultError(f"there is no figure {unknown!r}.{suggest(unknown, EXHIBITS)} `figures --list` names all.")
    wanted = tuple(dict.fromkeys(names)) or tuple(EXHIBITS)
    atomic.output_folder(out, results=tuple(f"{name}{suffix}" for name in wanted for suffix in SUFFIXES), force=force)
    found = read_runs(runs)
    drawn, *others = list(data_sets(found).items()) or [("", found)]
    for name, left_out in others:
        options.note(f"{len(left_out)} runs on {name} are left out: the figures are of {len(drawn[1])} on {drawn[0]}.")
    missing: dict[str, str] = {}
    failed: dict[str, str] = {}
    with options.progress("figures", len(wanted)) as advance:
        for name in wanted:
            try:
                exhibit = EXHIBITS[name][0](found)
            except MissingRunsError as error:
                missing[name] = str(error)
            except ResultError as error:
                failed[name] = str(error)
            else:
                for suffix in SUFFIXES:
                    (out / f"{name}{suffix}").unlink(missing_ok=True)
                paths = exhibit.write(out, name)
                click.echo(f"{out / name}: {', '.join(path.name.removeprefix(name) for path in paths)}")
            advance(1)
    for name, reason in missing.items():
        options.note(f"{name} is left out: {reason}")
    for name, reason in failed.items():
        click.echo(f"error: {name}: {reason}", err=True)
    if failed:
        raise ResultError(f"{len(failed)} of {len(wanted)} figures could not be drawn from the runs in {runs}.")
    if missing and (names or len(missing) == len(wanted)):
        raise ResultError(f"{len(missing)} of {len(wanted)} figures could not be drawn from the runs in {runs}.")

"""`fourier-probe figures`: the papers' figures and tables from finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fourier_probe.cli import options, printing

if TYPE_CHECKING:
    from fourier_probe.papers.exhibit import Exhibit


@click.command()
@click.argument("names", nargs=-1)
@click.option("--list", "listing", is_flag=True, help="List the figures and what they show.")
@options.json_option("Print JSON: what was written; with --list names and what they show.")
@click.option(
    "--runs",
    type=options.FILE_PATH,
    default=Path("checkpoints"),
    show_default=True,
    help="Folder of finished runs, as `fourier-probe sweep` leaves them.",
)
@click.option(
    "--out", type=options.FILE_PATH, default=Path("figures"), show_default=True, help="Folder for figures and tables."
)
@options.force_option("figures that are there")
@options.figure_options
def command(names: tuple[str, ...], listing: bool, as_json: bool, runs: Path, out: Path, force: bool) -> None:
    """Draw the figures NAMES (all without any) from finished runs: PDF, PNG, CSV, caption, and LaTeX for tables.

    Nothing is trained. Figures whose runs are missing are named, with the line of a sweep plan that would make them;
    that is an error only for figures named on the command line.

    \b
    fourier-probe figures --list
    fourier-probe figures --runs runs/small --out figures/small
    fourier-probe figures schedule-table gates-by-depth --runs runs/study
    """  # noqa: D301
    from fourier_probe.papers import FIGURES
    from fourier_probe.results.text_table import TextTable
    from fourier_probe.verbs.figures import UndrawnError, figures

    if listing:
        known = FIGURES.entries()
        printing.answer(
            as_json,
            lambda: [{"name": entry.name, "shows": entry.summary} for entry in known],
            lambda: [TextTable("figures", ("name", "shows"), tuple((entry.name, entry.summary) for entry in known))],
        )
        return
    try:
        exhibits = figures(*names, runs=runs, out=out, force=force)
    except UndrawnError as error:
        _print(error.drawn, out, as_json)
        raise
    _print(exhibits, out, as_json)


def _print(exhibits: list[Exhibit], out: Path, as_json: bool) -> None:
    printing.answer(
        as_json,
        lambda: [
            {"name": exhibit.name, "files": [str(out / name) for name in exhibit.files()]} for exhibit in exhibits
        ],
        lambda: [f"{out / exhibit.name}: {', '.join(exhibit.endings())}" for exhibit in exhibits],
    )

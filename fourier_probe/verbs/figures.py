"""`fp.figures`: the papers' figures and tables from finished runs. May import papers and io."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fourier_probe.errors import ResultError, TrainingError
from fourier_probe.io import atomic
from fourier_probe.papers.registered import FIGURES, draw_figure
from fourier_probe.runtime.messages import note, progress

if TYPE_CHECKING:
    from fourier_probe.papers.exhibit import Exhibit
    from fourier_probe.training.runs import Run

ALWAYS = (".pdf", ".png", ".csv", ".txt")  # files of every figure


class UndrawnError(ResultError):
    """Some figures could not be drawn; `drawn` holds those that were, written already."""

    def __init__(self, message: str, drawn: Sequence[Exhibit]) -> None:
        super().__init__(message)
        self.drawn = list(drawn)


def figures(
    *names: str,
    runs: Path | str | Sequence[Run] = "checkpoints",
    out: Path | str | None = None,
    force: bool = False,
) -> list[Exhibit]:
    """Draw figures and tables of the papers from finished runs; nothing is trained.

    The files of one call take their places together, once all are written: on a full disk every old one is intact.

    Args:
        names: of figures, as `fourier-probe figures --list` has them; all without any.
        runs: a folder of finished runs, or runs.
        out: the folder to write them into: PDF, PNG, CSV, caption, and LaTeX for tables; None writes nothing.
        force: overwrite figures that are there.

    Raises:
        RegistryError: there is no figure of a name. OutputError: they cannot be written, or would overwrite others.
        TrainingError: there is no run, or one is damaged.
        UndrawnError: a figure that was named has not the runs it needs, or a result is damaged; the others are written.

    >>> figures("schedule-tabel")
    Traceback (most recent call last):
    fourier_probe.registry.RegistryError: there is no figure 'schedule-tabel'. Did you mean schedule-table, schedules?
    """
    wanted = tuple(dict.fromkeys(names)) or tuple(FIGURES)
    for name in wanted:
        if name not in FIGURES:
            FIGURES.get(name)  # says which there are
    if out is not None:
        atomic.output_folder(out, results=_names(wanted, ALWAYS), force=force)  # before anything is imported or read
    if isinstance(runs, str | Path) and not Path(runs).is_dir():
        raise TrainingError(f"there is no run in {runs}: it is no folder. `fourier-probe train` and `sweep` make runs.")
    from fourier_probe.training.runs import read_runs

    finished = read_runs(Path(runs)) if isinstance(runs, str | Path) else list(runs)
    if out is not None:
        owned = {name: FIGURES.get(name).files(name) for name in wanted}
        atomic.output_folder(out, results=tuple(file for files in owned.values() for file in files), force=force)
    if any(not name.startswith("planted-") for name in wanted):  # those are of the planted task, whatever there is
        _note_other_data(finished)
    drawn, missing, failed = _draw(wanted, finished)
    if out is not None and drawn:
        with atomic.staged(Path(out), [file for exhibit in drawn for file in owned[exhibit.name]]) as stage:
            for exhibit in drawn:
                exhibit.write(stage)
    if missing and (names or not drawn):
        failed |= missing
    else:
        for name, reason in missing.items():
            note(f"{name} is left out: {reason}")
    if failed:
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in failed.items())
        raise UndrawnError(f"{len(failed)} of {len(wanted)} figures could not be drawn from the runs:{reasons}", drawn)
    return drawn


def _draw(wanted: Sequence[str], runs: Sequence[Run]) -> tuple[list[Exhibit], dict[str, str], dict[str, str]]:
    """What can be drawn; why others have not the runs they need; and why others cannot be drawn from theirs."""
    from fourier_probe.papers.exhibit import MissingRunsError

    drawn: list[Exhibit] = []
    missing: dict[str, str] = {}
    failed: dict[str, str] = {}
    with progress("figures", len(wanted)) as advance:
        for name in wanted:
            try:
                drawn.append(draw_figure(name, runs))
            except MissingRunsError as error:
                missing[name] = str(error)
            except ResultError as error:
                failed[name] = str(error)
            advance(1)
    return drawn, missing, failed


def _note_other_data(runs: Sequence[Run]) -> None:
    """Say which runs are of other data sets than most, and so of no figure but those of the planted task."""
    from fourier_probe.papers.selection import data_sets, is_planted

    (data, most), *others = list(data_sets(runs).items()) or [("", list(runs))]
    for name, left_out in others:
        if is_planted(left_out[0]):
            continue
        note(f"{len(left_out)} runs on {name} are left out: the figures are of {len(most)} on {data}.")


def _names(names: Sequence[str], ends: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}{end}" for name in names for end in ends)

"""How the spectra of runs moved while they trained, from what `--probe-every` wrote into RUN/spectra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from fourier_probe.errors import ResultError
from fourier_probe.io import atomic
from fourier_probe.io.tables import write_frame
from fourier_probe.results.comparison import Comparison
from fourier_probe.results.filenames import COMPARE_EPOCHS
from fourier_probe.results.labels import legible, told_apart
from fourier_probe.results.spectra import Spectra
from fourier_probe.verbs.analyze import left_out_note


def compare_epochs(runs: Sequence[Path], out: Path | str | None = None, *, force: bool = False) -> Comparison:
    """How the spectra of runs moved while they trained, from what `--probe-every` wrote into RUN/spectra.

    Args:
        runs: run folders.
        out: folder for compare.csv and the figure of epochs.
        force: overwrite what is there.

    Raises:
        ResultError: a run holds spectra of fewer than two epochs.
    """
    from fourier_probe.plots import epochs_figure, save

    folder = None if out is None else atomic.output_folder(out, results=COMPARE_EPOCHS, force=force)
    series = [_while_training(run) for run in runs]
    folders = [run.resolve().name for run in runs]
    targets = [results[-1].target for results in series]
    shown = [legible(target, folder) for target, folder in zip(targets, folders, strict=True)]
    names = told_apart(shown, [msgspec.structs.replace(target, epoch=None) for target in targets], folders)
    labels = [f"{name}@{r.target.epoch}" for name, results in zip(names, series, strict=True) for r in results]
    comparison = Comparison(tuple(result for results in series for result in results), tuple(labels))
    if folder is not None:
        figure = epochs_figure(series, names, [switches_of(run) for run in runs], view=comparison.view)
        with atomic.staged(folder, COMPARE_EPOCHS) as stage:
            write_frame(stage / "compare.csv", comparison.to_frame())
            save(figure, stage / "epochs")
        left_out_note(list(comparison.results))
    return comparison


def _while_training(run: Path) -> list[Spectra]:
    """The results under RUN/spectra, by epoch."""
    results = [Spectra.load(path) for path in (run / "spectra").glob("epoch-*.json")]
    if len(results) < 2:
        raise ResultError(
            f"{run} holds spectra of {len(results)} epochs and --by epoch needs two: "
            "train with --probe-every 1, which writes them to RUN/spectra."
        )
    return sorted(results, key=lambda result: result.epoch)


def switches_of(run: Path) -> list[int]:
    """Epochs at whose start layers were recast, as conversions.csv has them."""
    from fourier_probe.training.record import read_conversions

    return [row.epoch for row in read_conversions(run)]

"""`fourier-probe schedule`: what a training would convert, when, and at what cost; nothing trains."""

from __future__ import annotations

from pathlib import Path

import click

from fourier_probe.cli import options, printing
from fourier_probe.cli.options.training import Sections, chosen, config_options
from fourier_probe.io import atomic
from fourier_probe.results.filenames import SCHEDULE
from fourier_probe.training.naming import run_name


@click.command(cls=Sections)
@config_options
@options.out_option("results/schedule-NAME-DIGITS", "Folder for the drawing.")
@options.force_option("a drawing that is there")
@options.figure_options
@options.json_option("Print the plan as JSON instead of the table.")
def command(config_file: Path | None, out: Path | None, force: bool, as_json: bool, **flags: object) -> None:
    """Print and draw the plan of `train` with the same flags: each layer's epoch, parameters and multiply-adds.

    A plan without --schedule is that of `linear`.

    \b
    fourier-probe schedule
    fourier-probe schedule --model resnet18 --data photos/ --schedule stage
    fourier-probe schedule --schedule constant --weighted-mean --json
    """  # noqa: D301
    from fourier_probe.training.config import FREE, TrainConfig
    from fourier_probe.training.preview import lay_out

    config = TrainConfig.of({"schedule": "linear", **chosen(config_file, flags)})
    decides = {name: value for name, value in config.to_json().items() if name not in FREE}
    folder = out or options.folder("schedule", run_name(config), decides)
    atomic.output_folder(folder, results=SCHEDULE, force=force)
    plan = lay_out(config)
    plan.save(folder, force=True)
    written = f"written to {folder}: {', '.join(SCHEDULE)}"
    printing.answer(as_json, plan.to_json, lambda: [*plan.tables(), written])

"""`fourier-probe train`: a model, images, and a schedule -> a run folder."""

from __future__ import annotations

from pathlib import Path

import click

from fourier_probe.cli import options, printing
from fourier_probe.cli.options.training import Sections, chosen, config_options
from fourier_probe.io import atomic
from fourier_probe.runtime.launched import rank_and_world


@click.command(cls=Sections)
@config_options
@click.option("--out", type=options.FILE_PATH, help="Run folder.  [default: runs/NAME]")
@click.option("--resume", is_flag=True, help="Continue the run in the folder, exactly; other flags may be left out.")
@click.option(
    "--fork",
    metavar="RUN@EPOCH",
    type=options.NAMED,
    help="Begin at the exact state of another run that shares its beginning.  [default: none]",
)
@options.force_option("the run in the folder")
@options.json_option("Print config.json with the result on stdout.")
def command(
    config_file: Path | None,
    out: Path | None,
    resume: bool,
    fork: str | None,
    force: bool,
    as_json: bool,
    **flags: object,
) -> None:
    """Train a model; with --schedule its convolutions become attention, layer by layer (PRS).

    Without flags: cifar_resnet20 on the bundled images. Defaults marked "recipe" depend on the model's family. Losses
    are in nats; epochs below 1 are fractions of training. Exit codes: 1 error, 143 after SIGTERM and 130 after Ctrl-C,
    with the state saved for --resume.

    \b
    fourier-probe train
    fourier-probe train --schedule linear --early-epoch 0.5 --late-epoch 0.2
    fourier-probe train --model resnet18 --data photos/ --schedule linear
    fourier-probe train --schedule constant --fork runs/cifar_resnet20-linear@3
    fourier-probe train --out runs/mine --resume
    torchrun --nproc-per-node 2 -m fourier_probe train --data photos/
    """  # noqa: D301
    named = chosen(config_file, flags)
    if resume and force:
        raise click.UsageError("--resume continues a run and --force overwrites it: choose one.")
    if out is not None and rank_and_world()[0] == 0:
        atomic.output_folder(out)  # before torch is imported: a place that cannot be written is said at once
    from fourier_probe.training.progress import drawn
    from fourier_probe.verbs.train import train

    with drawn() as progress:
        run = train(named, out=out, resume=resume, fork=fork, force=force, progress=progress)
    if rank_and_world()[0] == 0:
        printing.answer(as_json, run.to_json, run.tables)

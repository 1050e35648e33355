"""`fourier-probe demo`: the main job end to end on the bundled images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from fourier_probe.cli import options
from fourier_probe.io import atomic
from fourier_probe.results.filenames import COMPARE

RUNS: dict[str, dict[str, Any]] = {
    "cnn": {"model": "cifar_resnet8", "schedule": "none"},
    "prs": {
        "model": "cifar_resnet8",
        "schedule": "linear",
        "early_epoch": 0.6,
        "late_epoch": 0.3,
        "convert": ["layer3*"],
    },
    "vit": {"model": "cifar_vit_patch4", "schedule": "none"},
}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/demo"), show_default=True)
@click.option("--epochs", type=click.IntRange(min=2), default=8, show_default=True, help="Of each of the three runs.")
@click.option("--data-scale", type=float, default=1.0, show_default=True, help="Part of the training images.")
@click.option("--force", is_flag=True, help="Overwrite what an earlier demo left there.")
def command(out: Path, epochs: int, data_scale: float, force: bool) -> None:
    """Train a CNN, a PRS model and a ViT on the bundled images, probe them, and draw them side by side.

    A few minutes on two cores, no network.

    \b
    fourier-probe demo
    fourier-probe demo --epochs 20 --out results/longer
    """  # noqa: D301
    from fourier_probe.training import TrainConfig, train
    from fourier_probe.training.progress import drawn

    start = time.monotonic()
    atomic.output_folder(out, results=(*COMPARE, "*/config.json"), force=force)
    for name, settings in RUNS.items():
        config = TrainConfig.of({**settings, "data": "bundled", "epochs": epochs, "data_scale": data_scale})
        click.echo(f"training {name}: {config.model}, schedule {config.schedule}, {epochs} epochs", err=True)
        with drawn() as progress:
            train(config, out / name, force=True, progress=progress)
    from fourier_probe.cli.compare import show
    from fourier_probe.verbs.compare import compare, write

    comparison = compare([out / name for name in RUNS], device=options.device_of("auto"), batch_size=50)
    for result, name in zip(comparison.results, RUNS, strict=True):
        result.save(out / name, force=True)
    write(comparison, out)
    show(comparison, as_json=False)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    options.say(f"done in {minutes} min {seconds} s: look at {out / 'spectra.png'} and {out / 'depth.png'}")
    options.note("one seed and a few epochs show the tool, not a finding: intervals here are over images.")

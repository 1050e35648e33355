"""`fourier-probe heatmap`: what noise of each frequency does to a model's answers and features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fourier_probe.cli import options
from fourier_probe.io import atomic

FILES = ("heatmap.json", *(f"{name}.{kind}" for name in ("heatmap", "bands") for kind in ("csv", "pdf", "png")))


def _strength(_ctx: click.Context, _param: click.Parameter, eps: float | None) -> float | None:
    if eps is not None and not 0 < eps <= 1e6:
        raise click.BadParameter(f"{eps} is no strength of noise: give a number above 0 (4.0 suits 32 pixels)")
    return eps


@click.command()
@click.argument("target", callback=options.existing)
@options.model_options
@options.image_options
@click.option("--points", metavar="GLOB", multiple=True, help="Also the mean change of features at these probe points.")
@click.option(
    "--eps",
    type=float,
    callback=_strength,
    help="L2 norm of the noise per channel, pixels in [0, 1].  [default: 4.0 at 32 pixels]",
)
@click.option("--stride", type=click.IntRange(min=1), default=1, show_default=True, help="Every so many frequencies.")
@click.option("--bands", type=click.IntRange(min=2), help="Instead: noise limited to each of so many bands of radii.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the noise.")
@click.option("--label", metavar="TEXT", help="What tables and figures call the target.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: results/NAME-heatmap]")
@click.option("--force", is_flag=True, help="Overwrite results that are there.")
@options.figure_options
def command(target: str, out: Path | None, force: bool, limit: int, device: str, amp: str, **given: Any) -> None:
    """Top-1 error of TARGET under Fourier-basis noise, frequency by frequency (Yin et al. 2019).

    A run that was stopped goes on where it was when it is started again with the same options.

    \b
    fourier-probe heatmap runs/cifar_resnet20 --images 200
    fourier-probe heatmap runs/cifar_resnet20 --images 200 --stride 2 --points 'layer3*'
    fourier-probe heatmap timm:resnet50 --pretrained --data photos/ --bands 8
    """  # noqa: D301
    if amp != "none":
        raise click.UsageError("--amp is not for heatmap: differences of features need the digits.")
    folder = out or Path("results") / atomic.safe_name(f"{target}-heatmap")
    atomic.output_folder(folder, results=FILES, force=force)
    from fourier_probe.verbs.heatmap import heatmap
    from fourier_probe.verbs.partial import STATE

    try:
        heat = heatmap(target, **given, images=limit, device=options.device_of(device), out=folder, force=force)
    except (KeyboardInterrupt, SystemExit) as stop:
        code = 130 if isinstance(stop, KeyboardInterrupt) else stop.code
        if code not in (130, 143):
            raise
        going_on = ": run the same command again to go on" if (folder / STATE).exists() else ""
        click.echo(f"interrupted{going_on}", err=True)
        click.get_current_context().exit(code)
    clean = heat.clean_error
    told = "unknown (no labels of the model's classes)" if clean is None else f"{1 - clean.value:.1%}"
    click.echo(f"{heat.images.n} images, eps {heat.definition.eps:.2f}; top-1 without noise {told}")
    click.echo(f"written to {folder}: {', '.join(name for name in FILES if (folder / name).exists())}")

"""`fourier-probe heatmap`: what noise of each frequency, or a filter, does to models' answers and features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fourier_probe.cli import options
from fourier_probe.io import atomic

if TYPE_CHECKING:
    from fourier_probe.results.heatmap import HeatMap

FILES = (
    "heatmap.json",
    *(f"{name}.{kind}" for name in ("heatmap", "bands", "filters") for kind in ("csv", "pdf", "png")),
)


def _strength(_ctx: click.Context, _param: click.Parameter, eps: float | None) -> float | None:
    if eps is not None and not 0 < eps <= 1e6:
        raise click.BadParameter(f"{eps} is no strength of noise: give a number above 0 (4.0 suits 32 pixels)")
    return eps


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...", callback=options.existing)
@options.model_options
@options.image_options
@click.option("--points", metavar="GLOB", multiple=True, help="Also the mean change of features at these probe points.")
@options.grid_option
@click.option(
    "--eps",
    type=float,
    callback=_strength,
    help="L2 norm of the noise per channel, pixels in [0, 1].  [default: 4.0 at 32 pixels]",
)
@click.option("--stride", type=click.IntRange(min=1), default=1, show_default=True, help="Every so many frequencies.")
@click.option("--bands", type=click.IntRange(min=2), help="Instead: noise limited to each of so many bands of radii.")
@click.option(
    "--filters",
    is_flag=True,
    help="Instead: low-pass, high-pass, and without a band; cut-offs are multiples of 1/BANDS.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the noise.")
@click.option(
    "--label", "labels", metavar="TEXT", multiple=True, help="What tables and figures call a target; for each."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results.  [default: results/heatmap-NAMES-DIGITS]",
)
@click.option("--force", is_flag=True, help="Overwrite results that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print heatmap.json on stdout; a list of several targets.")
@options.figure_options
def command(targets: tuple[str, ...], out: Path | None, force: bool, limit: int, device: str, amp: str,
            labels: tuple[str, ...], as_json: bool, **given: Any) -> None:  # fmt: skip
    """Top-1 error of TARGETs under Fourier-basis noise, frequency by frequency (Yin et al. 2019), or under filters.

    A run that was stopped goes on where it was when it is started again with the same options, on any number of ranks.

    \b
    fourier-probe heatmap runs/cifar_resnet20 --images 200
    fourier-probe heatmap runs/cifar_resnet20 --images 200 --stride 2 --points 'layer3*'
    fourier-probe heatmap timm:resnet50 timm:vit_tiny_patch16_224 --pretrained --data photos/ --bands 8
    fourier-probe heatmap runs/cifar_resnet20 runs/cifar_vit_patch4 --filters
    torchrun --nproc-per-node 2 -m fourier_probe heatmap ckpt.pt --data photos/
    """  # noqa: D301
    if amp != "none":
        raise click.UsageError("--amp is not for heatmap: differences of features need the digits.")
    if labels and len(labels) != len(targets):
        raise click.UsageError(f"--label: {len(labels)} for {len(targets)} targets; give one for each, in order.")
    if given["filters"] and (given["eps"] is not None or given["stride"] != 1):
        raise click.UsageError("--eps and --stride are for noise, and --filters takes parts of the images away.")
    folder = out or options.folder(
        "heatmap", "-".join(labels or targets), {"targets": targets, "images": limit, **given}
    )
    with options.ranks() as rank:
        if rank == 0:
            atomic.output_folder(
                folder, results=(*FILES, *(["*/heatmap.json"] if len(targets) > 1 else [])), force=force
            )
        from fourier_probe.results.heatmap import HeatMap
        from fourier_probe.verbs.heatmap import heatmap
        from fourier_probe.verbs.partial import Partial

        try:
            result = heatmap(list(targets) if len(targets) > 1 else targets[0], labels=labels or None, **given,
                             images=limit, device=options.device_of(device), out=folder, force=force)  # fmt: skip
        except (KeyboardInterrupt, SystemExit) as stop:
            code = 130 if isinstance(stop, KeyboardInterrupt) else stop.code
            if code not in (130, 143):
                raise
            going_on = ": run the same command again to go on" if Partial.left_in(folder) else ""
            click.echo(f"interrupted{going_on}", err=True)
            click.get_current_context().exit(code)
        if rank:
            return
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(result if isinstance(result, HeatMap) else list(result)).decode())
        return
    for heat in [result] if isinstance(result, HeatMap) else result:
        print_summary(heat, len(targets) > 1)
    options.say(f"written to {folder}: {', '.join(name for name in FILES if (folder / name).exists())}")


def print_summary(heat: HeatMap, named: bool) -> None:
    """Number of images, strength of the noise, accuracy without it; what the gradient predicts."""
    clean, eps = heat.clean_error, heat.definition.eps
    told = "unknown (no labels of the model's classes)" if clean is None else f"{1 - clean.value:.1%}"
    strength = "" if eps is None else f", eps {eps:.2f}"
    without = "unfiltered" if eps is None else "without noise"
    predicted = heat.prediction()
    rank = "" if predicted is None else (
        f"; rank correlation of error and gradient {predicted[0]:+.2f} over {predicted[1]} radii"
    )  # fmt: skip
    label = f"{heat.target.label}: " if named else ""
    options.say(f"{label}{heat.images.n} images{strength}; top-1 {without} {told}{rank}")

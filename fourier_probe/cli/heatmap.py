"""`fourier-probe heatmap`: what noise of each frequency, or a filter, does to models' answers and features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fourier_probe.cli import options, printing
from fourier_probe.io import atomic
from fourier_probe.results.filenames import HEATMAP


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...", type=options.NAMED, callback=options.existing)
@options.model_options
@options.image_options
@options.noise_options
@options.labels_option("target")
@options.out_option("results/heatmap-NAMES-DIGITS")
@options.force_option()
@options.json_option("Print heatmap.json on stdout; a list of several targets.")
@options.figure_options
def command(targets: tuple[str, ...], out: Path | None, force: bool, limit: int, device: str, amp: str,
            labels: tuple[str, ...], as_json: bool, **given: Any) -> None:  # fmt: skip
    """Top-1 error of TARGETs under Fourier-basis noise, frequency by frequency (Yin et al. 2019), or under filters.

    A run that was stopped goes on where it was when it is started again with the same options, on any number of ranks.

    \b
    fourier-probe heatmap runs/cifar_resnet20 --images 200
    fourier-probe heatmap runs/cifar_resnet20 --stride 2 --points 'layer3*'
    fourier-probe heatmap cnn.pt=resnet18 vit.pt --data photos/ --bands 8
    fourier-probe heatmap runs/cifar_resnet20 runs/cifar_vit_patch4 --filters
    torchrun --nproc-per-node 2 -m fourier_probe heatmap ckpt.pt --data photos/
    """  # noqa: D301
    if amp != "none":
        raise click.UsageError("--amp is not for heatmap: differences of features need the digits.")
    options.check_labels(labels, targets)
    if given["filters"] and (given["eps"] is not None or given["stride"] != 1):
        raise click.UsageError("--eps and --stride are for noise, and --filters takes parts of the images away.")
    decides = {"targets": targets, "images": limit, **given}
    folder = out or options.folder("heatmap", "-".join(labels or targets), decides)
    with options.ranks() as rank:
        if rank == 0:
            several = ["*/heatmap.json"] if len(targets) > 1 else []
            atomic.output_folder(folder, results=(*HEATMAP, *several), force=force)
        from fourier_probe.results.heatmap import HeatMap
        from fourier_probe.results.heatmap_text import tables_of
        from fourier_probe.verbs.heatmap import heatmap
        from fourier_probe.verbs.partial import Partial

        with printing.going_on(lambda: Partial.left_in(folder)):
            result = heatmap(list(targets) if len(targets) > 1 else targets[0], labels=labels or None, **given,
                             images=limit, device=options.device_of(device), out=folder, force=force)  # fmt: skip
        if rank:
            return
    if as_json:
        import msgspec

        printing.echo(msgspec.json.encode(result if isinstance(result, HeatMap) else list(result)).decode())
        return
    heats, named = ([result], [result.target.label]) if isinstance(result, HeatMap) else (list(result), result.labels)
    printing.show(tables_of(heats, named))
    printing.say(f"written to {folder}: {', '.join(name for name in HEATMAP if (folder / name).exists())}")

"""`fourier-probe analyze`: from a checkpoint and images to spectra, their files and two figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fourier_probe.cli import options, printing
from fourier_probe.io import atomic
from fourier_probe.results.filenames import ANALYZE
from fourier_probe.runtime.launched import rank_and_world


@click.command()
@click.argument("target", type=options.NAMED, callback=options.existing)
@options.model_options
@options.image_options
@options.probe_options
@options.label_option
@options.out_option("results/analyze-NAME-DIGITS")
@options.force_option()
@options.figure_options
@options.json_option("Print spectra.json on stdout instead of the table.")
def command(target: str, out: Path | None, force: bool, as_json: bool, label: str | None, **given: Any) -> None:
    """Relative log-amplitude spectra of every layer of TARGET over a set of images.

    TARGET is a checkpoint (.pt .pth .th .tar .ckpt .safetensors), a run folder, timm:NAME, torchvision:NAME,
    net.py:factory, or a folder of transformers; FILE=NAME gives the architecture of a file that does not say.

    \b
    fourier-probe analyze timm:resnet50 --data photos/
    fourier-probe analyze ckpt.pt --model resnet18 --data test.npz
    fourier-probe analyze runs/cifar_resnet20 --untrained --out results/before
    torchrun --nproc-per-node 2 -m fourier_probe analyze ckpt.pt --data photos/
    """  # noqa: D301
    folder = out or options.folder("analyze", label or target, {"target": target, **given})
    with options.ranks() as rank:
        if rank == 0:
            atomic.output_folder(folder, results=ANALYZE, force=force)  # before torch is imported
        from fourier_probe.results.spectra_tables import tables_of
        from fourier_probe.verbs.analyze import analyze_target, write
        from fourier_probe.verbs.opening import open_target

        model, images, probe = options.records(given)
        opened = open_target(target, **vars(model), label=label)
        result = analyze_target(opened, given["data"], images, probe, rank=rank, world=rank_and_world()[1])
        if result.images.interrupted:
            raise KeyboardInterrupt
        if rank:
            return
        written = write(result, opened.label, folder, map_scale=probe.map_scale)
    written_to = f"written to {folder}: {', '.join(written)}"
    printing.answer(as_json, result.to_json, lambda: [*tables_of(result, opened.label), written_to])

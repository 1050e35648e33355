"""`fourier-probe validate`: top-1, top-5, per class and confusion of a target on labelled images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from fourier_probe.cli import options, printing
from fourier_probe.io import atomic
from fourier_probe.results.filenames import VALIDATE


@click.command()
@click.argument("target", type=options.NAMED, callback=options.existing)
@options.model_options
@options.image_options_of(None)
@click.option("--lesions", is_flag=True, help="Also top-1 with each residual step replaced by the identity.")
@click.option(
    "--hessian",
    is_flag=True,
    help="Also the largest eigenvalues of the loss's Hessian on 20 minibatches, and a landscape.",
)
@options.label_option
@options.out_option("results/validate-NAME-DIGITS")
@options.force_option()
@options.figure_options
@options.json_option("Print validation.json on stdout instead of the table.")
def command(target: str, out: Path | None, force: bool, as_json: bool, label: str | None, **given: Any) -> None:
    """Top-1, top-5, loss, per class and confusion of TARGET, with 95 % intervals over images.

    On the planted task also the images whose local cue contradicts the label, and the bound of this network.

    \b
    fourier-probe validate runs/cifar_resnet20
    fourier-probe validate ckpt.pt --model resnet18 --data photos/ --images 5000
    fourier-probe validate runs/patch_resnet-planted-linear --data planted
    fourier-probe validate runs/cifar_vit_patch4 --images 1000 --lesions --hessian
    """  # noqa: D301
    folder = out or options.folder("validate", label or target, {"target": target, **given})
    atomic.output_folder(folder, results=VALIDATE, force=force)  # before torch is imported
    from fourier_probe.results.validation_tables import tables_of
    from fourier_probe.verbs.opening import open_target
    from fourier_probe.verbs.probing import precision_of
    from fourier_probe.verbs.validate import validate_target, write

    model, images, probe = options.records(given)
    opened = open_target(target, **vars(model), label=label)
    extra = {name: given[name] for name in ("lesions", "hessian")}
    result = validate_target(opened, given["data"], images, device=probe.device, amp=precision_of(probe.amp), **extra)
    written = write(result, folder)
    written_to = f"written to {folder}: {', '.join(written)}"
    saved = folder / VALIDATE[0]
    printing.answer(as_json, lambda: json.loads(saved.read_text()), lambda: [*tables_of(result), written_to])

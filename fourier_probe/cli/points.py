"""`fourier-probe points`: where the analysis would listen."""

from __future__ import annotations

from typing import Any

import click

from fourier_probe.cli import options, printing


@click.command()
@click.argument("target", type=options.NAMED, callback=options.existing)
@options.model_options
@click.option(
    "--points",
    metavar="GLOB",
    multiple=True,
    help="The modules or points of this name instead; repeat.  [default: the network's own points]",
)
@options.coverage_options
@options.label_option
@options.json_option("Print JSON instead of the table.")
def command(target: str, as_json: bool, **given: Any) -> None:
    """List the probe points of TARGET in execution order, with grid and channels.

    \b
    fourier-probe points timm:vit_tiny_patch16_224
    fourier-probe points timm:swin_tiny_patch4_window7_224 --img-size 224x448
    fourier-probe points ckpt.pt --points 'blocks.*.attn'
    """  # noqa: D301
    from fourier_probe.targets import ModelOptions
    from fourier_probe.verbs.points import list_points

    model = ModelOptions(**{name: given.pop(name) for name in ModelOptions.__dataclass_fields__})
    listed = list_points(target, model, **given)
    printing.answer(as_json, listed.to_json, listed.tables)

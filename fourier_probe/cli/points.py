"""`fourier-probe points`: where the analysis would listen."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fourier_probe.cli import options

if TYPE_CHECKING:
    from fourier_probe.trace.grid import Layout


@click.command()
@click.argument("target", callback=options.existing)
@options.model_options
@click.option("--points", metavar="GLOB", multiple=True, help="The modules or points of this name instead.")
@options.coverage_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def command(
    target: str,
    points: tuple[str, ...],
    as_json: bool,
    strict: bool,
    self_check: bool,
    grid: tuple[int, int] | None,
    img_size: tuple[int, int] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    **given: Any,
) -> None:
    """List the probe points of TARGET in execution order, with grid and channels.

    \b
    fourier-probe points timm:vit_tiny_patch16_224
    fourier-probe points timm:swin_tiny_patch4_window7_224 --img-size 224x448
    fourier-probe points ckpt.pt --points 'blocks.*.attn'
    """  # noqa: D301
    import torch

    from fourier_probe.probe.survey import survey, tell
    from fourier_probe.targets import ModelOptions, resolve

    found = resolve(target, ModelOptions(**given))
    spec = found.input_spec(img_size=img_size, mean=mean, std=std)
    if found.model is None:
        raise click.UsageError(f"{target} is a saved result; points needs a model.")
    like = next((each for each in found.model.parameters() if each.is_floating_point()), torch.empty(0))
    example = torch.zeros(1, spec.channels, *spec.size, dtype=like.dtype, device=like.device)
    surveyed = survey(found.model, example, select=points, self_check=self_check and not points, grid=grid)
    listed = surveyed.points
    if not points:
        tell(surveyed.coverage, strict=strict)
    if as_json:
        click.echo(json.dumps([asdict(point) for point in listed], allow_nan=False))
        return
    rows = [
        [
            point.name,
            point.kind,
            point.op,
            f"{point.depth:.3f}",
            "x".join(map(str, point.layout.grid)),
            str(point.layout.channels),
            layout_text(point.layout),
            f"{point.side} of {point.module or 'the model'}",
        ]
        for point in listed
    ]
    title = f"{found.label}: {len(listed)} points at {spec.size[0]}x{spec.size[1]} pixels"
    options.table(title, ["point", "kind", "op", "depth", "grid", "ch", "layout", "read at"], rows)
    if not points:
        click.echo(f"coverage: {surveyed.coverage.text()}.")


def layout_text(layout: Layout) -> str:
    """The kind of a layout, and what it holds beside positions."""
    words = [layout.kind + (", sequence first" if layout.batch and layout.kind == "tokens" else "")]
    words += [f"{count} {name}" for count, name in ((layout.prefix, "prefix"), (layout.suffix, "suffix")) if count]
    return " + ".join(words)

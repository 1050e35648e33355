"""`fourier-probe models`: what can be created by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from fourier_probe.cli import options
from fourier_probe.errors import ModelError

if TYPE_CHECKING:
    from torch import nn


@click.command()
@click.argument("pattern", required=False)
@click.option("--img-size", metavar="PX", callback=options.size, help="Count multiply-adds at this size instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def command(pattern: str | None, img_size: tuple[int, int] | None, as_json: bool) -> None:
    """List models with parameters, multiply-adds and the grids of their stages: ours, or timm's that match PATTERN.

    No weights are made.

    \b
    fourier-probe models
    fourier-probe models 'convit*'
    """  # noqa: D301
    from fourier_probe.models import zoo

    names = zoo.names(pattern) if pattern else zoo.ours()
    if not names:
        raise ModelError(f"no model matches {pattern!r}: patterns are shell globs, as in 'vit_tiny*'.")
    found = []
    with options.progress("models", len(names)) as advance:
        for name in names:
            row: dict[str, object] = dict.fromkeys(("name", "parameters", "multiply_adds", "size", "grids"))
            row["name"] = name
            try:
                model = zoo.skeleton(name)
                size = img_size or zoo.input_spec(model).size
                stats = zoo.stats(model, size)
                row |= {"parameters": stats.parameters, "multiply_adds": stats.multiply_adds, "size": list(size)}
                row["grids"] = _grids(model, zoo.input_spec(model).channels, size)
            except ModelError as error:
                options.note(f"{name}: {error}")
            found.append(row)
            advance(1)
    if as_json:
        click.echo(json.dumps(found))
        return

    def count(value: object, unit: float, form: str) -> str:
        return form.format(value / unit) if isinstance(value, int) else "-"

    rows = [
        [
            str(row["name"]),
            "x".join(map(str, row["size"])) if isinstance(row["size"], list) else "-",
            count(row["parameters"], 1e6, "{:.3f}"),
            count(row["multiply_adds"], 1e9, "{:.3f}"),
            ", ".join("x".join(map(str, grid)) for grid in row["grids"]) if isinstance(row["grids"], list) else "-",
        ]
        for row in found
    ]
    columns = ["model", "pixels", "parameters (M)", "multiply-adds (G)", "grids of its stages"]
    options.table(f"{len(rows)} models", columns, rows)


def _grids(skeleton: nn.Module, channels: int, size: tuple[int, int]) -> list[list[int]] | None:
    """The grids of the model's stream in execution order; none where it has no probe points on the meta device."""
    import itertools

    import torch

    from fourier_probe.probe.points import find_points

    try:
        found = find_points(skeleton, torch.zeros(1, channels, *size, device="meta"), branches=False)
    except Exception:  # an operator without a meta kernel, or a model without maps: the rest of the row still stands
        return None
    return [list(grid) for grid, _ in itertools.groupby(point.layout.grid for point in found)]

"""`fourier-probe models`: what can be created by name."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from fourier_probe.cli import options, printing
from fourier_probe.runtime import model_names


@click.command()
@click.argument("pattern", required=False)
@click.option(
    "--img-size",
    metavar="PX",
    callback=options.size,
    help="Count multiply-adds at this size, pixels.  [default: the model's own]",
)
@options.json_option("Print JSON instead of the table.")
def command(pattern: str | None, img_size: tuple[int, int] | None, as_json: bool) -> None:
    """List models with parameters, multiply-adds and the grids of their stages: ours, or timm's that match PATTERN.

    No weights are made.

    \b
    fourier-probe models
    fourier-probe models 'convit*'
    """  # noqa: D301
    if pattern is not None:
        model_names.check_pattern(pattern)
    from fourier_probe.verbs.models import describe_models, list_models

    with printing.progress("models", len(list_models(pattern))) as advance:
        models = describe_models(pattern, img_size=img_size, progress=advance)
    if as_json:
        printing.echo(json.dumps([asdict(model) for model in models]))
        return

    def count(value: int | None, unit: float) -> str:
        return "-" if value is None else f"{value / unit:.3f}"

    rows = [
        [
            model.name,
            "-" if model.size is None else "x".join(map(str, model.size)),
            count(model.parameters, 1e6),
            count(model.multiply_adds, 1e9),
            "-" if model.grids is None else ", ".join("x".join(map(str, grid)) for grid in model.grids),
        ]
        for model in models
    ]
    columns = ["model", "pixels", "parameters (M)", "multiply-adds (G)", "grids of its stages"]
    printing.table(f"{len(rows)} models", columns, rows)

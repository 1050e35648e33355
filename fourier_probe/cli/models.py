"""`fourier-probe models`: what can be created by name."""

from __future__ import annotations

import json

import click

from fourier_probe.cli import options
from fourier_probe.errors import ModelError


@click.command()
@click.argument("pattern", required=False)
@click.option("--img-size", metavar="PX", callback=options.size, help="Count multiply-adds at this size instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def command(pattern: str | None, img_size: tuple[int, int] | None, as_json: bool) -> None:
    """List models with parameters and multiply-adds: ours, or all of timm's that match PATTERN. No weights are made.

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
            row: dict[str, object] = {"name": name, "parameters": None, "multiply_adds": None, "size": None}
            try:
                model = zoo.skeleton(name)
                size = img_size or zoo.input_spec(model).size
                stats = zoo.stats(model, size)
                row |= {"parameters": stats.parameters, "multiply_adds": stats.multiply_adds, "size": list(size)}
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
        ]
        for row in found
    ]
    options.table(f"{len(rows)} models", ["model", "pixels", "parameters (M)", "multiply-adds (G)"], rows)

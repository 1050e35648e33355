"""`fourier-probe demo`: the main job end to end, on the planted task or on the bundled images."""

from __future__ import annotations

from pathlib import Path

import click

from fourier_probe.cli import options, printing


@click.command()
@click.option(
    "--out", type=options.FILE_PATH, default=Path("results/demo"), show_default=True, help="Folder of runs and figure."
)
@click.option(
    "--images",
    type=click.Choice(["planted", "bundled"]),
    default="planted",
    show_default=True,
    help="Which task: the planted one, or classes of the bundled images.",
)
@click.option("--steps", type=click.IntRange(min=20), help="Optimizer steps of each run, planted.  [default: 2,400]")
@click.option("--epochs", type=click.IntRange(min=2), help="Epochs of each run, bundled.  [default: 8]")
@click.option("--data-scale", type=float, help="Share of the training images, bundled, 0 to 1.  [default: 1]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of weights and order.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps, xpu.")
@click.option("--force", is_flag=True, help="Overwrite what an earlier demo left there.")
@options.figure_options
@options.json_option("Print what came of each run as JSON instead of the table.")
def command(
    out: Path,
    images: str,
    steps: int | None,
    epochs: int | None,
    data_scale: float | None,
    seed: int,
    device: str,
    force: bool,
    as_json: bool,
) -> None:
    """Train a CNN, a PRS model and attention from the start on the planted task, and draw what parts them.

    On that task (docs/planted.md) a convolution cannot pass 87.5 %. About three minutes on two cores, no network.
    With --images bundled: a CNN, a PRS model and a ViT on the bundled images, side by side.

    \b
    fourier-probe demo
    fourier-probe demo --images bundled --epochs 20 --out results/bundled
    """  # noqa: D301
    if images == "planted" and (epochs is not None or data_scale is not None):
        raise click.UsageError("--epochs and --data-scale are for --images bundled; the planted task takes --steps.")
    if images == "bundled" and steps is not None:
        raise click.UsageError("--steps is for the planted task; --images bundled takes --epochs.")
    from fourier_probe.verbs.demo import demo

    made = demo(
        out,
        images="bundled" if images == "bundled" else "planted",
        steps=steps,
        epochs=8 if epochs is None else epochs,
        data_scale=1.0 if data_scale is None else data_scale,
        seed=seed,
        device=device,
        force=force,
    )
    printing.answer(as_json, made.to_json, made.tables)
    if not as_json:
        printing.note("one seed shows the tool, not a finding: intervals here are over images.")
        printing.say(f"next: fourier-probe analyze {out / 'prs'} --attention, or --help")

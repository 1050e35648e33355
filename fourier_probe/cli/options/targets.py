"""How to make the model of a target, and what to call it. Nothing here imports torch."""

from __future__ import annotations

import click

from fourier_probe.cli.options.parsing import key_values, model_name, numbers, size, together

model_options = together(
    click.option(
        "--model",
        metavar="NAME",
        callback=model_name,
        help="Architecture of files that do not say: timm, ours, torchvision:NAME or file.py:factory. "
        "Of one file: FILE=NAME.",
    ),
    click.option(
        "--model-arg",
        "model_args",
        metavar="KEY=VALUE",
        multiple=True,
        callback=key_values,
        help="Argument of the model; repeat.",
    ),
    click.option(
        "--pretrained",
        is_flag=True,
        help="Load published weights, for timm:NAME and torchvision:NAME (needs a network).",
    ),
    click.option(
        "--use-ema/--no-ema",
        default=None,
        help="Probe the EMA weights or the raw ones.  [default: EMA where the file has it]",
    ),
    click.option("--untrained", is_flag=True, help="Probe the same architecture before any training."),
    click.option("--key", metavar="KEY", help="Where in the file the weights are, such as ema.model."),
    click.option("--prefix", metavar="NAME.", help="Take the weights whose names begin so, without it."),
    click.option("--ignore-extra", is_flag=True, help="Leave out weights the network has no place for."),
    click.option("--img-size", metavar="PX", callback=size, help="Input size: 224, or 224x320 (height x width)."),
    click.option("--mean", metavar="R,G,B", callback=numbers, help="Channel mean, of pixels in [0, 1]."),
    click.option("--std", metavar="R,G,B", callback=numbers, help="Channel standard deviation."),
)
"""How to make the model of a target."""

label_option = click.option("--label", metavar="TEXT", help="What tables and figures call the target.")


def check_labels(labels: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """Refuse another number of labels than of targets."""
    if labels and len(labels) != len(targets):
        raise click.UsageError(f"{len(labels)} --label for {len(targets)} targets: give one for each, or none.")

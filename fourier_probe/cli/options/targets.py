"""How to make the model of a target, and what to call it. Nothing here imports torch."""

from __future__ import annotations

import click

from fourier_probe.cli.options.parsing import NAMED, Decorator, key_values, model_name, numbers, size, together

model_options = together(
    click.option(
        "--model",
        metavar="NAME",
        callback=model_name,
        help="Architecture of files that do not say: timm, ours, torchvision:NAME or file.py:factory. "
        "Of one file: FILE=NAME.  [default: what the file says]",
    ),
    click.option(
        "--model-arg",
        "model_args",
        metavar="KEY=VALUE",
        multiple=True,
        callback=key_values,
        help="Argument of the model; repeat.  [default: what the file says]",
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
    click.option(
        "--key", metavar="KEY", help="Where in the file the weights are, such as ema.model.  [default: looked for]"
    ),
    click.option(
        "--prefix", metavar="NAME.", help="Take the weights whose names begin so, without it.  [default: looked for]"
    ),
    click.option("--ignore-extra", is_flag=True, help="Leave out weights the network has no place for."),
    click.option(
        "--img-size",
        metavar="PX",
        callback=size,
        help="Input size in pixels: 224, or 224x320 (height x width).  [default: the model's own]",
    ),
    click.option(
        "--mean",
        metavar="R,G,B",
        callback=numbers,
        help="Channel mean, of pixels in [0, 1].  [default: the model's own]",
    ),
    click.option(
        "--std",
        metavar="R,G,B",
        callback=numbers,
        help="Channel standard deviation, of pixels in [0, 1].  [default: the model's own]",
    ),
)
"""How to make the model of a target."""

ends_options = together(
    click.option(
        "--cnn",
        metavar="TARGET",
        type=NAMED,
        help="The end at 0 of the inductive-bias coordinate; with --vit.  [default: none]",
    ),
    click.option("--vit", metavar="TARGET", type=NAMED, help="The end at 1; with --cnn.  [default: none]"),
)
"""Between which two networks others are placed."""

label_option = click.option(
    "--label", metavar="TEXT", help="What tables and figures call the target.  [default: what it is]"
)


def labels_option(each: str) -> Decorator:
    """`--label` of several targets or results."""
    text = f"Of each {each}, in order; repeat.  [default: what it is]"
    return click.option("--label", "labels", metavar="TEXT", multiple=True, help=text)


def check_labels(labels: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """Refuse another number of labels than of targets."""
    if labels and len(labels) != len(targets):
        raise click.UsageError(f"{len(labels)} --label for {len(targets)} targets: give one for each, or none.")

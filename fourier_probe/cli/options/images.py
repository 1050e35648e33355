"""Which images to look at, and how. Nothing here imports torch."""

from __future__ import annotations

import click

from fourier_probe.cli.options.parsing import NAMED, Decorator, together


def image_options_of(images: int | None) -> Decorator:
    """Which images to look at, and how; `images` of them by default, all where it is None."""
    return together(
        click.option(
            "--data",
            metavar="D",
            type=NAMED,
            help="bundled, planted[:VARIANT], a .npz, an image folder, or a timm data set name.  "
            "[default: what the checkpoint was trained on, else bundled]",
        ),
        click.option("--split", default="test", show_default=True, help="train, val or test."),
        click.option(
            "--images",
            "limit",
            type=click.IntRange(min=1),
            default=images,
            show_default=True if images else "all",
            help="At most so many images, spread over the split and its classes; the first of a stream.",
        ),
        click.option(
            "-b", "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Images in a batch."
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Processes that read image files.",
        ),
        click.option(
            "--skip-bad",
            is_flag=True,
            help="Leave unreadable images out (counted in the result) instead of stopping.",
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps, xpu."),
        click.option(
            "--amp",
            type=click.Choice(["none", "bf16", "fp16"]),
            default="none",
            show_default=True,
            help="Run the forward in half precision.",
        ),
    )


image_options = image_options_of(1000)

"""`fourier-probe validate`: top-1, top-5, per class and confusion of a target on labelled images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fourier_probe.cli import options
from fourier_probe.io import atomic
from fourier_probe.results.filenames import VALIDATE

if TYPE_CHECKING:
    from fourier_probe.results.intervals import Interval
    from fourier_probe.results.validation import Validation

SHOWN = 20  # classes in the table


@click.command()
@click.argument("target", callback=options.existing)
@options.model_options
@options.image_options_of(None)
@click.option("--lesions", is_flag=True, help="Also top-1 with each residual step replaced by the identity.")
@click.option(
    "--hessian",
    is_flag=True,
    help="Also the largest eigenvalues of the loss's Hessian on 20 minibatches, and a landscape.",
)
@click.option("--label", metavar="TEXT", help="What tables and figures call the target.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results.  [default: results/validate-NAME-DIGITS]",
)
@click.option("--force", is_flag=True, help="Overwrite results that are there.")
@options.figure_options
@click.option("--json", "as_json", is_flag=True, help="Print validation.json on stdout instead of the table.")
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
    from fourier_probe.verbs.analyze import AMP
    from fourier_probe.verbs.opening import open_target
    from fourier_probe.verbs.validate import validate_target, write

    model, images, probe = options.records(given)
    opened = open_target(target, **vars(model), label=label)
    extra = {name: given[name] for name in ("lesions", "hessian")}
    result = validate_target(opened, given["data"], images, device=probe.device, amp=AMP[given["amp"]], **extra)
    written = write(result, folder)
    if as_json:
        click.echo(json.dumps(json.loads((folder / "validation.json").read_text()), allow_nan=False))
        return
    print_table(result)
    options.say(f"written to {folder}: {', '.join(written)}")


def _ends(interval: Interval) -> tuple[float, float, float]:
    low, high = interval.low, interval.high
    return interval.value, interval.value if low is None else low, interval.value if high is None else high


def print_table(result: Validation) -> None:
    """All images, parts, classes; then top-5, loss and bound."""
    frame = result.table()
    rows = [
        [str(name), str(images), *("-" if value != value else f"{value:.1f}" for value in values)]
        for name, images, *values in frame.head(SHOWN + 3).itertuples()
    ]
    options.table(f"{result.label} on {result.images.source}", ["of", "images", "top-1, %", "from", "to"], rows)
    if len(frame) > SHOWN + 3:
        options.say(f"and {len(frame) - SHOWN - 3} classes more, in validation.csv")
    if result.top5 is not None:
        options.say(f"top-5 {100 * result.top5.value:.1f} %")
    if result.loss is not None:
        options.say(f"loss {result.loss.value:.4f} nats")
    if result.lesions:
        lesions = [
            [row.name, row.op, f"{row.depth:.2f}", f"{100 * row.top1.value:.1f}",
             *(f"{100 * value:+.1f}" for value in _ends(row.top1_change))]
            for row in result.lesions
        ]  # fmt: skip
        columns = ["step", "op", "depth", "top-1, %", "change", "from", "to"]
        options.table("one residual step replaced by the identity", columns, lesions)
    if result.curvature is not None:
        largest = result.curvature.largest.value
        options.say(
            f"largest eigenvalue of the Hessian {largest:.3g}, mean of {len(result.curvature.eigenvalues)} minibatches"
        )
    if result.bound is not None:
        options.say(f"planted task: {result.bound}")
    click.echo("from, to: 95 % over images (Wilson).")

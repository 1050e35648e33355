"""`fourier-probe compare`: several targets on the same images, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from fourier_probe.cli import options, printing
from fourier_probe.io import atomic
from fourier_probe.io.folders import is_run
from fourier_probe.results.filenames import COMPARE, COMPARE_EPOCHS


@click.command()
@click.argument("targets", nargs=-1, required=True, type=options.NAMED, callback=options.existing)
@options.model_options
@options.image_options
@click.option(
    "--by",
    type=click.Choice(["model", "data-scale", "schedule", "epoch"]),
    default="model",
    show_default=True,
    help="Panels: a target each; models by data scale or schedule; epochs of runs with --probe-every, or of files.",
)
@options.ends_options
@click.option("--with-untrained", is_flag=True, help="Also each architecture before training, as a reference.")
@options.axis_option
@options.map_options
@options.cka_option
@options.grid_option
@options.layout_option
@options.labels_option("target")
@options.out_option("results/compare-NAMES-DIGITS")
@options.force_option()
@options.figure_options
@options.json_option("Print the summary as JSON instead of the table.")
def command(targets: tuple[str, ...], by: str, cnn: str | None, vit: str | None, with_untrained: bool,
            labels: tuple[str, ...], out: Path | None, force: bool, as_json: bool, **given: Any) -> None:  # fmt: skip
    """Spectra, depth profiles and step changes of TARGETS, analyzed on the same images or read from saved results.

    With --cnn and --vit also where each target lies between the two. Intervals are over images, paired.

    \b
    fourier-probe compare runs/cifar_resnet20 runs/cifar_vit_patch4
    fourier-probe compare results/a results/b/spectra.json --out results/ab
    fourier-probe compare runs/prs runs/convit --cnn runs/cnn --vit runs/vit
    fourier-probe compare runs/prs --with-untrained
    fourier-probe compare runs/study/* --by data-scale
    fourier-probe compare runs/prs --by epoch
    """  # noqa: D301
    if (cnn is None) != (vit is None):
        raise click.UsageError("--cnn and --vit are the two ends of one segment: give both, or neither.")
    options.check_labels(labels, targets)
    context = click.get_current_context()
    prefer_saved = not any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in given)
    epochs = by == "epoch" and all(map(is_run, targets))
    if epochs and (cnn or with_untrained):
        raise click.UsageError("--by epoch reads what runs have written: --cnn, --vit, --with-untrained do nothing.")
    decides = {"targets": targets, "by": by, "cnn": cnn, "vit": vit, "untrained": with_untrained, **given}
    out = out or options.folder("compare", "-".join(labels or targets), decides)
    atomic.output_folder(out, results=COMPARE_EPOCHS if epochs else COMPARE, force=force)  # before torch is imported
    from fourier_probe.verbs.compare import compare_epochs, compare_opened, write

    if epochs:
        comparison, written = compare_epochs([Path(name) for name in targets], out, force=True), list(COMPARE_EPOCHS)
    else:
        model, images, probe = options.records(given)
        ends = [] if cnn is None or vit is None else [cnn, vit]
        names = [*(labels or [None] * len(targets)), *[None] * len(ends)]
        comparison = compare_opened(
            [*targets, *ends], given["data"], model, images, probe, labels=names, ends=len(ends), by=by,
            with_untrained=with_untrained, prefer_saved=prefer_saved,
        )  # fmt: skip
        written = write(comparison, out, map_scale=probe.map_scale)
    written_to = f"written to {out}: {', '.join(written)}"
    printing.answer(as_json, comparison.to_json, lambda: [*comparison.tables(), written_to])

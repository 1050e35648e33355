"""`fourier-probe analyze`: from a checkpoint and images to spectra, their files and two figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fourier_probe.cli import options
from fourier_probe.io import atomic
from fourier_probe.results.filenames import ANALYZE
from fourier_probe.runtime.launched import rank_and_world

if TYPE_CHECKING:
    import pandas as pd

    from fourier_probe.results.spectra import PointSpectrum, Spectra


@click.command()
@click.argument("target", callback=options.existing)
@options.model_options
@options.image_options
@click.option("--points", metavar="GLOB", multiple=True, help="Listen at the modules or points of this name instead.")
@click.option(
    "--branches/--no-branches",
    default=True,
    show_default=True,
    help="Also the branches of EIT and the halves of gated attention.",
)
@click.option("--metrics", type=click.Choice(["all", "diagonal"]), default="all", show_default=True)
@click.option("--axis", type=click.Choice(["true", "paper"]), default="true", show_default=True, help="Frequency axis.")
@click.option("--log", type=click.Choice(["floor", "log1p", "plain"]), default="floor", help="Which logarithm of |F|.")
@click.option("--floor", type=float, default=1e-6, show_default=True, help="Of ln(|F| + floor).")
@click.option("--window", type=click.Choice(["none", "hann"]), default="none", show_default=True)
@options.map_options
@click.option("--attention", is_flag=True, help="Also attention distance, response, NMI, gates and reliance.")
@click.option("--kernels", is_flag=True, help="Also the response of each kernel; with --attention, of each map.")
@click.option("--tokens", is_flag=True, help="Also effective rank and singular values of the tokens.")
@options.cka_option
@options.coverage_options
@click.option("--label", metavar="TEXT", help="What tables and figures call the target.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results.  [default: results/analyze-NAME-DIGITS]",
)
@click.option("--force", is_flag=True, help="Overwrite results that are there.")
@options.figure_options
@click.option("--json", "as_json", is_flag=True, help="Print spectra.json on stdout instead of the table.")
def command(target: str, out: Path | None, force: bool, as_json: bool, label: str | None, **given: Any) -> None:
    """Relative log-amplitude spectra of every layer of TARGET over a set of images.

    TARGET is a checkpoint (.pt .pth .th .tar .ckpt .safetensors), a run folder, timm:NAME, torchvision:NAME,
    net.py:factory, or a folder of transformers; FILE=NAME gives the architecture of a file that does not say.

    \b
    fourier-probe analyze timm:resnet50 --data photos/
    fourier-probe analyze ckpt.pt --model resnet18 --model-arg num_classes=10 --data test.npz
    fourier-probe analyze runs/cifar_resnet20 --untrained --out results/before
    torchrun --nproc-per-node 2 -m fourier_probe analyze ckpt.pt --data photos/
    """  # noqa: D301
    folder = out or options.folder("analyze", label or target, {"target": target, **given})
    with options.ranks() as rank:
        if rank == 0:
            atomic.output_folder(folder, results=ANALYZE, force=force)  # before torch is imported
        from fourier_probe.verbs.analyze import analyze_target, write
        from fourier_probe.verbs.opening import open_target

        model, images, probe = options.records(given)
        opened = open_target(target, **vars(model), label=label)
        result = analyze_target(opened, given["data"], images, probe, rank=rank, world=rank_and_world()[1])
        if result.images.interrupted:
            raise KeyboardInterrupt
        if rank:
            return
        written = write(result, opened.label, folder, map_scale=probe.map_scale)
    if as_json:
        click.echo(json.dumps(result.to_json(), allow_nan=False))
    else:
        print_table(result, opened.label)
        options.say(f"written to {folder}: {', '.join(written)}")


def _has_low(point: PointSpectrum) -> bool:
    """Whether a map has frequencies below half of Nyquist beside 0: on 2x2 maps the share of the others is 1 always."""
    return point.hfd_share_white is not None and point.hfd_share_white < 1


def _interval(value: float, stderr: float, t95: float) -> str:
    if value != value:
        return "-"
    return f"{value:.4g}" + (f" ± {t95 * stderr:.2g}" if stderr == stderr else "")


def print_table(result: Spectra, label: str) -> None:
    """One line a point, and what the columns mean."""
    from fourier_probe.probe.sums import quantile
    from fourier_probe.results.comparison import has_frequencies
    from fourier_probe.results.parts import parts_of
    from fourier_probe.results.profile import input_level, profile, view_of

    values: dict[str, str] = {}
    heading, meaning = "delta", "delta: ln amplitude relative to DC, nats"
    if has_frequencies(result):
        view = view_of(result)
        heading, meaning = view.heading, view.why
        along = profile(result, view)
        for name, value, error in zip(along.names, along.value, along.stderr, strict=True):
            values[name] = f"{value:+.2f}" + (f" ± {along.quantile * error:.2f}" if error == error else "")
        if (level := input_level(result, view)) is not None:
            error = level.stderr
            values["input"] = f"{level.value:+.2f}" + (f" ± {along.quantile * error:.2f}" if error == error else "")
            if not level.alike:
                values["input"] += " *"
                white = f": read it against white noise, {level.white:+.2f}" if level.white == level.white else ""
                meaning = f"{meaning.rstrip('.')}. * of another grid{white}"

    def show(value: float | None, form: Callable[[float], str]) -> str:
        return form(value) if value is not None and value == value else "-"

    further = [(metric, metric.at(result.points)) for metric in result.metrics if not metric.ours]
    t95 = quantile(result.definition.groups)
    rows = [
        [
            point.name,
            point.op,
            "x".join(map(str, point.grid)),
            str(point.channels),
            "input" if point is result.input else f"{point.depth:.2f}",
            values.get(point.name, "-"),
            show(point.scalars.get("hfd_share") if _has_low(point) else None, "{:.3f}".format),
            show(point.hfd_share_white if _has_low(point) else None, "{:.3f}".format),
            show(point.scalars.get("slope"), "{:+.2f}".format),
            *(_interval(*metric.of(point, at), t95) for metric, at in further),
        ]
        for point in ([] if result.input is None else [result.input]) + result.points
    ]
    headings = [metric.titled if at is None else f"{metric.titled} at r {at:.2f}" for metric, at in further]
    seen, top1 = result.images, "" if result.top1 is None else f", top-1 {100 * result.top1:.1f} %"
    weights = {"ema": ", EMA weights", "untrained": ", untrained"}.get(str(result.target.weights), "")
    title = f"{label}{weights}: {seen.n} images of {seen.source}{top1}"
    columns = ["point", "op", "grid", "ch", "depth", heading, "HFD share", "white", "slope", *headings]
    options.table(title, columns, rows)
    options.prose(
        f"{meaning.rstrip('.')}; nats, ± 95 % over images. HFD share: part of the power beyond half the Nyquist "
        "frequency; white: that of white noise on the same grid. slope: of ln power density on ln frequency, 0 for "
        "white noise."
    )
    if result.coverage is not None:
        options.prose(f"coverage: {result.coverage.text()}.")
    for part in parts_of(result):
        if part.short is not None:
            _print_part(part.title, part.short(result), part.reading)
    if result.reliance is not None:
        _print_reliance(result)
    if 20 <= seen.n < 60:
        options.prose("Under 60 images the intervals are a little narrow: give more with --images.")


def _print_part(title: str, frame: pd.DataFrame | None, reading: str) -> None:
    """A short table of what was measured beside the spectra; each ± with the number before it."""
    if frame is None or frame.empty:
        return
    names = [name for name in frame.columns if not name.startswith("±")]
    after = dict(zip(frame.columns, frame.columns[1:], strict=False))

    def cell(row: pd.Series, name: str) -> str:
        value, half = row[name], row.get(after.get(name, ""), None)
        if value is None or value != value:
            return "-"
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        error = half if isinstance(half, float) and str(after.get(name)).startswith("±") and half == half else None
        return text if error is None else f"{text} ± {error:.2g}"

    options.table(title, names, [[cell(row, name) for name in names] for _, row in frame.iterrows()])
    options.prose(reading)


def _print_reliance(result: Spectra) -> None:
    """Top-1 lost without each half by layer, and what the parameters say."""
    record = result.reliance
    if record is None:
        return
    frame = record.table()
    rows = [
        [str(layer), *("-" if value != value else f"{value:+.1f}" if at < 4 else f"{value:.2f}"
                       for at, value in enumerate(values))]
        for layer, *values in frame.itertuples()
    ]  # fmt: skip
    options.table(
        f"reliance: change of top-1 without a half, percentage points, {record.images} images, intact "
        f"{100 * record.top1:.1f} %", ["layer", *frame.columns], rows,
    )  # fmt: skip
    again = "" if record.training is None else f", BatchNorm estimated again on {record.training} training images"
    options.prose(
        f"exchanged: the half comes from another image; off: it is switched off{again}. gate x tap: 1 is the "
        "convolution; displacement in pixels. A gate alone is no measure of reliance."
    )

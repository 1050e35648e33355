"""`fourier-probe compare`: several targets on the same images, side by side."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fourier_probe import atomic
from fourier_probe.cli import options
from fourier_probe.cli.analyze import analyze_target, left_out_note

if TYPE_CHECKING:
    from fourier_probe.probe.spectra import Spectra

FILES = ("compare.csv", "spectra.pdf", "spectra.png", "depth.pdf", "depth.png")
BY_EPOCH = ("compare.csv", "epochs.pdf", "epochs.png")


@click.command()
@click.argument("targets", nargs=-1, required=True)
@options.model_options
@options.image_options
@click.option(
    "--by",
    type=click.Choice(["model", "epoch"]),
    default="model",
    show_default=True,
    help="What is set side by side: the targets, or the epochs of runs trained with --probe-every.",
)
@click.option("--axis", type=click.Choice(["true", "paper"]), default="true", show_default=True, help="Frequency axis.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/compare"), show_default=True)
@click.option("--force", is_flag=True, help="Overwrite results that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON instead of the table.")
def command(targets: tuple[str, ...], by: str, out: Path, force: bool, as_json: bool, **given: Any) -> None:
    """Spectra and depth profiles of TARGETS, analyzed on the same images or read from saved results.

    \b
    fourier-probe compare runs/cifar_resnet20 runs/cifar_vit_patch4
    fourier-probe compare results/a/spectra.json results/b/spectra.json --out results/ab
    fourier-probe compare runs/prs --by epoch
    """  # noqa: D301
    if by == "epoch":
        _by_epoch(targets, out, force=force, as_json=as_json)
        return
    atomic.output_folder(out, results=FILES, force=force)
    results, labels = collect(targets, **given)
    write(results, labels, out)
    report(results, labels, as_json=as_json)
    if not as_json:
        click.echo(f"written to {out}: {', '.join(FILES)}")


def _by_epoch(names: tuple[str, ...], out: Path, *, force: bool, as_json: bool) -> None:
    """How the spectra of runs moved while they trained, from the files that --probe-every wrote."""
    from fourier_probe.plots import epochs_figure, save
    from fourier_probe.probe.compare import check_comparable

    atomic.output_folder(out, results=BY_EPOCH, force=force)
    runs = [_while_training(Path(name)) for name in names]
    results = [result for run in runs for result in run]
    check_comparable(results)
    labels = distinct(list(names))
    rows = [f"{label}@{result.target['epoch']}" for label, run in zip(labels, runs, strict=True) for result in run]
    write_table(results, rows, out)
    save(epochs_figure(runs, labels, [_switches(Path(name)) for name in names]), out / "epochs")
    left_out_note(results)
    report(results, rows, as_json=as_json)
    if not as_json:
        click.echo(f"written to {out}: {', '.join(BY_EPOCH)}")


def _while_training(run: Path) -> list[Spectra]:
    """The results under RUN/spectra, by epoch."""
    from fourier_probe.errors import ResultError
    from fourier_probe.probe.spectra import Spectra

    found = [Spectra.load(path) for path in (run / "spectra").glob("epoch-*.json")]
    if len(found) < 2:
        raise ResultError(
            f"{run} holds spectra of {len(found)} epochs and --by epoch needs two: "
            "train with --probe-every 1, which writes them to RUN/spectra."
        )
    return sorted(found, key=lambda result: int(result.target["epoch"]))


def _switches(run: Path) -> list[int]:
    """Epochs at whose start layers were recast, as conversions.csv has them."""
    path = run / "conversions.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def collect(names: tuple[str, ...], **given: Any) -> tuple[list[Spectra], list[str]]:
    """One result a target, all on the same images: those of --data, else those the first target was trained on."""
    from fourier_probe.probe.compare import check_comparable
    from fourier_probe.targets import resolve

    how = {name: given.pop(name) for name in ("model", "model_args", "pretrained", "use_ema", "untrained")}
    found = [resolve(name, **how) for name in names]
    given["data"] = given["data"] or next((target.data for target in found if target.data), None)
    results = [target.spectra or analyze_target(target, **given) for target in found]
    check_comparable(results)
    return results, distinct([target.label for target in found])


def write(results: list[Spectra], labels: list[str], folder: Path) -> None:
    """The tidy CSV of all spectra, and both figures."""
    from fourier_probe.plots import depth_figure, save, spectra_figure

    write_table(results, labels, folder)
    save(spectra_figure(results, labels), folder / "spectra")
    save(depth_figure(results, labels), folder / "depth")
    left_out_note(results)


def write_table(results: list[Spectra], labels: list[str], folder: Path) -> None:
    """All spectra in one tidy compare.csv, a row a target, point and frequency."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for index, (result, label) in enumerate(zip(results, labels, strict=True)):
        header, *rows = csv.reader(io.StringIO(result.to_csv()))
        writer.writerows([["label", *header]] * (index == 0) + [[label, *row] for row in rows])
    atomic.write_text(folder / "compare.csv", buffer.getvalue())


def report(results: list[Spectra], labels: list[str], *, as_json: bool) -> None:
    """The summary on stdout, a row a target."""
    from fourier_probe.probe.compare import summary

    rows = summary(results, labels)
    if as_json:
        click.echo(json.dumps(rows, allow_nan=False, default=float))
        return

    def show(value: Any, form: str) -> str:
        return form.format(value) if value is not None and value == value else "-"

    table = [
        [
            row["target"],
            str(row["weights"]),
            show(row["top1"], "{:.1%}"),
            str(row["points"]),
            show(row["first_delta"], "{:+.2f}"),
            show(row["last_delta"], "{:+.2f}") + show(1.96 * row["last_stderr"], " ± {:.2f}"),
            show(row["last_hfd_share"], "{:.3f}") + show(row["last_hfd_share_white"], " ({:.3f})"),
            show(row["last_slope"], "{:+.2f}"),
            f"{row['first_grid']} to {row['last_grid']}",
        ]
        for row in rows
    ]
    columns = [
        "target",
        "weights",
        "top-1",
        "points",
        "delta first",
        "delta last",
        "HFD last (white)",
        "slope last",
        "grid",
    ]
    seen = results[0].images
    title = f"{seen['n']} images of {seen['source']}; delta at {rows[0]['frequency']:.2f} pi, nats, ± 95 % over images"
    options.table(title, columns, table)


def distinct(labels: list[str]) -> list[str]:
    """Labels with a number where several targets share one."""
    return [
        f"{label} #{labels[: i + 1].count(label)}" if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    ]

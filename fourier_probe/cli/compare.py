"""`fourier-probe compare`: several targets on the same images, side by side."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from fourier_probe.cli import options
from fourier_probe.cli.analyze import analyze_target, left_out_note
from fourier_probe.io import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fourier_probe.results.spectra import Spectra
    from fourier_probe.verbs.targets import Target

FIGURES = ("spectra", "depth", "steps", "density", "coordinate")
FILES = (
    *("compare.csv", "steps.csv", "density.csv", "coordinate.csv"),
    *(f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")),
)
BY_EPOCH = ("compare.csv", "epochs.pdf", "epochs.png")


@click.command()
@click.argument("targets", nargs=-1, required=True, callback=options.existing)
@options.model_options
@options.image_options
@click.option(
    "--by",
    type=click.Choice(["model", "data-scale", "schedule", "epoch"]),
    default="model",
    show_default=True,
    help="Panels: a target each; models by data scale or schedule; epochs of runs with --probe-every, or of files.",
)
@click.option("--cnn", metavar="TARGET", help="The end at 0 of the inductive-bias coordinate; with --vit.")
@click.option("--vit", metavar="TARGET", help="The end at 1.")
@click.option("--with-untrained", is_flag=True, help="Also each architecture before training, as a reference.")
@click.option("--axis", type=click.Choice(["true", "paper"]), default="true", show_default=True, help="Frequency axis.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/compare"), show_default=True)
@click.option("--force", is_flag=True, help="Overwrite results that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON instead of the table.")
def command(
    targets: tuple[str, ...],
    by: str,
    cnn: str | None,
    vit: str | None,
    with_untrained: bool,
    out: Path,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Spectra, depth profiles and step changes of TARGETS, analyzed on the same images or read from saved results.

    With --cnn and --vit also where each target lies between the two. Intervals are over images, paired.

    \b
    fourier-probe compare runs/cifar_resnet20 runs/cifar_vit_patch4
    fourier-probe compare results/a/spectra.json results/b/spectra.json --out results/ab
    fourier-probe compare runs/prs runs/convit --cnn runs/cnn --vit runs/vit --with-untrained
    fourier-probe compare runs/study/* --by data-scale
    fourier-probe compare runs/prs --by epoch
    """  # noqa: D301
    if (cnn is None) != (vit is None):
        raise click.UsageError("--cnn and --vit are the two ends of one segment: give both, or neither.")
    if by == "epoch" and all(map(_is_run, targets)):
        if cnn or with_untrained:
            raise click.UsageError(
                "--by epoch reads what runs have written: --cnn, --vit, --with-untrained do nothing."
            )
        _by_epoch(targets, out, force=force, as_json=as_json)
        return
    atomic.output_folder(out, results=FILES, force=force)
    ends = [end for end in (cnn, vit) if end is not None]
    context = click.get_current_context()
    saved = not any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in given)
    results, labels = collect((*targets, *ends), with_untrained=with_untrained, saved=saved, **given)
    between = tuple(results[len(targets) : len(targets) + 2]) if ends else ()
    if by == "epoch":
        said = [(label, result.target.get("epoch")) for label, result in zip(labels, results, strict=True)]
        labels = [label if epoch is None else f"{label}, epoch {epoch}" for label, epoch in said]
    results, labels = _without_repeats(results, labels, len(targets))
    written = write(results, labels, out, by=by, between=between)
    report(results, labels, by=by, between=between, as_json=as_json)
    if not as_json:
        options.say(f"written to {out}: {', '.join(written)}")


def _by_epoch(names: tuple[str, ...], out: Path, *, force: bool, as_json: bool) -> None:
    """How the spectra of runs moved while they trained, from the files that --probe-every wrote."""
    from fourier_probe.plots import epochs_figure, save
    from fourier_probe.results.comparison import check_comparable
    from fourier_probe.results.profile import view_of

    atomic.output_folder(out, results=BY_EPOCH, force=force)
    runs = [_while_training(Path(name)) for name in names]
    results = [result for run in runs for result in run]
    check_comparable(results)
    labels = distinct([Path(name).resolve().name for name in names])
    rows = [f"{label}@{result.target['epoch']}" for label, run in zip(labels, runs, strict=True) for result in run]
    figure = epochs_figure(runs, labels, [_switches(Path(name)) for name in names], view=view_of(results))
    with atomic.staged(out, BY_EPOCH) as place:
        write_table(results, rows, place)
        save(figure, place / "epochs")
    left_out_note(results)
    report(results, rows, as_json=as_json)
    if not as_json:
        options.say(f"written to {out}: {', '.join(BY_EPOCH)}")


def _is_run(name: str) -> bool:
    """Whether a target is a run folder; else it is a checkpoint or a result, each of one epoch."""
    path = Path(name).expanduser()
    return (path / "config.json").exists() or (path / "spectra").is_dir()


def _while_training(run: Path) -> list[Spectra]:
    """The results under RUN/spectra, by epoch."""
    from fourier_probe.errors import ResultError
    from fourier_probe.results.spectra import Spectra

    found = [Spectra.load(path) for path in (run / "spectra").glob("epoch-*.json")]
    if len(found) < 2:
        raise ResultError(
            f"{run} holds spectra of {len(found)} epochs and --by epoch needs two: "
            "train with --probe-every 1, which writes them to RUN/spectra."
        )
    return sorted(found, key=lambda result: int(result.target["epoch"]))


def _switches(run: Path) -> list[int]:
    """Epochs at whose start layers were recast, as conversions.csv has them."""
    from fourier_probe.training.record import read_conversions

    return [row.epoch for row in read_conversions(run)]


def collect(
    names: tuple[str, ...], *, with_untrained: bool = False, saved: bool = True, **given: Any
) -> tuple[list[Spectra], list[str]]:
    """One result a target, all on the same images: those of --data, else those the first target was trained on.

    Run folders that hold a result are taken by it if all targets have one and `saved` is set; else models are analyzed
    where there are any. With `with_untrained`, each architecture before training comes after the targets.
    """
    from fourier_probe.results.comparison import arguments, check_comparable
    from fourier_probe.verbs.targets import has_saved, resolve

    how = {name: given.pop(name) for name in ("model", "model_args", "pretrained", "use_ema", "untrained")}
    saved = saved and all(has_saved(name) for name in names) and not with_untrained
    found = [resolve(name, **how, saved=saved) for name in names]
    given["data"] = options.data_source(given["data"], next((target.data for target in found if target.data), None))
    labels = [_label(name, target) for name, target in zip(names, found, strict=True)]
    if with_untrained:
        seen: set[str] = set()
        for name, target in zip(names, list(found), strict=True):
            kind = json.dumps([target.provenance.get("arch"), target.provenance.get("model_args")], default=str)
            if target.model is None:
                options.note(f"{target.label} is a saved result: its untrained network cannot be made from it.")
            elif target.provenance.get("weights") != "untrained" and kind not in seen:
                seen.add(kind)
                found.append(resolve(name, **{**how, "untrained": True}))
                parts = [str(target.provenance.get("arch") or target.label), *arguments(target.provenance)]
                labels.append(" ".join([*parts, "(untrained)"]))
    results = [target.spectra or analyze_target(target, **given) for target in found]
    check_comparable(results)
    return results, labels


def _label(name: str, target: Target) -> str:
    """A target's label with the arguments of its model, and the epoch of a `constant` run's switch."""
    from fourier_probe.results.comparison import arguments

    parts = [target.label, *arguments(target.provenance)]
    if target.provenance.get("schedule") == "constant":
        path = Path(name).expanduser()
        when = set(_switches(path if path.is_dir() else path.parent))
        parts += [f"constant at {epoch}" for epoch in when if len(when) == 1]
    return " ".join(parts)


def write(
    results: list[Spectra],
    labels: list[str],
    folder: Path,
    *,
    by: str = "model",
    between: tuple[Spectra, ...] = (),
) -> list[str]:
    """The CSV files of a comparison, then its figures, one that fails being a note; returns the names of the files.

    Args:
        results: analyses on the same images.
        labels: of the results.
        folder: where to.
        by: a key of `probe.compare.KEYS`.
        between: CNN and ViT, the ends of the coordinate, or nothing.

    Raises:
        ResultError: a result does not say its `by`, or there is no coordinate; what was in the folder is intact.
    """
    from fourier_probe.errors import ResultError
    from fourier_probe.plots import depth_figure, save_each, spectra_figure
    from fourier_probe.plots.compare import coordinate_figure, density_figure, panels_figure, steps_figure
    from fourier_probe.results.comparison import common_frequency, common_table, step_changes

    cells = None if by == "model" else _cells(results, by)
    figures: dict[str, Callable[[], Figure]] = {
        "spectra": lambda: panels_figure(*cells) if cells else spectra_figure(results, labels),
        "depth": lambda: depth_figure(results, labels),
    }
    tables_of: dict[str, list[dict[str, Any]]] = {}
    frequency = common_frequency(results)
    tables = [step_changes(result, frequency) for result in results]
    stepping = [(table, label) for table, label in zip(tables, labels, strict=True) if table]
    if stepping:
        tables_of["steps"] = [
            {"target": label, "op": row["op"], "frequency": row["frequency"], **step}
            for table, label in stepping
            for row in table
            for step in [*row["each"], {"name": "mean", "depth": None, **{k: row[k] for k in ("change", "stderr")}}]
        ]
        figures["steps"] = lambda: steps_figure([table for table, _ in stepping], [label for _, label in stepping])
    try:
        tables_of["density"] = common_table(results, labels)
        figures["density"] = lambda: density_figure(results, labels)
    except ResultError as error:
        options.note(f"density and coordinate are left out: {error}")
        if between:
            raise
    if between:
        places = tables_of["coordinate"] = _places(results, labels, between)
        if any(row["t"] == row["t"] for row in places):
            figures["coordinate"] = lambda: coordinate_figure(places)
    with atomic.staged(folder, FILES) as place:
        write_table(results, labels, place)
        for name, rows in tables_of.items():
            _write_rows(place / f"{name}.csv", rows)
    save_each(figures, folder)
    left_out_note(results)
    return [name for name in FILES if (folder / name).exists()]


def _places(results: list[Spectra], labels: list[str], between: tuple[Spectra, ...]) -> list[dict[str, Any]]:
    from fourier_probe.results.comparison import coordinates

    return coordinates(results, labels, between[0], between[1])


def _cells(results: list[Spectra], by: str) -> tuple[dict[tuple[str, str], Spectra], list[str], list[str]]:
    """Results by model and by a key; of several seeds the first is drawn."""
    from fourier_probe.results.comparison import key_of

    keys = [key_of(result, by) if result.target.get("weights") != "untrained" else "untrained" for result in results]
    order = sorted(set(keys), key=lambda key: (isinstance(key, str), key))
    forms: dict[str, Callable[[Any], str]] = {
        "data-scale": lambda key: f"{100 * key:g} %",
        "epoch": lambda key: f"epoch {key}",
    }
    titles = {key: str(key) if isinstance(key, str) else forms.get(by, str)(key) for key in order}
    cells: dict[tuple[str, str], Spectra] = {}
    repeated: set[str] = set()
    for result, key in zip(results, keys, strict=True):
        cell = (_row(result, by), titles[key])
        if cell in cells:
            repeated.add(
                "other seeds" if result.target.get("seed") != cells[cell].target.get("seed") else "other settings"
            )
        cells.setdefault(cell, result)
    if repeated:
        options.note(
            f"more results fall into panels that are taken ({', '.join(sorted(repeated))}): the first is drawn."
        )
    return cells, list(dict.fromkeys(row for row, _ in cells)), list(titles.values())


def _row(result: Spectra, by: str) -> str:
    """The row of a result: its model with arguments, and schedule and data scale where these are no columns."""
    from fourier_probe.results.comparison import arguments

    parts = [str(result.target.get("arch")), *arguments(result.target)]
    schedule, scale = result.target.get("schedule"), result.target.get("data_scale")
    parts += [f"+ {schedule}"] * (by != "schedule" and schedule not in (None, "none"))
    parts += [f"{100 * scale:g} %"] if by != "data-scale" and scale not in (None, 1.0) else []
    return " ".join(parts)


def _without_repeats(results: list[Spectra], labels: list[str], targets: int) -> tuple[list[Spectra], list[str]]:
    """All targets, and the ends of the coordinate and references that are not among them."""
    kept = list(zip(results[:targets], labels[:targets], strict=True))
    for result, label in zip(results[targets:], labels[targets:], strict=True):
        if not any(label == other and result.target == earlier.target for earlier, other in kept):
            kept.append((result, label))
    return [result for result, _ in kept], distinct([label for _, label in kept])


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Dictionaries as CSV; what is no finite number is left empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: "" if isinstance(value, float) and value != value else value for key, value in row.items()}
        )
    atomic.write_text(path, buffer.getvalue())


def write_table(results: list[Spectra], labels: list[str], folder: Path) -> None:
    """All spectra in one tidy compare.csv, a row a target, point and frequency."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for index, (result, label) in enumerate(zip(results, labels, strict=True)):
        header, *rows = csv.reader(io.StringIO(result.to_csv()))
        writer.writerows([["label", *header]] * (index == 0) + [[label, *row] for row in rows])
    atomic.write_text(folder / "compare.csv", buffer.getvalue())


def report(
    results: list[Spectra],
    labels: list[str],
    *,
    as_json: bool,
    by: str = "model",
    between: tuple[Spectra, ...] = (),
) -> None:
    """The summary on stdout, a row a target; what steps do to high frequencies; the coordinate."""
    from fourier_probe.results.comparison import paired, step_changes, summary
    from fourier_probe.results.profile import ends_of, view_of

    rows, view = summary(results, labels), view_of(results)
    ends = ends_of(results, view)
    frequency, t95 = rows[0]["frequency"], rows[0]["quantile"]
    for row, result, end in zip(rows, results, ends, strict=True):
        row["steps"] = step_changes(result, frequency)
        row["profile"] = asdict(end)
    places = _places(results, labels, between) if between else []
    if as_json:
        record = {"targets": rows, "coordinates": places, "profile": asdict(view)}
        click.echo(json.dumps(_plain(record), allow_nan=False))
        return

    def show(value: Any, form: str) -> str:
        return form.format(value) if value is not None and value == value else "-"

    def interval(value: Any, error: Any, form: str) -> str:
        known = error is not None and error == error and value is not None and value == value
        return show(value, form) + (" ± " + form.replace("+", "").format(t95 * error) if known else "")

    named = [] if by == "model" else [by]
    table = [
        [
            row["target"],
            *(show(row[name.replace("-", "_")], "{}") for name in named),
            str(row["weights"]),
            show(row["top1"], "{:.1%}"),
            str(row["points"]),
            show(end.first, "{:+.2f}"),
            interval(end.last, end.last_stderr, "{:+.2f}"),
            interval(end.last_difference, end.last_difference_stderr, "{:+.2f}") if index else "-",
            show(row["last_hfd_share"], "{:.3f}") + show(row["last_hfd_share_white"], " ({:.3f})"),
            interval(row["hfd_share_difference"], row["hfd_share_difference_stderr"], "{:+.3f}") if index else "-",
            show(row["last_slope"], "{:+.2f}"),
            f"{row['first_grid']} to {row['last_grid']}",
        ]
        for index, (row, end) in enumerate(zip(rows, ends, strict=True))
    ]
    columns = [
        "target",
        *named,
        "weights",
        "top-1",
        "points",
        "first",
        "last",
        "last - first target's",
        "HFD last (white)",
    ]
    columns += ["HFD - first target's", "slope last", "grid"]
    seen = results[0].images
    title = f"{seen['n']} images of {seen['source']}; {view.heading}, nats, ± 95 % over images, "
    title += "paired" if paired(results) else "not paired (no shared image groups)"
    options.table(title, columns, table)
    click.echo(view.why)
    changes = [
        [row["target"], step["op"], str(step["steps"]), interval(step["change"], step["stderr"], "{:+.3f}"),
         f"{step['raised']} of {step['steps']}"]
        for row in rows
        for step in row["steps"]
    ]  # fmt: skip
    if changes:
        columns = ["target", "step", "steps", "change of delta, nats", "raise it"]
        options.table(f"what steps on one grid do to delta at {frequency:.2f} pi", columns, changes)
    if places:
        _report_places(places, interval)


def _report_places(places: list[dict[str, Any]], interval: Any) -> None:
    table = [
        [
            row["target"],
            interval(row["t"], row["t_stderr"], "{:+.2f}") if row["t"] == row["t"] else "undefined",
            interval(row["distance"], row["distance_stderr"], "{:.2f}"),
            f"{row['cosine']:+.2f}" if row["cosine"] == row["cosine"] else "-",
        ]
        for row in places
    ]
    first = places[0]
    how = "points match one to one" if first["matched"] else "depths and radii interpolated onto a common grid"
    scatter = first["scatter"]
    segment = f"segment {first['segment']:.2f} nats, scatter of its ends "
    segment += f"{scatter:.2f}" if scatter == scatter else "unknown (no image groups)"
    options.table(
        f"between CNN (0) and ViT (1): {segment}; {how}", ["target", "t", "distance / segment", "cosine"], table
    )
    if not first["t"] == first["t"]:
        options.note("the two ends lie closer together than twice their scatter over images: t is undefined.")


def _plain(value: Any) -> Any:
    """What JSON has: not-a-number becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if value == value else None
    return value


def distinct(labels: list[str]) -> list[str]:
    """Labels with a number where several targets share one."""
    return [
        f"{label} #{labels[: i + 1].count(label)}" if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    ]

"""What EIT's features do (Xia et al. 2022), from finished and analyzed runs: HFD share and head diversity, by layer.

Both are defined in docs/results.md; the paper's own formulas were not at hand. Sizes and accuracies are in `eit`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fourier_probe.papers.captions import caption, images_of
from fourier_probe.papers.cells import dodged
from fourier_probe.papers.eit import ABLATIONS
from fourier_probe.papers.exhibit import Exhibit, MissingRunsError, Row
from fourier_probe.papers.registered import figure_kind
from fourier_probe.papers.selection import analyzed, finished, grouped, label
from fourier_probe.plots.style import MARKERS, PAGE, canvas, categories, foot, most_columns, short_title, style
from fourier_probe.probe.sums import quantile
from fourier_probe.results.intervals import over_seeds
from fourier_probe.results.profile import common_frequency, delta_at
from fourier_probe.results.spectra import PointSpectrum, Spectra
from fourier_probe.results.text_table import plus_minus
from fourier_probe.training.runs import Run


@figure_kind(tables=["differences"])
def eit_hfd_share(runs: Sequence[Run]) -> Exhibit:
    """High frequencies by depth, as a share of non-DC power and relative to DC: branches of EIT, its stream, others."""
    analyses = analyzed(_unscheduled(runs), "eit-hfd-share")
    mixed = [(run, result) for run, result in analyses if any(p.name.endswith("mixer.conv") for p in result.points)]
    if not mixed:
        raise MissingRunsError(
            "eit-hfd-share needs an analyzed EIT: model = ['eit_small_w80'] and [analyze] in the plan."
        )
    curves = _curves(analyses)
    names = {name for name, _ in curves}
    used = [run for run, _ in analyses if label(run) in names]
    frequency = common_frequency([result for run, result in analyses if label(run) in names])
    t95 = quantile(analyses[0][1].definition.groups)
    measures: dict[str, Callable[[PointSpectrum], tuple[float, float]]] = {
        "hfd_share": lambda p: (p.scalars["hfd_share"], p.stderr_of["hfd_share"]),
        "delta": lambda p: delta_at(p, frequency),
    }
    rows: list[Row] = []
    for (name, part), group in curves.items():
        points = [p for _, _, chosen in group for p in chosen]
        for index in dict.fromkeys(p.name for p in points):
            same = [p for p in points if p.name == index]
            row: Row = {"model": name, "part": part, "point": index, "depth": same[0].depth, "n": len(same)}
            for key, measure in measures.items():
                row[key], half = over_seeds([measure(p)[0] for p in same])
                row[f"{key}_half"] = half if len(same) > 1 else t95 * measure(same[0])[1]
            rows.append({**row, "frequency": frequency, "hfd_share_white": same[0].hfd_share_white})
    drawn = {label(run) for run in used if not _ablated(run)}
    shown = list(dict.fromkeys((row["model"], row["part"]) for row in rows if row["model"] in drawn))
    with style():
        columns = most_columns(2, PAGE / 2)
        figure = canvas(PAGE, 0.8 + 2.4 * (2 // columns))
        left, right = figure.subplots(2 // columns, columns, squeeze=False).flat
        styles = zip(categories(len(shown)), itertools.cycle(MARKERS))
        for index, ((name, part), (color, marker)) in enumerate(zip(shown, styles, strict=False)):
            differences = [row for row in rows if (row["model"], row["part"]) == (name, part)]
            for ax, key in ((left, "hfd_share"), (right, "delta")):
                x, y, band = (
                    np.array([row[column] for row in differences]) for column in ("depth", key, f"{key}_half")
                )
                line = {"convolution": "--", "attention": ":"}.get(part, "-")
                ax.errorbar(
                    x + dodged(index, len(shown), 0.014), y, band if np.isfinite(band).all() else None, color=color,
                    marker=marker, ms=3, capsize=1.5,
                    linestyle=line, elinewidth=0.6, label=f"{short_title(name)}, {part}",
                )  # fmt: skip
        white = [row["hfd_share_white"] for row in rows]
        left.plot([row["depth"] for row in rows], white, "_", color="0.5", ms=4, label="white noise")
        left.set_ylabel("HFD share (of non-DC power)")
        left.set_ylim(0, 1)  # two seeds give intervals beyond
        right.set_ylabel(rf"$\Delta$ log amplitude at {frequency:.2f}$\pi$ (nats)")
        for ax in (left, right):
            ax.set_xlabel("Normalized depth")
        lines = "Solid: the stream; dashed: the convolution's channels; dotted: the attention's channels."
        foot(figure, left.get_legend_handles_labels()[0], [f"{_bars(row['n'] for row in rows)} {lines}"])
    text = (
        "High frequencies by depth, twice: left the share of power at r > 0.5 (corners in) of all non-DC power, right "
        f"the log amplitude at {frequency:.2f} pi minus that at DC. The convolution's and the attention's channels of "
        f"EIT's mixers, and the stream, of networks on one grid. {images_of([analyses[0][1]])}"
    )
    gaps: list[Row] = []
    model = label(next((run for run, _ in mixed if not _ablated(run)), mixed[0][0]))
    for key, measure in measures.items():
        stream = [
            (run, {p.name: measure(p)[0] for p in points})
            for (_, part), group in curves.items() if part == "stream" for run, _, points in group
        ]  # fmt: skip
        branches = {
            run.config.seed: (_of_branch(result, "conv", measure), _of_branch(result, "attn", measure))
            for run, result in mixed if label(run) == model
        }  # fmt: skip
        for contrast, pairs in (_minus_twin(stream), (f"{model}, convolution minus attention", branches)):
            differences, sentence = _differences(f"{contrast}, {'HFD share' if key == 'hfd_share' else 'Delta'}", pairs)
            gaps += differences
            text += sentence
    over = "seeds" if all(row["n"] > 1 for row in rows) else "seeds or images"
    text += _in_table_only(names - drawn)
    return Exhibit(figure, rows, caption(used, text, over=over), {"differences": gaps} if gaps else {})


@figure_kind(tables=["differences"])
def eit_head_diversity(runs: Sequence[Run]) -> Exhibit:
    """Standard deviation over heads of the attention distance, by layer, for EIT, its twins and other models."""
    analyses = [(run, result) for run, result in analyzed(_unscheduled(runs), "eit-head-diversity") if result.attention]
    if not any(label(run).startswith("eit_") for run, _ in analyses):
        raise MissingRunsError(
            "eit-head-diversity needs an EIT analyzed with attention: attention = true in [analyze]."
        )
    rows: list[Row] = []
    groups: dict[str, list[Spectra]] = {}
    for run, result in analyses:
        groups.setdefault(label(run), []).append(result)
    for name, group in groups.items():
        depth = len(group[0].attention)
        for index in range(depth):
            layers = [result.attention[index] for result in group]
            mean, half = over_seeds([layer.diversity for layer in layers])
            distance, _ = over_seeds([float(np.mean(layer.distance)) for layer in layers])
            rows.append(
                {"model": name, "layer": layers[0].name, "depth": (index + 1) / depth, "n": len(layers),
                 "diversity": mean, "half": half, "distance": distance, "heads": len(layers[0].distance)}
            )  # fmt: skip
    names = list(dict.fromkeys(label(run) for run, _ in analyses if not _ablated(run)))
    with style():
        columns = most_columns(2, PAGE / 2)
        figure = canvas(PAGE, 0.4 + 2.4 * (2 // columns))
        axes = figure.subplots(2 // columns, columns, squeeze=False).flat
        styles = zip(names, categories(len(names)), itertools.cycle(MARKERS), strict=False)
        for index, (name, color, marker) in enumerate(styles):
            of_model = [row for row in rows if row["model"] == name]
            x = [row["depth"] + dodged(index, len(names), 0.012) for row in of_model]
            halves = [row["half"] for row in of_model]
            error = halves if np.isfinite(halves).all() else None
            axes[0].errorbar(
                x,
                [r["diversity"] for r in of_model],
                error,
                color=color,
                marker=marker,
                capsize=1.5,
                label=short_title(name),
            )
            axes[1].plot(x, [row["distance"] for row in of_model], color=color, marker=marker)
        axes[0].set_ylabel("Head diversity (pixels)")
        axes[1].set_ylabel("Mean attention distance (pixels)")
        for ax in axes:
            ax.set_xlabel("Attention layer / layers")
            ax.set_ylim(bottom=0)
        notes = [f"{_bars(row['n'] for row in rows)} Below 0 they are cut. Distances: means, no interval."]
        foot(figure, axes[0].get_legend_handles_labels()[0], notes, columns=4)
    count = analyses[0][1].attention[0].images
    text = (
        f"Head diversity: standard deviation over heads of the mean attention distance, by layer; {count} test images."
    )
    contrast, pairs = _minus_twin(
        [(run, {layer.name: layer.diversity for layer in result.attention}) for run, result in analyses]
    )
    gaps, sentence = _differences(f"{contrast}, head diversity", pairs)
    text += sentence + _in_table_only(groups.keys() - set(names))
    used = [run for run, _ in analyses]
    return Exhibit(figure, rows, caption(used, text), {"differences": gaps} if gaps else {})


def _bars(counts: Iterable[int]) -> str:
    """What the bars of a figure are over, by how many seeds its cells have."""
    seeds = sorted(set(counts))
    if seeds[-1] < 2:
        return "Bars: 95 % over images; one seed."
    return "Bars: 95 % over seeds (Student's t)" + ("." if seeds[0] > 1 else ", over images where there is one.")


def _ablated(run: Run) -> bool:
    """Whether the run is of an ablated EIT other than the all-attention twin: too many to draw."""
    ablated = ABLATIONS & run.config.model_args.keys()
    return bool(ablated) and run.config.model_args.get("split") != "attention"


def _in_table_only(names: set[str]) -> str:
    return f" In the CSV only: {', '.join(sorted(names))}." if names else ""


def _of_branch(
    result: Spectra, branch: str, measure: Callable[[PointSpectrum], tuple[float, float]]
) -> dict[str, float]:
    """What is measured of the channels of one branch ("conv" or "attn") of each mixer, by the mixer's name."""
    end = f".mixer.{branch}"
    return {p.name.removesuffix(end): measure(p)[0] for p in result.points if p.name.endswith(end)}


Pairs = dict[int, tuple[dict[str, float], dict[str, float]]]  # by seed: a value of each layer, here and there


def _minus_twin(measured: Sequence[tuple[Run, dict[str, float]]]) -> tuple[str, Pairs]:
    """Values by layer of the first EIT that has its all-attention twin, and of the twin, by seed; and what they are."""
    of_eit = [
        (run, values) for run, values in measured if str(run.config.model).startswith("eit_") and not _ablated(run)
    ]
    for model in dict.fromkeys(run.config.model for run, _ in of_eit):
        of_model = [(run, values) for run, values in of_eit if run.config.model == model]
        wholes = {run.config.seed: values for run, values in of_model if "split" not in run.config.model_args}
        twins = {run.config.seed: values for run, values in of_model if "split" in run.config.model_args}
        if wholes.keys() & twins.keys():
            pairs = {seed: (wholes[seed], twins[seed]) for seed in sorted(wholes.keys() & twins.keys())}
            return f"{model} minus its all-attention twin", pairs
    return "", {}


def _differences(contrast: str, pairs: Pairs) -> tuple[list[Row], str]:
    """First minus second of each layer that both have, paired by seed: rows, and a sentence on the mean over layers."""
    if not pairs:
        return [], ""
    first, second = next(iter(pairs.values()))
    layers = [layer for layer in first if layer in second]
    gaps = np.array([[a[layer] - b[layer] for layer in layers] for a, b in pairs.values()])
    rows: list[Row] = []
    for layer, column in zip(layers, gaps.T, strict=True):
        mean, half = over_seeds(list(column))
        rows.append({"contrast": contrast, "layer": layer, "n": len(pairs), "difference": mean, "half": half})
    mean, half = over_seeds(list(gaps.mean(1)))
    return rows, f" {contrast}, by seed, mean over layers: {plus_minus(mean, half, '{:+.3f}')}."


def _curves(analyses: Sequence[tuple[Run, Spectra]]) -> dict[tuple[str, str], list[tuple[Run, Spectra, list[Any]]]]:
    """Points of each (model, part): the stream, and the two branches of EIT's mixers; networks on one grid only."""
    out: dict[tuple[str, str], list[tuple[Run, Spectra, list[Any]]]] = {}
    for run, result in analyses:
        if len({p.grid for p in result.stream}) > 1:
            continue
        parts = {"stream": [p for p in result.stream if p.op != "attention"]}
        parts["convolution"] = [p for p in result.points if p.name.endswith("mixer.conv")]
        if parts["convolution"]:
            parts["attention"] = [p for p in result.points if p.name.endswith("mixer.attn")]
        for part, points in parts.items():
            if points and all("hfd_share" in p.scalars for p in points):
                out.setdefault((label(run), part), []).append((run, result, points))
    return out


def _unscheduled(runs: Sequence[Run]) -> list[Run]:
    """The runs without a schedule, of each model at the largest data scale that all have, else at its own largest."""
    plain = [run for run in finished(runs) if run.config.schedule == "none"]
    scales = {name: {run.config.data_scale for run in group} for name, group in grouped(plain, label).items()}
    common = set.intersection(*scales.values()) if scales else set()
    return [run for run in plain if run.config.data_scale == (max(common) if common else max(scales[label(run)]))]

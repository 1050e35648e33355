"""Sizes and accuracies of EIT (Xia et al. 2022, arXiv 2203.07116) and its ablations, from finished runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fourier_probe.models import zoo
from fourier_probe.papers.captions import accuracy, caption, difference, judged, percent
from fourier_probe.papers.cells import cells_figure
from fourier_probe.papers.exhibit import Exhibit, MissingRunsError, Row
from fourier_probe.papers.registered import figure_kind
from fourier_probe.papers.selection import by_seed, finished, grouped, label
from fourier_probe.plots.style import PAGE, canvas, categories, foot, most_columns, style
from fourier_probe.results.intervals import over_seeds
from fourier_probe.training.runs import Run

ABLATIONS = {"split", "use_pos_embed", "plain_stem"}  # arguments that take one of EIT's ideas away
VARIANTS = (
    *("eit_mini", "eit_tiny", "eit_base", "eit_large"),
    *("eit_small", "eit_small_w320", "eit_small_w144", "eit_small_w80"),
)
PUBLISHED: dict[str, tuple[float, float | None, float]] = {
    "eit_mini": (3.5, 70.03, 1.73),
    "eit_tiny": (8.9, 78.12, 3.84),
    "eit_base": (16.0, 80.62, 6.52),
    "eit_large": (25.3, 81.82, 10.0),
}
"""Parameters (M), ImageNet-1k top-1 after 300 epochs (%), multiply-adds without attention products (G)."""

OTHERS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "ResNet": ((11.7, 69.6, 1.82), (25.6, 76.0, 3.77), (60.2, 78.3, 11.0)),
    "DeiT": ((5.7, 72.2, 1.3), (22, 79.8, 4.6), (87, 81.8, 17.5)),
    "T2T": ((22, 80.7, 6.1), (39, 81.4, 9.8)),
    "TNT": ((24, 81.5, 5.2),),
    "Swin": ((29, 81.3, 4.5), (50, 83.0, 8.7)),
    "CvT": ((20, 81.6, 4.5), (32, 82.5, 7.1)),
    "PVTv2": ((3.4, 70.5, 0.6), (13.1, 78.7, 2.1)),
}
"""Of the same figure of the paper: parameters (M), top-1 (%), multiply-adds (G)."""


@figure_kind(latex=True)
def eit_table(runs: Sequence[Run]) -> Exhibit:
    """Parameters, multiply-adds and accuracy of every variant, beside what was published; no run is needed."""
    done = [run for run in finished(runs) if run.config.schedule == "none"] if any(r.result for r in runs) else []
    trained = grouped((run for run in done if label(run) in VARIANTS), lambda run: (label(run), run.config.data_scale))
    rows: list[Row] = []
    used: list[Run] = []
    for name in VARIANTS:
        bones = zoo.skeleton(name)
        total = zoo.stats(bones, zoo.input_spec(bones).size)
        row: Row = {
            "model": name,
            "parameters": total.parameters,
            "gmacs": (total.multiply_adds - total.attention_products) / 1e9,
            "gmacs_with_attention_products": total.multiply_adds / 1e9,
            "published_gmacs": PUBLISHED[name][2] if name in PUBLISHED else None,
            "published_imagenet_top1": PUBLISHED[name][1] if name in PUBLISHED else None,
        }
        scales = sorted(scale for which, scale in trained if which == name)
        if scales:
            of_scale = by_seed(trained[name, scales[-1]])
            row["our_top1"], row["our_half"] = over_seeds([accuracy(run) for run in of_scale.values()])
            used += of_scale.values()
            row |= {
                "our_data": of_scale[min(of_scale)].config.data,
                "our_data_scale": scales[-1],
                "our_n": len(of_scale),
            }
        rows.append(row)
    with style():
        columns = most_columns(2, PAGE / 2)
        figure = canvas(PAGE, 0.3 + 2.3 * (2 // columns))
        panels = figure.subplots(2 // columns, columns, squeeze=False, sharey=True).flat
        families = {"EIT": tuple(PUBLISHED.values()), **OTHERS}
        for ax, column, text in zip(panels, (0, 2), ("Parameters (M)", "Multiply-adds (G)"), strict=True):
            for (family, points), color, marker in zip(
                families.items(), categories(len(families)), itertools.cycle("*osD^vPX"), strict=False
            ):
                x, y = [point[column] for point in points], [point[1] for point in points]
                ax.plot(x, y, marker=marker, ms=7 if family == "EIT" else 4, color=color, label=family)
            ax.set_xscale("log")
            ax.set_xlabel(text)
        panels[0].set_ylabel("ImageNet top-1, published (%)")
        foot(figure, panels[0].get_legend_handles_labels()[0], ["All accuracies are as published."], columns=8)
    text = (
        "EIT beside its paper: parameters and multiply-adds counted here with torch's counter, ImageNet accuracies as "
        "published (300 epochs; not trained here)."
    )
    if used:
        held = sorted({(Path(run.config.data).name, run.config.data_scale, run.record.classes or 0) for run in used})
        own_data = "; ".join(f"{100 * scale:g} % of {data}, {classes} classes" for data, scale, classes in held)
        text += f" Ours: {own_data}; parameters are those of 100 classes (ImageNet's variants: 1000)."
    note = caption(used, text) if used else f"{text} No run of ours is among the runs."
    table: dict[str, Any] = {
        "model": "model",
        "parameters": lambda row: f"{row['parameters']:,}",
        "G multiply-adds": lambda row: f"{row['gmacs']:.2f}",
        "published": "published_gmacs",
        "with attention products": lambda row: f"{row['gmacs_with_attention_products']:.2f}",
        "ImageNet top-1, published": "published_imagenet_top1",
        "ours, top-1": lambda row: percent(row["our_top1"], row["our_half"]) if "our_top1" in row else "",
    }
    return Exhibit(figure, rows, note, table=table)


@figure_kind(latex=True)
def eit_ablation(runs: Sequence[Run]) -> Exhibit:
    """Accuracy of EIT without one of its ideas, paired by seed with the whole."""
    done = [run for run in finished(runs) if str(run.config.model).startswith("eit_")]
    groups = grouped(done, lambda run: (run.config.model, run.config.data_scale))
    models = {key: found for key, found in groups.items() if len({label(run) for run in found}) > 1}
    if not models:
        raise MissingRunsError(
            "eit-ablation needs an EIT and one of its ablations: "
            "model = ['eit_small_w80', {model = 'eit_small_w80', model_args = {split = 'attention'}}]."
        )
    (model, scale), chosen = max(models.items(), key=lambda item: (len(item[1]), item[0][1]))
    cells = {name: by_seed(group) for name, group in grouped(chosen, label).items()}
    unablated = {label(run) for run in chosen if not ABLATIONS & run.config.model_args.keys()}
    names = sorted(cells, key=lambda name: (name not in unablated, name))
    if names[0] not in unablated:
        raise MissingRunsError(f"eit-ablation needs {model} itself beside its ablations: model = ['{model}'].")
    rows: list[Row] = []
    for name in names:
        mean, half = over_seeds([accuracy(run) for run in cells[name].values()])
        row: Row = {"model": name, "n": len(cells[name]), "test_acc": mean, "half": half}
        shared = sorted(cells[name].keys() & cells[names[0]].keys())
        if name != names[0] and shared:
            gaps = [accuracy(cells[name][seed]) - accuracy(cells[names[0]][seed]) for seed in shared]
            row["minus_whole"], row["minus_whole_half"] = over_seeds(gaps)
        row["parameters"] = next(iter(cells[name].values())).metrics[-1].parameters
        rows.append(row)
    with style():
        seeds = {name: [accuracy(run) for run in of_seed.values()] for name, of_seed in cells.items()}
        figure = cells_figure(
            rows, seeds, key="model", minus="minus_whole", split=judged(chosen), reference=str(model),
        )  # fmt: skip
    table: dict[str, Any] = {
        "model": "model",
        "n": "n",
        "parameters": lambda row: f"{int(row['parameters']):,}",
        "top-1, %": lambda row: percent(row["test_acc"], row["half"]),
        "- whole": lambda row: difference(row, "whole"),
    }
    text = f"Ablations of {model} at {100 * scale:g} % of the data, paired by seed, with its options; exploratory."
    return Exhibit(figure, rows, caption(chosen, text), table=table)

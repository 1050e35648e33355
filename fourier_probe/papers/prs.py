"""The figures and tables of PRS (Lee et al. 2022, arXiv 2210.01370) from finished runs of one network: A6 and A7.

Only the paper's abstract was at hand: what is drawn tests its claims as we read them (docs/figures.md). A1 to A3 are in
`scales`, A4 is in `interpolation`, A5 is in `gates`. Nothing here trains, or builds a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fourier_probe.papers.captions import ENOUGH, accuracy, caption, difference, judged, percent
from fourier_probe.papers.cells import cells_figure
from fourier_probe.papers.exhibit import Exhibit, MissingRunsError, Row
from fourier_probe.papers.registered import figure_kind
from fourier_probe.papers.selection import (
    by_seed,
    finished,
    grouped,
    is_planted,
    label,
    mean_switch,
    noted_schedule,
    one_network,
    recast_settings,
    schedule_name,
    switches,
)
from fourier_probe.plots.schedule import draw_schedule, schedule_foot
from fourier_probe.plots.style import (
    PAGE,
    canvas,
    hide,
    literal,
    panel_columns,
    style,
)
from fourier_probe.results.intervals import over_seeds
from fourier_probe.results.text_table import plus_minus
from fourier_probe.training.rules import CUSTOM, SCHEDULES, ScheduleRequest, build
from fourier_probe.training.runs import Run

# --- the schedules ---------------------------------------------------------------------------------------------------


@figure_kind()
def schedules_figure(runs: Sequence[Run]) -> Exhibit:
    """Epoch of conversion of every layer under every kind of schedule, for the network of the runs."""
    turning = [run for run in runs if switches(run)]
    able = one_network([run for run in turning if not is_planted(run)] or turning)
    run = next((run for run in able if run.config.schedule == "linear"), able[0] if able else None)
    if run is None:
        raise MissingRunsError("schedules needs a run with a schedule: schedule = ['linear'] in the plan.")
    when, epochs = switches(run), run.plan.epochs
    layers, early, late = list(when), max(when.values()), min(when.values())
    rows: list[Row] = []
    with style():
        kinds = [kind for kind in SCHEDULES if kind != CUSTOM]
        columns = panel_columns(len(kinds))
        lines = -(-len(kinds) // columns)
        figure = canvas(PAGE, 0.3 + lines * (0.7 + 0.11 * len(layers)))
        axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for ax, kind in zip(axes.flat, kinds, strict=False):
            stages = {name: name.split(".")[0] for name in layers}
            request = ScheduleRequest(
                layers, early=early, late=late, epochs=epochs, stages=stages, seed=run.config.schedule_seed
            )
            plan = build(kind, request)
            draw_schedule(ax, layers, dict(plan), epochs, ends=dict(plan.ends))
            ax.set_title(literal(kind), fontsize=7)
            ax.label_outer()
            rows += [
                {"schedule": kind, "layer": layer, "epoch": plan.get(layer), "end": plan.ends.get(layer)}
                for layer in layers
            ]
        hide(axes.flat[len(kinds) :])
        schedule_foot(figure, soft="soft" in kinds)
    text = f"When each of {len(layers)} convolutions of {label(run)} becomes attention, for every kind of schedule, "
    text += f"early epoch {early}, late epoch {late}."
    return Exhibit(figure, rows, caption([run], text, over="", reading=True))


@figure_kind(latex=True)
def schedule_table(runs: Sequence[Run]) -> Exhibit:
    """Accuracy of every schedule and control, with paired differences over seeds, and what each cost (A6, A7)."""
    every = one_network(finished(runs))
    way = next((recast_settings(run) for run in every if run.config.schedule == "linear"), None)
    done = [run for run in every if way in (None, recast_settings(run)) or run.config.schedule == "none"]
    left_out = sorted({noted_schedule(run) for run in every} - {noted_schedule(run) for run in done})
    mean_of_linear = {mean_switch(run) for run in done if run.config.schedule == "linear"}

    def named(run: Run) -> str:
        same = run.config.schedule == "constant" and {*switches(run).values()} == mean_of_linear
        weighted = run.config.schedule == "constant" and run.config.weighted_mean and run.config.at_epoch < 0
        name = "constant, same mean" if same else "constant, weighted mean" if weighted else schedule_name(run)
        return f"{name} {run.note}".strip()

    cells = {name: by_seed(found) for name, found in grouped(done, named).items()}
    if len(cells) < 2:
        raise MissingRunsError(
            "schedule-table needs two schedules of one network: schedule = ['none', 'linear', 'constant']."
        )
    order = ["none", "linear", "constant, same mean", "constant, weighted mean", "reverse"]
    names = sorted(cells, key=lambda name: (order.index(name) if name in order else len(order), name))
    control = "constant, same mean" if "constant, same mean" in cells else None
    rows: list[Row] = []
    for name in names:
        of_name = cells[name]
        mean, half = over_seeds([accuracy(run) for run in of_name.values()])
        row: Row = {"schedule": name, "n": len(of_name), "test_acc": mean, "half": half}
        for key, other in (("none", "none"), ("control", control)):
            if other and other != name and other in cells:
                shared = sorted(of_name.keys() & cells[other].keys())
                differences = [accuracy(of_name[seed]) - accuracy(cells[other][seed]) for seed in shared]
                if differences:
                    row[f"minus_{key}"], row[f"minus_{key}_half"] = over_seeds(differences)
                    row[f"minus_{key}_pairs"] = len(shared)
        row["epochs"] = float(np.mean([run.plan.epochs for run in of_name.values()]))
        row["gmacs_per_image"] = float(np.mean([_gmacs(run) for run in of_name.values()]))
        row["seconds"] = float(np.mean([_seconds(run) for run in of_name.values()]))
        row["role"] = {"linear": "PRS", control: "same-mean control"}.get(name, "")
        rows.append(row)
    with style():
        base = "none" if "none" in cells else control
        seeds = {name: [accuracy(run) for run in found.values()] for name, found in cells.items()}
        same = ["constant, same mean: all layers switch at the mean epoch of linear."] if control else []
        figure = cells_figure(
            rows, seeds, key="schedule", minus="minus_none" if base == "none" else "minus_control",
            split=judged(done), reference=base or "none", marked="linear", notes=same,
        )  # fmt: skip
    primary = next((row for row in rows if row["schedule"] == "linear" and "minus_control" in row), None)
    contrast = (
        "Primary contrast, linear minus constant of the same mean epoch, paired by seed: "
        + plus_minus(100 * primary["minus_control"], 100 * primary["minus_control_half"])
        + f" points, {primary['minus_control_pairs']} pairs"
        + ("" if primary["minus_control_pairs"] >= ENOUGH else f" (fewer than the {ENOUGH} it needs)")
        + "; the other rows are exploratory."
        if primary
        else "The same-mean control is missing, so the order cannot be told from the mean epoch; rows are exploratory."
    )
    table: dict[str, Any] = {
        "schedule": "schedule",
        "n": "n",
        "top-1, %": lambda row: percent(row["test_acc"], row["half"]),
        "- none": lambda row: difference(row, "none"),
        "- control": lambda row: difference(row, "control"),
        "epochs": lambda row: f"{row['epochs']:g}",
        "G multiply-adds": lambda row: f"{row['gmacs_per_image']:.3f}",
        "minutes": lambda row: f"{row['seconds'] / 60:.1f}",
    }
    text = f"Schedules of {label(done[0])} (A6, A7). {contrast} Multiply-adds of an image's forward, mean over epochs."
    text += f" Left out, recast otherwise than linear: {', '.join(left_out)}." if left_out else ""
    return Exhibit(figure, rows, caption(done, text, reading=True), table=table)


def _seconds(run: Run) -> float:
    return sum(row.seconds or 0.0 for row in run.metrics)


def _gmacs(run: Run) -> float:
    counts = [row.multiply_adds for row in run.metrics if row.multiply_adds]
    return float(np.mean([count for count in counts if count])) / 1e9 if counts else math.nan

"""What a network does while it converts, from runs that were probed while they trained: gates (A5), spectra.

As `papers.prs`, of which this is the other half: nothing here trains, or builds a model.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import cm, colors
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fourier_probe.papers.captions import caption
from fourier_probe.papers.cells import dodged
from fourier_probe.papers.exhibit import Exhibit, MissingRunsError, Row
from fourier_probe.papers.registered import figure_kind
from fourier_probe.papers.selection import (
    by_seed,
    finished,
    grouped,
    grouped_rows,
    mean_switch,
    noted_schedule,
    one_network,
    switches,
)
from fourier_probe.plots.epochs import epochs_figure
from fourier_probe.plots.reliance import NOT_RELIANCE
from fourier_probe.plots.style import (
    MARKERS,
    PAGE,
    canvas,
    categories,
    depth_colors,
    foot,
    hide,
    literal,
    most_columns,
    short_title,
    style,
)
from fourier_probe.results.intervals import over_seeds
from fourier_probe.results.profile import profile, view_of
from fourier_probe.training.runs import Run

PANELS = 4  # schedules that a figure has room for


@figure_kind(tables=["differences", "reliance"])
def gates_by_depth(runs: Sequence[Run]) -> Exhibit:
    """Gates of the converted layers against steps since their switch, a panel per schedule, coloured by depth (A5)."""
    chosen = one_network([run for run in finished(runs) if switches(run) and run.trajectory])
    rows = [row for run in chosen for row in _gates(run)]
    if not rows:
        raise MissingRunsError(
            "gates-by-depth needs PRS runs probed while they trained: probe_every = 1 with schedule = ['linear']."
        )
    every = _in_order([row["schedule"] for row in rows], chosen)
    names = every[:PANELS]
    chosen = [run for run in chosen if noted_schedule(run) in names]
    curves = {name: _mean_gates([row for row in rows if row["schedule"] == name]) for name in names}
    last = min(max(steps) for layers in curves.values() for _, steps, _ in layers)
    relied = _reliance(chosen)
    panels = len(names) + 1 + bool(relied)
    with style():
        columns = most_columns(panels)
        lines = -(-panels // columns)
        figure = canvas(max(PAGE * panels / 4, 3.5), 0.4 + 2.1 * lines)
        grid = list(figure.subplots(lines, columns, squeeze=False).flat)
        hide(grid[panels:])
        axes, overlaid = grid[: len(names)], grid[len(names)]
        for index, ax in enumerate(grid[: len(names) + 1]):  # one axis of gates
            ax.set_ylim(0, 1.02)
            ax.tick_params(labelleft=not index % columns)
        cmap = depth_colors()
        longest = max(max(steps) for layers in curves.values() for _, steps, _ in layers)
        for ax, name in zip(axes, names, strict=True):
            for depth, steps, gates in curves[name]:
                ax.plot(steps, gates, marker=".", ms=3, color=cmap(depth))
            ax.axvline(last, color="0.6", linestyle=":", linewidth=0.8)
            ax.set_title(short_title(name), fontsize=7)
            ax.set_xlabel("Steps since the switch")
            ax.set_xlim(-0.04 * longest, 1.04 * longest)  # one axis for all that are compared
            ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        counts = {name: len({row["seed"] for row in rows if row["schedule"] == name}) for name in names}
        styles = zip(categories(len(names)), itertools.cycle(MARKERS))
        for index, (name, (color, marker)) in enumerate(zip(names, styles, strict=False)):
            at = _gates_at([row for row in rows if row["schedule"] == name], last)
            x = [depth + dodged(index, len(names), 0.012) for depth, _, _ in at]
            halves = [half if np.isfinite(half) else 0.0 for _, _, half in at]
            overlaid.errorbar(x, [gate for _, gate, _ in at], halves, color=color, marker=marker, ms=3, capsize=1.5,
                              elinewidth=0.7, label=literal(name))  # fmt: skip
        overlaid.set_title(f"{last} steps after the switch", fontsize=7)
        overlaid.set_xlabel("Normalized depth")
        overlaid.legend(fontsize=6)
        grid[0].set_ylabel("Mean gate (1: positional)")
        if relied:
            _draw_relied(grid[len(names) + 1], relied, {row["layer"]: row["depth"] for row in rows}, names)
        bar = figure.colorbar(cm.ScalarMappable(colors.Normalize(0, 1), cmap), ax=grid, pad=0.02, aspect=30)
        bar.set_label("Normalized depth")
        numbers = sorted(set(counts.values()))
        several = (
            f"{numbers[0]} to {numbers[-1]} seeds" if len(numbers) > 1 else f"{numbers[0]} seed{'s' * (numbers[0] > 1)}"
        )
        bars = "; bars at right: 95 % over seeds (Student's t)" if numbers[-1] > 1 else ""
        notes = [f"Mean over heads and {several}{bars}. Dotted: {last} steps, where all can be compared."]
        foot(figure, notes=[*notes, *([] if relied else [NOT_RELIANCE])])
    text = (
        "Gates of converted layers against steps since their own switch (A5), mean over heads and seeds; at right all "
    )
    text += f"schedules overlaid after as many steps, {last} (dotted). "
    eased = [name for name in names if any(noted_schedule(r) == name and r.config.anneal_epochs > 0 for r in chosen)]
    text += "Eased down from the convolution at first, so that their fall right after the switch is set, not learned: "
    text += f"{', '.join(eased) or 'none of them'}.{_not_drawn(every, PANELS)}"
    gaps = _gate_differences(rows, names, last)
    for other in dict.fromkeys(gap["minus"] for gap in gaps):
        of_other = [gap for gap in gaps if gap["minus"] == other]
        apart = [abs(gap["difference"]) for gap in of_other if abs(gap["difference"]) > gap["half"]]
        text += f" linear minus {other}, by seed: {len(apart)} of {len(of_other)} layers have a 95 % interval without 0"
        text += f" (not corrected), up to {max(apart):.2f}." if apart else "."
    text += " A gate is no measure of reliance: "
    text += "what these runs rely on is in the last panel and in the table beside it." if relied else (
        "what these runs rely on was not measured (`fourier-probe analyze RUN --attention --out RUN`)."
    )  # fmt: skip
    more = {name: table for name, table in (("differences", gaps), ("reliance", relied)) if table}
    return Exhibit(figure, rows, caption(chosen, text, over="", reading=True), more)


def _reliance(runs: Sequence[Run]) -> list[Row]:
    """Of the runs that hold it, a row per layer, half and test, beside the gate of the layer."""
    rows: list[Row] = []
    for run in runs:
        record = run.reliance()
        if record is None:
            continue
        gates = {row.layer: row.gate for row in record.departures}
        rows += [
            {"schedule": noted_schedule(run), "seed": run.config.seed, "layer": row.layer, "half": row.half,
             "test": row.test, "gate": gates.get(row.layer), "top1_change": row.top1_change.value,
             "low": row.top1_change.low, "high": row.top1_change.high, "images": record.images}
            for row in record.lesions
        ]  # fmt: skip
    return rows


def _draw_relied(ax: Axes, relied: Sequence[Row], depth: Mapping[str, float], names: Sequence[str]) -> None:
    """Points of top-1 lost when the content half of a layer is exchanged between images, by depth and schedule."""
    ax.axhline(0, color="0.3", linewidth=0.6)
    styles = zip(categories(len(names)), itertools.cycle(MARKERS))
    for index, (name, (color, marker)) in enumerate(zip(names, styles, strict=False)):
        lesions = [
            row for row in relied if (row["schedule"], row["half"], row["test"]) == (name, "content", "exchanged")
        ]
        by_layer = grouped_rows([row for row in lesions if row["layer"] in depth], "layer")
        layers = sorted(by_layer, key=lambda layer: depth[layer])
        lost = [over_seeds([-100 * row["top1_change"] for row in by_layer[layer]]) for layer in layers]
        ax.errorbar(
            [depth[layer] + dodged(index, len(names), 0.012) for layer in layers], [mean for mean, _ in lost],
            [half if np.isfinite(half) else 0.0 for _, half in lost], color=color, marker=marker, ms=3, capsize=1.5,
            elinewidth=0.7, linestyle="",
        )  # fmt: skip
    ax.set_title("what they rely on, at the end", fontsize=7)
    ax.set_xlabel("Normalized depth")
    ax.set_ylabel("Top-1 lost without content (points)")


def _gate_differences(rows: Sequence[Row], names: Sequence[str], steps: int) -> list[Row]:
    """Of each layer the gate of `linear` minus that of every other schedule, `steps` after the switch, by seed."""
    at: dict[tuple[str, str], dict[int, float]] = {}
    depth = {row["layer"]: row["depth"] for row in rows}
    for name, of_name in grouped_rows(rows, "schedule").items():
        for layer, of_layer in grouped_rows(of_name, "layer").items():
            for seed, curve in grouped_rows(of_layer, "seed").items():
                gate = np.interp(steps, [row["steps"] for row in curve], [row["gate"] for row in curve])
                at.setdefault((name, layer), {})[seed] = float(gate)
    out = []
    for other in (name for name in names if name != "linear" and "linear" in names):
        for layer in depth:
            ours, theirs = at.get(("linear", layer), {}), at.get((other, layer), {})
            shared = sorted(ours.keys() & theirs.keys())
            if len(shared) > 1:
                mean, half = over_seeds([ours[seed] - theirs[seed] for seed in shared])
                out.append(
                    {"schedule": "linear", "minus": other, "layer": layer, "depth": depth[layer], "steps": steps,
                     "n": len(shared), "difference": mean, "half": half}
                )  # fmt: skip
    return out


def _mean_gates(rows: Sequence[Row]) -> list[tuple[float, list[int], list[float]]]:
    """Of each layer: its depth, the steps since its switch, and the mean gate over seeds there."""
    out = []
    for of_layer in grouped_rows(rows, "layer").values():
        at = grouped_rows(of_layer, "steps")
        steps = sorted(at)
        out.append(
            (float(of_layer[0]["depth"]), steps, [float(np.mean([row["gate"] for row in at[s]])) for s in steps])
        )
    return out


def _gates_at(rows: Sequence[Row], steps: int) -> list[tuple[float, float, float]]:
    """Of each layer, by depth: its depth, its mean gate over seeds after so many steps, half of the interval."""
    out = []
    for of_layer in grouped_rows(rows, "layer").values():
        curves = grouped_rows(of_layer, "seed").values()
        gates = [float(np.interp(steps, [r["steps"] for r in curve], [r["gate"] for r in curve])) for curve in curves]
        out.append((float(of_layer[0]["depth"]), *over_seeds(gates)))
    return sorted(out)


@figure_kind()
def training_trajectory(runs: Sequence[Run]) -> Exhibit:
    """High-frequency value of every point while training, across the switches, a row per schedule."""
    chosen = one_network([run for run in finished(runs) if len(run.trajectory) > 1])
    if not chosen:
        raise MissingRunsError("training-trajectory needs runs probed while they trained: probe_every = 1 in the plan.")
    first = {name: by_seed(group) for name, group in grouped(chosen, noted_schedule).items()}
    every = _in_order(list(first), chosen)
    names = every[:PANELS]
    used = [first[name][min(first[name])] for name in names]
    view = view_of([result for run in used for result in run.trajectory])
    rows: list[Row] = []
    for run in used:
        for result in run.trajectory:
            along = profile(result, view)
            rows += [
                {"schedule": noted_schedule(run), "seed": run.config.seed, "epoch": result.epoch, "point": n,
                 "depth": d, "quantity": view.quantity, "at": view.at, "value": v, "stderr": e}
                for n, d, v, e in zip(along.names, along.depth, along.value, along.stderr, strict=True)
            ]  # fmt: skip
    when = [sorted(set(switches(run).values())) for run in used]
    figure = epochs_figure([run.trajectory for run in used], names, when, view=view)
    count = used[0].trajectory[0].images.n
    text = f"Spectra while training, across the switches (dashed); one seed each, over {count} validation images. "
    text += view.why + _not_drawn(every, PANELS)
    return Exhibit(figure, rows, caption(used, text, over="image groups", reading=True))


def _gates(run: Run) -> list[Row]:
    """Mean gate of every converted layer at every epoch that was probed since its switch."""
    when, steps = switches(run), run.plan.steps
    rows = []
    for result in run.trajectory:
        epoch = result.epoch
        for point in result.points:
            layer, _, half = point.name.rpartition("+")
            if half == "content" and point.gate is not None and layer in when:
                rows.append(
                    {"schedule": noted_schedule(run), "seed": run.config.seed, "layer": layer, "depth": point.depth,
                     "epoch": epoch, "steps": (epoch - when[layer]) * steps, "gate": float(np.mean(point.gate)),
                     "gate_least": min(point.gate), "gate_most": max(point.gate)}
                )  # fmt: skip
    return rows


def _in_order(names: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """Schedules as `noted_schedule` names them: none, linear, constant at linear's mean, reverse, then the others."""
    means = {mean_switch(run) for run in runs if run.config.schedule == "linear"}
    first = ["none", "linear", *(f"constant at {mean}" for mean in sorted(means)), "reverse"]
    return sorted(dict.fromkeys(names), key=lambda name: (first.index(name) if name in first else len(first), name))


def _not_drawn(names: Sequence[str], most: int) -> str:
    return f" Not drawn: {', '.join(names[most:])}." if len(names) > most else ""

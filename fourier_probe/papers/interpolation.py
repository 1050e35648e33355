"""A4 of PRS: where a network whose layers all switch at one epoch lies between the CNN and attention from the start.

From finished, analyzed runs of one network; see `papers.prs` for the other claims.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourier_probe.papers.captions import accuracy, caption, images_of, judged
from fourier_probe.papers.exhibit import Exhibit, MissingRunsError, Row
from fourier_probe.papers.registered import figure_kind
from fourier_probe.papers.selection import (
    analyzed,
    finished,
    grouped,
    grouped_rows,
    noted_schedule,
    one_network,
    recast_settings,
    switches,
)
from fourier_probe.plots.style import PAGE, canvas, foot, most_columns, ordered_colors, style
from fourier_probe.results.coordinate import Axes as CommonAxes
from fourier_probe.results.coordinate import common_axes, locate, surface
from fourier_probe.results.intervals import over_seeds
from fourier_probe.results.profile import profile, view_of
from fourier_probe.results.spectra import Spectra
from fourier_probe.training.runs import Run

Seeds = dict[int, dict[float, tuple[Run, Spectra]]]  # by seed and switch, as a share of training; 1 is never
APART = 2  # times the scatter of seeds that the ends must lie apart for a coordinate between them


@figure_kind()
def interpolation(runs: Sequence[Run]) -> Exhibit:
    """Spectra, coordinate and accuracy against the epoch at which all layers switch, between the CNN and t = 0."""
    able = [r for r in finished(runs) if r.config.schedule in ("none", "constant") and r.spectra is not None]
    network = one_network(able)
    seeds = _with_both_ends(analyzed(_recast_one_way(network), "interpolation"))
    used = [pair for at in seeds.values() for pair in at.values()]
    axes = common_axes([result for _, result in used])
    surfaces = {seed: {share: surface(r, axes) for share, (_, r) in at.items()} for seed, at in seeds.items()}
    gap, scatter = _ends_apart([(at[max(at)][0], at[min(at)][0]) for at in surfaces.values()], axes)
    defined = not gap <= APART * scatter  # unknown with one seed: then it is drawn
    rows: list[Row] = []
    for seed, at in seeds.items():
        of = surfaces[seed]
        for share, (run, _) in sorted(at.items()):
            spot = locate(of[share], of[max(of)], of[min(of)], axes)
            where = {"t": spot.t, "t_stderr_images": spot.t_stderr, "distance": spot.distance, "cosine": spot.cosine}
            where = where if defined else dict.fromkeys(where, math.nan)
            rows.append({"seed": seed, "switch": share, **where, "test_acc": accuracy(run)})
    first = min(seeds)
    curves = {share: (result, surfaces[first][share][0]) for share, (_, result) in seeds[first].items()}
    trained = [run for run, _ in used]
    figure = _draw(rows, curves, axes, defined, judged(trained))
    ways = sorted({recast_settings(run) for run in trained if run.config.schedule == "constant"})
    drawn = {id(run) for run in trained}
    others = {noted_schedule(run) for run in network if id(run) not in drawn and run.config.schedule == "constant"}
    text = f"Interpolation by the epoch at which all layers switch (A4); spectra of seed {first}. "
    text += f"Recast with {'; or '.join(ways)}."
    text += f" Not drawn, recast otherwise: {', '.join(sorted(others))}." if others else ""
    text += f" {_verdict(rows, gap, scatter)} {images_of([used[0][1]])}"
    return Exhibit(figure, rows, caption(trained, text, reading=True))


def _with_both_ends(analyses: Sequence[tuple[Run, Spectra]]) -> Seeds:
    """The runs of the seeds that have the CNN and the earliest switch."""
    shares = sorted({_switch(run) for run, _ in analyses})
    if len(shares) < 3 or shares[-1] != 1.0:
        raise MissingRunsError(
            "interpolation needs `none` and `constant` at two epochs or more, analyzed: "
            "schedule = ['none', {schedule = 'constant', at_epoch = 0}, {schedule = 'constant', at_epoch = 0.5}]."
        )
    seeds: Seeds = {}
    for run, result in analyses:
        seeds.setdefault(run.config.seed, {})[_switch(run)] = (run, result)
    seeds = {seed: at for seed, at in sorted(seeds.items()) if shares[0] in at and shares[-1] in at}
    if not seeds:
        raise MissingRunsError(
            "interpolation needs a seed that has both ends: schedule = ['none', {schedule = 'constant', at_epoch = 0}]."
        )
    return seeds


def _recast_one_way(runs: Sequence[Run]) -> list[Run]:
    """Without the `constant` runs that recast otherwise than most switch epochs do, where two or more are left."""
    ways = grouped((run for run in runs if run.config.schedule == "constant"), recast_settings)
    if not ways:
        return list(runs)
    most = max(ways, key=lambda way: (len({_switch(run) for run in ways[way]}), way))
    if len({_switch(run) for run in ways[most]}) < 2:
        return list(runs)
    return [run for run in runs if run.config.schedule == "none" or recast_settings(run) == most]


def _switch(run: Run) -> float:
    """Epoch at which all layers switch, as a share of training; 1 if never."""
    when = switches(run)
    return max(when.values()) / run.plan.epochs if when else 1.0


def _ends_apart(ends: Sequence[tuple[np.ndarray, np.ndarray]], axes: CommonAxes) -> tuple[float, float]:
    """RMS distance of the mean ends, nats, and the standard deviation of one pair over seeds; NaN for one seed."""
    sides = [np.stack(side) for side in zip(*ends, strict=True)]
    gap = math.sqrt(float((((sides[0].mean(0) - sides[1].mean(0)) ** 2) * axes.weight).sum()))
    if len(ends) < 2:
        return gap, math.nan
    return gap, math.sqrt(sum(float((side.var(0, ddof=1) * axes.weight).sum()) for side in sides))


def _verdict(rows: Sequence[Row], gap: float, scatter: float) -> str:
    """Whether the ends differ by more than seeds do, and whether t falls from switch to switch."""
    apart = f"The ends lie {gap:.2f} nats apart (RMS)"
    if math.isnan(scatter):
        sentence = f"{apart}; one seed, so their scatter is unknown."
    else:
        sentence = f"{apart}, {gap / scatter if scatter else math.inf:.1f} times the scatter of seeds (sd of one pair)"
        if gap <= APART * scatter:
            return f"{sentence}: too close, so the coordinate is undefined."
        sentence += ", so the coordinate is defined."
    seeds = grouped_rows(rows, "seed").values()
    falling = sum(all(b["t"] < a["t"] for a, b in itertools.pairwise(of_seed)) for of_seed in seeds)
    return f"{sentence} t falls from each switch to the next in {falling} of {len(seeds)} seeds."


def _draw(
    rows: Sequence[Row], curves: dict[float, tuple[Spectra, np.ndarray]], axes: CommonAxes, defined: bool, split: str
) -> Figure:
    """Depth profile and radial profile of one seed, then coordinate and accuracy of all, against the switch."""
    view = view_of([result for result, _ in curves.values()])
    with style():
        columns = most_columns(2, PAGE / 2)
        figure = canvas(PAGE, 0.6 + 2.1 * (4 // columns))
        left, middle, right, last = figure.subplots(4 // columns, columns, squeeze=False).flat
        shares = sorted({row["switch"] for row in rows})
        palette = dict(zip(shares, ordered_colors(len(shares)), strict=True))
        for share, (result, values) in sorted(curves.items(), reverse=True):
            along = profile(result, view)
            name = "never" if share == 1 else f"{100 * share:.0f} %"
            left.plot(along.depth, along.value, marker=".", color=palette[share], label=name)
            middle.plot(axes.radius, (values * axes.weight).sum(0) / axes.weight.sum(0), color=palette[share])
        left.set_xlabel("Normalized depth")
        left.set_ylabel(view.label)
        left.legend(title="switch", title_fontsize=6, fontsize=6)
        middle.set_xlabel("Radius (1: Nyquist)")
        middle.set_ylabel("Log density,\nmean over depth (nats)")
        if defined:
            _over_switches(right, rows, "t", "#1f4e79", ends=False, label="coordinate t")
            _over_switches(right, rows, "distance", "#b5482a", ends=False, label="distance / segment")
            right.plot([shares[0], 1], [1, 0], color="0.6", linestyle=":", linewidth=0.8, label="straight line")
            right.legend(fontsize=6)
        else:
            right.set_xlim(shares[0], 1)
            right.set_yticks([])
            right.text(0.5, 0.5, "undefined:\nthe ends are too close", ha="center", va="center",
                       transform=right.transAxes, fontsize=7)  # fmt: skip
        right.set_xlabel("Switch (share of training; 1: never)")
        right.set_ylabel("Coordinate t\n(0: CNN, 1: earliest switch)")
        _over_switches(last, [{**row, "top1": 100 * row["test_acc"]} for row in rows], "top1", "#1f4e79")
        last.set_xlabel("Switch (share of training; 1: never)")
        last.set_ylabel(f"{split} top-1 (%)")
        count = len({row["seed"] for row in rows})
        several = f"Small dots: {count} seeds; bars: 95 % over them (Student's t)." if count > 1 else "One seed."
        foot(figure, notes=[f"Above: the first seed; switch: share of training. Below: {several}"])
    return figure


def _over_switches(
    ax: Axes, rows: Sequence[Row], key: str, color: str, *, ends: bool = True, label: str | None = None
) -> None:
    """A column of every seed against the switch, and its mean with an interval, at the ends only where asked."""
    aside = 0.012 * (max(row["switch"] for row in rows) - min(row["switch"] for row in rows))  # beside the bars
    dots: dict[str, Any] = {"ms": 3, "mew": 0, "color": color, "alpha": 0.55}
    ax.plot([row["switch"] + aside for row in rows], [row[key] for row in rows], "o", **dots)
    cells = grouped_rows(rows, "switch")
    shares = sorted(cells)
    means = [over_seeds([row[key] for row in cells[share]]) for share in shares]
    free = [ends or 0 < index < len(shares) - 1 for index in range(len(shares))]
    half = [h if given and h == h else 0.0 for (_, h), given in zip(means, free, strict=True)]
    ax.errorbar(shares, [mean for mean, _ in means], half, marker="o", ms=3, capsize=1.5, color=color, label=label)

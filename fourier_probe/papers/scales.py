"""The figures of PRS (Lee et al. 2022, arXiv 2210.01370) that set models beside each other by data scale: A1 to A3.

As `papers.prs`, of which this is the other half: nothing here trains, or builds a model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from fourier_probe.papers.captions import ENOUGH, accuracy, caption, images_of, judged
from fourier_probe.papers.cells import dodged
from fourier_probe.papers.exhibit import Exhibit, MissingRunsError, Row
from fourier_probe.papers.registered import figure_kind
from fourier_probe.papers.selection import analyzed, by_seed, finished, grouped, is_cnn, label, schedule_name
from fourier_probe.plots.compare import panels_figure
from fourier_probe.plots.spectra import label_outer, side_legend
from fourier_probe.plots.style import (
    MARKERS,
    PAGE,
    canvas,
    categories,
    foot,
    ordered_colors,
    panel_columns,
    style,
    wrapped_title,
)
from fourier_probe.results.intervals import over_seeds
from fourier_probe.results.profile import profile, view_of
from fourier_probe.results.spectra import Spectra
from fourier_probe.training.runs import Run

RESAMPLES = 2000  # of seeds, for the interval of a crossover
UNRESOLVED = "(unresolved)"


# --- A1, A3: accuracy against data scale -----------------------------------------------------------------------------


@figure_kind(tables=["crossover"])
def accuracy_by_scale(runs: Sequence[Run]) -> Exhibit:
    """Test accuracy of every model against the data scale, and where each overtakes the CNN."""
    done = _cnn_first(finished(runs))
    scales = sorted({run.config.data_scale for run in done})
    cells = grouped(done, lambda run: (_name(run), run.config.data_scale))
    names = list(dict.fromkeys(name for name, _ in cells))
    if len(scales) < 2:
        raise MissingRunsError("accuracy-by-scale needs runs at two data scales: data_scale = [0.1, 1.0] in the plan.")
    names = [name for name in names if sum((name, scale) in cells for scale in scales) > 1]
    rows: list[Row] = []
    for name, scale in itertools.product(names, scales):
        of_cell = cells.get((name, scale), [])
        if of_cell:
            mean, half = over_seeds([accuracy(run) for run in by_seed(of_cell).values()])
            rows.append(
                {"model": name, "data_scale": scale, "n": len(by_seed(of_cell)), "test_acc": mean, "half": half}
            )
    plain = [
        name for (name, _), of_cell in cells.items() if is_cnn(of_cell[0]) and of_cell[0].config.schedule == "none"
    ]
    cnn = next((name for name in names if name in plain), None)
    crossings = [_crossover(cells, name, cnn, scales) for name in names if cnn and name != cnn]
    for row in rows:
        gaps = _gaps(cells, row["model"], cnn, row["data_scale"]) if cnn and row["model"] != cnn else {}
        if gaps:
            row["minus_cnn"], row["minus_cnn_half"] = over_seeds(list(gaps.values()))
            row["minus_cnn_pairs"] = len(gaps)
    with style():
        figure = canvas(0.85 * PAGE, 3.0)
        ax = figure.subplots()
        styles = zip(names, categories(len(names)), itertools.cycle(MARKERS), strict=False)
        for index, (name, color, marker) in enumerate(styles):
            of_model = [row for row in rows if row["model"] == name]
            aside = math.exp(dodged(index, len(names), 0.035))  # of a logarithmic axis
            x, y = [aside * row["data_scale"] for row in of_model], [100 * row["test_acc"] for row in of_model]
            halves = [100 * row["half"] if row["half"] == row["half"] else 0.0 for row in of_model]
            ax.errorbar(x, y, halves, color=color, marker=marker, capsize=1.5, elinewidth=0.7,
                        label=wrapped_title(name, 30))  # fmt: skip
            for row, at in zip(of_model, x, strict=True):
                seeds = [100 * accuracy(run) for run in by_seed(cells[name, row["data_scale"]]).values()]
                ax.plot([at] * len(seeds), seeds, "o", ms=2.8, mfc="white", mec=color, mew=0.6, zorder=3)
            for crossing in [at for c in crossings if c["model"] == name for at in c["resolved"]]:
                ax.axvline(crossing, color=color, linewidth=0.6, linestyle="--", zorder=0)
        _scale_axis(ax, scales)
        ax.set_ylabel(f"{judged(done)} top-1 (%)")
        ax.set_ylim(max(ax.get_ylim()[0], 0), min(ax.get_ylim()[1], 100))
        side_legend(figure, ax)
        dot = Line2D([], [], linestyle="", marker="o", ms=2.8, mfc="white", mec="0.3", mew=0.6, label="one seed")
        crossed = [Line2D([], [], color="0.3", linewidth=0.6, linestyle="--", label="overtakes the CNN")]
        resolved = any(c["resolved"] for c in crossings)
        foot(figure, [dot, *crossed * resolved], ["Bars: 95 % over seeds (Student's t), where there are two or more."])
    sentence = "; ".join(f"{c['model']}: {c['crossover']}" for c in crossings)
    used = [run for (name, _), found in cells.items() if name in names for run in found]
    overtaken = f"Data scale at which a model overtakes {cnn}: {sentence}."
    if any(c["low"] == c["low"] for c in crossings):
        overtaken += " In brackets a 95 % percentile bootstrap over seeds."
    if UNRESOLVED in sentence:
        overtaken += f" {UNRESOLVED}: a paired difference beside it has 0 in its 95 % interval, or has no interval."
    text = (
        f"{judged(done)} accuracy against data scale (A1, A3). {overtaken if cnn else 'There is no CNN to overtake.'}"
    )
    listed = [{**c, **{k: " ".join(f"{x:.4g}" for x in c[k]) for k in ("at", "falls", "resolved")}} for c in crossings]
    more = {"crossover": listed} if crossings else {}
    return Exhibit(figure, rows, caption(used, text, reading=any(" + " in name for name in names)), more)


def _gaps(cells: dict[tuple[str, float], list[Run]], name: str, cnn: str, scale: float) -> dict[int, float]:
    """Accuracy of a model minus that of the CNN, of every seed that both have."""
    ours, theirs = (by_seed(cells.get((who, scale), [])) for who in (name, cnn))
    return {seed: accuracy(ours[seed]) - accuracy(theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())}


def _crossover(
    cells: dict[tuple[str, float], list[Run]], name: str, cnn: str, scales: Sequence[float]
) -> dict[str, Any]:
    """Data scales at which `name` overtakes `cnn`, or falls behind again, linear in ln(scale); or that it is censored.

    Of differences paired by seed; what rests on one whose 95 % interval holds 0 is said to be unresolved. From five
    seeds on, an interval resamples them with replacement and takes the first overtaking; draws without any are counted.
    (With fewer, percentiles cover far less than they say.)
    """
    gaps = {scale: found for scale in scales if (found := _gaps(cells, name, cnn, scale))}
    both = list(gaps)
    gap = [float(np.mean(list(differences.values()))) for differences in gaps.values()]
    clear = [
        abs(mean) > half for mean, half in (over_seeds(list(differences.values())) for differences in gaps.values())
    ]
    at, falls = (_crossings(both, [sign * difference for difference in gap]) for sign in (1, -1))
    low = high = math.nan
    censored = 0
    shared = sorted(set.intersection(*(set(differences) for differences in gaps.values()))) if gaps else []
    if len(shared) >= ENOUGH:
        rng = np.random.default_rng(0)
        draws = []
        for _ in range(RESAMPLES):
            seeds = rng.choice(shared, len(shared))
            drawn = [float(np.mean([differences[int(seed)] for seed in seeds])) for differences in gaps.values()]
            first = _crossings(both, drawn)
            draws.append(0.0 if drawn[0] > 0 else first[0][0] if first else math.inf)
        low, high = (float(np.quantile(draws, q, method="nearest")) for q in (0.025, 0.975))
        censored = sum(not 0 < draw < math.inf for draw in draws)

    def mark(known: bool) -> str:
        return "" if known else f" {UNRESOLVED}"

    if not both:
        verdict = "no common data scale"
    elif gap[0] > 0 and not falls:
        verdict = f"ahead from the smallest on (< {100 * both[0]:g} %){mark(all(clear))}"
    elif gap[0] <= 0 and not at:
        verdict = f"censored, not up to {100 * both[-1]:g} %{mark(all(clear))}"
    else:
        turns = sorted([*((x, "ahead", k) for x, k in at), *((x, "behind", k) for x, k in falls)])
        start = [f"ahead at {100 * both[0]:g} %{mark(clear[0])}"] if gap[0] > 0 else []
        verdict = ", ".join(
            [*start, *(f"{side} from {100 * x:.3g} %{mark(clear[k] and clear[k + 1])}" for x, side, k in turns)]
        )
    if low == low:
        ends = [
            f"< {100 * both[0]:g}" if x == 0 else f"> {100 * both[-1]:g}" if x == math.inf else f"{100 * x:.3g}"
            for x in (low, high)
        ]
        verdict += f" [{ends[0]}, {ends[1]}]"
    return {
        "model": name,
        "cnn": cnn,
        "crossover": verdict,
        "at": [x for x, _ in at],
        "falls": [x for x, _ in falls],
        "resolved": sorted(x for x, k in (*at, *falls) if clear[k] and clear[k + 1]),
        "low": low,
        "high": high,
        "censored_draws": censored,
    }


def _crossings(scales: Sequence[float], gap: Sequence[float]) -> list[tuple[float, int]]:
    """Where a difference goes from at most 0 to above, linear in ln(scale), each with the place of the scale before."""
    crossings = []
    for k, ((x0, y0), (x1, y1)) in enumerate(itertools.pairwise(zip(scales, gap, strict=True))):
        if y0 <= 0 < y1:
            share = -y0 / (y1 - y0)
            crossings.append((float(math.exp(math.log(x0) + share * (math.log(x1) - math.log(x0)))), k))
    return crossings


# --- A2: spectra against data scale ----------------------------------------------------------------------------------


@figure_kind()
def spectra_by_scale(runs: Sequence[Run]) -> Exhibit:
    """Spectra of every model (rows) at every data scale (columns), shared axes."""
    analyses = analyzed(_cnn_first(finished(runs)), "spectra-by-scale")
    scales = sorted({run.config.data_scale for run, _ in analyses})
    if len(scales) < 2:
        raise MissingRunsError("spectra-by-scale needs analyzed runs at two data scales: data_scale = [0.1, 1.0].")
    titles = {scale: f"{100 * scale:g} %" for scale in scales}
    cells: dict[tuple[str, str], Spectra] = {}
    used = []
    for run, result in sorted(analyses, key=lambda pair: pair[0].config.seed):
        cell = (_name(run), titles[run.config.data_scale])
        if cell not in cells:
            cells[cell] = result
            used.append((cell, run))
    names = list(dict.fromkeys(_name(run) for run, _ in analyses))
    names = [name for name in names if sum(row == name for row, _ in cells) > 1]
    if not names:
        raise MissingRunsError("spectra-by-scale needs one model at two data scales: data_scale = [0.1, 1.0].")
    rows = [
        {"model": name, "data_scale": scale, "point": p.name, "op": p.op, "depth": p.depth, "frequency": f,
         "usable": int(k < p.usable), "delta": p.delta[k], "stderr": p.stderr[k]}
        for name, scale in itertools.product(names, scales) if (name, titles[scale]) in cells
        for p in cells[name, titles[scale]].stream for k, f in enumerate(p.frequency)
    ]  # fmt: skip
    figure = panels_figure({cell: r for cell, r in cells.items() if cell[0] in names}, names, list(titles.values()))
    text = "Relative log amplitude of every layer, models by data scale (A2); the first seed. "
    text += images_of([analyses[0][1]])
    reading = any(" + " in name for name in names)
    drawn = [run for (row, _), run in used if row in names]
    return Exhibit(figure, rows, caption(drawn, text, over="image groups", reading=reading))


@figure_kind()
def depth_profile_by_scale(runs: Sequence[Run]) -> Exhibit:
    """High-frequency value against depth, a panel per model, a line per data scale, mean over seeds."""
    analyses = analyzed(_cnn_first(finished(runs)), "depth-profile-by-scale")
    scales = sorted({run.config.data_scale for run, _ in analyses})
    if len(scales) < 2:
        raise MissingRunsError(
            "depth-profile-by-scale needs analyzed runs at two data scales: data_scale = [0.1, 1.0]."
        )
    view = view_of([result for _, result in analyses])
    models = {
        name: pairs for name, pairs in _grouped(analyses).items() if len({r.config.data_scale for r, _ in pairs}) > 1
    }
    rows: list[Row] = []
    with style():
        columns = panel_columns(len(models))
        lines = -(-len(models) // columns)
        figure = canvas(max(PAGE * columns / 4, 3.5), 0.6 + 2.0 * lines)
        axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        palette = dict(zip(scales, ordered_colors(len(scales)), strict=True))
        for ax, (name, pairs) in zip(axes.flat, models.items(), strict=False):
            for index, scale in enumerate(scales):
                of_scale = [profile(result, view) for run, result in pairs if run.config.data_scale == scale]
                if not of_scale:
                    continue
                values = np.stack([along.value for along in of_scale])
                along, mean = of_scale[0], values.mean(0)
                half = _halves(values) if len(of_scale) > 1 else along.quantile * along.stderr
                x = along.depth + dodged(index, len(scales), 0.014)
                error = half if np.isfinite(half).all() else None
                ax.errorbar(x, mean, error, marker=".", ms=3, color=palette[scale], capsize=1, elinewidth=0.6,
                            label=f"{100 * scale:g} %")  # fmt: skip
                rows += [
                    {"model": name, "data_scale": scale, "n": len(of_scale), "point": point, "op": op, "depth": d,
                     "quantity": view.quantity, "at": view.at, "value": m, "half": h, "white": w}
                    for point, op, d, m, h, w in zip(
                        along.names, along.ops, along.depth, mean, half, along.white, strict=True)
                ]  # fmt: skip
            ax.set_title(wrapped_title(name, 30), fontsize=7)
        label_outer(axes, len(models), "Normalized depth", view.label.replace(" log amplitude", ""))
        seeded = {row["n"] for row in rows}
        over = "seeds (Student's t)" if min(seeded) > 1 else "seeds where there are two or more, else over images"
        shares = [Line2D([], [], color=palette[scale], marker=".", label=f"{100 * scale:g} %") for scale in scales]
        foot(figure, shares, [f"Colour: share of the training images. Bars: 95 % over {over}."], columns=len(scales))
    text = f"High frequencies against depth by data scale (A2). {view.why} {images_of([analyses[0][1]])}"
    drawn = [run for pairs in models.values() for run, _ in pairs]
    over = "seeds" if all(row["n"] > 1 for row in rows) else "seeds or images"
    reading = any(" + " in name for name in models)
    return Exhibit(figure, rows, caption(drawn, text, over=over, reading=reading))


# --- small things ----------------------------------------------------------------------------------------------------


def _cnn_first(runs: Sequence[Run]) -> list[Run]:
    """The CNN, then what PRS makes of it, then the others, to be set beside it."""
    return sorted(runs, key=lambda run: (not is_cnn(run), run.config.schedule != "none"))


def _name(run: Run) -> str:
    """The model, and its schedule where there is one."""
    return label(run) + (f" + {schedule_name(run)}" if run.config.schedule != "none" else "")


def _grouped(analyses: Sequence[tuple[Run, Spectra]]) -> dict[str, list[tuple[Run, Spectra]]]:
    out: dict[str, list[tuple[Run, Spectra]]] = {}
    for run, result in analyses:
        out.setdefault(_name(run), []).append((run, result))
    return out


def _scale_axis(ax: Axes, scales: Sequence[float]) -> None:
    ax.set_xscale("log")
    ax.set_xticks(list(scales))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("Training images (%)")


def _halves(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Half of the 95 % interval of the mean over seeds, (P,) of (seeds, P)."""
    return np.array([over_seeds(list(column))[1] for column in values.T])

"""The figures of the second study (docs/studies/second.md): what PRS does on a task with a known answer.

From finished runs on `planted`, of `patch_resnet`. Nothing here trains, or builds a model. May import plots, results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from fourier_probe.papers.captions import ENOUGH, caption
from fourier_probe.papers.exhibit import Exhibit, MissingRunsError, Row
from fourier_probe.papers.registered import figure_kind
from fourier_probe.papers.trials import AFTER, ARMS, PRIMARY, SOLVED, Trial, arms_of, cells, trials
from fourier_probe.plots.style import MARKERS, PAGE, canvas, categories, literal, style
from fourier_probe.results.intervals import bootstrap, holm, over_seeds, sign_flip
from fourier_probe.results.reliance import ALL
from fourier_probe.training.runs import Run

AHEAD = 0.02  # of top-1: attention is ahead where its whole interval is above this
BOUNDS = {"mixed": 0.875, "far": 0.75}
COLORS = dict(zip(ARMS, categories(len(ARMS)), strict=True))


# --- how long after the switch: the primary contrasts ---------------------------------------------------------------


@figure_kind(tables=["contrasts"], latex=True)
def planted_steps(runs: Sequence[Run]) -> Exhibit:
    """Steps after the last switch until the planted task is solved, by schedule, and the three primary contrasts."""
    mixed = trials(runs, "mixed")
    scale = PRIMARY if any(t.images == PRIMARY for t in mixed) else max(t.images for t in mixed)
    arms = cells([t for t in mixed if t.images == scale])
    rows: list[Row] = []
    for arm, seeds in arms.items():
        of_arm = list(seeds.values())
        solved = [t for t in of_arm if t.solved]
        mean, half = over_seeds([t.top1 for t in of_arm])
        rows.append(
            {
                "arm": arm, "images": scale, "n": len(of_arm), "solved": len(solved),
                "median_steps_after_last_switch": median(t.wait for t in of_arm) if arm != "none" else None,
                "median_step": median(t.solved_at or 0 for t in solved) if solved else None,
                "test_acc": mean, "half": half,
            }
        )  # fmt: skip
    contrasts = _contrasts(arms)
    figure = _steps_figure(arms, scale)
    contrast_text = "; ".join(
        f"{row['contrast']} {row['mean']:+.4g} ± {_two_digits(row['half'])} {row['unit']}, p = {row['p']:.3f}, "
        f"Holm {row['p_holm']:.3f}, n = {row['n']}"
        for row in contrasts
    )
    text = (
        f"Steps after the last switch until validation top-1 reaches {SOLVED:.0%} on the planted task, {scale:,} "
        f"images; triangles: not within {AFTER:,} steps. Primary contrasts, paired by seed, exact sign-flip tests: "
        f"{contrast_text or 'none, as no two arms share a seed'}."
    )
    columns: dict[str, str | Callable[[Row], str]] = {
        "schedule": "arm", "n": "n", "solved": "solved",
        "steps after the last switch, median": "median_steps_after_last_switch", "step, median": "median_step",
        "test top-1, %": lambda row: f"{100 * row['test_acc']:.1f}",
    }  # fmt: skip
    used = [t.run for seeds in arms.values() for t in seeds.values()]
    return Exhibit(
        figure, rows, caption(used, text, reading=True), {"contrasts": contrasts} if contrasts else {}, columns
    )


def _two_digits(value: float) -> str:
    """Two significant digits, without an exponent.

    >>> _two_digits(157.3), _two_digits(0.0)
    ('160', '0')
    """
    return f"{float(f'{value:.2g}'):g}"


def _contrasts(arms: dict[str, dict[int, Trial]]) -> list[Row]:
    """`linear` minus constant and reverse in steps, minus none in successes: mean, t interval, p, and Holm's p."""
    rows: list[Row] = []
    for other in ("constant", "reverse", "none"):
        shared = sorted(arms.get("linear", {}).keys() & arms.get(other, {}).keys())
        if not shared:
            continue
        pairs = [(arms["linear"][seed], arms[other][seed]) for seed in shared]
        success = other == "none"
        apart = [float(a.solved - b.solved) if success else float(a.wait - b.wait) for a, b in pairs]
        mean, half = over_seeds(apart)
        unit = "of seeds solved" if success else "steps"
        p = sign_flip(apart)
        rows.append(
            {"contrast": f"linear - {other}", "unit": unit, "n": len(shared), "mean": mean, "half": half, "p": p}
        )
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows


def _steps_figure(arms: dict[str, dict[int, Trial]], scale: int) -> Figure:
    """Left: steps after the last switch, a mark per seed. Right: validation top-1 against the step, a line per seed."""
    shown = [arm for arm in arms if arm in ARMS]
    with style():
        figure = canvas(PAGE, 2.9)
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.4])
        waiting = [arm for arm in shown if arm != "none"]
        for y, arm in enumerate(waiting):
            of_arm = list(arms[arm].values())
            for k, trial in enumerate(of_arm):
                spread = 0.3 * (k / max(len(of_arm) - 1, 1) - 0.5)
                marker = "o" if trial.wait < AFTER else ">"
                left.plot(trial.wait, y + spread, marker, ms=3.5, color=COLORS[arm], alpha=0.8)
            left.plot([median(t.wait for t in of_arm)] * 2, [y - 0.28, y + 0.28], color="black", linewidth=1)
        left.set_yticks(
            range(len(waiting)),
            [f"{arm}\n({sum(t.solved for t in arms[arm].values())}/{len(arms[arm])})" for arm in waiting],
        )
        left.set_ylim(len(waiting) - 0.5, -0.5)
        left.set_xlim(-60, AFTER + 90)
        left.set_xlabel("steps after the last switch until solved")
        left.set_title("bar: median; (solved / seeds)", fontsize=7)
        for arm in shown:
            for k, trial in enumerate(arms[arm].values()):
                rows = [row for row in trial.run.metrics if row.step is not None and row.val_acc is not None]
                right.plot(
                    [row.step or 0 for row in rows], [100 * (row.val_acc or 0) for row in rows],
                    color=COLORS[arm], linewidth=0.7, alpha=0.7, label=arm if k == 0 else None,
                )  # fmt: skip
        _bound(right, "mixed")
        right.set_xlabel("step")
        right.set_ylabel("validation top-1 (%)")
        right.set_title(f"{scale:,} training images, a line per seed", fontsize=7)
        right.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _bound(ax: Axes, variant: str) -> None:
    """The most that a local score can reach."""
    if variant in BOUNDS:
        ax.axhline(100 * BOUNDS[variant], color="0.4", linewidth=0.8, linestyle="--", label="bound of a local score")


# --- data scale: A1, A3 ----------------------------------------------------------------------------------------------


@figure_kind(tables=["crossover"])
def planted_scales(runs: Sequence[Run]) -> Exhibit:
    """Test top-1 against the number of training images on the three variants, and from where attention is ahead."""
    chosen = [t for t in trials(runs) if t.arm in ARMS]
    variants = [name for name in ("mixed", "far", "local") if any(t.variant == name for t in chosen)]
    rows: list[Row] = []
    crossings: list[Row] = []
    for variant in variants:
        of_variant = [t for t in chosen if t.variant == variant]
        gaps: dict[int, Row] = {}
        for scale in sorted({t.images for t in of_variant}):
            arms = cells([t for t in of_variant if t.images == scale])
            for arm, seeds in arms.items():
                mean, half = over_seeds([t.top1 for t in seeds.values()])
                row: Row = {"variant": variant, "images": scale, "arm": arm, "n": len(seeds), "test_acc": mean}
                row |= {"half": half, "solved": sum(t.solved for t in seeds.values())}
                shared = sorted(seeds.keys() & arms.get("none", {}).keys())
                if arm != "none" and len(shared) > 1:
                    apart = [seeds[seed].top1 - arms["none"][seed].top1 for seed in shared]
                    low, high = bootstrap(apart) if len(shared) >= ENOUGH else (math.nan, math.nan)
                    gap, gap_half = over_seeds(apart)
                    row |= {"minus_none": gap, "minus_none_low": low, "minus_none_high": high}
                    row |= {"minus_none_half": gap_half, "minus_none_p": sign_flip(apart)}
                    if arm == "attention":
                        gaps[scale] = row
                rows.append(row)
        if gaps:
            few = [scale for scale, row in gaps.items() if math.isnan(row["minus_none_low"])]
            crossings.append(
                {
                    "variant": variant,
                    "attention_ahead_from": _ahead_from(gaps),
                    "scales": len(gaps) - len(few),
                    "unresolved": " ".join(map(str, few)),
                }
            )
    with style():
        figure = canvas(PAGE, 2.7)
        axes = figure.subplots(1, len(variants), sharey=True, squeeze=False)[0]
        for ax, variant in zip(axes, variants, strict=True):
            _scale_panel(ax, [t for t in chosen if t.variant == variant], variant)
        axes[0].set_ylabel("test top-1 (%)")
        axes[-1].legend(*_entries(axes), loc="center left", bbox_to_anchor=(1.01, 0.5))
    sentence = "; ".join(_in_words(row) for row in crossings)
    text = (
        "Test top-1 on the planted task against the number of training images; line: median, dots: seeds, dashed: the "
        "bound of a local score. Images from which attention from the start minus the convolution exceeds "
        f"{100 * AHEAD:g} points with its whole 95 % bootstrap interval over seeds: {sentence or 'not measured'}. "
        f"Seeds a cell: {min(row['n'] for row in rows)} to {max(row['n'] for row in rows)}."
    )
    used = [t.run for t in chosen]
    return Exhibit(
        figure, rows, caption(used, text, over="", reading=True), {"crossover": crossings} if crossings else {}
    )


def _in_words(row: Row) -> str:
    """A crossing in words."""
    without = "none of those measured" if row["scales"] else "not resolved"
    ahead = f"{row['attention_ahead_from']:,}" if row["attention_ahead_from"] else without
    few = f" (fewer than {ENOUGH} seeds at {row['unresolved'].replace(' ', ', ')})" if row["unresolved"] else ""
    return f"{row['variant']}: {ahead}{few}"


def _ahead_from(gaps: dict[int, Row]) -> int | None:
    """The smallest scale from which on the lower end is known and above AHEAD at every scale; None if there is none."""
    ahead = None
    for scale in sorted(gaps, reverse=True):
        if not gaps[scale]["minus_none_low"] > AHEAD:
            break
        ahead = scale
    return ahead


def _scale_panel(ax: Axes, chosen: Sequence[Trial], variant: str) -> None:
    scales = sorted({t.images for t in chosen})
    present = arms_of(chosen)
    for k, arm in enumerate(present):
        line = []
        for scale in scales:
            top1 = [100 * t.top1 for t in chosen if t.arm == arm and t.images == scale]
            shift = 1.06 ** (k - (len(present) - 1) / 2)
            ax.plot([scale * shift] * len(top1), top1, ".", ms=3, color=COLORS[arm], alpha=0.5)
            if top1:
                line.append((scale * shift, median(top1)))
        ax.plot(*zip(*line, strict=True), marker=MARKERS[ARMS.index(arm)], color=COLORS[arm], label=arm)
    _bound(ax, variant)
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(scales, [f"{scale:,}" if scale < 1000 else f"{scale // 1000}k" for scale in scales])
    ax.set_title(variant)
    ax.set_xlabel("training images")


def _entries(axes: Sequence[Axes]) -> tuple[list[object], list[str]]:
    """One legend of all panels: each label once."""
    known = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    return list(known.values()), list(known)


# --- what each layer relies on: A5 -----------------------------------------------------------------------------------


@figure_kind()
def planted_reliance(runs: Sequence[Run]) -> Exhibit:
    """What top-1 loses when a half of a layer is exchanged between images, by schedule, beside the gates."""
    mixed = [t for t in trials(runs, "mixed") if t.arm in ARMS and t.run.reliance() is not None]
    if not mixed:
        raise MissingRunsError("planted-reliance needs runs analyzed with attention: [analyze] attention = true.")
    scale = PRIMARY if any(t.images == PRIMARY for t in mixed) else max(t.images for t in mixed)
    arms = cells([t for t in mixed if t.images == scale])
    rows: list[Row] = []
    for arm, seeds in arms.items():
        for seed, trial in seeds.items():
            record = trial.run.reliance()
            if record is None:
                continue
            gates = {row.layer: row for row in record.departures}
            for layer in record.layers:
                row: Row = {
                    "arm": arm,
                    "seed": seed,
                    "solved": trial.solved,
                    "layer": layer,
                    "test_images": record.images,
                }
                for half in ("content", "positional"):
                    lesion = record.lesion(layer, half)
                    row[f"{half}_exchanged"] = None if lesion is None else lesion.top1_change.value
                by = gates.get(layer)
                row |= {name: None if by is None else getattr(by, name) for name in ("gate", "tap", "locality")}
                rows.append(row)
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    shown = [arm for arm in arms if any(row["arm"] == arm for row in rows)]
    with style():
        figure = canvas(PAGE, 2.6)
        axes = figure.subplots(1, 3, sharex=True, width_ratios=[1, 1, 1])
        panels = (
            ("content_exchanged", "content exchanged"),
            ("positional_exchanged", "position exchanged"),
            ("gate", "gate (1: positional)"),
        )
        for ax, (name, title) in zip(axes, panels, strict=True):
            for k, arm in enumerate(shown):
                for solved, marker in ((True, "o"), (False, "x")):
                    of_arm = [r for r in rows if r["arm"] == arm and r["solved"] is solved and r[name] is not None]
                    x = [layers.index(r["layer"]) + 0.16 * (k - (len(shown) - 1) / 2) for r in of_arm]
                    y = [(1 if name == "gate" else 100) * r[name] for r in of_arm]
                    ax.plot(x, y, marker, ms=3, color=COLORS[arm], alpha=0.7, label=arm if solved else None)
            ax.set_title(title)
            ax.set_xticks(range(len(layers)), [literal(short(layer, k)) for k, layer in enumerate(layers)])
        axes[0].set_ylabel("change of top-1 (points)")
        axes[1].sharey(axes[0])
        axes[2].set_ylim(0, 1)
        axes[2].legend(*_entries(axes), loc="center left", bbox_to_anchor=(1.01, 0.5))
    images = " or ".join(f"{count:,}" for count in sorted({row["test_images"] for row in rows}))
    text = (
        f"Change of test top-1 when a half of a layer's attention comes from another image, over {images} test images; "
        f"{scale:,} training images, a mark per seed (x: not solved), and the mean gate beside it, which is no measure "
        "of reliance."
    )
    used = [t.run for seeds in arms.values() for t in seeds.values() if t.run.reliance() is not None]
    return Exhibit(figure, rows, caption(used, text, over="", reading=True))


def short(layer: str, index: int) -> str:
    """A tick for a layer of two blocks.

    >>> short("blocks.0.conv1", 0), short("all layers", 2)
    ('early', 'all')
    """
    return "all" if layer == ALL else ("early", "late")[index] if index < 2 else layer

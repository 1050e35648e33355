"""Numbers of docs/studies/second.md that no figure prints, from checkpoints/ alone: `python tools/second_study.py`.

Reliance by layer with exploratory sign-flip tests; the coordinate t of A4 point by point, where its ends are apart; the
training loss at the first switch by scale; runs after the plan; and the transfer to Fashion-MNIST, seed by seed, with t
and reliance there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from fourier_probe.papers.captions import accuracy
from fourier_probe.papers.planted import ARMS, PRIMARY, Trial, cells, trials
from fourier_probe.papers.selection import switches
from fourier_probe.results.coordinate import _points, common_axes, surface
from fourier_probe.results.intervals import over_seeds, sign_flip
from fourier_probe.training.runs import Run, read_runs

ROOT = Path(__file__).resolve().parent.parent
APART = 2  # times the scatter of seeds
ENDS = ("none", "attention")
Arms = dict[str, dict[int, Run]]  # by arm and seed


def arms_of(found: Sequence[Trial]) -> Arms:
    """The runs of trials, by arm and seed."""
    return {arm: {seed: trial.run for seed, trial in seeds.items()} for arm, seeds in cells(found).items()}


def solved(run: Run) -> bool:
    """Whether a run on the planted task solved it."""
    return Trial.of(run).solved


def reliance(arms: Arms) -> None:
    """Mean change of top-1 with the content exchanged, by arm and layer; and linear minus the others, paired."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for arm, seeds in arms.items():
        for seed, run in seeds.items():
            record = run.reliance()
            for layer in [] if record is None else record.layers:
                row = None if record is None else record.lesion(layer, "content")
                if row is not None:
                    found.setdefault((arm, layer), {})[seed] = row.top1_change.value
    for (arm, layer), values in found.items():
        large = sum(value < -0.25 for value in values.values())
        print(f"{arm}, {layer}: content exchanged {100 * mean(values.values()):+.1f} points on average, "
              f"more than 25 points in {large} of {len(values)} seeds")  # fmt: skip
    for layer in dict.fromkeys(layer for arm, layer in found if arm == "linear"):
        for other in ("constant", "reverse", "attention"):
            shared = sorted(found["linear", layer].keys() & found.get((other, layer), {}).keys())
            apart = [found["linear", layer][seed] - found[other, layer][seed] for seed in shared]
            if apart:
                middle, half = over_seeds(apart)
                print(f"{layer}: linear - {other} {100 * middle:+.1f} +- {100 * half:.1f} points, "
                      f"p = {sign_flip(apart):.3f} (exploratory), n = {len(apart)}")  # fmt: skip


def coordinate(arms: Arms, split: Callable[[Run], bool] | None = None) -> None:
    """T at each point: 0 at `none`, 1 at `attention` of the same seed; undefined where the ends are not apart.

    An arm that `split` divides has t of each run beside its test top-1, others one mean.
    """
    results = {arm: {seed: run.spectra for seed, run in of.items() if run.spectra} for arm, of in arms.items()}
    seeds = sorted(set.intersection(*(set(results[arm]) for arm in ENDS)))
    axes = common_axes([result for of in results.values() for result in of.values()])
    of = {(arm, seed): surface(result, axes)[0] for arm, group in results.items() for seed, result in group.items()}
    names = [point.name for point in _points(results["none"][seeds[0]])]
    weight = axes.weight / axes.weight.sum(1, keepdims=True)
    for k, name in enumerate(names):
        ends = [np.stack([of[arm, seed][k] for seed in seeds]) for arm in ENDS]
        gap = float(np.sqrt((weight[k] * (ends[0].mean(0) - ends[1].mean(0)) ** 2).sum()))
        scatter = float(np.sqrt(sum((weight[k] * end.var(0, ddof=1)).sum() for end in ends)))
        if gap <= APART * scatter:
            print(f"{name}: ends {gap:.2f} nats apart, scatter of seeds {scatter:.2f}: t is undefined")
            continue
        print(f"{name}: ends {gap:.2f} nats apart, scatter of seeds {scatter:.2f}")
        for arm in (arm for arm in arms if arm not in ENDS):
            values = {}
            for seed in seeds:
                if (arm, seed) in of:
                    apart = of["attention", seed][k] - of["none", seed][k]
                    along = (weight[k] * (of[arm, seed][k] - of["none", seed][k]) * apart).sum()
                    values[seed] = float(along / (weight[k] * apart**2).sum())
            if values and (split is None or all(split(arms[arm][seed]) for seed in values)):
                middle, half = over_seeds(list(values.values()))
                print(f"  {arm}: t {middle:.2f} +- {half:.2f}, n = {len(values)}{', all solved' if split else ''}")
            else:  # split by what they came to
                each = [f"{t:.2f} at top-1 {100 * accuracy(arms[arm][seed]):.1f}" for seed, t in values.items()]
                print(f"  {arm}: t {'; '.join(each)}")


def before_the_switch(found: Sequence[Trial]) -> None:
    """Training loss in the round that ends at the first switch, by scale: what the convolution had left to learn.

    And the test top-1 that came of it, minus that of the convolution, paired by seed.
    """
    for images in sorted({trial.images for trial in found}):
        for arm in ("linear", "constant"):
            runs = [trial for trial in found if (trial.images, trial.arm) == (images, arm)]
            losses = [next(row.train_loss for row in t.run.metrics if row.step == t.switched[0]) for t in runs]
            if known := [loss for loss in losses if loss is not None]:
                solved = sum(trial.solved for trial in runs)
                alone = {t.seed: t.top1 for t in found if (t.images, t.arm) == (images, "none")}
                middle, half = over_seeds([t.top1 - alone[t.seed] for t in runs if t.seed in alone])
                print(f"{images:6} images, {arm}: {100 * middle:+.1f} +- {100 * half:.1f} points minus none; training "
                      f"loss at the first switch {mean(known):.3f} nats ({min(known):.3f} to {max(known):.3f}); "
                      f"solved in {solved} of {len(runs)} seeds")  # fmt: skip


def after_the_plan(found: Sequence[Trial]) -> None:
    """Test top-1 of the arms with 1,000 images that the plan does not have, seed by seed."""
    for arm, seeds in cells([trial for trial in found if trial.images == 1000]).items():
        if arm not in ARMS:
            accuracies = ", ".join(f"{100 * seeds[seed].top1:.1f} (seed {seed})" for seed in sorted(seeds))
            solved = sum(trial.solved for trial in seeds.values())
            print(f"1000 images, {arm}: {accuracies}; solved in {solved} of {len(seeds)}")


def transfer(runs: Sequence[Run]) -> None:
    """Test top-1 by arm and scale, each arm minus the convolution, paired by seed; then t and reliance."""
    scales: dict[int, Arms] = {}
    for run in runs:
        if run.result is not None and run.result.test_acc is not None and run.config.train_images:
            start = set(switches(run).values()) == {0}
            arm = "ViT" if "vit" in run.config.model else "attention" if start else run.config.schedule
            scales.setdefault(run.config.train_images, {}).setdefault(arm, {})[run.config.seed] = run
    for images, arms in sorted(scales.items()):
        for arm, of in sorted(arms.items()):
            accuracies = ", ".join(f"{100 * accuracy(of[seed]):.2f}" for seed in sorted(of))
            print(f"{images:6} images, {arm}: {accuracies}")
            for other in ("none", "constant") if arm == "linear" else ("none",):
                shared = sorted(of.keys() & arms.get(other, {}).keys())
                if arm not in (other, "ViT") and len(shared) > 1:
                    gaps = [accuracy(of[seed]) - accuracy(arms[other][seed]) for seed in shared]
                    middle, half = over_seeds(gaps)
                    print(f"       minus {other} {100 * middle:+.2f} +- {100 * half:.2f} points, n = {len(gaps)}")
        networks = {arm: of for arm, of in arms.items() if arm != "ViT"}
        if all(len(networks.get(arm, {})) > 1 for arm in ENDS):
            coordinate(networks)
            reliance(networks)


if __name__ == "__main__":
    mixed = trials(read_runs(ROOT / "checkpoints"), "mixed")
    reliance(arms_of([trial for trial in mixed if trial.images == PRIMARY]))
    for images in sorted({trial.images for trial in mixed}):
        print(f"{images} images:")
        coordinate(arms_of([trial for trial in mixed if trial.images == images]), solved)
    before_the_switch(mixed)
    after_the_plan(mixed)
    transfer(read_runs(ROOT / "checkpoints" / "transfer"))

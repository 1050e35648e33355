"""Numbers of docs/studies/second.md that no figure prints, from checkpoints/ alone: `python tools/second_study.py`.

Reliance by layer with exploratory sign-flip tests, and the coordinate t of A4 point by point, where its ends are apart.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import numpy as np

from fourier_probe.papers.planted import PRIMARY, Trial, cells, trials
from fourier_probe.results.coordinate import _points, common_axes, surface
from fourier_probe.results.intervals import over_seeds, sign_flip
from fourier_probe.training.runs import read_runs

ROOT = Path(__file__).resolve().parent.parent
APART = 2  # times the scatter of seeds
ENDS = ("none", "attention")


def reliance(arms: dict[str, dict[int, Trial]]) -> None:
    """Mean change of top-1 with the content exchanged, by arm and layer; and linear minus the others, paired."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for arm, seeds in arms.items():
        for seed, trial in seeds.items():
            record = trial.run.reliance()
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


def coordinate(arms: dict[str, dict[int, Trial]]) -> None:
    """T at each point: 0 at `none`, 1 at `attention` of the same seed; undefined where the ends are not apart."""
    shown = {arm: {s: t for s, t in seeds.items() if t.run.spectra is not None} for arm, seeds in arms.items()}
    seeds = sorted(set.intersection(*(set(shown[arm]) for arm in ENDS)))
    results = {arm: {s: t.run.spectra for s, t in of.items() if t.run.spectra} for arm, of in shown.items()}
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
        for arm in shown:
            if arm in ENDS:
                continue
            values = []
            for seed in seeds:
                if (arm, seed) in of:
                    apart = of["attention", seed][k] - of["none", seed][k]
                    along = (weight[k] * (of[arm, seed][k] - of["none", seed][k]) * apart).sum()
                    values.append(float(along / (weight[k] * apart**2).sum()))
            middle, half = over_seeds(values)
            print(f"  {arm}: t {middle:.2f} +- {half:.2f}, n = {len(values)}")


if __name__ == "__main__":
    primary = cells([trial for trial in trials(read_runs(ROOT / "checkpoints"), "mixed") if trial.images == PRIMARY])
    reliance(primary)
    coordinate(primary)

"""What docs/studies/first.md corrects, from checkpoints/ alone: `python tools/first_study.py`.

The coordinate t of A4 by stage, with each stage's share of the square of the segment; A5's paired differences of gates
with Holm's correction over the layers of each contrast; Park & Kim's statement on the ViTs; what scale does to the
last block, in delta and in log density.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from fourier_probe.papers.interpolation import _recast_one_way, _with_both_ends
from fourier_probe.papers.selection import analyzed, finished, one_network
from fourier_probe.results.coordinate import _points, common_axes, surface
from fourier_probe.results.intervals import holm, over_seeds
from fourier_probe.results.profile import common_frequency, delta_view, profile, view_of
from fourier_probe.training.runs import Run, read_runs

ROOT = Path(__file__).resolve().parent.parent


def study() -> list[Run]:
    """The runs of the first study: those on CIFAR-100 of all that ship."""
    return [run for run in read_runs(ROOT / "checkpoints") if Path(run.config.data).stem == "cifar100"]


def by_stage() -> None:
    """T of every switch by stage, mean and t interval over seeds."""
    able = [r for r in finished(study()) if r.config.schedule in ("none", "constant") and r.spectra is not None]
    seeds = _with_both_ends(analyzed(_recast_one_way(one_network(able)), "t by stage"))
    axes = common_axes([result for at in seeds.values() for _, result in at.values()])
    first = next(iter(next(iter(seeds.values())).values()))[1]
    stages = np.array([point.name.split(".")[0].split("+")[0] for point in _points(first)])
    squares, found = [], defaultdict(list)
    for at in seeds.values():
        of = {share: surface(result, axes)[0] for share, (_, result) in at.items()}
        apart = of[min(of)] - of[max(of)]
        squares.append([float((axes.weight * apart**2)[stages == stage].sum()) for stage in dict.fromkeys(stages)])
        for share, values in of.items():
            for stage in dict.fromkeys(stages):
                weight = axes.weight * (stages == stage)[:, None]
                along = float((weight * (values - of[max(of)]) * apart).sum() / (weight * apart**2).sum())
                found[stage, share].append(along)
    shares = np.array(squares).sum(0) / np.sum(squares)
    for stage, share in zip(dict.fromkeys(stages), shares, strict=True):
        print(f"{stage}: {share:.1%} of the segment's square")
    for (stage, share), values in found.items():
        mean, half = over_seeds(values)
        print(f"t in {stage}, switch at {share:.0%}: {mean:+.2f} +- {half:.2f}")


def gates() -> None:
    """Layers whose gates differ between schedules, before and after Holm's correction."""
    rows = pd.read_csv(ROOT / "figures" / "gates-by-depth-differences.csv")
    for (schedule, minus), group in rows.groupby(["schedule", "minus"]):
        quantile = student.ppf(0.975, group["n"] - 1)
        p = 2 * student.sf(np.abs(group["difference"]) / (group["half"] / quantile), group["n"] - 1)
        corrected = holm(p.tolist())
        print(f"gates, {schedule} - {minus}: {int((p < 0.05).sum())} of {len(p)} layers, "
              f"{sum(value < 0.05 for value in corrected)} after Holm")  # fmt: skip


def steps() -> None:
    """How often attention lowers and the MLP raises the high frequencies of the study's ViTs (Park & Kim 2022)."""
    found: dict[float, list[tuple[bool, bool]]] = defaultdict(list)
    for run in study():
        if run.config.model != "cifar_vit_patch4" or run.spectra is None:
            continue
        points = run.spectra.stream
        k = points[0].usable - 1
        for before, after in pairwise(points):
            rises = bool(after.delta[k] > before.delta[k])
            found[run.config.data_scale].append((after.op == "attention", rises))
    for scale, seen in sorted(found.items()):
        attention, mlp = [rises for is_attention, rises in seen if is_attention], [rises for a, rises in seen if not a]
        print(f"ViTs on {scale:.1%} of the data: attention lowers in {len(attention) - sum(attention)} of "
              f"{len(attention)} steps, the MLP raises in {sum(mlp)} of {len(mlp)}")  # fmt: skip


def scale() -> None:
    """High frequencies at the last block, on all of the data minus 2.5 %, paired by seed, in both quantities."""
    last: dict[tuple[str, str, float], dict[int, float]] = defaultdict(dict)
    runs = [run for run in study() if run.config.schedule == "none" and run.spectra is not None]
    results = [run.spectra for run in runs if run.spectra is not None]
    for view in (delta_view(common_frequency(results)), view_of(results)):
        for run, result in zip(runs, results, strict=True):
            cell = (view.heading, run.config.model, run.config.data_scale)
            last[cell][run.config.seed] = float(profile(result, view).value[-1])
    for (heading, model, share), whole in last.items():
        part = last.get((heading, model, 0.025), {})
        gaps = [whole[seed] - part[seed] for seed in sorted(whole.keys() & part.keys())]
        if share == 1.0 and len(gaps) > 1:
            middle, half = over_seeds(gaps)
            print(f"{heading}, {model}: {middle:+.2f} +- {half:.2f} nats, all minus 2.5 % of the data, n = {len(gaps)}")


if __name__ == "__main__":
    by_stage()
    gates()
    steps()
    scale()

"""Numbers of docs/studies/second.md that no figure prints, from checkpoints/ alone: `python tools/second_study.py`.

At 10,000 images: steps until solved by three clocks. At every scale: contrasts of arms in test top-1; what the
convolution alone comes to; the training loss at the first switch; reliance by layer; the coordinate t of A4 point by
point, where its ends are apart. Then the runs after the plan, and the transfer to Fashion-MNIST. All tests are exact
sign-flip tests over seeds; all intervals Student's t. All of it is outside the three primary contrasts: exploratory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from fourier_probe.papers.captions import accuracy
from fourier_probe.papers.selection import switches
from fourier_probe.papers.trials import ARMS, PRIMARY, Trial, cells, trials
from fourier_probe.results.coordinate import _points, common_axes, surface
from fourier_probe.results.intervals import holm, over_seeds, sign_flip
from fourier_probe.training.runs import Run, read_runs

ROOT = Path(__file__).resolve().parent.parent
APART = 2  # times the scatter of seeds
ENDS = ("none", "attention")
PAIRS = (
    ("linear", "none"), ("constant", "none"), ("reverse", "none"), ("attention", "none"), ("linear", "constant"),
    ("linear", "reverse"), ("linear", "attention"), ("constant", "attention"),
)  # fmt: skip
RELIED = 0.25  # of top-1: a layer counts as relied on where exchanging its content costs more
Arms = dict[str, dict[int, Run]]  # by arm and seed


def arms_of(chosen: Sequence[Trial]) -> Arms:
    """The runs of trials, by arm and seed."""
    return {arm: {seed: trial.run for seed, trial in seeds.items()} for arm, seeds in cells(chosen).items()}


def solved(run: Run) -> bool:
    """Whether a run on the planted task solved it."""
    return Trial.of(run).solved


def tested(differences: Sequence[float], unit: str, digits: int = 1) -> str:
    """Mean, half of its interval, and p of paired differences."""
    if len(differences) < 2:
        return f"{differences[0]:+.{digits}f} {unit}, n = 1"
    middle, half = over_seeds(differences)
    return f"{middle:+.{digits}f} +- {half:.{digits}f} {unit}, p = {sign_flip(differences):.3f}, n = {len(differences)}"


def clocks(chosen: Sequence[Trial]) -> None:
    """Steps until solved, counted from the start and from the conversion of each block; all that are paired solved."""
    arms = cells(chosen)
    waits: dict[tuple[str, str], dict[int, float]] = {}
    for arm, seeds in arms.items():
        for seed, trial in seeds.items():
            at = {layer: epoch * trial.run.plan.steps for layer, epoch in switches(trial.run).items()}
            if trial.solved_at is not None:
                for name, step in {"the start": 0, **at}.items():
                    waits.setdefault((arm, name), {})[seed] = trial.solved_at - step
    for clock in dict.fromkeys(clock for _, clock in waits):
        for other in ("constant", "reverse"):
            first, second = waits.get(("linear", clock), {}), waits.get((other, clock), {})
            apart = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
            if apart:
                print(f"steps from {clock}: linear - {other} {tested(apart, 'steps', 0)}")
    for arm, seeds in arms.items():
        if arm in ARMS and arm != "none":
            print(f"{arm}: {sum(t.wait == 0 for t in seeds.values())} of {len(seeds)} solved before the last switch")


def contrasts(arms: Arms) -> None:
    """Test top-1 of one arm minus another, paired by seed."""
    for arm, other in PAIRS:
        first, second = arms.get(arm, {}), arms.get(other, {})
        apart = [100 * (accuracy(first[seed]) - accuracy(second[seed])) for seed in sorted(first.keys() & second)]
        if apart:
            print(f"{arm} - {other}: {tested(apart, 'points')}")


def alone(runs: Sequence[Run]) -> None:
    """What the convolution comes to: best validation top-1 on the way, and where the cue contradicts the label."""
    best = [100 * max(row.val_acc or 0 for row in run.metrics) for run in runs]
    conflict = [100 * (run.result.test_conflict_acc or 0) for run in runs if run.result]
    print(f"none: best validation top-1 on the way {mean(best):.1f} % ({min(best):.1f} to {max(best):.1f}); at the end "
          f"{mean(conflict):.1f} % where the cue contradicts the label")  # fmt: skip


def before_the_switch(chosen: Sequence[Trial]) -> None:
    """Training loss in the round that ends at the first switch: what the convolution had left to learn."""
    for arm, seeds in cells(chosen).items():
        ends = [(trial.switched[0], trial.run.metrics) for trial in seeds.values()]
        losses = [row.train_loss for at, rows in ends for row in rows if at and row.step == at]
        if known := [loss for loss in losses if loss is not None]:
            print(f"{arm}: training loss before the first switch {min(known):.3f} to {max(known):.3f} nats; solved in "
                  f"{sum(t.solved for t in seeds.values())} of {len(seeds)} seeds")  # fmt: skip


def reliance(arms: Arms, *, seeds: bool = False) -> None:
    """Change of top-1 with a half exchanged, by arm and layer; the early layer's content, linear minus the others.

    Args:
        arms: runs that measured it.
        seeds: whether every seed is printed too, with the step at which it was solved, and the tests of arms.
    """
    content: dict[tuple[str, str], dict[int, float]] = {}
    for arm, of in arms.items():
        records = {seed: record for seed, run in of.items() if (record := run.reliance()) is not None}
        for layer in dict.fromkeys(layer for record in records.values() for layer in record.layers):
            changes = {half: {seed: row.top1_change.value for seed, record in records.items()
                              if (row := record.lesion(layer, half)) is not None}
                       for half in ("content", "positional")}  # fmt: skip
            content[arm, layer] = changes["content"]
            text = "; ".join(
                f"{half} exchanged {100 * mean(values.values()):+.1f} points on average, more than 25 points in "
                f"{sum(value < -RELIED for value in values.values())} of {len(values)} seeds"
                for half, values in changes.items() if values
            )  # fmt: skip
            print(f"{arm}, {layer}: {text}")
        if seeds and records:
            _layer_by_layer({seed: of[seed] for seed in records}, content, arm)
    if not seeds:
        return
    tests: list[tuple[str, list[float]]] = []
    for layer in dict.fromkeys(layer for arm, layer in content if arm == "linear"):
        for other in ("constant", "reverse", "attention"):
            first, second = content["linear", layer], content.get((other, layer), {})
            shared = sorted(first.keys() & second.keys())
            tests.append((f"{layer}: linear - {other}", [100 * (first[s] - second[s]) for s in shared]))
            counts = [float(first[s] < -RELIED) - float(second[s] < -RELIED) for s in shared]
            print(f"{layer}, relied on: linear and not {other} {counts.count(1)}, {other} and not linear "
                  f"{counts.count(-1)} of {len(counts)} seeds, exact p = {sign_flip(counts):.3f}")  # fmt: skip
    for (name, apart), p in zip(tests, holm([sign_flip(apart) for _, apart in tests]), strict=True):
        print(f"{name} {tested(apart, 'points')}, Holm over {len(tests)} {p:.2f}")


def _layer_by_layer(runs: dict[int, Run], content: dict[tuple[str, str], dict[int, float]], arm: str) -> None:
    """Every seed: when it was solved, what each layer's content is worth, and the gates."""
    gates = []
    for seed, run in sorted(runs.items()):
        record = run.reliance()
        if record is None:
            continue
        early, late = (row.layer for row in record.departures)
        gate = {row.layer: row.gate for row in record.departures}
        worth = {layer: content[arm, layer][seed] for layer in (early, late)}
        working, other = sorted(worth, key=lambda layer: worth[layer])
        gates.append(gate[working] - gate[other])
        print(f"  {arm}, seed {seed}: solved at step {Trial.of(run).solved_at}; content exchanged in the early layer "
              f"{100 * worth[early]:+.1f}, in the late {100 * worth[late]:+.1f} points; gates {gate[early]:.2f} and "
              f"{gate[late]:.2f}")  # fmt: skip
    print(f"  {arm}: gate of the layer relied on more minus that of the other {tested(gates, '', 2)}; lower in "
          f"{sum(gap < 0 for gap in gates)} of {len(gates)} seeds")  # fmt: skip


def coordinate(arms: Arms, split: Callable[[Run], bool] | None = None) -> None:
    """T at each point: 0 at `none`, 1 at `attention` of the same seed; undefined where the ends are not apart.

    Beside it stands the distance from the segment between the ends, over its length. An arm that `split` divides has t
    of each run beside its test top-1, others one mean.
    """
    results = {arm: {seed: run.spectra for seed, run in of.items() if run.spectra} for arm, of in arms.items()}
    seeds = sorted(set.intersection(*(set(results[arm]) for arm in ENDS)))
    dropped = sorted({seed for of in arms.values() for seed in of} - set(seeds))
    if dropped:
        print(f"t has no seed {', '.join(map(str, dropped))}: one of its ends has no spectra")
    axes = common_axes([result for of in results.values() for result in of.values()])
    if not axes.matched:
        raise SystemExit("the points of these runs do not match one to one: t by point is not defined.")
    print(f"t from radius {axes.radius[0]:.2f} to {axes.radius[-1]:.2f}")
    at = {(arm, seed): surface(result, axes)[0] for arm, group in results.items() for seed, result in group.items()}
    weight = axes.weight / axes.weight.sum(1, keepdims=True)
    for k, point in enumerate(_points(results["none"][seeds[0]])):
        ends = [np.stack([at[arm, seed][k] for seed in seeds]) for arm in ENDS]
        gap = float(np.sqrt((weight[k] * (ends[0].mean(0) - ends[1].mean(0)) ** 2).sum()))
        scatter = float(np.sqrt(sum((weight[k] * end.var(0, ddof=1)).sum() for end in ends)))
        undefined = gap <= APART * scatter
        print(
            f"{point.name}: ends {gap:.2f} nats apart, scatter of seeds {scatter:.2f}{': t is undefined' * undefined}"
        )
        for arm in () if undefined else (arm for arm in arms if arm not in ENDS):
            places = {}
            for seed in seeds:
                if (arm, seed) in at:
                    along = at["attention", seed][k] - at["none", seed][k]
                    apart, squared = at[arm, seed][k] - at["none", seed][k], (weight[k] * along**2).sum()
                    t = float((weight[k] * apart * along).sum() / squared)
                    rest = apart - min(max(t, 0.0), 1.0) * along
                    places[seed] = (t, float(np.sqrt((weight[k] * rest**2).sum() / squared)))
            if len(places) > 1 and (split is None or all(split(arms[arm][seed]) for seed in places)):
                middle, half = over_seeds([t for t, _ in places.values()])
                off = mean(distance for _, distance in places.values())
                print(f"  {arm}: t {middle:.2f} +- {half:.2f}, n = {len(places)}{', all solved' if split else ''}; "
                      f"{off:.2f} from the segment")  # fmt: skip
            elif places:  # split by what they came to
                each = [f"{t:.2f} at top-1 {100 * accuracy(arms[arm][seed]):.1f} ({distance:.2f} from the segment)"
                        for seed, (t, distance) in places.items()]  # fmt: skip
                print(f"  {arm}: t {'; '.join(each)}")


def after_the_plan(chosen: Sequence[Trial]) -> None:
    """Test top-1 of the arms that the plan does not have, seed by seed."""
    for arm, seeds in cells(chosen).items():
        if arm not in ARMS:
            accuracies = ", ".join(f"{100 * seeds[seed].top1:.1f} (seed {seed})" for seed in sorted(seeds))
            count = sum(trial.solved for trial in seeds.values())
            print(f"{arm}: {accuracies}; solved in {count} of {len(seeds)}")


def transfer(runs: Sequence[Run]) -> None:
    """Test top-1 by arm and scale, contrasts paired by seed; then t by point, and reliance."""
    scales: dict[int, Arms] = {}
    for run in runs:
        if run.result is not None and run.result.test_acc is not None and run.config.train_images:
            start = set(switches(run).values()) == {0}
            arm = "ViT" if "vit" in run.config.model else "attention" if start else run.config.schedule
            scales.setdefault(run.config.train_images, {}).setdefault(arm, {})[run.config.seed] = run
    for images, arms in sorted(scales.items()):
        print(f"\nFashion-MNIST, {images} images")
        for arm, of in sorted(arms.items()):
            values = [100 * accuracy(of[seed]) for seed in sorted(of)]
            print(f"{arm}: {', '.join(f'{value:.2f}' for value in values)}; mean {mean(values):.2f}")
        networks = {arm: of for arm, of in arms.items() if arm != "ViT"}
        contrasts(networks)
        if all(len(networks.get(arm, {})) > 1 for arm in ENDS):
            coordinate(networks)
            reliance({arm: of for arm, of in networks.items() if arm != "none"})


if __name__ == "__main__":
    mixed = trials(read_runs(ROOT / "checkpoints"), "mixed")
    for scale in sorted({trial.images for trial in mixed}):
        at_scale = [trial for trial in mixed if trial.images == scale]
        by_arm = arms_of([trial for trial in at_scale if trial.arm in ARMS])
        print(f"\nplanted, {scale} images")
        if scale == PRIMARY:
            clocks(at_scale)
            by_arm = arms_of(at_scale)
        contrasts(by_arm)
        alone(list(by_arm["none"].values()))
        before_the_switch([trial for trial in at_scale if trial.arm in ARMS])
        reliance(by_arm, seeds=scale == PRIMARY)
        coordinate(by_arm, solved)
        if scale != PRIMARY:
            after_the_plan(at_scale)
    transfer(read_runs(ROOT / "checkpoints" / "transfer"))

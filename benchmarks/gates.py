"""What became of the recast layers of runs, as Markdown tables: accuracy a run; jump, gate and departure a layer.

    python benchmarks/gates.py runs/cifar100/none runs/cifar100/linear runs/cifar100/constant

A layer's jump is the loss on the same (up to) 1,024 training images right after its switch over right before, from
conversions.csv. Gate is the mean of sigmoid(lambda) at the end, 1 being positional. Departure is the norm of the
content half of the output over that of the output (without bias), on 256 test images: the distance from the positional
half alone. A layer has left the convolution if its gate is below 0.9 and its departure 5 % or more.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch

from fourier_probe.data import batches, choose, open_data
from fourier_probe.probe.reliance import departures
from fourier_probe.targets import resolve
from fourier_probe.training.record import RunResult
from fourier_probe.training.runs import Run


def main(runs: list[Path]) -> None:
    """Print both tables."""
    print(
        "| run | schedule | test top-1 | test loss, nats | best validation top-1 | minutes |\n|---|---|---|---|---|---|"
    )
    for run in runs:
        trained = Run.read(run)
        result = trained.result or RunResult()
        seconds = sum(row.seconds or 0.0 for row in trained.metrics)
        print(
            f"| {run.name} | {trained.config.schedule} | {result.test_acc or math.nan:.1%} "
            f"| {result.test_loss or math.nan:.3f} | {result.best_val_acc or math.nan:.1%} | {seconds / 60:.1f} |"
        )
    print("\n| run | layer | epoch | loss after / before | gate (least head) | departure |\n|---|---|---|---|---|---|")
    for run in runs:
        switches = {row.layer: row for row in Run.read(run).conversions}
        target = resolve(str(run / "last.pt"))
        if target.model is None or not switches:
            continue
        images = choose(open_data(str(target.data), split="test"), limit=256)
        batch = next(iter(batches(images, target.input_spec(), batch_size=256))).images
        found = departures(target.model.eval(), batch)
        for layer in found:
            row = switches[layer.name]
            print(
                f"| {run.name} | {layer.name} | {row.epoch} | {row.ratio or math.nan:.5f} "
                f"| {layer.gate:.3f} ({layer.gate_range[0]:.3f}) | {layer.content:.1%} |"
            )
        left = [layer for layer in found if layer.gate < 0.9 and (layer.content or 0.0) >= 0.05]
        worst = max(abs((row.ratio or math.nan) - 1) for row in switches.values())
        print(f"| {run.name} | *left: {len(left)} of {len(found)}* | | *worst jump {worst:.2%}* | | |")


if __name__ == "__main__":
    torch.manual_seed(0)
    main([Path(name) for name in sys.argv[1:]])

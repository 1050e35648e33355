"""The planted pilot: how soon PRS solves the planted task, by gate logit, locality and easing; ten seeds each.

    python benchmarks/planted_pilot.py --out runs/pilot --jobs 2           about 75 s of one core for a run
    python benchmarks/planted_pilot.py --out runs/pilot --table            what came of the runs that are there

Every run: `patch_resnet`, `planted`, AdamW 2e-3 after one epoch of warm-up, constant rate, batch 32, 281 steps per
epoch, both 3x3 layers converted at the start of epoch 3 (step 843), then seven epochs (1,967 steps); `start` converts
at epoch 0. Interrupted, it goes on where it was. A run has solved the task when its validation top-1 has reached 95 %.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

EPOCHS, SWITCH, STEPS = 10, 3, 281
SOLVED = 0.95
COMMON = {
    "model": "patch_resnet", "data": "planted", "opt": "adamw", "lr": 2e-3, "sched": "constant", "warmup-epochs": 1,
    "batch-size": 32, "hflip": 0, "crop-padding": 0, "smoothing": 0, "weight-decay": 0.05, "epochs": EPOCHS,
    "threads": 1,
}  # fmt: skip


def arms() -> dict[str, list[str]]:
    """Name of an arm -> its flags."""
    out: dict[str, list[str]] = {"none": ["--schedule", "none"]}
    for gate, strength, ease in (
        (-1, 1, 0),
        (1, 1, 0),
        (1, 1, 0.1),
        (-1, 10, 0),
        (1, 10, 0),
        (4, 10, 0.1),
        (-1, 1, 0.1),
    ):
        out[f"gate{gate}-locality{strength}-ease{ease}"] = [
            "--schedule", "constant", "--at-epoch", str(SWITCH), "--anneal-epochs", str(ease),
            "--recast-arg", f"gate={gate}", "--recast-arg", f"locality_strength={strength}",
        ]  # fmt: skip
    out["start"] = ["--schedule", "constant", "--at-epoch", "0", "--anneal-epochs", "0",
                    "--recast-arg", "gate=1", "--recast-arg", "locality_strength=1"]  # fmt: skip
    return out


def run(folder: Path, seed: int, flags: list[str], device: str) -> None:
    """Train one run to its end, in a process of its own."""
    done = folder / "metrics.csv"
    if done.exists() and len(done.read_text().splitlines()) > EPOCHS:
        return
    given = itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in COMMON.items())
    command = [sys.executable, "-m", "fourier_probe", "train", *given, *flags, "--seed", str(seed), "--device", device,
               "--data-seed", str(seed), "--out", str(folder), "--resume"]  # fmt: skip
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        subprocess.run(command, stdout=log, stderr=log, check=False)  # noqa: S603


def table(root: Path) -> None:
    """Print, for each arm, how many seeds solved the task, and after how many steps from the switch."""
    print("| arm | seeds | solved | steps from the switch to 95 %, median (range) | top-1 at the end, % |")
    print("|---|---|---|---|---|")
    for name in arms():
        final, steps = [], []
        for path in sorted(root.glob(f"{name}-seed*/metrics.csv")):
            with path.open() as file:
                accuracy = [float(row["val_acc"]) for row in csv.DictReader(file)]
            if len(accuracy) < EPOCHS:
                continue
            final.append(accuracy[-1])
            first = 0 if name in ("none", "start") else SWITCH
            steps += [next(((e + 1 - first) * STEPS for e, a in enumerate(accuracy) if a >= SOLVED), None)]
        solved = sorted(step for step in steps if step is not None)
        when = f"{np.median(solved):.0f} ({solved[0]} to {solved[-1]})" if solved else "-"
        shown = " ".join(f"{100 * a:.0f}" for a in final)
        print(f"| {name} | {len(final)} | {len(solved)} | {when} | {shown} |")


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if not args.table:
        with ThreadPoolExecutor(args.jobs) as pool:
            for seed, (name, flags) in itertools.product(range(args.seeds), arms().items()):
                pool.submit(run, args.out / f"{name}-seed{seed}", seed, flags, args.device)
    table(args.out)


if __name__ == "__main__":
    main()

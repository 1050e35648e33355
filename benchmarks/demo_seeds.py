"""How many seeds of the demo's PRS run solve the planted task: one run after the other, resumable.

    python benchmarks/demo_seeds.py --out runs/demo-seeds --seeds 20       about 90 s of one quiet core for a run
    python benchmarks/demo_seeds.py --out runs/demo-seeds --table          what came of the runs that are there

Every run is the command of the demo with another seed (of weights, order and training images). A run has solved the
task when its test top-1 is 95 % or more. The interval of the share is Wilson's, over seeds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from fourier_probe.results.intervals import share
from fourier_probe.training.config import flag_of
from fourier_probe.training.record import read_metrics, read_record
from fourier_probe.verbs.demo import ARMS, SOLVED


def run(folder: Path, seed: int, arm: str) -> None:
    """Train one run to its end, in a process of its own; nothing where it is finished."""
    if (folder / "config.json").exists() and read_record(folder).result is not None:
        return
    flags: list[str] = []
    for name, value in ARMS[arm].items():
        values = [f"{key}={number}" for key, number in value.items()] if isinstance(value, dict) else [str(value)]
        flags += [word for each in values for word in (flag_of(name), each)]
    command = [sys.executable, "-m", "fourier_probe", "train", "--data", "planted", *flags, "--seed", str(seed),
               "--data-seed", str(seed), "--device", "cpu", "--threads", "1", "--resume",
               "--out", str(folder)]  # fmt: skip
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        subprocess.run(command, stdout=log, stderr=log, check=False)  # noqa: S603


def table(root: Path, arm: str) -> None:
    """Print, of each finished seed, test top-1 and the step at which validation top-1 reached 95 %; then the share."""
    print("| seed | test top-1, % | step at 95 % | bound |")
    print("|---|---|---|---|")
    reached = []
    for folder in sorted(root.glob(f"{arm}-seed*/")):
        result = read_record(folder).result if (folder / "config.json").exists() else None
        if result is None or result.test_acc is None:
            continue
        reached.append(result.test_acc)
        step = next((row.step for row in read_metrics(folder) if (row.val_acc or 0) >= SOLVED), None)
        print(f"| {folder.name.rpartition('seed')[2]} | {100 * result.test_acc:.1f} | {step or '-'} | {result.bound} |")
    if reached:
        solved = sum(top1 >= SOLVED for top1 in reached)
        interval = share(solved, len(reached))
        print(f"{solved} of {len(reached)} seeds solved it; 95 %: {interval.low:.2f} to {interval.high:.2f}")


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--arm", choices=list(ARMS), default="prs")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if not args.table:
        for seed in range(args.seeds):
            run(args.out / f"{args.arm}-seed{seed}", seed, args.arm)
    table(args.out, args.arm)


if __name__ == "__main__":
    main()

"""How soon runs on the planted task solve it after their switch, by gate logit: `tools/planted_gates.py FOLDER`.

    fourier-probe sweep studies/planted-gates.toml
    python tools/planted_gates.py runs/planted-gates [--json]

Reads every finished run in FOLDER that converts. A run has solved the task at the first validation after the switch of
its last layer with a top-1 of 95 % or more. Each cell is the share of seeds that did within N steps, with the exact
(Clopper-Pearson) 95 % interval over seeds. A run that was neither trained nor solved N steps after its switch does not
count at N.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

from scipy.stats import beta

from fourier_probe.errors import ProbeError
from fourier_probe.results.intervals import over_seeds, sign_flip
from fourier_probe.training.convert import options
from fourier_probe.training.runs import Run, read_runs

SOLVED = 0.95
WITHIN = tuple(range(200, 1501, 100))


@dataclass(frozen=True)
class Cell:
    """Of the runs of one gate: how many solved the task within so many steps, and the interval of their share."""

    steps: int
    solved: int
    seeds: int
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """Steps from the switch to the solution, none where it was not found, and steps trained since the switch."""

    seed: int
    solved: int | None
    trained: int


def exact_interval(count: int, n: int) -> tuple[float, float]:
    """The 95 % interval of Clopper & Pearson (1934) of a share.

    >>> [round(bound, 3) for bound in exact_interval(10, 10)]
    [0.692, 1.0]
    """
    low = 0.0 if count == 0 else float(beta.ppf(0.025, count, n - count + 1))
    high = 1.0 if count == n else float(beta.ppf(0.975, count + 1, n - count))
    return low, high


def outcome(run: Run) -> Outcome:
    """When a run solved the task."""
    switch = max(row.epoch for row in run.conversions) * run.plan.steps
    steps = [(row.step - switch, row.val_acc) for row in run.metrics if row.step is not None]
    since = [(step, accuracy) for step, accuracy in steps if step > 0]
    solved = next((steps for steps, accuracy in since if accuracy is not None and accuracy >= SOLVED), None)
    return Outcome(run.config.seed, solved, max((steps for steps, _ in since), default=0))


def cells(outcomes: Sequence[Outcome], within: Sequence[int] = WITHIN) -> list[Cell]:
    """A cell for each number of steps that any run came to."""
    row = []
    for steps in within:
        known = [each for each in outcomes if each.trained >= steps or (each.solved or steps + 1) <= steps]
        count = sum(each.solved is not None and each.solved <= steps for each in known)
        if known:
            row.append(Cell(steps, count, len(known), *exact_interval(count, len(known))))
    return row


def by_gate(folder: Path) -> tuple[dict[float, list[Outcome]], int]:
    """Outcomes of the finished runs by gate logit, in ascending order, and the number of runs that are not finished."""
    runs = read_runs(folder)
    finished = [run for run in runs if run.result is not None and run.config.schedule != "none"]
    groups: dict[float, list[Outcome]] = defaultdict(list)
    for run in finished:
        groups[float(options(run.config)["gate"])].append(outcome(run))
    return dict(sorted(groups.items())), sum(run.result is None for run in runs)


def paired(groups: dict[float, list[Outcome]]) -> list[str]:
    """Steps until the solution, of each gate minus each larger one, over the seeds that solved it with both."""
    steps = {gate: {run.seed: run.solved for run in runs if run.solved is not None} for gate, runs in groups.items()}
    sentences = []
    for first, second in combinations(steps, 2):
        gaps = [steps[first][seed] - steps[second][seed] for seed in sorted(steps[first].keys() & steps[second].keys())]
        if len(gaps) > 1:
            middle, half = over_seeds(gaps)
            sentences.append(
                f"Gate logit {first:g} minus {second:g}: {middle:+.0f} +- {half:.0f} steps until 95 %, p = "
                f"{sign_flip(gaps):.3f} (sign flips, not corrected for several pairs), {len(gaps)} seeds that did."
            )
    return sentences


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        groups, unfinished = by_gate(args.folder)
    except ProbeError as error:
        raise SystemExit(f"error: {error}") from error
    table = {gate: cells(outcomes) for gate, outcomes in groups.items()}
    if args.json:
        gates = {str(gate): [asdict(cell) for cell in row] for gate, row in table.items()}
        print(json.dumps({"solved_at": SOLVED, "unfinished": unfinished, "gates": gates}, indent=1))
        return
    shown = sorted({cell.steps for row in table.values() for cell in row})
    print(
        "Share of seeds with a validation top-1 of 95 % within N steps after the switch, with exact 95 % intervals.\n"
    )
    print("| N | " + " | ".join(f"gate logit {gate:g}" for gate in table) + " |")
    print("|---" * (len(table) + 1) + "|")
    for steps in shown:
        at = [next((cell for cell in row if cell.steps == steps), None) for row in table.values()]
        print(f"| {steps:,} | " + " | ".join("" if cell is None else _text(cell) for cell in at) + " |")
    for sentence in paired(groups):
        print(f"\n{sentence}")
    if unfinished:
        print(f"\n{unfinished} runs are not finished, and left out.")


def _text(cell: Cell) -> str:
    return f"{cell.solved} of {cell.seeds} ({100 * cell.low:.0f} to {100 * cell.high:.0f} %)"


if __name__ == "__main__":
    main()

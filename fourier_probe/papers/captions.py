"""Numbers with their intervals, and captions that say what they are of. May import results and training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fourier_probe.papers.exhibit import Row
from fourier_probe.results.spectra import Spectra
from fourier_probe.results.text_table import plus_minus
from fourier_probe.training.runs import Run

ENOUGH = 5  # seeds, for the interval of a crossover and for the primary contrast
READING = "PRS schedules and switches are our reading of the paper, of which only the abstract was at hand."


def percent(value: float, half: float = math.nan) -> str:
    """A share as a percentage, with its interval where there is one."""
    return plus_minus(100 * value, 100 * half, "{:.1f}")


def difference(row: Row, key: str) -> str:
    """The difference of a row to another, `minus_KEY`, in percentage points, with its interval; empty without one."""
    if (value := row.get(f"minus_{key}")) is None:
        return ""
    return plus_minus(100 * value, 100 * row.get(f"minus_{key}_half", math.nan), "{:+.1f}")


def caption(runs: Sequence[Run], text: str, *, over: str = "seeds", reading: bool = False) -> str:
    """`text`, then data, runs, seeds, what intervals are over, and the hardware.

    Args:
        runs: that the exhibit is made of.
        text: one or two sentences on what is shown.
        over: what the 95 % intervals are over: "seeds", "image groups", "seeds or images" (by the number of seeds a
            cell), or empty where there are none.
        reading: whether PRS is in it.
    """
    seeds = sorted({run.config.seed for run in runs})
    shares = sorted({run.config.data_scale for run in runs})
    data = ", ".join(sorted({Path(run.config.data).name for run in runs}))
    data = data if shares == [1.0] else f"{', '.join(f'{100 * share:g}' for share in shares)} % of {data}"
    epochs = sorted({run.plan.epochs for run in runs})
    length = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    unit = " or ".join(sorted({f"{run.plan.unit}s" for run in runs}))
    parts = [text, f"{data}; n = {_counted(len(runs), 'run')} of {length} {unit}, {_counted(len(seeds), 'seed')}."]
    if over == "seeds":
        parts.append(
            "Intervals are 95 %, Student's t over seeds, where a cell has two or more."
            if len(seeds) > 1
            else "One seed: no interval over trainings."
        )
    elif over == "seeds or images":
        parts.append("Intervals are 95 %: Student's t over seeds where a cell has two or more, else over images.")
    elif over:
        parts.append(f"Intervals are 95 %, jackknife over {over}, and say nothing about training again.")
    if over and any(run.config.data_scale < 1 for run in runs):
        subsets = sorted({run.config.data_seed for run in runs})
        parts.append(f"One subset a scale (data seed {', '.join(map(str, subsets))}): its choice is in no interval.")
    parts.append(f"Hardware: {hardware(runs)}.")
    return " ".join([*parts, READING] if reading else parts)


def hardware(runs: Sequence[Run]) -> str:
    """Where the runs were made, as their records say."""
    kinds: Counter[str] = Counter()
    for run in runs:
        places = (
            f"{each.device}, {_counted(each.threads, 'thread')}" if each.device == "cpu" else each.device
            for each in run.record.environments
        )
        kinds[" then ".join(dict.fromkeys(places))] += 1
    return "; ".join(sorted(kinds))


def accuracy(run: Run) -> float:
    """Test accuracy, 0 to 1; of the validation split where there is no test set."""
    known = dict(run.result.numbers() if run.result else ())
    return known.get("test_acc", known.get("val_acc", math.nan))


def judged(runs: Sequence[Run]) -> str:
    """Which images the accuracies are of: "Test", or "Validation" where some run has no test set."""
    return "Test" if all(run.result and run.result.test_acc is not None for run in runs) else "Validation"


def images_of(results: Sequence[Spectra]) -> str:
    """How many images the spectra are of."""
    split = {"test": "test", "val": "validation", "train": "training"}.get(str(results[0].images.split), "")
    return " ".join(f"Spectra over {results[0].images.n} {split} images.".split())


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"

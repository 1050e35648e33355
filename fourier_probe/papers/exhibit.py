"""An exhibit: a figure or table of a paper made from finished runs, with its numbers and an honest caption.

May import plots, probe and training.runs; trains nothing and builds no weights.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from fourier_probe.errors import ResultError
from fourier_probe.io import atomic
from fourier_probe.plots.style import save
from fourier_probe.results.comparison import arguments, check_comparable
from fourier_probe.results.spectra import Spectra
from fourier_probe.training.naming import content, placeless
from fourier_probe.training.runs import Run

Row = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)
ENOUGH = 5  # seeds, for the interval of a crossover and for the primary contrast
READING = "PRS schedules and switches are our reading of the paper, of which only the abstract was at hand."


class MissingRunsError(ResultError):
    """The runs that an exhibit is made of are not there; the message says what to run."""


@dataclass
class Exhibit:
    """What one function of `papers.scales`, `papers.interpolation`, `papers.prs` or `papers.eit` makes.

    Attributes:
        figure: to be written as PDF and PNG.
        rows: the numbers, for NAME.csv.
        caption: data, n, seeds, interval, hardware, and "our reading" where it is.
        more: further tables, suffix -> rows, for NAME-SUFFIX.csv.
        table: columns of the LaTeX table, heading -> key of a row or function of it; none where it is no table.
    """

    figure: Figure
    rows: list[Row]
    caption: str
    more: dict[str, list[Row]] = field(default_factory=dict)
    table: dict[str, str | Callable[[Row], str]] = field(default_factory=dict)

    def write(self, folder: Path, name: str) -> list[Path]:
        """NAME.pdf, .png, .csv, .txt (the caption) and, for a table, .tex; returns the paths."""
        paths = save(self.figure, folder / name)
        for suffix, rows in {"": self.rows, **{f"-{key}": rows for key, rows in self.more.items()}}.items():
            paths.append(folder / f"{name}{suffix}.csv")
            atomic.write_text(paths[-1], to_csv(rows))
        if self.table:
            paths.append(folder / f"{name}.tex")
            atomic.write_text(paths[-1], to_latex(self.rows, self.table, self.caption))
        paths.append(folder / f"{name}.txt")
        atomic.write_text(paths[-1], self.caption + "\n")
        return paths


def to_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV with the columns of all of them; floats to 9 digits; what is missing or no number is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer.writerow(columns)
    for row in rows:
        values = (row.get(column) for column in columns)
        writer.writerow(
            "" if v is None or v != v else f"{v:.9g}" if isinstance(v, float | np.floating) else v for v in values
        )
    return buffer.getvalue()


def to_latex(rows: Sequence[Row], columns: dict[str, str | Callable[[Row], str]], caption: str) -> str:
    r"""A `booktabs` table.

    >>> print(to_latex([{"a": "x_1"}], {"model": "a"}, "100 % ours."))
    % needs \usepackage{booktabs}
    \begin{table}
    \centering
    \begin{tabular}{l}
    \toprule
    model \\
    \midrule
    x\_1 \\
    \bottomrule
    \end{tabular}
    \caption{100 \% ours.}
    \end{table}
    <BLANKLINE>
    """

    def cell(row: Row, column: str | Callable[[Row], str]) -> str:
        value = row.get(column) if isinstance(column, str) else column(row)
        return "--" if value is None or value == "" or value != value else _escaped(str(value))

    lines = ["% needs \\usepackage{booktabs}", "\\begin{table}", "\\centering"]
    lines += [f"\\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}", "\\toprule"]
    lines += [" & ".join(map(_escaped, columns)) + " \\\\", "\\midrule"]
    lines += [" & ".join(cell(row, column) for column in columns.values()) + " \\\\" for row in rows]
    lines += ["\\bottomrule", "\\end{tabular}", f"\\caption{{{_escaped(caption)}}}", "\\end{table}"]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    for plain, escaped in (("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#"), ("±", r"$\pm$"), (">", "$>$")):
        text = text.replace(plain, escaped)
    return text.replace("<", "$<$")


# --- runs ------------------------------------------------------------------------------------------------------------


def finished(runs: Iterable[Run]) -> list[Run]:
    """The finished runs of the data set that has most of them, each once, with what tells apart those of one name."""
    sets = data_sets(runs)
    if not sets:
        raise MissingRunsError("none of the runs is finished: `fourier-probe sweep PLAN.toml` goes on with them.")
    kept: list[Run] = []
    for group in grouped(next(iter(sets.values())), lambda r: (label(r), schedule_name(r))).values():
        cells = grouped(group, _cell).values()
        varying = sorted({option for cell in cells for option in _differing(cell)})
        noted = [replace(run, note=" ".join(f"{o}={_plain(run, o)}" for o in varying)) for run in group]
        kept += [same[0] for same in grouped(noted, lambda r: (r.note, *_cell(r))).values()]
    return kept


def data_sets(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Finished runs by data set, the one with most of them first; in which folder it lies does not matter."""
    sets = grouped((run for run in runs if run.result is not None), lambda run: placeless(run.config.data))
    return dict(sorted(sets.items(), key=lambda item: (-len(item[1]), item[0])))


def _cell(run: Run) -> tuple[float, int]:
    return run.config.data_scale, run.config.seed


def _differing(runs: Sequence[Run]) -> list[str]:
    """Options in which runs of one model, schedule, scale and seed differ."""
    contents = [content(run.config) for run in runs]
    return [
        option for option in {o for each in contents for o in each} if len({str(c.get(option)) for c in contents}) > 1
    ]


def _plain(run: Run, option: str) -> str:
    value = getattr(run.config, option)
    return ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def label(run: Run) -> str:
    """The model of a run, with the arguments that its data does not give, and what tells it from others of its name."""
    given = arguments({"model_args": run.config.model_args})
    return " ".join([str(run.record.get("arch") or run.config.model), *given, *([run.note] if run.note else [])])


def is_cnn(run: Run) -> bool:
    """Whether the model is trained as a CNN, by the recipe of its family."""
    return run.config.recipe.startswith("cnn")


def schedule_name(run: Run) -> str:
    """The schedule of a run; `constant` with the epoch at which it switches."""
    when = set(switches(run).values())
    return f"constant at {when.pop()}" if run.config.schedule == "constant" and len(when) == 1 else run.config.schedule


def switches(run: Run) -> dict[str, int]:
    """Layer -> epoch at whose start it converts, in execution order; empty without a schedule."""
    return {str(k): int(v) for k, v in run.record["plan"]["schedule"]["epochs"].items()}


def grouped(runs: Iterable[Run], key: Callable[[Run], Key]) -> dict[Key, list[Run]]:
    """Runs by a key, in order of first appearance."""
    groups: dict[Key, list[Run]] = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return dict(groups)


def by_seed(runs: Iterable[Run]) -> dict[int, Run]:
    """One run a seed; `finished` has told apart, or dropped, what else there may be."""
    return {run.config.seed: run for run in runs}


def grouped_rows(rows: Sequence[Row], key: str) -> dict[Any, list[Row]]:
    """Rows by the value of a column."""
    out: dict[Any, list[Row]] = {}
    for row in rows:
        out.setdefault(row[key], []).append(row)
    return out


def noted_schedule(run: Run) -> str:
    """The schedule, with what tells it from others of its kind."""
    return f"{schedule_name(run)} {run.note}".strip()


def recast_settings(run: Run) -> str:
    """How a run recasts."""
    given = ", ".join(f"{name} {value:g}" for name, value in sorted(run.config.recast_args.items())) or "defaults"
    return f"{given}, {f'eased over {run.config.anneal_epochs:g}' if run.config.anneal_epochs else 'not eased'}"


def one_network(runs: Sequence[Run]) -> list[Run]:
    """The runs of the network, at the data scale, that have most schedules; of two scales the larger."""
    cells = grouped(runs, lambda run: (label(replace(run, note="")), run.config.data_scale))
    most = max(
        cells, key=lambda cell: (len({noted_schedule(run) for run in cells[cell]}), cell[1], cell[0]), default=None
    )
    return cells[most] if most is not None else []


def analyzed(runs: Iterable[Run], what: str) -> list[tuple[Run, Spectra]]:
    """The runs whose last weights were analyzed, all on the same images.

    Raises:
        MissingRunsError: none was. ResultError: on different images or by different definitions.
    """
    found = [(run, run.spectra) for run in runs if run.spectra is not None]
    if not found:
        raise MissingRunsError(f"{what} needs spectra of finished runs: put [analyze] into the plan of the sweep.")
    check_comparable([result for _, result in found])
    return found


# --- numbers and captions --------------------------------------------------------------------------------------------


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval, by Student's t; the half is NaN for a single value.

    >>> interval([1.0, 2.0, 3.0])
    (2.0, 2.484...)
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, float(stats.t.ppf(0.975, len(values) - 1)) * spread


def percent(value: float, half: float = math.nan) -> str:
    """A share as a percentage, with its interval where there is one."""
    return f"{100 * value:.1f}" + (f" ± {100 * half:.1f}" if half == half else "")


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
    epochs = sorted({int(run.record["plan"]["epochs"]) for run in runs})
    length = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    parts = [text, f"{data}; n = {_counted(len(runs), 'run')} of {length} epochs, {_counted(len(seeds), 'seed')}."]
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
    kinds = Counter()  # type: ignore[var-annotated]
    for run in runs:
        env = run.record.get("environment", {})
        where = str(env.get("device", "unknown device"))
        kinds[f"{where}, {_counted(int(env.get('threads', 0)), 'thread')}" if where == "cpu" else where] += 1
    return "; ".join(sorted(kinds))


def accuracy(run: Run) -> float:
    """Test accuracy, 0 to 1; of the validation split where there is no test set."""
    result = run.result or {}
    return float(result.get("test_acc", result.get("val_acc", math.nan)))


def judged(runs: Sequence[Run]) -> str:
    """Which images the accuracies are of: "Test", or "Validation" where some run has no test set."""
    return "Test" if all("test_acc" in (run.result or {}) for run in runs) else "Validation"


def images_of(results: Sequence[Spectra]) -> str:
    """How many images the spectra are of."""
    split = {"test": "test", "val": "validation", "train": "training"}.get(str(results[0].images.get("split")), "")
    return " ".join(f"Spectra over {results[0].images['n']} {split} images.".split())


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"

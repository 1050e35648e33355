"""Which runs an exhibit is made of, and what they are called. May import results and training; builds no weights."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from fourier_probe.models.gpsa.sizes import architecture
from fourier_probe.papers.exhibit import MissingRunsError, Row
from fourier_probe.results.labels import arguments
from fourier_probe.results.records import Provenance
from fourier_probe.results.side_by_side import check_comparable
from fourier_probe.results.spectra import Spectra
from fourier_probe.training.naming import content, placeless
from fourier_probe.training.runs import Run

Key = TypeVar("Key", bound=Hashable)


def finished(runs: Iterable[Run]) -> list[Run]:
    """The finished runs of the data set that has most of them, each once, with what tells apart those of one name."""
    sets = data_sets(runs)
    if not sets:
        raise MissingRunsError("none of the runs is finished: `fourier-probe sweep PLAN.toml` goes on with them.")
    distinct: list[Run] = []
    for group in grouped(next(iter(sets.values())), lambda r: (label(r), schedule_name(r))).values():
        cells = grouped(group, _cell).values()
        varying = sorted({option for cell in cells for option in _differing(cell)})
        noted = [replace(run, note=" ".join(f"{o}={_option_text(run, o)}" for o in varying)) for run in group]
        distinct += [same[0] for same in grouped(noted, lambda r: (r.note, *_cell(r))).values()]
    return distinct


def data_sets(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Finished runs by data set, the one with most of them first; in which folder it lies does not matter.

    The planted task comes last: it has figures of its own (`papers.planted`).
    """
    sets = grouped((run for run in runs if run.result is not None), lambda run: placeless(run.config.data))
    return dict(sorted(sets.items(), key=lambda item: (is_planted(item[1][0]), -len(item[1]), item[0])))


def is_planted(run: Run) -> bool:
    """Whether it was trained on the planted task, any variant."""
    return run.config.data.partition(":")[0] == "planted"


def _cell(run: Run) -> tuple[float, int]:
    return run.config.data_scale, run.config.seed


def _differing(runs: Sequence[Run]) -> list[str]:
    """Options in which runs of one model, schedule, scale and seed differ."""
    contents = [content(run.config) for run in runs]
    return [
        option
        for option in {o for options in contents for o in options}
        if len({str(c.get(option)) for c in contents}) > 1
    ]


def _option_text(run: Run, option: str) -> str:
    value = getattr(run.config, option)
    return ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def label(run: Run) -> str:
    """The model of a run, with the arguments that its data does not give, and what tells it from others of its name."""
    described = arguments(Provenance(model_args=run.config.model_args))
    return " ".join([run.record.arch or run.config.model, *described, *([run.note] if run.note else [])])


def is_cnn(run: Run) -> bool:
    """Whether the model is trained as a CNN, by the recipe of its family."""
    return run.config.recipe.startswith("cnn")


def schedule_name(run: Run) -> str:
    """The schedule of a run; `constant` with the epoch at which it switches."""
    when = set(switches(run).values())
    return f"constant at {when.pop()}" if run.config.schedule == "constant" and len(when) == 1 else run.config.schedule


def switches(run: Run) -> dict[str, int]:
    """Layer -> epoch at whose start it converts, in execution order; empty without a schedule."""
    return run.plan.schedule.epochs


def mean_switch(run: Run) -> int:
    """Mean epoch of conversion, to the nearest, ties up, as `constant` without an epoch takes it."""
    when = list(switches(run).values())
    return math.floor(sum(when) / len(when) + 0.5) if when else 0


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
    out: dict[object, list[Row]] = {}
    for row in rows:
        out.setdefault(row[key], []).append(row)
    return out


def noted_schedule(run: Run) -> str:
    """The schedule, with what tells it from others of its kind."""
    return f"{schedule_name(run)} {run.note}".strip()


def recast_settings(run: Run) -> str:
    """How a run recasts."""
    config = run.config
    settings = ", ".join(f"{name} {value:g}" for name, value in sorted(config.recast_args.items())) or "defaults"
    settings += architecture(config.content_stride, config.content_maps)
    return f"{settings}, {f'eased over {run.config.anneal_epochs:g}' if run.config.anneal_epochs else 'not eased'}"


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
    analyses = [(run, run.spectra) for run in runs if run.spectra is not None]
    if not analyses:
        raise MissingRunsError(f"{what} needs spectra of finished runs: put [analyze] into the plan of the sweep.")
    check_comparable([result for _, result in analyses])
    return analyses

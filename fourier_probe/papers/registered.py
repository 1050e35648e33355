"""Which figures there are, and the files that each owns. Imports registry, io and errors only.

A list costs nothing. A figure is a function from finished runs to an `Exhibit`. It says beforehand which files it
writes, so that none is overwritten unasked and none of an older version is left beside new ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fourier_probe.errors import ResultError
from fourier_probe.io.atomic import safe_name
from fourier_probe.registry import Registry, RegistryError

if TYPE_CHECKING:
    from fourier_probe.papers.exhibit import Exhibit
    from fourier_probe.training.runs import Run

    Draw = Callable[[Sequence[Run]], Exhibit]


class FigureKind:
    """A function that draws, with the files of what it draws.

    Attributes:
        tables: NAME-TABLE.csv is written for each of these beside NAME.csv; each of them may be absent.
        latex: whether there is NAME.tex, the rows as a LaTeX table.
    """

    def __init__(self, draw: Draw, tables: Sequence[str] = (), *, latex: bool = False) -> None:
        self._draw, self.tables, self.latex = draw, tuple(tables), latex
        functools.update_wrapper(self, draw)

    def __call__(self, runs: Sequence[Run]) -> Exhibit:
        """The exhibit of these runs.

        Raises:
            MissingRunsError: the runs it needs are not among them; the message says what to run.
            ResultError: it has tables that were not declared.
        """
        exhibit = self._draw(runs)
        undeclared = sorted(exhibit.more.keys() - set(self.tables)) + ["LaTeX"] * (bool(exhibit.table) > self.latex)
        if undeclared:
            raise ResultError(
                f"{self.__name__} makes tables that it does not declare ({', '.join(undeclared)}): name them where it "  # type: ignore[attr-defined]
                "is registered, in tables=(...) or latex=True."
            )
        return exhibit

    def files(self, name: str) -> tuple[str, ...]:
        """Every file that the figure owns under this name.

        >>> FigureKind(print, ["differences"]).files("gates")
        ('gates.pdf', 'gates.png', 'gates.csv', 'gates-differences.csv', 'gates.txt')
        """
        tables = [f"-{table}.csv" for table in self.tables] + [".tex"] * self.latex
        return tuple(f"{name}{end}" for end in (".pdf", ".png", ".csv", *tables, ".txt"))


def figure_kind(*, tables: Sequence[str] = (), latex: bool = False) -> Callable[[Draw], FigureKind]:
    """A decorator that makes a `FigureKind` of a function."""
    return lambda draw: FigureKind(draw, tables, latex=latex)


_AT = "fourier_probe.papers."
FIGURES: Registry[FigureKind] = Registry(
    "figure",
    {
        "accuracy-by-scale": (
            f"{_AT}scales:accuracy_by_scale",
            "A1, A3: accuracy against data scale, and crossovers with the CNN",
        ),
        "spectra-by-scale": (f"{_AT}scales:spectra_by_scale", "A2: spectra of every model at every data scale"),
        "depth-profile-by-scale": (
            f"{_AT}scales:depth_profile_by_scale",
            "A2: high frequencies against depth by data scale",
        ),
        "interpolation": (f"{_AT}interpolation:interpolation", "A4: spectra and coordinate against the switch epoch"),
        "schedules": (f"{_AT}prs:schedules_figure", "when each layer converts, for every kind of schedule"),
        "schedule-table": (f"{_AT}prs:schedule_table", "A6, A7: accuracy and cost of every schedule and control"),
        "gates-by-depth": (f"{_AT}gates:gates_by_depth", "A5: gates against steps since the switch"),
        "loss-at-switches": (f"{_AT}losses:loss_at_switches", "training loss around each switch, run by run"),
        "training-trajectory": (f"{_AT}gates:training_trajectory", "spectra while training, across the switches"),
        "planted-steps": (
            f"{_AT}planted:planted_steps",
            "A6, A7: steps after the switch until the planted task is solved",
        ),
        "planted-scales": (
            f"{_AT}planted:planted_scales",
            "A1, A3: the planted task against the number of images",
        ),
        "planted-reliance": (
            f"{_AT}planted:planted_reliance",
            "A5: what each layer relies on, beside its gate",
        ),
        "eit-table": (f"{_AT}eit:eit_table", "EIT: parameters, multiply-adds, accuracy beside published"),
        "eit-ablation": (f"{_AT}eit:eit_ablation", "EIT without one of its ideas"),
        "eit-hfd-share": (f"{_AT}eit_features:eit_hfd_share", "EIT: high-frequency share of both branches by depth"),
        "eit-head-diversity": (
            f"{_AT}eit_features:eit_head_diversity",
            "EIT: diversity of the attention heads by depth",
        ),
    },
)
"""Every figure by name; `fourier-probe figures --list` prints it."""


def register_figure(
    name: str, summary: str = "", *, tables: Sequence[str] = (), latex: bool = False
) -> Callable[[Draw], Draw]:
    """A decorator that adds a figure: a function from runs to an `Exhibit`.

    Args:
        name: what it is called on the command line and what its files are called.
        summary: what it shows; the first line of the docstring by default.
        tables: names of further tables, keys of `Exhibit.more`.
        latex: whether its exhibit has a LaTeX table.

    Raises:
        RegistryError: the name is taken, or is no file name.

    >>> @register_figure("example-figure", "what it shows")
    ... def example(runs):
    ...     ...
    >>> FIGURES.discard("example-figure")
    """
    if not name or safe_name(name) != name:
        raise RegistryError(f"{name!r} cannot be the name of a figure's files: try {safe_name(name)!r}.")

    def add(draw: Draw) -> Draw:
        FIGURES.register(name, summary=summary)(FigureKind(draw, tables, latex=latex))
        return draw

    return add


def draw_figure(name: str, runs: Sequence[Run]) -> Exhibit:
    """The exhibit of this name.

    Raises:
        RegistryError: there is no such figure. MissingRunsError, ResultError: it cannot be drawn from these runs.
    """
    return replace(FIGURES.get(name)(runs), name=name)

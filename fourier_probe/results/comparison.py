"""Several results on the same images as one object: its tables, figures, files. Imports side_by_side and profile."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fourier_probe.errors import ResultError, suggest
from fourier_probe.io import atomic
from fourier_probe.io.tables import to_csv, write_frame
from fourier_probe.results.cka import CkaRecord, cka_frame
from fourier_probe.results.comparison_tables import summary_table, tables_of
from fourier_probe.results.drawing import drawing
from fourier_probe.results.filenames import COMPARE
from fourier_probe.results.intervals import over_seeds
from fourier_probe.results.labels import arguments
from fourier_probe.results.profile import View, ends_of, profile, value_at, view_of
from fourier_probe.results.schema import plain
from fourier_probe.results.side_by_side import (
    check_comparable,
    common_table,
    coordinates,
    key_of,
    scale_text,
    summary,
)
from fourier_probe.results.similarity import Similarity
from fourier_probe.results.spectra import Spectra
from fourier_probe.results.steps import StepChanges, step_changes
from fourier_probe.results.text_table import TextTable
from fourier_probe.runtime.messages import note

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


DRAWN = 24  # targets, at most, in figures of a panel or a curve each: a page and a legend have no room for more
SIDE_BY_SIDE = 4  # networks, at most, whose depth profiles are also drawn in panels


@dataclass(frozen=True)
class ArmValue:
    """What several seeds of one arm have in common, at their last point.

    Attributes:
        arm: its label. seeds: how many.
        value: mean over seeds of the quantity of the comparison's view, nats; half: of its 95 % interval, Student's t
            over seeds; NaN for one seed.
        top1, top1_half: likewise of the share of correct answers; NaN where unknown.
        values: of each seed.
    """

    arm: str
    seeds: int
    value: float
    half: float
    top1: float
    top1_half: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """Results on the same images, side by side; intervals are over images, paired where image groups are shared.

    Attributes:
        results: the analyses.
        labels: of each.
        by: what the panels of the figure of spectra are: "model", "data-scale", "schedule" or "epoch".
        between: the CNN and the ViT between which each result is placed; empty for none.
        arms: for each result, the arm that it is a seed of; empty where each stands for itself.
        cka: how alike the points of two results are, or of one, where that was asked for.

    Raises:
        ResultError: results of different images or definitions; names both.

    >>> import torch
    >>> import fourier_probe as fp
    >>> layers = [torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU()]
    >>> spectra = fp.analyze(torch.nn.Sequential(*layers), [torch.rand(20, 3, 8, 8)])
    >>> comparison = Comparison((spectra, spectra), ("a", "b"))
    >>> comparison.view.quantity, comparison["b"] is spectra
    ('delta', True)
    """

    results: tuple[Spectra, ...]
    labels: tuple[str, ...]
    by: str = "model"
    between: tuple[Spectra, ...] = ()
    arms: tuple[str, ...] = ()
    cka: tuple[CkaRecord, ...] = ()

    def __post_init__(self) -> None:
        if not self.results or len(self.results) != len(self.labels):
            raise ResultError(
                f"{len(self.results)} results and {len(self.labels)} labels: expected one of each, or more."
            )
        check_comparable([*self.results, *self.between])

    def __repr__(self) -> str:
        seen = self.results[0].images
        return f"Comparison({', '.join(self.labels)}; {seen.text}, {self.view.heading})"

    def __getitem__(self, label: str) -> Spectra:
        """The result of this label.

        Raises:
            ResultError: there is none; names near ones.
        """
        if label not in self.labels:
            raise ResultError(f"this comparison has no {label!r}: it has {', '.join(self.labels)}."
                              f"{suggest(label, self.labels)}")  # fmt: skip
        return self.results[self.labels.index(label)]

    # --- numbers ---

    @cached_property
    def view(self) -> View:
        """The quantity that depth profiles show, and why."""
        return view_of(self.results)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row per result: what a reader asks first; see `results.side_by_side.summary`."""
        rows = summary(self.results, self.labels)
        ends = ends_of(self.results, self.view)
        for row, changes, end in zip(rows, self.steps, ends, strict=True):
            row["steps"] = [{"steps": kind.steps, **asdict(kind)} for kind in changes]
            row["profile"] = asdict(end)
        return rows

    @cached_property
    def steps(self) -> list[list[StepChanges]]:
        """Of each result, what its steps do to the quantity of `view`, by kind of step."""
        return [step_changes(result, self.view) for result in self.results]

    @cached_property
    def places(self) -> list[dict[str, Any]]:
        """Where each result lies between the two ends; empty without ends."""
        return coordinates(self.results, self.labels, *self.between) if self.between else []

    @cached_property
    def over_seeds(self) -> list[ArmValue]:
        """One row per arm: mean and interval over its seeds; empty where each result stands for itself."""
        return [self._arm(arm) for arm in dict.fromkeys(self.arms)]

    @cached_property
    def similarity(self) -> Similarity | None:
        """How alike the points of the networks are, as a result of its own; None where it was not asked for."""
        if not self.cka:
            return None
        first = self.results[0]
        targets = [result.target for result in self.results]
        return Similarity(labels=list(self.labels), targets=targets, images=first.images,
                          groups=first.definition.groups, cka=list(self.cka))  # fmt: skip

    def to_json(self) -> dict[str, object]:
        """Plain values; not-a-number becomes null."""
        return {
            "targets": plain(self.rows),
            "coordinates": plain(self.places),
            "profile": asdict(self.view),
            "arms": [plain(asdict(arm)) for arm in self.over_seeds],
            "cka": msgspec.to_builtins(list(self.cka)),
        }

    def to_frame(self) -> pd.DataFrame:
        """All spectra, tidy: one row per target, point and frequency, with the target's label first."""
        import pandas as pd

        frames = [result.to_frame() for result in self.results]
        for frame, label in zip(frames, self.labels, strict=True):
            frame.insert(0, "label", label)
        return pd.concat(frames, ignore_index=True)

    # --- tables ---

    def tables(self) -> list[TextTable]:
        """What `fourier-probe compare` prints: the summary, what steps do, seeds as one arm, and the coordinate."""
        return tables_of(self)

    def table(self) -> TextTable:
        """The summary."""
        return summary_table(self)

    def _repr_html_(self) -> str:
        import html

        import pandas as pd

        shown = []
        for table in self.tables():
            frame = pd.DataFrame(list(table.rows), columns=list(table.columns))
            shown.append(
                f"<p>{html.escape(table.title)}</p>{frame.to_html(index=False)}<p>{html.escape(table.caption)}</p>"
            )
        return "".join(shown)

    # --- figures and files ---

    def figures(self, *, map_scale: str = "common") -> dict[str, Callable[[], Figure]]:
        """Each figure by name, drawn when called; steps, density, coordinate and maps only where there are any.

        Of many targets the first 24 are drawn, which a note says.
        """
        results, labels = list(self.results)[:DRAWN], list(self.labels)[:DRAWN]
        if len(self.results) > DRAWN:
            note(f"figures show the first {DRAWN} of {len(self.results)} targets; tables hold all of them.")
        cells = None if self.by == "model" else self._cells()
        figures: dict[str, Callable[[], Figure]] = {}
        figures["spectra"] = (
            (lambda: drawing("panels")(*cells)) if cells else (lambda: drawing("spectra")(results, labels))
        )
        figures["depth"] = lambda: drawing("depth")(results, labels)
        if 1 < len(results) <= SIDE_BY_SIDE:
            figures["zigzag"] = lambda: drawing("zigzag")(results, labels)
        stepping = [(changes, label) for changes, label in zip(self.steps, labels, strict=False) if changes]
        if stepping:
            steps, whose = [changes for changes, _ in stepping], [label for _, label in stepping]
            figures["steps"] = lambda: drawing("steps")(steps, whose, self.view)
        if self._density() is not None:
            figures["density"] = lambda: drawing("density")(results, labels)
        if any(not metric.ours for result in results for metric in result.metrics):
            figures["metrics"] = lambda: drawing("metrics")(results, labels)
        if any(row["t"] == row["t"] for row in self.places):
            figures["coordinate"] = lambda: drawing("coordinate")(self.places)
        if all(any(point.map is not None for point in result.points) for result in results):
            figures["maps"] = lambda: drawing("maps")(results, labels, scale=map_scale)
        if self.cka:
            figures["cka"] = lambda: drawing("cka")(self.cka, "", self.rows[0]["quantile"])
        return figures

    def plot(self, name: str = "depth") -> Figure:
        """One of `figures`, drawn.

        Raises:
            ResultError: there is no such figure of these results; names those there are.
        """
        figures = self.figures()
        if name not in figures:
            raise ResultError(f"there is no figure {name!r} of this comparison: there are {', '.join(figures)}."
                              f"{suggest(name, figures)}")  # fmt: skip
        return figures[name]()

    def save(self, folder: Path | str, *, force: bool = False) -> Path:
        """Write compare.csv and the tables of steps, density and coordinate, each whole; returns the folder.

        Raises:
            OutputError: the folder cannot be written, or holds a comparison already and `force` is not set.
        """
        folder = atomic.output_folder(folder, results=COMPARE, force=force)
        with atomic.staged(folder, COMPARE) as stage:
            write_frame(stage / "compare.csv", self.to_frame())
            for name, rows in self._more_tables().items():
                atomic.write_text(stage / f"{name}.csv", to_csv(rows, nan=""))
            if self.similarity is not None:
                write_frame(stage / "cka.csv", cka_frame(self.cka))
                self.similarity.write(stage)
        return Path(folder)

    def _more_tables(self) -> dict[str, list[dict[str, object]]]:
        tables: dict[str, list[dict[str, object]]] = {}
        steps = [
            {"target": label, "op": kind.op, "quantity": kind.quantity, "frequency": kind.frequency, **step}
            for label, changes in zip(self.labels, self.steps, strict=True)
            for kind in changes
            for step in [
                *map(asdict, kind.each),
                {"name": "mean", "depth": None, "change": kind.change, "stderr": kind.stderr},
                {"name": "median", "depth": None, "change": kind.median, "stderr": None},
            ]
        ]
        if steps:
            tables["steps"] = steps
        density = self._density()
        if density is not None:
            tables["density"] = density
        if self.places:
            tables["coordinate"] = self.places
        return tables

    def _density(self) -> list[dict[str, object]] | None:
        try:
            return common_table(self.results, self.labels)
        except ResultError as error:
            if self.between:
                raise
            note(f"density and coordinate are left out: {error}")
            return None

    def _cells(self) -> tuple[dict[tuple[str, str], Spectra], list[str], list[str]]:
        """Results by model and by `by`; of several seeds the first is drawn."""
        keys = [key_of(r, self.by) if r.target.weights != "untrained" else "untrained" for r in self.results]
        order = sorted(set(keys), key=lambda key: (isinstance(key, str), key))
        forms: dict[str, Callable[[Any], str]] = {
            "data-scale": scale_text,
            "epoch": lambda key: f"epoch {key}",
        }
        titles = {key: str(key) if isinstance(key, str) else forms.get(self.by, str)(key) for key in order}
        columns = [titles[key] for key in keys]
        rows = [_model_of(result, self.by) for result in self.results]
        alike = Counter(zip(rows, columns, [result.target.seed for result in self.results], strict=True))
        several = {row for (row, _, _), count in alike.items() if count > 1}  # the model alone does not tell them apart
        rows = [
            _without_part(label, column) if row in several else row
            for row, label, column in zip(rows, self.labels, columns, strict=True)
        ]
        cells: dict[tuple[str, str], Spectra] = {}
        for cell, result in zip(zip(rows, columns, strict=True), self.results, strict=True):
            cells.setdefault(cell, result)
        if len(cells) < len(self.results):
            note("results that differ by their seed share a panel: the first of each is drawn.")
        return cells, list(dict.fromkeys(row for row, _ in cells)), list(titles.values())

    def _arm(self, arm: str) -> ArmValue:
        seeds = [result for result, own in zip(self.results, self.arms, strict=True) if own == arm]
        values = [value_at(result[profile(result, self.view).names[-1]], self.view)[0] for result in seeds]
        top1 = [math.nan if result.top1 is None else result.top1 for result in seeds]
        return ArmValue(arm, len(seeds), *over_seeds(values), *over_seeds(top1), tuple(values))


def _model_of(result: Spectra, by: str) -> str:
    """The row of a result: its model with arguments, and schedule and data scale where these are no columns."""
    parts = [str(result.target.arch), *arguments(result.target)]
    schedule, scale = result.target.schedule, result.target.train_images or result.target.data_scale
    parts += [f"+ {schedule}"] * (by != "schedule" and schedule not in (None, "none"))
    parts += [scale_text(scale)] if by != "data-scale" and scale is not None and scale != 1.0 else []
    return " ".join(parts)


def _without_part(label: str, column: str) -> str:
    """A label without what the title of its column says.

    >>> _without_part("patch_resnet, constant, 3,000 images, switch at epoch 9", "3,000 images")
    'patch_resnet, constant, switch at epoch 9'
    """
    return re.sub(rf"(, )?\b{re.escape(column)}( of the data)?(?=,|$)", "", label).removeprefix(", ") or label

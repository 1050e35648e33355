"""`points`: where an analysis of a target would listen. May import everything but cli."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from fourier_probe.errors import PointError
from fourier_probe.probe.points import Point
from fourier_probe.probe.survey import Survey, survey, tell
from fourier_probe.results.text_table import TextTable
from fourier_probe.targets import ModelOptions, resolve

if TYPE_CHECKING:
    from fourier_probe.trace.grid import Layout


@dataclass(frozen=True)
class Listed:
    """The probe points of a target.

    Attributes:
        label: of the target. size: (H, W) of its images, pixels. survey: the points, and how much they cover.
        own: whether they are the network's own points, not asked for by name.
    """

    label: str
    size: tuple[int, int]
    survey: Survey
    own: bool

    def to_json(self) -> list[dict[str, object]]:
        """Plain values, a dictionary for each point."""
        return [asdict(point) for point in self.survey.points]

    def tables(self) -> list[TextTable | str]:
        """A row per point, in execution order, and how much of the network they cover."""
        rows = tuple(
            (
                point.name,
                point.kind,
                point.op,
                f"{point.depth:.3f}",
                "x".join(map(str, point.layout.grid)),
                str(point.layout.channels),
                layout_text(point.layout),
                f"{_where(point)} of {point.module or 'the model'}",
            )
            for point in self.survey.points
        )
        title = f"{self.label}: {len(rows)} points at {self.size[0]}x{self.size[1]} pixels"
        columns = ("point", "kind", "op", "depth", "grid", "ch", "layout", "read at")
        coverage = [f"coverage: {self.survey.coverage.text()}."] if self.own else []
        return [TextTable(title, columns, rows), *coverage]


def list_points(
    target: str,
    model: ModelOptions,
    *,
    label: str | None = None,
    points: Sequence[str] = (),
    strict: bool = False,
    self_check: bool = True,
    grid: tuple[int, int] | None = None,
    img_size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Listed:
    """The probe points of what the command line calls TARGET; of a network at hand, `find_points` lists them.

    Args:
        target: its name or path.
        model: how it is made.
        label: what to call it.
        points: globs of module or point names, in place of the network's own points.
        strict: stop where a step cannot be read or a map lies elsewhere than said.
        self_check: test where the maps lie.
        grid: (H, W) of token sequences whose order cannot be learnt.
        img_size: (H, W) of images, pixels, where the network does not say.
        mean: per channel, likewise.
        std: likewise.

    Raises:
        PointError: a saved result, which has no network; steps that cannot be read, under `strict`.
        ProbeError: the target cannot be used.
    """
    opened = resolve(target, model)
    spec = opened.input_spec(img_size=img_size, mean=mean, std=std)
    if opened.model is None:
        raise PointError(f"{target} is a saved result; points needs a model.")
    like = next((parameter for parameter in opened.model.parameters() if parameter.is_floating_point()), torch.empty(0))
    example = torch.zeros(1, spec.channels, *spec.size, dtype=like.dtype, device=like.device)
    surveyed = survey(opened.model, example, select=points, self_check=self_check and not points, grid=grid)
    if not points:
        tell(surveyed.coverage, strict=strict)
    return Listed(label or opened.label, spec.size, surveyed, own=not points)


def layout_text(layout: Layout) -> str:
    """The kind of a layout, and what it holds beside positions."""
    words = [layout.kind + (", sequence first" if layout.batch and layout.kind == "tokens" else "")]
    words += [f"{count} {name}" for count, name in ((layout.prefix, "prefix"), (layout.suffix, "suffix")) if count]
    return " + ".join(words)


def _where(point: Point) -> str:
    """The side of a module, or which of its additions."""
    return point.side if point.addition is None else f"addition {point.addition[0] + 1}"

"""Where a model is listened to, how much of its forward that covers, and whether it lies where it is said to.

May import points, places and runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from fourier_probe.errors import PointError
from fourier_probe.probe.places import check_places
from fourier_probe.probe.points import Survey, locate
from fourier_probe.runtime.messages import note
from fourier_probe.trace.calling import eager
from fourier_probe.trace.coverage import Coverage

__all__ = ["Survey", "survey", "tell"]


def tell(coverage: Coverage, *, strict: bool = False) -> None:
    """Note what is unread or lies elsewhere than said.

    Raises:
        PointError: there is such a thing, and `strict`.
    """
    warnings = coverage.warnings()
    if warnings and strict:
        raise PointError(f"{'. '.join(warnings)}. Without --strict this is a note.")
    for text in warnings:
        note(f"{text}.")


def survey(
    model: nn.Module,
    example: Tensor,
    *,
    select: Sequence[str] = (),
    branches: bool = True,
    self_check: bool = True,
    grid: tuple[int, int] | None = None,
) -> Survey:
    """The probe points of a model, and how much of its forward they cover.

    Args:
        model: as for `find_points`.
        example: likewise.
        select: likewise; the coverage is that of the model's own points.
        branches: likewise.
        self_check: also change patches of the example and test that the change lies where the layouts say: six
            forwards of one image. Not on the meta device, where there is nothing to compare.
        grid: as for `find_points`.

    Raises:
        ModelError, PointError: as for `find_points`.

    >>> import torch
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    >>> survey(model, torch.rand(1, 3, 16, 16)).coverage.text()
    '1 of 1 steps read; layout tested at 1 point'
    """
    located = locate(model, example, select=select, branches=branches, grid=grid)
    if not self_check or not located.own:
        return located
    check = check_places(eager(model), example, located.own)
    return replace(located, coverage=replace(located.coverage, self_check=check))

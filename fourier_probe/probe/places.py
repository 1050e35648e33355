"""A check of places: what changes on a map when a patch of the image does must lie at that patch. May import capture.

The check is independent of how layouts were found, so it catches what no rule foresees: tokens in another order, a
prefix of another length, channels read as rows. A network that mixes globally may show no place at all; then nothing is
said. It warns and never refuses.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fourier_probe.errors import first_line
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.points import Point
from fourier_probe.runtime.messages import note
from fourier_probe.runtime.modes import keeping_random_state
from fourier_probe.trace.calling import call
from fourier_probe.trace.coverage import Misplaced, SelfCheck

PATCHES = ((0.19, 0.69), (0.44, 0.19), (0.56, 0.81), (0.69, 0.56), (0.83, 0.19))
"""Centres of the patches, as shares of height and width; with the image itself six forwards."""

CONTRAST = 16.0
"""Largest change over the median change from which a change has a place."""


def check_places(model: nn.Module, example: Tensor, points: Sequence[Point]) -> SelfCheck | None:
    """Whether the maps of a network's own points lie where their layouts say.

    Args:
        model: as `find_points` takes it.
        example: (1, C, H, W) image; noise is used where it is constant.
        points: in execution order; the first and the first of each later grid are tested.

    Returns:
        What was found; None on the meta device, or where no grid has three positions a side.
    """
    tested = _first_of_each_grid(points)
    if not tested or example.is_meta or any(p.is_meta for p in model.parameters()):
        return None
    generator = torch.Generator().manual_seed(0)
    image = example[:1].detach().float().cpu()
    if float(image.std()) == 0:
        image = torch.randn(image.shape, generator=generator)
    boxes = _boxes((image.shape[2], image.shape[3]), tested[0].layout.grid)
    images = [image]
    for top, bottom, left, right in boxes:
        changed = image.clone()
        noise = torch.randn(changed[:, :, top:bottom, left:right].shape, generator=generator)
        changed[:, :, top:bottom, left:right] += 3 * image.std() * noise
        images.append(changed)
    try:
        seen = [_heard(model, picture.to(example), tested) for picture in images]
    except Exception as error:  # a forward that is not for one image, or not for a second call
        note(f"the layout is not tested: {type(model).__name__} fails when it is run again ({first_line(error)}).")
        return None
    misplaced, undecided = [], []
    for point in tested:
        maps = [heard.get(point.name) for heard in seen]
        first = maps[0]
        if first is None or any(other is None or other.shape != first.shape for other in maps):
            undecided.append(point.name)
            continue
        changes = [(other - first).square().sum(0) for other in maps[1:] if other is not None]
        answer = _judged(point, changes, boxes, (image.shape[2], image.shape[3]))
        if answer is None:
            undecided.append(point.name)
        elif isinstance(answer, Misplaced):
            misplaced.append(answer)
    return SelfCheck(tuple(point.name for point in tested), tuple(misplaced), tuple(undecided))


def _first_of_each_grid(points: Sequence[Point]) -> list[Point]:
    first: dict[tuple[int, int], Point] = {}
    for point in points:
        if min(point.layout.grid) >= 3:
            first.setdefault(point.layout.grid, point)
    return list(first.values())


def _boxes(size: tuple[int, int], grid: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of each patch, pixels: whole cells of the first grid, at least a sixteenth a side."""
    out = []
    for centre in PATCHES:
        box = []
        for share, length, cells in zip(centre, size, grid, strict=True):
            cell = length / cells
            count = max(1, round(length / 16 / cell))
            first = min(int(share * cells), cells - count)
            box += [round(first * cell), max(round((first + count) * cell), round(first * cell) + 1)]
        out.append((box[0], box[1], box[2], box[3]))
    return out


def _heard(model: nn.Module, image: Tensor, points: Sequence[Point]) -> dict[str, Tensor]:
    """The maps (C, H, W) at the points; every forward draws the same random numbers."""
    maps: dict[str, Tensor] = {}
    with torch.no_grad(), keeping_random_state(gpus=True):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - a model's forward may draw from it
        with Capture(model, points, lambda point, features: maps.update({point.name: features[0].cpu().double()})):
            call(model, image)
    return maps


def _judged(
    point: Point, changes: Sequence[Tensor], boxes: Sequence[tuple[int, int, int, int]], size: tuple[int, int]
) -> Misplaced | bool | None:
    """Whether the largest changes lie at the patches; None where they have no place."""
    H, W = point.layout.grid
    hits, where = 0, []
    missed: set[tuple[int, int]] = set()
    for change, (top, bottom, left, right) in zip(changes, boxes, strict=True):
        peak = float(change.max())
        if not math.isfinite(peak) or peak <= CONTRAST * float(change.median()) or peak == 0:
            continue
        y, x = divmod(int(change.argmax()), W)
        near_y = _beyond(y, top, bottom, H / size[0]) <= max(1.0, 0.1 * H)
        near_x = _beyond(x, left, right, W / size[1]) <= max(1.0, 0.1 * W)
        hit = near_y and near_x
        hits += hit
        missed |= set() if hit else {(y, x)}
        where.append(((y, x), (int((top + bottom) / 2 * H / size[0]), int((left + right) / 2 * W / size[1]))))
    if 2 * hits >= len(where) > 1:
        return True
    if len(where) < 2 or len(missed) < 2:
        return None  # no place, or one and the same wherever the patch is
    observed, expected = where[0]
    return Misplaced(point.name, expected, observed, len(where) - hits, len(where))


def _beyond(index: int, begin: int, end: int, scale: float) -> float:
    """Cells from a cell to the nearest one that a patch of pixels covers."""
    first, last = int(begin * scale), max(math.ceil(end * scale) - 1, int(begin * scale))
    return max(first - index, index - last, 0)

"""`list_models` and `describe_models`: what can be created by name, and what it costs. May import models and probe."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fourier_probe.errors import ModelError
from fourier_probe.runtime import model_names
from fourier_probe.runtime.messages import note

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelInfo:
    """What a model costs and where it listens; null where it cannot be made without weights.

    Attributes:
        name: as `fourier_probe.create` takes it.
        size: (H, W) of its images, pixels.
        parameters: number of them.
        multiply_adds: for one image.
        grids: (H, W) of its residual stream, in execution order, each once.
    """

    name: str
    size: tuple[int, int] | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    grids: tuple[tuple[int, int], ...] | None = None


def list_models(pattern: str | None = None) -> list[str]:
    """Names that `create` takes: ours, or timm's and ours that match a shell pattern.

    Raises:
        ModelError: nothing matches.

    >>> list_models("eit_[mt]*")
    ['eit_mini', 'eit_tiny']
    """
    from fourier_probe.models import zoo

    names = zoo.names(pattern) if pattern else zoo.ours()
    if not names:
        raise model_names.no_match(pattern or "*")
    return names


def describe_models(
    pattern: str | None = None,
    *,
    img_size: tuple[int, int] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[ModelInfo]:
    """Parameters, multiply-adds and grids of the models that `list_models` names; no weights are made.

    Args:
        pattern: a shell pattern; ours without one.
        img_size: (H, W) to count at, pixels; each model's own by default.
        progress: called with 1 after each model.

    Raises:
        ModelError: nothing matches.
    """
    rows = []
    for name in list_models(pattern):
        rows.append(_describe(name, img_size))
        progress(1)
    return rows


def _describe(name: str, img_size: tuple[int, int] | None) -> ModelInfo:
    from fourier_probe.models import zoo

    try:
        model = zoo.skeleton(name)
        spec = zoo.input_spec(model)
        size = img_size or spec.size
        stats = zoo.stats(model, size)
        return ModelInfo(name, size, stats.parameters, stats.multiply_adds, _grids(model, spec.channels, size))
    except ModelError as error:
        note(f"{name}: {error}")
        return ModelInfo(name)


def _grids(skeleton: nn.Module, channels: int, size: tuple[int, int]) -> tuple[tuple[int, int], ...] | None:
    """The grids of the model's stream; none where it has no probe points on the meta device."""
    import torch

    from fourier_probe.probe.points import find_points

    try:
        points = find_points(skeleton, torch.zeros(1, channels, *size, device="meta"), branches=False)
    except Exception:  # an operator without a meta kernel, or a model without maps: the rest of the row still stands
        return None
    return tuple(grid for grid, _ in itertools.groupby(point.layout.grid for point in points))

"""How many images go into a network at a time. For speed and memory alone. May import capture and calling.

On a CPU sixteen photographs of a batch of 32 are as fast as all of them, or faster, and take half the memory. That
changes no more than the last digits of what a network answers, unless it mixes images or draws random numbers. So it is
asked first: an image alone, and the same after another, must give the same maps. Where they differ, or cannot be told,
batches go in whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fourier_probe.probe.capture import Capture
from fourier_probe.probe.points import Point
from fourier_probe.trace.calling import call

PIXELS = 16 * 224 * 224
"""Of a forward on a CPU at most (measured: docs/benchmarks.md)."""

SAME = 1e-3
"""Largest difference of two maps, over the largest number in them, that is put down to rounding."""


def pixels_at_a_time(model: nn.Module, images: Tensor, points: Sequence[Point]) -> int | None:
    """Pixels of a forward at most; None for whole batches.

    Args:
        model: on the device of the images; its modes and the random generators are left as they are.
        images: the first batch, in the type of the model.
        points: where it will be listened to.
    """
    if images.device.type != "cpu" or len(images) < 2:
        return None
    try:
        alone, paired = (_maps(model, images[start:2].clone(), points) for start in (1, 0))
        same = len(alone) == len(paired) and all(map(_same, alone, paired))
    except Exception:  # a network for one number of images; what else is wrong the analysis itself will say
        return None
    return PIXELS if same else None


def parts(images: Tensor, pixels: int | None) -> Iterator[slice]:
    """What of a batch goes in together, in order.

    >>> list(parts(torch.zeros(5, 3, 10, 10), 200))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    count = len(images)
    step = max(count, 1) if pixels is None else max(1, pixels // (images.shape[2] * images.shape[3]))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _maps(model: nn.Module, images: Tensor, points: Sequence[Point]) -> list[Tensor]:
    """The maps of the last image at each point: the last, for random numbers are drawn for the first before it."""
    maps: list[Tensor] = []

    def keep(point: Point, features: Tensor) -> None:
        if len(features) != len(images):
            raise ValueError(f"{point.name} merges or splits images")
        maps.append(features[-1].clone())

    with torch.no_grad(), Capture(model, points, keep):
        call(model, images)
    return maps


def _same(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape:
        return False
    allowed = max(SAME, 8 * torch.finfo(ours.dtype).eps) * theirs.abs().max()
    return bool((ours - theirs).abs().max() <= allowed)  # of NaN never

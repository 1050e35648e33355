"""How images go into a network: how many at a time, and in which memory layout. For speed and memory alone.

On a CPU sixteen photographs of a batch of 32 are as fast as all of them, or faster, and take half the memory; and
convolutions are faster where the channels of a position lie side by side (docs/benchmarks.md). Both change no more than
the last digits of what a network answers, unless it mixes images, draws random numbers or asks how its maps lie. So it
is asked first: an image alone as it comes, and the same in the other layout after another image, must give the same
maps. Where they differ, or cannot be told, the next best way is tried, and batches go in whole at last.

A rule and no clock decides, so that a command gives the same numbers again. May import capture, points and calling.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fourier_probe.probe.capture import Capture
from fourier_probe.probe.points import Point
from fourier_probe.trace.calling import call

PIXELS = 16 * 224 * 224
"""Of a forward on a CPU at most (measured: docs/benchmarks.md)."""

SAME = 1e-3
"""Largest difference of two maps, over the largest number in them, that is put down to rounding."""


@dataclass(frozen=True)
class Feeding:
    """How batches go into a network.

    Attributes:
        pixels: of a forward at most; None for whole batches.
        channels_last: whether images and the weights of convolutions lie channels-last meanwhile.
    """

    pixels: int | None = None
    channels_last: bool = False

    def parts(self, images: Tensor) -> Iterator[slice]:
        """What of a batch goes in together, in order.

        >>> list(Feeding(200).parts(torch.zeros(5, 3, 10, 10)))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
        """
        count = len(images)
        step = max(count, 1) if self.pixels is None else max(1, self.pixels // (images.shape[2] * images.shape[3]))
        return (slice(start, min(start + step, count)) for start in range(0, count, step))

    def laid_out(self, images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A copy of images that lies as it should: the model may work in place, and the caller's images are his."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return images.to(dtype or images.dtype, copy=True, memory_format=layout)

    @contextlib.contextmanager
    def weights(self, model: nn.Module) -> Iterator[None]:
        """Inside, the weights of a model's convolutions lie as the images do; afterwards they are the ones before."""
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)] if self.channels_last else []
        weights = [module._parameters.get("weight") for module in convolutions]  # none where it is computed
        originals = {weight: weight.data for weight in weights if weight is not None and weight.ndim == 4}
        with torch.inference_mode(False):
            for weight, data in originals.items():
                weight.data = data.contiguous(memory_format=torch.channels_last)
        try:
            yield
        finally:
            with torch.inference_mode(False):
                for weight, data in originals.items():
                    weight.data = data


def feeding(model: nn.Module, images: Tensor, points: Sequence[Point], *, channels_last: bool | None = None) -> Feeding:
    """The fastest way in that does not change what a network answers.

    Args:
        model: on the device of the images; its modes and the random generators are left as they are.
        images: the first two of the first batch, in the type of the model.
        points: where it will be listened to.
        channels_last: whether to; by default where most points are maps behind their channels, as in convolutional
            networks, and not in float64, which has no such convolutions.
    """
    several = images.device.type == "cpu" and len(images) > 1
    if channels_last is None:
        layouts = [True, False] if convolutional(points) and images.dtype != torch.float64 else [False]
    else:
        layouts = [channels_last]
    sizes = [PIXELS, None] if several else [None]
    ways = [Feeding(pixels, last) for pixels in sizes for last in layouts]
    slow = ways.pop()  # whole batches as they come, or in the layout that was asked for
    if not ways:
        return slow
    try:
        alone = _maps(model, images[-1:], points, Feeding())
    except Exception:  # a network for one number of images; what else is wrong the analysis itself will say
        return slow
    for way in ways:
        with contextlib.suppress(Exception):
            ours = _maps(model, images[-1:] if way.pixels is None else images[-2:], points, way)
            if len(alone) == len(ours) and all(map(_same, alone, ours)):
                return way
    return slow


def convolutional(points: Sequence[Point]) -> bool:
    """Whether most points are maps (B, C, H, W), and not tokens or maps before their channels."""
    return sum(point.layout.kind == "nchw" for point in points) > len(points) / 2


def _maps(model: nn.Module, images: Tensor, points: Sequence[Point], way: Feeding) -> list[Tensor]:
    """The maps of the last image at each point: the last, for random numbers are drawn for the first before it."""
    maps: list[Tensor] = []

    def keep(point: Point, features: Tensor) -> None:
        if len(features) != len(images):
            raise ValueError(f"{point.name} merges or splits images")
        maps.append(features[-1].clone())

    with torch.no_grad(), way.weights(model), Capture(model, points, keep):
        call(model, way.laid_out(images))
    return maps


def _same(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape:
        return False
    allowed = max(SAME, 8 * torch.finfo(ours.dtype).eps) * theirs.abs().max()
    return bool((ours - theirs).abs().max() <= allowed)  # of NaN never

"""Fourier heat map: what noise of a single frequency does to a model. May import points, capture, logits, filters.

Yin et al. 2019 (arXiv 1906.08988): to every image eps U is added, U the real Fourier basis image of a frequency with
unit L2 norm, with a random sign for each image and channel; the sum is clamped to [0, 1] and normalised as the model
wants it.
Each distinct frequency is taken once: (ky, kx) and (-ky, -kx) are the same cosine (514 of them at 32x32).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fourier_probe.errors import DataError
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.filters import ImageFilter
from fourier_probe.probe.logits import class_scores
from fourier_probe.probe.points import Point
from fourier_probe.runtime.accelerator import wide
from fourier_probe.trace.calling import run

Array = NDArray[np.float64]


def distinct_frequencies(size: tuple[int, int], stride: int = 1) -> list[tuple[int, int]]:
    """One (ky, kx) of each pair (k, -k), cycles an image, -N/2 <= k <= N/2, the smallest radius first.

    Args:
        size: (H, W) of the images, odd or even.
        stride: keep frequencies whose ky and kx are multiples of this.

    >>> len(distinct_frequencies((32, 32))), len(distinct_frequencies((5, 4))), distinct_frequencies((2, 3))
    (514, 11, [(0, 0), (0, 1), (1, 0), (1, 1)])
    """
    H, W = size
    distinct: dict[tuple[int, int], tuple[int, int]] = {}
    for ky in range(-((H - 1) // 2), H // 2 + 1):
        for kx in range(W // 2 + 1):
            mirror = (-ky % H, -kx % W)
            if (ky % H, kx % W) not in distinct and mirror not in distinct and ky % stride == 0 == kx % stride:
                distinct[ky % H, kx % W] = (ky, kx)
    return sorted(distinct.values(), key=lambda k: ((k[0] / H) ** 2 + (k[1] / W) ** 2, k))


def basis_image(size: tuple[int, int], frequency: tuple[int, int]) -> Tensor:
    """(H, W) float32 cosine of (ky, kx) cycles an image, unit L2 norm.

    >>> round(float(basis_image((6, 5), (2, 1)).square().sum()), 6)
    1.0
    """
    (H, W), (ky, kx) = size, frequency
    # Phases in whole turns are taken off in integers, so that far pixels lose no digits.
    y = torch.arange(H, dtype=torch.float64)[:, None] * ky % H / H
    x = torch.arange(W, dtype=torch.float64)[None, :] * kx % W / W
    wave = torch.cos(2 * math.pi * (y + x))
    return (wave / wave.square().sum().sqrt()).float()


def default_eps(size: tuple[int, int]) -> float:
    """L2 norm of the noise, pixels in [0, 1]: a power of the side through the published 4.0 at 32 and 15.7 at 224.

    >>> round(default_eps((32, 32)), 2), round(default_eps((224, 224)), 2)
    (4.0, 15.7)
    """
    power = math.log(15.7 / 4.0) / math.log(7)
    return float(4.0 * (math.sqrt(size[0] * size[1]) / 32) ** power)


def band_noise(size: tuple[int, int], band: int, bands: int, count: int, channels: int, seed: int = 0) -> Tensor:
    """White noise limited to one band of radii, unit L2 norm an image and channel, (count, channels, H, W).

    Bands split the radius r (1 is Nyquist of an axis) from 0 to 1 evenly; the mean is in none, the corners in the last.
    A frequency on an edge is in the band above it, decided in whole numbers.

    Raises:
        DataError: the images have no frequency in this band.
    """
    H, W = size
    common = math.gcd(H, W)
    ky = torch.tensor([k if k <= (H - 1) // 2 else k - H for k in range(H)])[:, None] * (W // common)
    kx = torch.arange(W // 2 + 1)[None, :] * (H // common)
    square, unit = 4 * bands**2 * (ky.square() + kx.square()), (H // common * W) ** 2  # (r * bands)^2 = square / unit
    above = square >= (band + 1) ** 2 * unit if band < bands - 1 else torch.zeros_like(square, dtype=torch.bool)
    inside = (square >= band**2 * unit) & ~above & (square > 0)
    if not inside.any():
        raise DataError(f"images of {H}x{W} have no frequency in band {band + 1} of {bands}: take fewer bands.")
    generator = torch.Generator().manual_seed(seed * 1009 + band)
    noise = torch.randn(count, channels, H, W, generator=generator, dtype=torch.float64)
    limited: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) * inside, s=size)
    return (limited / limited.square().sum((2, 3), keepdim=True).sqrt()).float()


@dataclass
class Response:
    """What one kind of noise did, summed over images.

    Attributes:
        wrong: images the model got wrong; None without labels.
        broken: of these, those that it got right without noise.
        mended: images that it got right with noise and wrong without.
        change: name of a probe point -> sum over images of |f(x + noise) - f(x)| / |f(x)|, L2 norms over the map, and
            the sum of its squares; None where features were not finite.
    """

    wrong: int | None
    broken: int = 0
    mended: int = 0
    change: dict[str, tuple[float, float] | None] = field(default_factory=dict)

    def add_change(self, point: str, change: Tensor) -> None:
        """Add the relative changes (b,) of some images at a probe point."""
        before = self.change.get(point, (0.0, 0.0))
        if before is None or not bool(change.isfinite().all()):
            self.change[point] = None
            return
        values = wide(change)
        self.change[point] = before[0] + float(values.sum()), before[1] + float(values.square().sum())


@dataclass
class NoiseProbe:
    """Images, and a model to be disturbed with noise on them.

    Args:
        model: in the precision it shall run in, on `device`.
        pixels: (n, C, H, W) float32 in [0, 1], on the CPU.
        labels: (n,) classes, or None.
        mean, std: (C,) with which the model's input is normalised.
        points: where to listen for the change of features; none leaves it out.
        batch_size: images, or images times frequencies, of a forward.
        device: where the model is.
    """

    model: nn.Module
    pixels: Tensor
    labels: Tensor | None
    mean: Sequence[float]
    std: Sequence[float]
    points: Sequence[Point] = ()
    batch_size: int = 128
    device: torch.device | str = "cpu"
    _clean: Tensor | None = field(default=None, init=False, repr=False)  # (n,) whether each image is wrong

    def clean(self) -> Response:
        """Errors without noise."""
        return Response(None if self.labels is None else int(self._clean_wrong().sum()))

    def scores(self, count: int) -> Tensor | None:
        """What the model says of the first images, (count, classes); None where it ranks no classes."""
        return class_scores(self._forward(self.pixels[:count], lambda _point, _maps: None))

    @torch.inference_mode()
    def _clean_wrong(self) -> Tensor:
        if self._clean is None:
            answers = [
                _answers(self._forward(images, lambda _point, _maps: None))
                for images in torch.split(self.pixels, self.batch_size)
            ]
            self._clean = torch.cat(answers).ne(self.labels if self.labels is not None else torch.tensor(-2))
        return self._clean

    def frequencies(
        self,
        frequencies: Sequence[tuple[int, int]],
        eps: float,
        *,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> dict[tuple[int, int], Response]:
        """The response to each frequency; signs depend on the seed, the image and the channel only."""
        n, C, H, W = self.pixels.shape
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (n, C, 1, 1), generator=generator).float() * 2 - 1

        def disturb(frequency: tuple[int, int]) -> Callable[[Tensor, Tensor], Tensor]:
            wave = eps * basis_image((H, W), frequency)
            return lambda images, index: (images + signs[index] * wave).clamp_(0, 1)

        return self.respond([disturb(k) for k in frequencies], list(frequencies), progress)

    def bands(
        self,
        bands: int,
        eps: float,
        *,
        seed: int = 0,
        only: Sequence[int] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> dict[int, Response]:
        """The response to noise limited to each band of radii, or to some of them."""
        n, C, H, W = self.pixels.shape

        def disturb(band: int) -> Callable[[Tensor, Tensor], Tensor]:
            noise = eps * band_noise((H, W), band, bands, n, C, seed)
            return lambda images, index: (images + noise[index]).clamp_(0, 1)

        chosen = list(range(bands)) if only is None else list(only)
        return self.respond([disturb(band) for band in chosen], chosen, progress)

    def filtered(
        self, filters: Sequence[ImageFilter], *, progress: Callable[[int], None] | None = None
    ) -> dict[ImageFilter, Response]:
        """The response to ideal filters of the images."""

        def disturb(wanted: ImageFilter) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda images, _index: wanted(images)

        return self.respond([disturb(kept) for kept in filters], list(filters), progress)

    def respond(
        self,
        disturbances: Sequence[Callable[[Tensor, Tensor], Tensor]],
        names: Sequence[object],
        progress: Callable[[int], None] | None = None,
    ) -> dict[Any, Response]:
        """Responses to any disturbances, functions of pixels (b, C, H, W) and their indices (b,).

        Args:
            disturbances: each gives the disturbed pixels, in [0, 1].
            names: of the disturbances, the keys of what is returned.
            progress: called with the number of disturbances done.
        """
        out = {name: Response(None if self.labels is None else 0) for name in names}
        share = max(self.batch_size // len(self.pixels), 1)  # disturbances that fit into one forward
        for first in range(0, len(names), share):
            some = range(first, min(first + share, len(names)))
            for index in torch.split(torch.arange(len(self.pixels)), self.batch_size):
                self._add(out, index, [(names[i], disturbances[i]) for i in some])
            if progress is not None:
                progress(len(some))
        return out

    @torch.inference_mode()
    def _add(
        self,
        out: Mapping[object, Response],
        index: Tensor,
        disturbances: Sequence[tuple[object, Callable[[Tensor, Tensor], Tensor]]],
    ) -> None:
        images = self.pixels[index]
        clean: dict[str, Tensor] = {}
        if self.points:
            self._forward(images, lambda point, maps: clean.__setitem__(point.name, maps.float().flatten(1).clone()))
        changes: dict[str, Tensor] = {}

        def compare(point: Point, maps: Tensor) -> None:
            before = clean[point.name]
            after = maps.float().flatten(1).view(len(disturbances), len(index), -1)
            changes[point.name] = (after - before).norm(dim=2) / before.norm(dim=1).clamp_min(1e-12)  # (d, b)

        noisy = torch.cat([disturb(images.clone(), index) for _, disturb in disturbances])
        output = self._forward(noisy, compare)
        answers = None if self.labels is None else _answers(output).view(len(disturbances), -1)  # (d, b)
        for turn, (name, _) in enumerate(disturbances):
            response = out[name]
            if answers is not None and self.labels is not None:
                wrong, before = answers[turn] != self.labels[index], self._clean_wrong()[index]
                response.wrong = (response.wrong or 0) + int(wrong.sum())
                response.broken += int((wrong & ~before).sum())
                response.mended += int((before & ~wrong).sum())
            for point, change in changes.items():
                response.add_change(point, change[turn])

    def _forward(self, pixels: Tensor, reduce: Callable[[Point, Tensor], None]) -> object:
        mean, std = (torch.tensor(list(value)).view(1, -1, 1, 1) for value in (self.mean, self.std))
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        with torch.inference_mode(), Capture(self.model, self.points, reduce):
            return run(self.model, ((pixels - mean) / std).to(self.device, dtype))


def _answers(output: object) -> Tensor:
    """The class (B,) that a model ranks first; -1, which is always wrong, where a score is not finite."""
    scores = class_scores(output)
    if scores is None:
        raise DataError("the model returns no scores of classes, (images, classes), so its answers are unknown.")
    answers = scores.argmax(1).where(scores.isfinite().all(1), torch.tensor(-1, device=scores.device))
    return answers.cpu()


def full_plane(values: Mapping[tuple[int, int], float], size: tuple[int, int]) -> Array:
    """Values of distinct frequencies on the whole (H, W) plane, DC in the middle; NaN where none was measured."""
    H, W = size
    plane = np.full(size, np.nan)
    for (ky, kx), value in values.items():
        plane[ky % H, kx % W] = plane[-ky % H, -kx % W] = value
    return np.fft.fftshift(plane)

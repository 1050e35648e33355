"""Ideal filters of images: what a network needs, where noise asks what disturbs it. Imports torch and errors.

The radius of a frequency is r = sqrt((2 ky / H)^2 + (2 kx / W)^2), 1 being Nyquist of an axis; whether it is beyond a
cut-off is decided in integers. The mean of an image is always kept. Nothing is clamped: that would bring frequencies
back.

A low-pass keeps its cut-off, so the removed bands, which are differences of two low-passes, hold their upper edges;
bands of noise hold their lower ones (`heatmap.band_noise`). The two differ on the edges alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fourier_probe.errors import DataError
from fourier_probe.runtime.accelerator import wide

Kind = Literal["low", "high", "removed"]


@dataclass(frozen=True)
class ImageFilter:
    """One filter; `step` counts in parts of 1 / `steps`.

    Attributes:
        kind: "low" keeps r <= step / steps; "high" keeps r beyond it, and the mean; "removed" takes out the band from
            step / steps to (step + 1) / steps, its upper end with it; the last band has the corners.
        step, steps: see there.
    """

    kind: Kind
    step: int
    steps: int

    @property
    def cutoff(self) -> float:
        """The cut-off, or where the removed band begins."""
        return self.step / self.steps

    @property
    def band(self) -> tuple[float, float]:
        """The removed band."""
        return self.step / self.steps, (self.step + 1) / self.steps

    def passes(self, size: tuple[int, int]) -> Tensor:
        """(H, W // 2 + 1) bool: the bins of rfft2 that stay.

        Raises:
            DataError: images of this size have no frequency in the band that is to be removed.
        """
        beyond = _beyond(size, self.step, self.steps)
        if self.kind == "low":
            return ~beyond
        if self.kind == "high":
            passed = beyond.clone()
        else:
            last = self.step + 1 == self.steps
            passed = ~beyond if last else ~beyond | _beyond(size, self.step + 1, self.steps)
            if passed.all():
                raise DataError(
                    f"images of {size[0]}x{size[1]} have no frequency in band {self.step + 1} of {self.steps}: take "
                    "fewer bands."
                )
        passed[0, 0] = True
        return passed

    def __call__(self, images: Tensor) -> Tensor:
        """The filtered images (..., H, W), in the precision that they have."""
        size = (images.shape[-2], images.shape[-1])
        spectrum = torch.fft.rfft2(wide(images))
        spectrum = spectrum * self.passes(size).to(spectrum.device)
        filtered: Tensor = torch.fft.irfft2(spectrum, s=size)
        return filtered.to(images.device, images.dtype)


def image_filters(steps: int) -> list[ImageFilter]:
    """Low-pass and high-pass with every cut-off from 0 to 1, and each band removed.

    >>> len(image_filters(8))
    26
    """
    kinds: tuple[Kind, ...] = ("low", "high")
    passes = [ImageFilter(kind, step, steps) for kind in kinds for step in range(steps + 1)]
    return passes + [ImageFilter("removed", step, steps) for step in range(steps)]


def _beyond(size: tuple[int, int], step: int, steps: int) -> Tensor:
    """Whether r > step / steps, in integers."""
    H, W = size
    ky = torch.arange(H)[:, None]
    ky = torch.minimum(ky, H - ky)
    kx = torch.arange(W // 2 + 1)[None, :]
    return steps**2 * 4 * (ky**2 * W**2 + kx**2 * H**2) > step**2 * H**2 * W**2

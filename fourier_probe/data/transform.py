"""What a model wants to see, and pixels made so: channels, size, scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from fourier_probe.errors import DataError, suggest

_LARGEST = 8192  # pixels a side: one image then takes 800 MB
_WIDEST = 2.0  # std: of values in [0, 1] at most 0.5, and networks without any say 1

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class InputSpec:
    """What a model wants to see.

    Attributes:
        channels: of the image.
        size: (H, W) pixels.
        mean: per channel, in [0, 1], black 0 and white 1; subtracted.
        std: per channel, above 0, up to 2; divided by.
        interpolation: nearest, box, bilinear, hamming, bicubic or lanczos, as in Pillow (antialiased).
        crop_pct: side of the centre crop over that of the resized image, for image files only; above 0, up to 1.

    Raises:
        DataError: a value out of range, or statistics for another number of channels.
    """

    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise DataError(f"the input size is {self.size}: expected (height, width) in pixels, both at least 1.")
        if max(self.size) > _LARGEST:
            raise DataError(f"the input size is {self.size}: expected at most {_LARGEST} pixels a side.")
        if not len(self.mean) == len(self.std) == self.channels:
            raise DataError(
                f"a mean of {len(self.mean)} and a std of {len(self.std)} channels for an input of {self.channels}."
            )
        if min(self.std) <= 0 or not all(map(math.isfinite, (*self.mean, *self.std))):
            raise DataError(f"mean {self.mean}, std {self.std}: expected finite numbers, every std above 0.")
        if min(self.mean) < 0 or max(self.mean) > 1 + 1e-6 or max(self.std) > _WIDEST:
            raise DataError(_off_scale(self.mean, self.std))
        if self.interpolation not in _FILTERS:
            raise DataError(
                f"unknown interpolation {self.interpolation!r}: expected one of {', '.join(_FILTERS)}."
                f"{suggest(self.interpolation, _FILTERS)}"
            )
        if not 0 < self.crop_pct <= 1:
            raise DataError(f"crop_pct is {self.crop_pct}: expected a fraction above 0, up to 1 (no crop).")


def _off_scale(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """What is wrong with statistics that pixels in [0, 1] cannot have, and what to give."""
    shown = f"mean ({', '.join(f'{m:g}' for m in mean)}), std ({', '.join(f'{s:g}' for s in std)})"
    expected = f"{shown}: pixels run from 0 (black) to 1 (white), so a mean is in [0, 1] and a std above 0, up to 2."
    if min(mean) < 0 or max(*mean, *std) > 255:
        return expected
    divided = [",".join(f"{value / 255:.4g}" for value in values) for values in (mean, std)]
    return f"{expected} Values on the scale 0 to 255: divide by 255, which gives mean {divided[0]}, std {divided[1]}."


def fit(pixels: npt.NDArray[np.uint8], spec: InputSpec, *, crop: bool) -> npt.NDArray[np.uint8]:
    """One image in the model's size and channels, still 8-bit.

    Grey becomes three channels by repetition, RGB one by the ITU-R BT.601 luma.

    Args:
        pixels: (H, W, C) uint8, C 1 or 3.
        spec: the model's input.
        crop: for image files: resize so that the image covers `spec.size` / `spec.crop_pct`, keeping its aspect, and
            cut out the centre. Otherwise, for arrays: resize to `spec.size`; not at all where that is the size already.

    Returns:
        (H', W', channels) uint8, (H', W') = `spec.size`.

    Raises:
        DataError: the model takes neither 1 nor 3 channels.
    """
    have = pixels.shape[2]
    if have not in (1, 3) or spec.channels not in (1, 3):
        raise DataError(
            f"images of {have} channels for a model that takes {spec.channels}: only grey (1) and RGB (3) are "
            f"converted to each other; choose a model with in_chans=3 or 1."
        )
    height, width = spec.size
    resized = _covering(pixels.shape[0], pixels.shape[1], spec) if crop else spec.size
    if pixels.shape[:2] != resized or have > spec.channels:
        image = Image.fromarray(pixels[:, :, 0] if have == 1 else pixels)
        if have > spec.channels:
            image = image.convert("L")
        if pixels.shape[:2] != resized:
            image = image.resize((resized[1], resized[0]), _FILTERS[spec.interpolation])
        pixels = np.asarray(image).reshape(*resized, -1)
    top, left = round((resized[0] - height) / 2), round((resized[1] - width) / 2)
    pixels = pixels[top : top + height, left : left + width]  # (H', W', C)
    return np.broadcast_to(pixels, (height, width, spec.channels)) if pixels.shape[2] < spec.channels else pixels


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(images / 255 - mean) / std for uint8 images, (images - mean) / std for float images in [0, 1].

    Args:
        images: (B, C, H, W).
        mean: per channel, black 0 and white 1.
        std: likewise.

    Returns:
        (B, C, H, W), float32 for uint8 images, otherwise of their own type.
    """
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    kind = torch.float32 if images.dtype == torch.uint8 else images.dtype
    factor = torch.tensor([1 / (scale * deviation) for deviation in std], dtype=kind)
    offset = torch.tensor([-centre / deviation for centre, deviation in zip(mean, std, strict=True)], dtype=kind)
    factor, offset = (constant.to(images.device, non_blocking=True).view(1, -1, 1, 1) for constant in (factor, offset))
    return torch.addcmul(offset, images.to(kind), factor)


def _covering(height: int, width: int, spec: InputSpec) -> tuple[int, int]:
    """Size (H, W) to resize to before the crop: the smallest of this aspect that covers the size over `crop_pct`."""
    least = [math.floor(side / spec.crop_pct) for side in spec.size]  # 224 at 0.95: 235, as timm
    if least[0] * width >= least[1] * height:  # the height is the side that binds
        return least[0], max(least[1], least[0] * width // height)
    return max(least[0], least[1] * height // width), least[1]

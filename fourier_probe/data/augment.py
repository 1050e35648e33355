"""Random crop, flip and erasing of a whole batch on its own device.

Each `random_*` draws its parameters from the generator that is passed and hands them to the function below it that only
applies them. There is no loop over images, and nothing that makes the host wait for the device. A generator on another
device than the images works too; its numbers are copied over. The order of a training step:

    images = random_flip(random_crop(images, 4, generator), generator)      # uint8
    images = random_erase(normalise(images, mean, std), generator, 0.25)    # float: noise is of unit variance there
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from fourier_probe.errors import DataError

AREA = (0.02, 1 / 3)  # of an erased rectangle: smallest and largest share of the image
ASPECT = (0.3, 1 / 0.3)  # its smallest and largest height over width
_ATTEMPTS = 10  # rectangles drawn for an image before it is left whole, as in timm


@dataclass(frozen=True)
class Share:
    """Which images of a batch are here. Numbers are drawn for all of it, so that any number of ranks see the same ones.

    Attributes:
        batch: images of the batch, over all ranks.
        index: (B,) int64 positions in it of the images that are here.
    """

    batch: int
    index: Tensor

    def of(self, draws: Tensor, axis: int = 0) -> Tensor:
        """Of numbers drawn for the batch along an axis, those for the images that are here."""
        return draws.index_select(axis, self.index.to(draws.device))


def random_crop(images: Tensor, padding: int, generator: Generator, share: Share | None = None) -> Tensor:
    """Shift each image by up to `padding` pixels either way along both axes; zeros (black in uint8) come in.

    Args:
        images: (B, C, H, W), any type.
        padding: pixels, 0 or more.
        generator: source of the offsets, uniform over all (2 * padding + 1)^2.
        share: which images of a batch these are; all of it by default.
    """
    share = share or _all(images)
    corners = torch.randint(0, 2 * padding + 1, (2, share.batch), generator=generator, device=generator.device)
    corners = share.of(corners, axis=1)
    return crop_at(images, padding, *corners.to(images.device, non_blocking=True))


def crop_at(images: Tensor, padding: int, top: Tensor, left: Tensor) -> Tensor:
    """Of each image, padded by zeros on all sides, the window of its own size that begins at (`top`, `left`).

    Args:
        images: (B, C, H, W).
        padding: pixels.
        top: (B,) int64, 0 to 2 * padding.
        left: likewise.
    """
    height, width = images.shape[2:]
    windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)  # a view: (B, C, top, left, H, W)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def random_flip(images: Tensor, generator: Generator, probability: float = 0.5, share: Share | None = None) -> Tensor:
    """Mirror each image left to right with a probability; (B, C, H, W), any type; `share` as for `random_crop`."""
    share = share or _all(images)
    draws = share.of(torch.rand(share.batch, generator=generator, device=generator.device))
    return flip_where(images, (draws < probability).to(images.device, non_blocking=True))


def flip_where(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the images (B, C, H, W) where `mirrored` (B,) is true."""
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)


def random_erase(
    images: Tensor,
    generator: Generator,
    probability: float = 0.5,
    share: Share | None = None,
) -> Tensor:
    """Overwrite one rectangle of each image by normal noise with a probability (Zhong et al., arXiv 1708.04896).

    The rectangle is drawn as in timm's `RandomErasing`, mode "pixel", with one rectangle per image: its share of the
    image (`AREA`) uniform, height over width (`ASPECT`) log-uniform, up to ten attempts to fit inside, both sides
    strictly smaller than the image's.

    Args:
        images: (B, C, H, W), normalised floats.
        generator: source of the choice, the rectangles and the noise.
        probability: that an image is erased.
        share: which images of a batch these are; all of it by default.

    Raises:
        DataError: integer images.
    """
    if not images.is_floating_point():
        raise DataError(f"erasing by noise needs normalised float images, not {images.dtype}.")
    share = share or _all(images)
    shape = (share.batch, *images.shape[1:])
    boxes = share.of(erase_boxes(shape, generator, probability))
    noise = share.of(torch.randn(shape, generator=generator, device=generator.device, dtype=images.dtype))
    return erase_at(images, *(values.to(images.device, non_blocking=True) for values in (boxes, noise)))


def erase_boxes(shape: tuple[int, ...], generator: Generator, probability: float) -> Tensor:
    """One rectangle per image of (B, C, H, W): (B, 4) int64 of top, left, height, width; all 0 for none."""
    count, _, height, width = shape
    draws = torch.rand((5, count, _ATTEMPTS), generator=generator, device=generator.device, dtype=torch.float64)
    target = (AREA[0] + draws[0] * (AREA[1] - AREA[0])) * (height * width)  # (B, attempts) square pixels
    ratio = torch.exp(math.log(ASPECT[0]) + draws[1] * (math.log(ASPECT[1]) - math.log(ASPECT[0])))
    high, wide = (target * ratio).sqrt().round(), (target / ratio).sqrt().round()
    fits = (high < height) & (wide < width)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)  # the first attempt that fits, or 0
    erased = fits.any(dim=1, keepdim=True) & (draws[4, :, :1] < probability)
    top, left = (draws[2] * (height - high + 1)).floor(), (draws[3] * (width - wide + 1)).floor()
    boxes = torch.stack([edge.gather(1, first) for edge in (top, left, high, wide)], dim=1)  # (B, 4, 1)
    return torch.where(erased, boxes.squeeze(2), 0).to(torch.int64)


def erase_at(images: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """Write `fill` into a rectangle of each image.

    Args:
        images: (B, C, H, W).
        boxes: (B, 4) int64 of top, left, height, width in pixels; none where height or width is 0.
        fill: anything that broadcasts to the images.
    """
    top, left, high, wide = boxes.view(-1, 4, 1).unbind(dim=1)  # (B, 1) each
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    inside_rows = (rows >= top) & (rows < top + high)  # (B, H)
    inside_columns = (columns >= left) & (columns < left + wide)  # (B, W)
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]  # (B, 1, H, W)
    return torch.where(inside, fill.to(images.dtype), images)


def _all(images: Tensor) -> Share:
    return Share(len(images), torch.arange(len(images)))

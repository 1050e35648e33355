"""The images of one split: pixels in memory, or files decoded when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from fourier_probe.data.decode import BadImageError, decode
from fourier_probe.errors import DataError


class Reader(Protocol):
    """Images that are decoded when asked for; must survive pickling, for loader processes."""

    def __len__(self) -> int:
        """Number of images."""

    def name(self, index: int) -> str:
        """What a message calls the image."""

    def read(self, index: int) -> Image.Image:
        """The image in mode "L" or "RGB"; raises BadImageError."""


@dataclass(frozen=True)
class Files:
    """A reader of image files."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """The path, as a string."""
        return str(self.paths[index])

    def read(self, index: int) -> Image.Image:
        """Decode one file; raises BadImageError."""
        return decode(self.paths[index])


@dataclass(frozen=True)
class _Taken:
    """Some images of another reader, in an order of their own."""

    reader: Reader
    indices: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.reader.name(int(self.indices[index]))

    def read(self, index: int) -> Image.Image:
        return self.reader.read(int(self.indices[index]))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of one source. Exactly one of `pixels` and `reader` is set.

    Attributes:
        source: as the user named it.
        split: "train", "val" or "test".
        labels: (N,) int64, or None where the source has none.
        classes: class names, where known.
        pixels: (N, H, W, C) uint8 with C 1 or 3, where the source is an array in memory.
        reader: what decodes the images, where they are files.
        mean: of the data set, per channel, black 0 and white 1, where known.
        std: likewise.
        skipped: unreadable images that were left out.
        conflict: (N,) whether the local cue of a planted image contradicts its label; such images are reported apart.

    Raises:
        DataError: no images, or labels of another number.

    >>> images = ImageSet("mine", "test", labels=np.array([0, 1]), pixels=np.zeros((2, 8, 8, 3), np.uint8))
    >>> len(images)
    2
    """

    source: str
    split: str
    labels: npt.NDArray[np.int64] | None = None
    classes: tuple[str, ...] | None = None
    pixels: npt.NDArray[np.uint8] | None = None
    reader: Reader | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    skipped: int = 0
    conflict: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if (self.pixels is None) == (self.reader is None):
            raise DataError("an image set holds either pixels or a reader of files: pass one of the two.")
        if len(self) == 0:
            raise DataError(f"{self.source} has no images in its {self.split} split: expected at least one.")
        if self.labels is not None and self.labels.shape != (len(self),):
            raise DataError(
                f"{self.source} ({self.split}) has {len(self)} images and labels of shape {self.labels.shape}: "
                f"expected ({len(self)},), one label an image."
            )

    def __len__(self) -> int:
        held = self.pixels if self.pixels is not None else self.reader
        return 0 if held is None else len(held)

    @property
    def array_size(self) -> tuple[int, int] | None:
        """(H, W) of images in memory, which all have one size; None for files."""
        return None if self.pixels is None else (self.pixels.shape[1], self.pixels.shape[2])

    def __getitem__(self, index: int) -> Image.Image:
        """The image in mode "L" or "RGB", before any resizing; raises BadImageError."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        if self.reader is not None:
            return self.reader.read(index)
        pixels = self._held()[index]  # (H, W, C)
        return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        """Pixels of one image before any resizing, (H, W, C) uint8 with C 1 or 3; raises BadImageError."""
        if self.reader is None:
            held: npt.NDArray[np.uint8] = self._held()[index]
            return held
        pixels = np.asarray(self.reader.read(index))
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def take(self, indices: Sequence[int] | npt.NDArray[np.int64], *, skipped: int | None = None) -> ImageSet:
        """The images at `indices`, in that order; `skipped` replaces the count of images left out."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            labels=None if self.labels is None else self.labels[chosen],
            pixels=None if self.pixels is None else self.pixels[chosen],
            reader=None if self.reader is None else _Taken(self.reader, chosen),
            skipped=self.skipped if skipped is None else skipped,
            conflict=None if self.conflict is None else self.conflict[chosen],
        )

    def _held(self) -> npt.NDArray[np.uint8]:
        if self.pixels is None:
            raise DataError(f"{self.source} is read from files and has no pixels in memory: index it instead.")
        return self.pixels


def without_bad(images: ImageSet) -> ImageSet:
    """Decode every image once; returns those that can be read, with the others counted in `skipped`.

    Arrays in memory are returned as they are. A bad image is never replaced by another.

    Raises:
        BadImageError: not one image can be read.
    """
    if images.reader is None:
        return images
    good: list[int] = []
    bad: list[tuple[str, str]] = []
    for index in range(len(images)):
        try:
            images.reader.read(index)
            good.append(index)
        except BadImageError as error:
            bad += error.bad
    if not good:
        raise BadImageError(bad)
    return images.take(good, skipped=images.skipped + len(bad)) if bad else images

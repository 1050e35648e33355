"""Images held in memory: `.npz` files in the MedMNIST layout, and the bundled set, which is one of them.

Keys: `train_images`, `train_labels`, likewise `val_` and `test_`; images (N, H, W), (N, H, W, 1) or (N, H, W, 3) uint8,
labels (N,) or (N, 1) integers, or absent. Ours may be beside them: `classes` (K,) strings, and `mean` and `std` (C,) of
the training images.

The bundled set is a class-balanced part of Fashion-MNIST (6,000 training and 1,000 test images, MIT licence, Zalando
SE), zero-padded from 28x28 to 32x32 pixels. Its background is black, so that the padding continues it, and models for
32-pixel images see every pixel as it was, never resampled. `tools/make_bundled.py` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fourier_probe.data.archive import Archive
from fourier_probe.data.images import ImageSet
from fourier_probe.errors import DataError

BUNDLED = Path(__file__).parent / "bundled" / "fashion-mnist-7000.npz"
CLASSES = 2**20
"""Labels lie below it: a larger one is no class, but would be a model's number of classes."""
_SPLITS = ("train", "val", "test")


def open_npz(source: str, path: Path, split: str) -> ImageSet:
    """One split of a `.npz` file, in memory; the arrays of other splits are not read.

    Raises:
        DataError: the file is damaged, holds pickled objects, lacks the split, or has arrays of other shapes or types.
    """
    return _from_archive(source, Archive(path), split)


def channel_statistics(pixels: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, black 0 and white 1, exact up to float64.

    Args:
        pixels: (N, H, W, C) uint8.

    >>> channel_statistics(np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1))
    ((0.5,), (0.5,))
    """
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(pixels.shape[-1]):
        share = np.bincount(pixels[..., channel].ravel(), minlength=256) / pixels[..., channel].size
        mean = float(share @ levels)
        means.append(mean)
        deviations.append(float(np.sqrt(share @ (levels - mean) ** 2)))
    return tuple(means), tuple(deviations)


def as_pixels(images: npt.NDArray[Any], what: str) -> npt.NDArray[np.uint8]:
    """(N, H, W), (N, H, W, 1) or (N, H, W, 3) uint8 -> (N, H, W, C); raises DataError on anything else."""
    if images.dtype != np.uint8:
        raise DataError(f"{what} has type {images.dtype}: expected uint8, 0 black to 255 white.")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
        first = " Move the channels last." if images.ndim == 4 and images.shape[1] in (1, 3) else ""
        raise DataError(f"{what} has shape {images.shape}: expected (N, H, W), (N, H, W, 1) or (N, H, W, 3).{first}")
    return images


def as_labels(labels: npt.NDArray[Any], what: str) -> npt.NDArray[np.int64]:
    """(N,) or (N, 1) integers -> (N,) int64; raises DataError on anything else."""
    if labels.dtype.kind not in "iu":
        raise DataError(f"{what} has type {labels.dtype}: expected integers, one class per image.")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{what} has shape {labels.shape}: expected (N,) or (N, 1), one class per image (not several).")
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= CLASSES):
        raise DataError(
            f"{what} go from {int(labels.min())} to {int(labels.max())}: expected classes counted from 0, up to "
            f"{CLASSES:,}. Leave out images without a class, and number the classes anew."
        )
    return labels.astype(np.int64)


def _from_archive(source: str, archive: Mapping[str, npt.NDArray[Any]], split: str) -> ImageSet:
    available = [name for name in _SPLITS if f"{name}_images" in archive]
    if not available:
        raise DataError(
            f"{source} has the arrays {', '.join(archive) or '(none)'}: expected train_images, test_images."
        )
    if split not in available:
        raise DataError(f"{source} has no {split} split: it has {', '.join(available)}. Ask for one of these.")
    pixels = as_pixels(archive[f"{split}_images"], f"{split}_images of {source}")
    labels = f"{split}_labels"
    classes = _names(archive["classes"], source) if "classes" in archive else None
    class_of = as_labels(archive[labels], f"{labels} of {source}") if labels in archive else None
    if classes is not None and class_of is not None and class_of.size and int(class_of.max()) >= len(classes):
        raise DataError(f"{labels} of {source} go up to {int(class_of.max())}, but it names {len(classes)} classes.")
    return ImageSet(
        source,
        split,
        labels=class_of,
        classes=classes,
        pixels=pixels,
        mean=_statistics(archive, "mean", source, pixels.shape[3]),
        std=_statistics(archive, "std", source, pixels.shape[3]),
    )


def _names(classes: npt.NDArray[Any], source: str) -> tuple[str, ...]:
    if classes.ndim != 1 or classes.dtype.kind not in "US":
        raise DataError(f"classes of {source} is {classes.dtype} of shape {classes.shape}: expected (K,) strings.")
    try:
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in classes)
    except (ValueError, SystemError) as error:  # bytes that are no UTF-8, numbers that are no character
        raise DataError(
            f"classes of {source} holds a name that is no text ({error}): write them as strings."
        ) from error


def _statistics(
    archive: Mapping[str, npt.NDArray[Any]], name: str, source: str, channels: int
) -> tuple[float, ...] | None:
    """`mean` or `std` of the training images, one number per channel; None where there is none."""
    if name not in archive:
        return None
    values = archive[name]
    if values.shape != (channels,) or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise DataError(
            f"{name} of {source} is {values.dtype} of shape {values.shape}: expected ({channels},) finite numbers."
        )
    return tuple(map(float, values))

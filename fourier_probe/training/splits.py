"""Which images a run trains on, validates on and is tested on: opened, thinned out, split, checked before any step.

May import data, runtime and the config.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fourier_probe.data import (
    ImageSet,
    InputSpec,
    channel_statistics,
    check_labels,
    choose,
    holdout,
    open_data,
    subset,
)
from fourier_probe.data.images import Files
from fourier_probe.data.planted import SIZES as PLANTED_SIZES
from fourier_probe.data.planted import is_planted, open_planted
from fourier_probe.data.subset import nested, spread
from fourier_probe.data.trust import Fingerprint, fingerprint
from fourier_probe.errors import DataError
from fourier_probe.training.config import TrainConfig

FIXED = 1024  # training images on which both sides of a conversion are measured


@dataclass(frozen=True)
class Splits:
    """The images of a run.

    Attributes:
        train: without those held out.
        val: held out of the training images; None with `--val-split 0`.
        test: looked at once, at the end; None where the source has none.
        classes: number of classes.
        available: training images of the source at full data scale, without those that would be held out.
        digest: SHA-256 of the training images (files: of their names and sizes) and labels.
        note: what the user should know of the splits; may be empty.
        fingerprint: of a local source, by which a checkpoint may name it again (`data.trust`).
    """

    train: ImageSet
    val: ImageSet | None
    test: ImageSet | None
    classes: int
    available: int
    digest: str
    note: str
    fingerprint: Fingerprint | None = None


def open_splits(config: TrainConfig) -> Splits:
    """Open, thin out and split what `--data` names, and check every label before any step.

    Raises:
        DataError: nothing to open, no labels, or labels outside the classes of the training images.
    """
    if is_planted(config.data):
        return _planted(config)
    full = open_data(config.data, "train")
    if full.labels is None:
        raise DataError(
            f"{config.data} has no labels in its train split: training needs a class per image (folders: a folder per "
            "class; .npz: train_labels)."
        )
    classes = len(full.classes) if full.classes is not None else int(full.labels.max()) + 1
    check_labels(full.labels, classes)
    val, available = None, len(full)
    chosen = full if config.train_images else full.take(subset(full.labels, config.data_scale, seed=config.data_seed))
    train = chosen
    if config.val_split:
        training, held = holdout(labels_of(chosen), config.val_split, seed=config.data_seed)
        train, val = chosen.take(training), chosen.take(held)
        available = len(holdout(full.labels, config.val_split, seed=config.data_seed)[0])
    if config.train_images:
        train = train.take(nested(labels_of(train), config.train_images, seed=config.data_seed))
    test, note = _test(config.data, full)
    if test is not None:
        check_labels(labels_of(test), classes)
    if config.skip_bad:
        train = choose(train, skip_bad=True)
        val, test = (images if images is None else choose(images, skip_bad=True) for images in (val, test))
    return Splits(train, val, test, classes, available, _digest(train), note, fingerprint(config.data))


def _planted(config: TrainConfig) -> Splits:
    """The planted task has a validation split of its own; its training images are made, as many as are asked for."""
    available = PLANTED_SIZES["train"]
    count = config.train_images or 2 * max(1, round(config.data_scale * available / 2))
    train = open_planted(config.data, "train", images=count, seed=config.data_seed)
    val, test = (open_planted(config.data, split) for split in ("val", "test"))
    return Splits(train, val if config.val_split else None, test, 2, available, _digest(train), "")


def input_spec(config: TrainConfig, images: ImageSet, native: InputSpec) -> InputSpec:
    """Size, channels and statistics of the model's input: arrays keep their size and bring their statistics.

    Args:
        config: `img_size` comes first.
        images: the training images.
        native: what the model says of itself.
    """
    if images.pixels is None:
        size = (config.img_size,) * 2 if config.img_size else native.size
        return InputSpec(native.channels, size, native.mean, native.std, native.interpolation, native.crop_pct)
    height, width = images.pixels.shape[1:3]
    mean, std = images.mean, images.std
    if mean is None or std is None:
        mean, std = channel_statistics(images.pixels)
    if len(mean) != native.channels:
        mean, std = (sum(mean) / len(mean),) * native.channels, (sum(std) / len(std),) * native.channels
    std = tuple(max(channel, 1e-3) for channel in std)  # a constant image
    size = (config.img_size,) * 2 if config.img_size else (height, width)
    return InputSpec(native.channels, size, tuple(mean), std, native.interpolation, native.crop_pct)


def fixed_images(images: ImageSet) -> ImageSet:
    """The same 1,024 training images for every conversion, spread evenly over the classes."""
    return images.take(spread(len(images), FIXED, images.labels))


def _test(source: str, train: ImageSet) -> tuple[ImageSet | None, str]:
    """The test split; the validation split where that is all there is, as of ImageNet."""
    for split in ("test", "val"):
        try:
            images = open_data(source, split)
        except DataError:
            continue
        if images.labels is None:
            return None, f"the {split} split of {source} has no labels: nothing is tested."
        if _paths(images) is not None and _paths(images) == _paths(train):
            return None, f"{source} has no splits: there is no test set, only the validation split."
        return images, "" if split == "test" else f"{source} has no test split: its val split is tested, once."
    return None, f"{source} has neither a test nor a val split: nothing is tested."


def _paths(images: ImageSet) -> tuple[object, ...] | None:
    return images.reader.paths if isinstance(images.reader, Files) else None


def labels_of(images: ImageSet) -> npt.NDArray[np.int64]:
    """Their labels; raises DataError where there are none."""
    if images.labels is None:
        raise DataError(f"{images.source} ({images.split}) has no labels: expected a class per image.")
    return images.labels


def _digest(images: ImageSet) -> str:
    hashed = hashlib.sha256(labels_of(images).astype("<i8").tobytes())
    if images.pixels is not None:
        hashed.update(np.ascontiguousarray(images.pixels).data)
    elif images.reader is not None:
        for index in range(len(images)):
            hashed.update(images.reader.name(index).encode() + b"\0")
    return hashed.hexdigest()

"""Images in: one `open_data` for every source, batches for a model, class-balanced subsets, on-device augmentation."""

from fourier_probe.data.arrays import channel_statistics
from fourier_probe.data.augment import random_crop, random_erase, random_flip
from fourier_probe.data.decode import BadImageError
from fourier_probe.data.images import ImageSet
from fourier_probe.data.loading import Batch, batches, choose, image_digest, off_scale
from fourier_probe.data.sources import open_data
from fourier_probe.data.subset import check_labels, holdout, subset
from fourier_probe.data.transform import InputSpec, normalise

__all__ = [
    "BadImageError",
    "Batch",
    "ImageSet",
    "InputSpec",
    "batches",
    "channel_statistics",
    "check_labels",
    "choose",
    "holdout",
    "image_digest",
    "normalise",
    "off_scale",
    "open_data",
    "random_crop",
    "random_erase",
    "random_flip",
    "subset",
]

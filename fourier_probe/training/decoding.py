"""Image files, and RandAugment, through timm's transforms in loader processes.

What an image becomes is a function of (seed, epoch, image): each worker seeds the generators that timm draws from
before every image. So neither the number of workers nor a stop in the middle of an epoch changes it.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fourier_probe.data import ImageSet, InputSpec
from fourier_probe.data.decode import BadImageError
from fourier_probe.data.transform import fit
from fourier_probe.errors import DataError, TrainingError
from fourier_probe.runtime.modes import keeping_random_state
from fourier_probe.training.config import TrainConfig

_IMAGE = 3  # a stream of the seed of its own
Item = tuple[int, int, int]  # epoch, image, which of its copies in that epoch


@dataclass(frozen=True)
class _Bad:
    """Files that cannot be read, on their way out of a loader process: torch rebuilds no exception of ours."""

    bad: list[tuple[str, str]]


@dataclass
class _Images(Dataset[object]):
    """Decoded, augmented images by (epoch, position)."""

    images: ImageSet
    spec: InputSpec
    transform: Callable[[Any], Any] | None
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: Item) -> tuple[npt.NDArray[np.uint8], int] | _Bad:
        epoch, position, copy = item
        try:
            picture = self.images[position].convert("L" if self.spec.channels == 1 else "RGB")
        except BadImageError as error:
            return _Bad(error.bad)
        if self.transform is not None:
            with keeping_random_state():
                _seed(self.seed, epoch, position, *([copy] if copy else []))
                picture = self.transform(picture)
        pixels = np.asarray(picture, dtype=np.uint8)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if self.images.reader is None:  # an array: RandAugment only; crop and flip follow on the device
            pixels = fit(pixels, self.spec, crop=False).transpose(2, 0, 1)
        return np.array(pixels, order="C"), int(self.images.labels[position]) if self.images.labels is not None else 0


class _Rows:
    """A batch sampler whose batches are set anew each epoch, so that workers can persist."""

    def __init__(self) -> None:
        self.rows: list[list[Item]] = []

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class Decoding:
    """A loader over the training images; workers start at the first batch and stay.

    Attributes:
        loader: torch's, with timm's collation.
        sampler: which (epoch, image) make up each batch.
    """

    loader: DataLoader[Any]
    sampler: _Rows = field(repr=False)

    @classmethod
    def of(cls, config: TrainConfig, images: ImageSet, spec: InputSpec) -> Decoding:
        """Arrays get RandAugment only; files also timm's random resized crop and flip.

        Raises:
            TrainingError: timm does not understand `--aa`.
        """
        sampler = _Rows()
        dataset = _Images(images, spec, _transform(config, images, spec), config.seed)
        loader: DataLoader[object] = DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=config.workers,
            collate_fn=_collate,
            worker_init_fn=_outlive_signals,
            multiprocessing_context="spawn" if config.workers else None,  # a fork after torch has run can hang
            persistent_workers=config.workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # or the loader would draw a seed from the global one
        )
        return cls(loader, sampler)

    def batches(self, rows: Tensor, copies: Tensor, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """uint8 (B, C, H, W) and labels for each row of positions and of copies, (steps, B)."""
        self.sampler.rows = [
            [(epoch, position, copy) for position, copy in zip(*row, strict=True)]
            for row in zip(rows.tolist(), copies.tolist(), strict=True)
        ]
        try:
            for batch in self.loader:
                if isinstance(batch, _Bad):
                    raise BadImageError(batch.bad)
                yield batch
        except RuntimeError as error:  # torch's word for a process that was killed, most often for its memory
            raise DataError(f"a loader process failed: {error}; use fewer workers, or none (--workers 0).") from error

    def close(self) -> None:
        """End the workers. They outlive signals, so an interpreter that ends with them alive would wait for ever."""
        iterator, self.loader._iterator = self.loader._iterator, None
        if iterator is not None and self.loader.num_workers:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def _collate(items: list[object]) -> object:
    """A batch as timm collates it, uint8; or what is bad of it, if anything is."""
    from timm.data.loader import fast_collate

    bad = [file for item in items if isinstance(item, _Bad) for file in item.bad]
    return _Bad(bad) if bad else fast_collate(items)  # type: ignore[no-untyped-call]


def _outlive_signals(_worker: int) -> None:
    """SIGTERM of a scheduler and Ctrl-C reach the whole group; the run ends its workers once it is saved."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _transform(config: TrainConfig, images: ImageSet, spec: InputSpec) -> Callable[[object], object] | None:
    from timm.data import create_transform, rand_augment_transform

    if config.aa and not config.aa.startswith("rand"):
        raise TrainingError(f"--aa is {config.aa!r}: expected timm's RandAugment, such as rand-m9-mstd0.5-inc1.")
    fill = tuple(round(255 * value) for value in spec.mean)
    try:
        if images.reader is None:
            if config.color_jitter:
                from torchvision.transforms import ColorJitter

                jitter: Callable[[object], object] = ColorJitter(
                    *(config.color_jitter,) * 3
                )  # as timm's transform has it
                return jitter
            if not config.aa:
                return None
            options = {"img_mean": fill if spec.channels == 3 else fill[0], "translate_const": int(spec.size[0] * 0.45)}
            made: Callable[[object], object] = rand_augment_transform(config.aa, options)
            return made
        made = create_transform(
            (spec.channels, *spec.size),
            is_training=True,
            scale=(config.scale_min, 1.0),
            hflip=config.hflip,
            color_jitter=config.color_jitter,
            auto_augment=config.aa or None,
            interpolation=spec.interpolation,
            mean=spec.mean,
            use_prefetcher=True,  # ends in uint8 (C, H, W); scaled and erased on the device
        )
        return made
    except (AssertionError, ValueError, KeyError) as error:
        raise TrainingError(f"timm does not understand --aa {config.aa}: {error}.") from error


def _seed(*seeds: int) -> None:
    """Seed the global generators, from which timm draws."""
    draws = np.random.SeedSequence([_IMAGE, *seeds]).generate_state(3)
    random.seed(int(draws[0]))
    np.random.seed(draws[1])  # noqa: NPY002 - timm draws from it
    torch.manual_seed(int(draws[2]))

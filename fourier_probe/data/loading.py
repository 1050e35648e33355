"""Batches of an image set, in order, in constant memory."""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fourier_probe.data.decode import BadImageError, decode_ahead
from fourier_probe.data.images import ImageSet, without_bad
from fourier_probe.data.subset import spread
from fourier_probe.data.transform import InputSpec, fit, normalise
from fourier_probe.errors import DataError

LOOKED, FAR = 8, 6.0  # images at which the scale is looked at; mean and deviation that are far from 0 and 1
WORKERS = 4096  # processes, at most: more take a machine down
AHEAD = 2
"""Batches that are decoded while the caller works on the one before."""


class Batch(NamedTuple):
    """Some images, ready for a model.

    Attributes:
        images: (B, C, H, W) float32, normalised.
        labels: (B,) int64, or None where the source has none.
        index: (B,) int64, position in the chosen sequence, 0 to n - 1.
        digest: (B, 4) int64, see `image_digest`.
        total: number of images in the chosen sequence, over all shards; None where it is unknown.
    """

    images: Tensor
    labels: Tensor | None
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which no one misses
    digest: Tensor
    total: int | None = None


def choose(images: ImageSet, *, limit: int | None = None, skip_bad: bool = False) -> ImageSet:
    """The images that an analysis reads: `limit` of them, spread over the set and its classes, in its order.

    A set sorted by class would give its first class only if its first images were taken (`subset.spread`).

    Args:
        images: the split.
        limit: how many at most; None for all.
        skip_bad: decode the chosen images now, leave out those that cannot be read, and count them in `skipped`.

    Raises:
        DataError: a limit below 1.
        BadImageError: `skip_bad`, and not one image can be read.
    """
    if limit is not None and limit < 1:
        raise DataError(f"{limit} images asked for: expected at least 1.")
    if limit is not None and limit < len(images):
        images = images.take(spread(len(images), limit, images.labels))
    return without_bad(images) if skip_bad else images


def batches(
    images: ImageSet,
    spec: InputSpec,
    *,
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
    workers: int = 0,
) -> Iterator[Batch]:
    """Stream images through the model's transform, in order, the last batch being what is left.

    Arrays already at the model's size are scaled and normalised only, and resized without a crop otherwise; files are
    resized and cropped by `spec.crop_pct` (`transform.fit`).

    Args:
        images: those to read, as `choose` gives them.
        spec: what the model wants to see.
        batch_size: images per batch.
        shard: (rank, world): every world-th image from the rank-th on, without padding or duplicates; may be empty.
        workers: processes that decode files, started by spawn; 0 decodes in this process, in a thread of its own. An
            array in memory is always read in this process: there is nothing to decode.

    Returns:
        An iterator. Arguments are checked at once; files are read while iterating.

    Raises:
        DataError: an argument out of range, or channels that cannot be converted.
        BadImageError: images that cannot be read, all those of the batch in hand; raised while iterating.
    """
    rank, world = shard
    if not 0 <= rank < world:
        raise DataError(f"the shard is {rank} of {world}: expected a rank from 0 to {world - 1}.")
    if batch_size < 1 or not 0 <= workers <= WORKERS:
        raise DataError(f"batch size {batch_size}, {workers} workers: expected at least 1 image, and 0 to {WORKERS}.")
    if spec.channels not in (1, 3):
        raise DataError(f"the model takes {spec.channels} channels: images are grey (1) or RGB (3).")
    positions = np.arange(rank, len(images), world, dtype=np.int64)
    blocks = _Blocks(images, positions, spec, batch_size)
    return _stream(blocks, workers if images.reader is not None else 0)


def off_scale(images: ImageSet, spec: InputSpec) -> str:
    """What is odd about the values that a network is given of some of these images; empty where nothing is."""
    if all(abs(255 * std - 1) < 1e-4 for std in spec.std):  # a network of numbers from 0 to 255
        return ""
    chosen = np.unique(np.linspace(0, len(images) - 1, LOOKED).round().astype(int))
    try:
        pixels = np.stack([fit(images.read(int(at)), spec, crop=images.reader is not None) for at in chosen])
    except DataError:  # said where the images are read
        return ""
    values = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), spec.mean, spec.std)
    mean, std = float(values.mean()), float(values.std())
    if abs(mean) <= FAR and std <= FAR:
        return ""
    taken, divided = (", ".join(f"{value:.3g}" for value in each) for each in (spec.mean, spec.std))
    return (
        f"normalised with mean ({taken}) and std ({divided}) the images of {images.source} have mean {mean:.3g} and "
        f"standard deviation {std:.3g}, where networks are given values around 0 and 1. Both are of pixels from 0 to "
        "1: were they divided by 255 once too often? --mean and --std name others."
    )


def image_digest(index: int, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """SHA-256 of an image and its place, as numbers to be summed.

    The sum over a set, modulo 2^64 as int64 adds, depends neither on the order nor on the sharding.

    Args:
        index: position in the chosen sequence.
        pixels: (H, W, C) uint8, as decoded, before any resizing.

    Returns:
        (4,) int64: the digest of index, H, W, C (little-endian int64) and the pixels in rows, read as little-endian.
    """
    head = struct.pack("<4q", index, *pixels.shape)
    digest = hashlib.sha256(head + pixels.tobytes()).digest()
    return np.frombuffer(digest, dtype="<i8").astype(np.int64)


@dataclass(frozen=True)
class _Block:
    """One batch on its way out of a loader process: pixels still 8-bit, or what was wrong."""

    pixels: Tensor  # (B, H, W, C) uint8
    labels: Tensor | None
    index: Tensor
    digest: Tensor
    bad: list[tuple[str, str]]


@dataclass(frozen=True)
class _Blocks(Dataset[_Block]):
    """The batches of a shard, by number."""

    images: ImageSet
    positions: npt.NDArray[np.int64]
    spec: InputSpec
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.positions) // self.batch_size)

    def __getitem__(self, number: int) -> _Block:
        index = self.positions[number * self.batch_size : (number + 1) * self.batch_size]
        pixels = np.empty((len(index), *self.spec.size, self.spec.channels), dtype=np.uint8)
        digest = np.zeros((len(index), 4), dtype=np.int64)
        bad: list[tuple[str, str]] = []
        for row, position in enumerate(index):
            try:
                raw = self.images.read(int(position))
            except BadImageError as error:
                bad += error.bad
                continue
            digest[row] = image_digest(int(position), raw)
            pixels[row] = fit(raw, self.spec, crop=self.images.reader is not None)
        labels = None if self.images.labels is None else torch.from_numpy(self.images.labels[index])
        return _Block(torch.from_numpy(pixels), labels, torch.from_numpy(index.copy()), torch.from_numpy(digest), bad)


def _stream(blocks: _Blocks, workers: int) -> Iterator[Batch]:
    for block in _loaded(blocks, workers):
        if block.bad:
            raise BadImageError(block.bad)
        images = normalise(block.pixels.permute(0, 3, 1, 2).contiguous(), blocks.spec.mean, blocks.spec.std)
        yield Batch(images, block.labels, block.index, block.digest, len(blocks.images))


def _loaded(blocks: _Blocks, workers: int) -> Iterator[_Block]:
    if not workers:
        yield from _decoded_ahead(blocks) if blocks.images.reader is not None else _here(blocks)
        return
    loader = DataLoader(
        blocks,
        batch_size=None,  # an item is a batch already
        num_workers=workers,
        multiprocessing_context="spawn",  # a fork after torch has run can hang
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # or the loader would draw a seed from the global one
    )
    try:
        yield from loader
    except RuntimeError as error:  # torch's word for a process that was killed, most often for its memory
        raise DataError(f"a loader process failed: {error}; use fewer workers, or none (--workers 0).") from error


def _here(blocks: _Blocks, first: int = 0) -> Iterator[_Block]:
    return (blocks[number] for number in range(first, len(blocks)))


def _decoded_ahead(blocks: _Blocks) -> Iterator[_Block]:
    """The batches, from one thread that is a little ahead: one, for a reader may be of one file.

    A batch with an image that it refuses is decoded again in this thread, which says what is wrong, and so are those
    after it: messages and their order are what they are without a second thread.
    """
    waiting: deque[Future[_Block]] = deque()
    with ThreadPoolExecutor(1, "decoding", initializer=decode_ahead) as pool:
        try:
            for number in range(len(blocks)):
                while len(waiting) <= AHEAD and number + len(waiting) < len(blocks):
                    waiting.append(pool.submit(blocks.__getitem__, number + len(waiting)))
                block = waiting.popleft().result()
                if block.bad:
                    pool.shutdown(cancel_futures=True)
                    yield from _here(blocks, number)
                    return
                yield block
        finally:
            pool.shutdown(cancel_futures=True)


def _as_it_is(block: object) -> object:
    return block

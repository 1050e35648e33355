"""Which image goes into which jackknife group: fixed, shard-safe, and blind to the order of a file. Imports data.

A data set is sorted by class, cycles through its classes, or is shuffled; groups made of the index modulo G follow that
order, and their errors come out several times too large or too small. Here the group depends on the index through a
fixed pseudo-random permutation, so it is the same for every model, batch size, shard and process.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fourier_probe.data.subset import splitmix64
from fourier_probe.errors import DataError

Grouping = Literal["permutation", "stream"]
"""How groups are made: of a known number of images, or of a stream of unknown length."""
RUNS = 3  # of a stream: so many runs of G images have one image per group each
_STREAM = 3  # of the random streams of this package: `data.subset` has 1 and 2


def grouping_of(total: int | None) -> Grouping:
    """The kind of grouping that a source of `total` images has; None where the number is unknown."""
    return "stream" if total is None else "permutation"


def group_of(index: NDArray[np.int64], total: int | None, groups: int) -> NDArray[np.int64]:
    """The group (B,) of each image.

    Args:
        index: (B,) position in the chosen sequence, from 0.
        total: number N of images in that sequence; None for a stream of unknown length.
        groups: G.

    Returns:
        With N known, pi_N(index) mod G, pi_N a fixed pseudo-random permutation of N: group sizes differ by one at most.
        Otherwise a permutation within each run of G images for the first three runs, so that a short stream is
        balanced, then splitmix64(index) mod G.

    Raises:
        DataError: an index is not below `total`.

    >>> np.bincount(group_of(np.arange(45), 45, 20)).tolist() == 20 * [2] or "sizes 2 and 3"
    'sizes 2 and 3'
    >>> sorted(group_of(np.arange(20, 40), None, 20).tolist()) == list(range(20))
    True
    """
    if total is not None:
        if index.size and int(index.max()) >= total:
            raise DataError(f"image {int(index.max())} came from a source of {total} images: its length is wrong.")
        return _permuted(total, groups)[index].astype(np.int64)
    early = np.concatenate([_permutation(groups, run) for run in range(RUNS)])
    hashed = (splitmix64(index.astype(np.uint64)) % np.uint64(groups)).astype(np.int64)
    return np.where(index < len(early), early[np.minimum(index, len(early) - 1)], hashed)


@functools.lru_cache(maxsize=4)
def _permuted(total: int, groups: int) -> NDArray[np.int32]:
    """The group (N,) of every image of a source; 4 bytes per image."""
    return (_permutation(total, 0) % groups).astype(np.int32)


@functools.lru_cache(maxsize=8)
def _permutation(size: int, number: int) -> NDArray[np.int64]:
    """A fixed pseudo-random permutation: raw PCG64 output, which numpy keeps the same in every version."""
    draws = np.random.PCG64(np.random.SeedSequence([_STREAM, size, number])).random_raw(size)
    return np.argsort(draws, kind="stable").astype(np.int64)

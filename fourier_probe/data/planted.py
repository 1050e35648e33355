"""The planted task: images with a known far and a known local part, made, never read. Imports images.

A positive control (ours): a score that is a sum over local windows is bounded on it by a theorem, one that compares
far places is not. 32x32 RGB images in 8x8 cells of 4x4 pixels. Pixels are round(255 clip(0.5 + 0.35 v, 0, 1)); v is
Gaussian noise of 0.25 plus, in some cells, one of six fixed random glyphs of +-0.6, all of one energy:

- relation: two of four glyphs, in cells at least 5 apart (Chebyshev). The label is 1 if they are the same glyph.
- cue: two pairs of horizontally adjacent free cells, "P Q" where the cue says 1, "Q P" where it says 0.

| variant | label | cue | bound on top-1 of a sum over windows of 5x5 cells |
|---|---|---|---|
| mixed | relation | right in 80 % | 87.5 % |
| far | relation | none | 75 % |
| local | cue | the relation is an independent fair coin | none |

An image and its label are a function of (variant, split, index). A seed chooses which training indices are used; the
glyphs, val and test never depend on it. Random numbers are splitmix64 of a counter, so they are the same everywhere.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from fourier_probe.data.images import ImageSet
from fourier_probe.data.subset import splitmix64
from fourier_probe.errors import DataError, suggest

VARIANTS = ("mixed", "far", "local")
BOUNDS = {"mixed": 0.875, "far": 0.75}
"""Largest top-1 of a score that is a sum of functions of 5x5-cell windows, as data/planted's table."""
SIDE, CELL, CELLS = 32, 4, 8  # pixels, pixels, cells a side
DISTANCE = 5  # cells, Chebyshev, at least, between the glyphs of the relation
RELATION = 4  # glyphs 0 to 3; 4 is P and 5 is Q
SIZES = {"train": 10_000, "val": 2_000, "test": 2_000}
LARGEST = 1_000_000  # training images
MEAN, STD = 0.5, 0.35
CUE_RIGHT = 0.8

_NOISE, _GLYPH = 0.25, 0.6
_CHUNK = 4096  # images made at a time
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_GLYPHS, _PIXELS, _CHOICES, _PAIRS, _ORDER = range(5)  # streams
Words = npt.NDArray[np.uint64]
Bits = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


def is_planted(source: str) -> bool:
    """Whether a source is `planted` or `planted:VARIANT`."""
    return source.partition(":")[0] == "planted"


def variant_of(source: str) -> str:
    """The variant that `planted[:VARIANT]` names.

    Raises:
        DataError: there is no such variant.

    >>> variant_of("planted"), variant_of("planted:far")
    ('mixed', 'far')
    """
    _, colon, variant = source.partition(":")
    variant = variant if colon else "mixed"
    if variant not in VARIANTS:
        raise DataError(
            f"there is no variant {variant!r} of the planted task: expected planted, planted:far or planted:local."
            f"{suggest(variant, VARIANTS)}"
        )
    return variant


def open_planted(source: str, split: str, *, images: int | None = None, seed: int = 0) -> ImageSet:
    """One split of the planted task, in memory.

    Args:
        source: `planted`, `planted:mixed`, `planted:far` or `planted:local`.
        split: "train", "val" or "test".
        images: how many, an even number so that the classes are balanced; 10,000, 2,000 and 2,000 by default. Training
            sets of one seed are nested: a smaller one is the beginning of a larger one.
        seed: chooses the training images; val and test do not depend on it.

    Raises:
        DataError: no such variant, or a number of images that is odd, below 2 or above a million.

    >>> images = open_planted("planted", "train", images=4)
    >>> images.pixels.shape, sorted(images.labels.tolist())
    ((4, 32, 32, 3), [0, 0, 1, 1])
    """
    variant = variant_of(source)
    count = SIZES[split] if images is None else images
    largest = LARGEST if split == "train" else 100_000
    if count < 2 or count % 2 or count > largest:
        raise DataError(
            f"{count} images of the planted task: expected an even number from 2 to {largest:,} (its classes are "
            "balanced in pairs)."
        )
    pairs = np.arange(count // 2, dtype=np.int64)
    if split == "train":
        pairs = np.argsort(_words(_key(_ORDER, seed), np.arange(LARGEST // 2)), kind="stable")[: count // 2]
    index = (2 * pairs[:, None] + np.arange(2)).reshape(-1)
    labels, pixels, conflict = make(variant, split, index)
    return ImageSet(
        source,
        split,
        labels=labels,
        classes=("different", "same") if variant != "local" else ("QP", "PQ"),
        pixels=pixels,
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        conflict=conflict if variant == "mixed" else None,
    )


def make(variant: str, split: str, index: Indices) -> tuple[Indices, npt.NDArray[np.uint8], Bits]:
    """Labels (N,), pixels (N, 32, 32, 3) and whether the cue contradicts the label (N,), of these indices."""
    labels, pixels, conflicts = [], [], []
    for first in range(0, len(index), _CHUNK):
        part = scenes(variant, split, index[first : first + _CHUNK])
        labels.append(part.labels)
        pixels.append(to_pixels(part.values()))
        conflicts.append(part.conflict)
    return np.concatenate(labels), np.concatenate(pixels), np.concatenate(conflicts)


class Scenes:
    """What is drawn before it is painted: where the objects of some images lie, and which they are.

    Attributes:
        labels: (N,) int64. conflict: (N,) whether the cue contradicts the label.
        cells: (N, 2) cell of each glyph of the relation, row * 8 + column. glyphs: (N, 2) which of the four.
        pairs: (N, 2) left cell of each pair of the cue, -1 for none. cue: (N,) what the cue says.
        noise: (N, 32, 32, 3) Gaussian, of 0.25.
    """

    def __init__(
        self,
        labels: Indices,
        cells: Indices,
        glyphs: Indices,
        pairs: Indices,
        cue: Bits,
        noise: npt.NDArray[np.float64],
    ) -> None:
        self.labels, self.cells, self.glyphs, self.pairs, self.cue, self.noise = (
            labels,
            cells,
            glyphs,
            pairs,
            cue,
            noise,
        )

    @property
    def conflict(self) -> Bits:
        """Whether there is a cue and it contradicts the label."""
        return np.asarray((self.pairs[:, 0] >= 0) & (self.cue != (self.labels == 1)))

    def values(self, glyphs: Indices | None = None) -> npt.NDArray[np.float64]:
        """v, (N, 32, 32, 3), before it becomes pixels; with other `glyphs` of the relation where they are given."""
        values = self.noise.copy()
        shapes = _glyph_values()
        for k in range(2):
            _add(values, self.cells[:, k], shapes[(self.glyphs if glyphs is None else glyphs)[:, k]])
            drawn = self.pairs[:, k] >= 0
            left, right = np.where(self.cue, 4, 5), np.where(self.cue, 5, 4)
            _add(values, np.maximum(self.pairs[:, k], 0), shapes[left] * drawn[:, None, None, None])
            _add(values, np.maximum(self.pairs[:, k] + 1, 0), shapes[right] * drawn[:, None, None, None])
        return values


def scenes(variant: str, split: str, index: Indices) -> Scenes:
    """Where the objects of images lie: a function of (variant, split, index)."""
    where = (VARIANTS.index(variant), ("train", "val", "test").index(split))
    keys = _words(_key(_CHOICES, *where), index)  # (N,)
    flip = _words(_key(_PAIRS, *where), index // 2) & np.uint64(1)  # of two images of a pair one has each label
    truth = (index + flip.astype(np.int64)) % 2
    draws = _unit(_words(keys[:, None], np.arange(6)))  # (N, 6) in (0, 1)
    agrees = draws[:, 0] < CUE_RIGHT
    if variant == "local":
        same, cue = draws[:, 1] < 0.5, truth == 1
    else:
        same, cue = truth == 1, (truth == 1) == agrees
    first = (draws[:, 2] * RELATION).astype(np.int64)
    other = (first + 1 + (draws[:, 3] * (RELATION - 1)).astype(np.int64)) % RELATION
    far = _far_pairs()
    cells = far[(draws[:, 4] * len(far)).astype(np.int64)]  # (N, 2)
    pairs = np.full((len(index), 2), -1, dtype=np.int64)
    if variant != "far":
        pairs = _free_pairs(cells, _words(keys[:, None], 6 + np.arange(CELLS * (CELLS - 1))))
    shape = (len(index), SIDE, SIDE, 3)
    noise = _words(_words(_key(_PIXELS, *where), index)[:, None], np.arange(SIDE * SIDE * 3))
    return Scenes(truth, cells, np.stack([first, np.where(same, first, other)], 1), pairs, cue,
                  _NOISE * ndtri(_unit(noise)).reshape(shape))  # fmt: skip


def to_pixels(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """V -> uint8 pixels."""
    return np.rint(255 * np.clip(MEAN + STD * values, 0, 1)).astype(np.uint8)


def _free_pairs(cells: Indices, priority: Words) -> Indices:
    """Two pairs of horizontally adjacent cells that no object covers, each uniform over those that are free."""
    left = np.array([row * CELLS + column for row in range(CELLS) for column in range(CELLS - 1)], dtype=np.int64)
    covered = np.stack([left, left + 1], 1)  # (56, 2)
    free = ~(covered[None, :, :, None] == cells[:, None, None, :]).any((2, 3))  # (N, 56)
    taken = np.uint64(0xFFFFFFFFFFFFFFFF)
    one = left[np.argmin(np.where(free, priority, taken), 1)]
    free &= np.abs(left[None, :] - one[:, None]) > 1  # neither the pair itself nor one that shares a cell with it
    two = left[np.argmin(np.where(free, priority, taken), 1)]
    return np.stack([one, two], 1)


def _far_pairs() -> Indices:
    """Ordered pairs of cells at least `DISTANCE` apart, (M, 2)."""
    every = np.arange(CELLS * CELLS)
    a, b = (grid.reshape(-1) for grid in np.meshgrid(every, every, indexing="ij"))
    apart = np.maximum(np.abs(a // CELLS - b // CELLS), np.abs(a % CELLS - b % CELLS))
    pairs: Indices = np.stack([a, b], 1)[apart >= DISTANCE]
    return pairs


def _glyph_values() -> npt.NDArray[np.float64]:
    """The six glyphs, (6, 4, 4, 3) of +-0.6."""
    bits = _words(_key(_GLYPHS), np.arange(6 * CELL * CELL * 3)) >> np.uint64(63)
    return _GLYPH * (2.0 * bits.astype(np.float64) - 1).reshape(6, CELL, CELL, 3)


def _add(values: npt.NDArray[np.float64], cells: Indices, shapes: npt.NDArray[np.float64]) -> None:
    """Add a glyph (N, 4, 4, 3) to the cell (N,) of each image, in place."""
    blocks = values.reshape(len(values), CELLS, CELL, CELLS, CELL, 3)
    blocks[np.arange(len(values)), cells // CELLS, :, cells % CELLS] += shapes


def _key(*numbers: int) -> Words:
    key = np.zeros((), dtype=np.uint64)
    for number in numbers:
        key = _words(key, np.asarray(number + 1))
    return key


def _words(key: Words, counter: npt.NDArray[np.int64]) -> Words:
    """splitmix64 of a key and a counter, broadcast."""
    with np.errstate(over="ignore"):
        return splitmix64(key + np.asarray(counter).astype(np.uint64) * _GOLDEN)


def _unit(words: Words) -> npt.NDArray[np.float64]:
    """(0, 1), of the upper 52 bits."""
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

"""Which images: class-balanced parts for data scales and validation, and labels that fit a model.

Draws come from raw PCG64 output, which NumPy keeps the same in every version; the global generators are not touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from fourier_probe.errors import DataError

Indices = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64] | Sequence[int]
_SUBSET, _HOLDOUT = 1, 2  # separate streams of one seed


def check_labels(labels: Labels, num_classes: int) -> None:
    """Raise DataError unless every label lies in 0 to `num_classes` - 1; an empty set passes."""
    values = np.asarray(labels)
    if not values.size:
        return
    smallest, largest = int(values.min()), int(values.max())
    have = f"the model has {num_classes} classes, 0 to {num_classes - 1}"
    if largest >= num_classes:
        raise DataError(
            f"the largest label is {largest}, but {have}: choose data with these classes, or a model with at least "
            f"{largest + 1} (--model-arg num_classes={largest + 1})."
        )
    if smallest < 0:
        raise DataError(f"the smallest label is {smallest}, but {have}: leave out images without a class.")


def subset(labels: Labels, fraction: float, *, seed: int) -> Indices:
    """Indices of a class-balanced part of a data set, sorted.

    Each class of n images gives the first round(fraction * n), and at least one, of an order that depends on `seed` and
    the class alone. So the parts of one seed are nested: 10 % lies inside 50 %.

    Args:
        labels: (N,) classes.
        fraction: above 0, up to 1.
        seed: not negative; of this choice alone, whatever the seed of the training.

    Raises:
        DataError: a fraction out of range, or no or negative labels.
    """
    if not 0 < fraction <= 1:
        raise DataError(f"the data scale is {fraction}: expected a fraction above 0, up to 1 (all images).")
    parts = [order[: max(1, math.floor(fraction * len(order) + 0.5))] for order in _orders(labels, seed, _SUBSET)]
    return np.sort(np.concatenate(parts))


def nested(labels: Labels, count: int, *, seed: int) -> Indices:
    """Indices of exactly `count` images, class-balanced to one image, sorted; those of a smaller count are among them.

    Args:
        labels: (N,) classes.
        count: from 1 to N.
        seed: not negative; the order of `subset`.

    Raises:
        DataError: a count out of range, or no or negative labels.

    >>> nested([0, 0, 0, 1, 1, 1], 2, seed=0).tolist(), nested([0, 0, 0, 1, 1, 1], 6, seed=0).tolist()
    ([2, 4], [0, 1, 2, 3, 4, 5])
    """
    if not 1 <= count <= len(labels):
        raise DataError(f"{count} training images are asked for and there are {len(labels)}: choose from 1 to that.")
    orders = list(_orders(labels, seed, _SUBSET))
    ranks = np.concatenate([(np.arange(len(order)) + 0.5) / len(order) for order in orders])
    chosen = np.concatenate(orders)[np.argsort(ranks, kind="stable")[:count]]
    return np.sort(chosen)


def holdout(labels: Labels, fraction: float, *, seed: int) -> tuple[Indices, Indices]:
    """Split positions into training and validation, class-balanced, both sorted.

    Each class of n images gives round(fraction * n) to validation: at least one where it has two, and never its last.
    Positions are those in `labels`; for a split inside `part = subset(...)` take `part[train]` and `part[val]`.

    Args:
        labels: (N,) classes.
        fraction: for validation, above 0 and below 1.
        seed: not negative; independent of the draws that `subset` makes from the same seed.

    Raises:
        DataError: a fraction out of range, no or negative labels, or one image per class, which leaves no validation.
    """
    if not 0 < fraction < 1:
        raise DataError(f"the validation fraction is {fraction}: expected a fraction above 0 and below 1.")
    train: list[Indices] = []
    val: list[Indices] = []
    for order in _orders(labels, seed, _HOLDOUT):
        held = min(max(1, math.floor(fraction * len(order) + 0.5)), len(order) - 1)
        val.append(order[:held])
        train.append(order[held:])
    if not sum(map(len, val)):
        raise DataError(
            f"no image can be held out for validation: each of the {len(train)} classes has one; use a larger "
            f"data scale."
        )
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


def spread(count: int, limit: int, labels: Labels | None = None) -> Indices:
    """`limit` indices of 0 to `count` - 1, ascending; all of them if there are no more than that.

    With labels, spread evenly over the images put in the order of their class: each class gets its share whether the
    set is sorted by class or cycles through the classes. Without, those with the smallest hash (splitmix64) of their
    index: every k-th image would show only some of the classes where these cycle. Smaller choices lie inside larger.

    >>> spread(10, 4).tolist(), spread(10, 5).tolist(), spread(3, 5).tolist()
    ([3, 4, 5, 7], [1, 3, 4, 5, 7], [0, 1, 2])
    >>> spread(6, 3, [0, 1, 2, 0, 1, 2]).tolist()
    [0, 1, 2]
    """
    if limit >= count:
        return np.arange(count, dtype=np.int64)
    if labels is None:
        return np.sort(np.argsort(splitmix64(np.arange(count, dtype=np.uint64)), kind="stable")[:limit])
    chosen = np.arange(limit, dtype=np.int64) * count // limit
    return np.sort(np.argsort(labels, kind="stable")[chosen])


def splitmix64(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The output of splitmix64 (Steele, Lea, Flood 2014) after each state, modulo 2^64: the same everywhere."""
    with np.errstate(over="ignore"):
        z = state + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def _orders(labels: Labels, seed: int, stream: int) -> Iterator[Indices]:
    """For each class, its indices in an order drawn from (stream, seed, class)."""
    values = np.asarray(labels)
    if values.ndim != 1 or values.size == 0 or int(values.min()) < 0:
        raise DataError(f"labels of shape {values.shape}: expected (N,) classes, none negative, at least one.")
    if seed < 0:
        raise DataError(f"the seed is {seed}: expected 0 or more.")
    for label in np.unique(values):
        members = np.flatnonzero(values == label).astype(np.int64)
        draws = np.random.PCG64(np.random.SeedSequence([stream, seed, int(label)])).random_raw(len(members))
        yield members[np.argsort(draws, kind="stable")]

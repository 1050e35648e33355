"""Linear CKA between points of one network or of two, over positions-averaged features. May import sums.

CKA compares what two layers say of the same images, whatever their widths: with K = X X^T and L = Y Y^T over n images,
diagonals set to 0 (K', L'), the unbiased estimator of Song et al. (2012) is

    HSIC_1(K, L) = [tr(K' L') + 1'K'1 1'L'1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'K'L'1] / (n (n - 3)),

and CKA is the sum over minibatches of HSIC_1(K, L) over the root of the product of those of (K, K) and (L, L) (Nguyen,
Raghu & Kornblith 2021, arXiv 2010.15327). A minibatch is `MINIBATCH` images drawn by a fixed permutation, not as they
lie in a file, which may be sorted by class. Errors are a jackknife that leaves out each image group from all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fourier_probe.errors import ResultError
from fourier_probe.probe.sums import Array, jackknife_variance

MINIBATCH = 200
ROUNDING = 1e-12
LEAST = 4  # images of which HSIC_1 exists


@dataclass
class Pooled:
    """The features of every point, a mean over positions, of the images that one network saw.

    Attributes:
        index: position of each image in the sequence. group: its image group.
        features: point -> (n, C) float32, in the same order. It takes 4 bytes per image and channel.
    """

    index: list[NDArray[np.int64]] = field(default_factory=list)
    group: list[NDArray[np.int64]] = field(default_factory=list)
    features: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, point: str, maps: Tensor) -> None:
        """A batch of maps (B, C, H, W) of one point."""
        self.features.setdefault(point, []).append(maps.mean((2, 3), dtype=torch.float32).cpu())

    def merge(self, other: Pooled) -> None:
        """Add what another process saw."""
        self.index, self.group = self.index + other.index, self.group + other.group
        for name, parts in other.features.items():
            self.features.setdefault(name, []).extend(parts)

    def ordered(self, names: Sequence[str]) -> tuple[NDArray[np.int64], list[Array]]:
        """The groups (n,), and the features of some points (n, C), float64, both in the order of the images."""
        order = np.argsort(np.concatenate(self.index), kind="stable")
        features = [torch.cat(self.features[name]).double().numpy()[order] for name in names]
        return np.concatenate(self.group)[order], features


@dataclass(frozen=True)
class Similarity:
    """CKA of the points of one network with those of another, or with its own.

    Attributes:
        value, stderr: (A, B), NaN where there is no such number: fewer than 4 images, or features that do not vary; the
            error under 20 images.
        images: how many. minibatch: images of the largest minibatch.
    """

    value: Array
    stderr: Array
    images: int
    minibatch: int


def similarity(
    ours: Sequence[Array], theirs: Sequence[Array], group: NDArray[np.int64], *, groups: int = 20
) -> Similarity:
    """CKA of every layer of one network with every layer of another on the same images.

    Args:
        ours: per layer (n, C), C may differ.
        theirs: likewise, of the same images in the same order.
        group: (n,) the group of each image.
        groups: G.

    Raises:
        ResultError: the numbers of images differ.

    >>> X = np.random.default_rng(0).normal(size=(40, 5))
    >>> found = similarity([X, X**3], [2 * X], np.arange(40) % 20)
    >>> found.value.round(6).tolist()[0], bool(found.value[1, 0] < 1)
    ([1.0], True)
    """
    n = len(group)
    if any(len(features) != n for features in (*ours, *theirs)):
        raise ResultError(f"CKA needs features of the same images: {n} images, and features of another number.")
    shape = (len(ours), len(theirs))
    count = np.bincount(group, minlength=groups).astype(np.float64)
    if n < LEAST:
        return Similarity(np.full(shape, np.nan), np.full(shape, np.nan), n, n)
    left_out: list[int | None] = [None]
    if (count > 0).all() and n - count.max() >= LEAST:
        left_out += range(groups)
    sums = [{name: np.zeros(size) for name, size in (("ab", shape), ("aa", shape[0]), ("bb", shape[1]))}
            for _ in left_out]  # fmt: skip
    largest = 0
    for chosen in _minibatches(n):
        largest = max(largest, len(chosen))
        K, L = (np.stack([_products(features[chosen]) for features in side]) for side in (ours, theirs))
        for row, g in zip(sums, left_out, strict=True):
            rest = slice(None) if g is None else np.flatnonzero(group[chosen] != g)
            k, other = (matrix[:, rest][:, :, rest] for matrix in (K, L))
            m = k.shape[1]
            if m < LEAST:
                continue
            row["ab"] += m * hsic(k, other)
            row["aa"] += m * np.array([hsic(gram[None], gram[None])[0, 0] for gram in k])
            row["bb"] += m * np.array([hsic(gram[None], gram[None])[0, 0] for gram in other])
    values = np.stack([_ratio(row) for row in sums])
    error = np.full(shape, np.nan)
    if len(values) > 1:
        error = np.sqrt(jackknife_variance(values[0], values[1:], count))
        error[error < ROUNDING] = 0.0  # of a layer with itself
    return Similarity(values[0], error, n, largest)


def hsic(K: Array, L: Array) -> Array:
    """Unbiased HSIC (A, B) of products of images (A, n, n) and (B, n, n), whose diagonals are 0."""
    n = K.shape[1]
    together = K.reshape(len(K), -1) @ L.reshape(len(L), -1).T  # tr(K L), both symmetric
    rows, columns = K.sum(2), L.sum(2)
    ends = np.outer(rows.sum(1), columns.sum(1)) / ((n - 1) * (n - 2))
    return np.asarray((together + ends - 2 / (n - 2) * (rows @ columns.T)) / (n * (n - 3)))


def _products(X: Array) -> Array:
    """X X^T with a diagonal of 0, of features minus their mean, which HSIC_1 does not see, over their spread."""
    centred = X - X.mean(0)
    scale = np.sqrt((centred**2).mean()) or 1.0
    products = (centred / scale) @ (centred / scale).T
    np.fill_diagonal(products, 0)
    return np.asarray(products)


def _ratio(sums: Mapping[str, Array]) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(
            np.outer(np.where(sums["aa"] > 0, sums["aa"], np.nan), np.where(sums["bb"] > 0, sums["bb"], np.nan))
        )
        return np.asarray(sums["ab"] / scale)


def _minibatches(n: int) -> Iterator[NDArray[np.int64]]:
    """The images of each minibatch: a fixed permutation in parts of one size, to one image."""
    order = np.random.Generator(np.random.PCG64(n)).permutation(n)
    yield from np.array_split(order, max(round(n / MINIBATCH), 1))

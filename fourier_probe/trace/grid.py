"""Any layout of feature maps -> (B, C, H, W). Imports torch and errors only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from fourier_probe.errors import PointError

PREFIX_LIMIT = 32  # class, distillation and register tokens; more is no prefix but another sequence

Grid = tuple[int, int]
Kind4D = Literal["nchw", "nhwc"]
Factor = tuple[Literal["b", "f", "y", "x"], int, int]
"""What a part of an axis runs over (images, features, rows, columns), its size, and its stride in rows or columns."""


Evidence = Literal["axes", "layers", "size", "hand", ""]
"""Why a layout is believed: its axes were followed from the image; the layers around it read it so; a grid fits; the
user gave the grid."""


@dataclass(frozen=True)
class Layout:
    """How the features of one probe point lie in memory.

    Attributes:
        kind: "nchw" (B, C, H, W), "nhwc" (B, H, W, C), "tokens" (B, prefix + H * W + suffix, C) in row-major order, or
            "ncl", tokens behind the channels (B, C, prefix + H * W + suffix), or "folded", positions in windows, in
            unfolded patches or in another order that `fold` says.
        grid: (H, W).
        channels: C.
        prefix: leading tokens that are no position: class, distillation, registers. It may differ from layer to layer.
        suffix: trailing tokens that are no position, such as the detection tokens of YOLOS.
        batch: the dimension of the images: 1 where the sequence comes first, (N, B, C).
        fold: of "folded", the parts of each axis: what they run over, their size and their stride.
        evidence: why this is believed; not part of what two layouts are compared by.
    """

    kind: Literal["nchw", "nhwc", "tokens", "ncl", "folded"]
    grid: Grid
    channels: int
    prefix: int = 0
    suffix: int = 0
    batch: int = 0
    fold: tuple[tuple[Factor, ...], ...] = ()
    evidence: Evidence = field(default="", compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the features of one image."""
        if self.kind == "folded":
            sizes = [math.prod(size for along, size, _ in axis if along != "b") for axis in self.fold]
            return tuple(sizes[: self.batch] + sizes[self.batch + 1 :]) if sizes[self.batch] == 1 else tuple(sizes)
        H, W = self.grid
        N = self.prefix + H * W + self.suffix
        shapes = {"tokens": (N, self.channels), "ncl": (self.channels, N), "nchw": (self.channels, H, W)}
        return shapes.get(self.kind, (H, W, self.channels))

    def fits(self, features: Tensor) -> bool:
        """Whether these are features of this layout, of any number of images."""
        return self.fits_shape(tuple(features.shape))

    def fits_shape(self, shape: tuple[int, ...]) -> bool:
        """Whether features of this shape may be of this layout."""
        if self.kind == "folded":
            sizes = [math.prod(size for along, size, _ in axis if along != "b") for axis in self.fold]
            return len(shape) == len(sizes) and all(
                length % size == 0 if index == self.batch else length == size
                for index, (length, size) in enumerate(zip(shape, sizes, strict=True))
            )
        return shape[: self.batch] + shape[self.batch + 1 :] == self.shape

    def __call__(self, features: Tensor, *, name: str = "features") -> Tensor:
        """Lay features out as (B, C, H, W): a view, nothing is copied unless they are folded.

        Raises:
            PointError: the features have another shape than this layout; names the point and both shapes.
        """
        if not self.fits(features):
            wanted = list(map(str, self.shape))
            wanted.insert(self.batch, "B")
            raise PointError(
                f"{name} gave features of shape {tuple(features.shape)}, expected ({', '.join(wanted)}) ({self.kind}): "
                "all images of an analysis must have the size of the first batch."
            )
        if self.kind == "folded":
            return self._unfolded(features)
        features = features.movedim(self.batch, 0) if self.batch else features
        if self.kind in ("tokens", "ncl"):
            sequence = features.transpose(1, 2) if self.kind == "tokens" else features  # (B, C, N)
            H, W = self.grid
            return sequence[:, :, self.prefix : self.prefix + H * W].reshape(len(features), self.channels, H, W)
        return features if self.kind == "nchw" else features.permute(0, 3, 1, 2)

    def _unfolded(self, features: Tensor) -> Tensor:
        factors = [factor for axis in self.fold for factor in axis]
        split = features.reshape([-1 if along == "b" else size for along, size, _ in factors])
        order = sorted(range(len(factors)), key=lambda at: ("bfyx".index(factors[at][0]), -factors[at][2]))
        return split.permute(order).reshape(-1, self.channels, *self.grid)


def infer_layout(shape: Sequence[int], known: Sequence[Grid], *, evidence: Kind4D | None = None) -> Layout | None:
    """The layout of features of this shape, from what is known and never from a guess.

    Args:
        shape: of the features, with the batch first.
        known: grids of maps seen earlier in the same forward, the latest last: of convolutions and poolings, whose
            layout is certain, and of the image itself. A token sequence is laid out on the latest of them that fits it,
            exactly if one does, else with the fewest prefix tokens. The square root of its length is not evidence.
        evidence: the layout that the modules around a 4-D tensor read it in, where there are such modules.

    Returns:
        The layout, or None where the shape admits none, or the evidence more than one.
    """
    if len(shape) == 3:
        N, C = shape[1:]
        fits = [(N - H * W, -age, (H, W)) for age, (H, W) in enumerate(known) if 0 <= N - H * W <= PREFIX_LIMIT]
        fits = [fit for fit in fits if fit[2] != (1, 1) or N == 1]  # one position leaves no grid to speak of
        if not fits:
            return None
        prefix, _, grid = min(fits)
        return Layout("tokens", grid, C, prefix, evidence="size")
    if len(shape) != 4:
        return None
    told: Evidence = "layers" if evidence else "size"
    if evidence is None:
        as_nchw, as_nhwc = (shape[2], shape[3]) in known, (shape[1], shape[2]) in known
        if as_nchw == as_nhwc:
            return None
        evidence = "nchw" if as_nchw else "nhwc"
    if evidence == "nchw":
        return Layout("nchw", (shape[2], shape[3]), shape[1], evidence=told)
    return Layout("nhwc", (shape[1], shape[2]), shape[3], evidence=told)

"""Any layout of feature maps -> (B, C, H, W). Imports torch and errors only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fourier_probe.errors import PointError

PREFIX_LIMIT = 32  # class, distillation and register tokens; more is no prefix but another sequence

Grid = tuple[int, int]
Kind4D = Literal["nchw", "nhwc"]


@dataclass(frozen=True)
class Layout:
    """How the features of one probe point lie in memory.

    Attributes:
        kind: "nchw" (B, C, H, W), "nhwc" (B, H, W, C), or "tokens" (B, prefix + H * W, C) in row-major order.
        grid: (H, W).
        channels: C.
        prefix: leading tokens that are no position: class, distillation, registers. It may differ from layer to layer.
    """

    kind: Literal["nchw", "nhwc", "tokens"]
    grid: Grid
    channels: int
    prefix: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the features of one image."""
        H, W = self.grid
        if self.kind == "tokens":
            return (self.prefix + H * W, self.channels)
        return (self.channels, H, W) if self.kind == "nchw" else (H, W, self.channels)

    def fits(self, features: Tensor) -> bool:
        """Whether these are features of this layout, of any number of images."""
        return tuple(features.shape[1:]) == self.shape

    def __call__(self, features: Tensor, *, name: str = "features") -> Tensor:
        """Lay features out as (B, C, H, W): a view, nothing is copied.

        Raises:
            PointError: the features have another shape than this layout; names the point and both shapes.
        """
        if not self.fits(features):
            wanted = ", ".join(map(str, self.shape))
            raise PointError(
                f"{name} gave features of shape {tuple(features.shape)}, expected (B, {wanted}) ({self.kind}): "
                "all images of an analysis must have the size of the first batch."
            )
        if self.kind == "tokens":
            B = len(features)
            return features[:, self.prefix :].transpose(1, 2).reshape(B, self.channels, *self.grid)
        return features if self.kind == "nchw" else features.permute(0, 3, 1, 2)


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
        return Layout("tokens", grid, C, prefix)
    if len(shape) != 4:
        return None
    if evidence is None:
        as_nchw, as_nhwc = (shape[2], shape[3]) in known, (shape[1], shape[2]) in known
        if as_nchw == as_nhwc:
            return None
        evidence = "nchw" if as_nchw else "nhwc"
    if evidence == "nchw":
        return Layout("nchw", (shape[2], shape[3]), shape[1])
    return Layout("nhwc", (shape[1], shape[2]), shape[3])

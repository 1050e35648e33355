"""Attention over a grid of tokens, as a part of spectra.json. May import probe and bounds.

The definitions are those of `probe.attention`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
from msgspec import Meta

from fourier_probe.results.bounds import Count, Frequency, Share, Side, Size

if TYPE_CHECKING:
    from fourier_probe.probe.attention import AttentionLayer


class AttentionErrors(msgspec.Struct, frozen=True, kw_only=True):
    """Standard errors over images, null under 20 of them: of each head, or one number of the layer.

    Attributes:
        distance, nmi: of each head. diversity, mean_nmi: one number each.
    """

    distance: list[Size | None] | None = None
    nmi: list[Size | None] | None = None
    diversity: Annotated[list[Size | None], Meta(min_length=1, max_length=1)] | None = None
    mean_nmi: Annotated[list[Size | None], Meta(min_length=1, max_length=1)] | None = None


class AttentionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One attention layer whose tokens lie on a grid, means over images.

    Attributes:
        name: of the module. grid: (H, W) of its tokens.
        distance: of each head, mean attention distance, pixels. uniform: that of attention that is the same everywhere.
        diversity: standard deviation of `distance` over heads, pixels.
        frequency: pi rad/sample per axis of the token grid. response: of each head, the gain there, 1 at frequency 0.
        gate: of each head of a gated layer, the share of the positional half.
        nmi: of each head, normalised mutual information of queries and keys.
        images: how many were looked at. stderr_of: standard errors.
    """

    name: str
    grid: tuple[Side, Side]
    distance: Annotated[list[Size], Meta(min_length=1)]
    diversity: Size
    uniform: Size
    frequency: Annotated[list[Frequency], Meta(min_length=1)]
    response: list[list[Annotated[float, Meta(ge=0, le=1.001)]]]
    gate: list[Share] | None = None
    images: Count | None = None
    nmi: list[Share] | None = None
    stderr_of: AttentionErrors | None = None

    def __post_init__(self) -> None:
        heads, errors = len(self.distance), self.stderr_of or AttentionErrors()
        if len(self.response) != heads or any(len(row) != len(self.frequency) for row in self.response):
            raise ValueError(f"`response` is not of {heads} heads and {len(self.frequency)} frequencies")
        of_heads = {"gate": self.gate, "nmi": self.nmi, "stderr_of.distance": errors.distance,
                    "stderr_of.nmi": errors.nmi}  # fmt: skip
        for name, values in of_heads.items():
            if values is not None and len(values) != heads:
                raise ValueError(f"`{name}` is not of {heads} heads")

    @property
    def gated(self) -> bool:
        """Whether it is a layer with a positional half."""
        return self.gate is not None

    @property
    def diversity_error(self) -> float | None:
        """Standard error of `diversity` over images, where it was computed."""
        errors = None if self.stderr_of is None else self.stderr_of.diversity
        return None if errors is None else errors[0]


def attention_record(layer: AttentionLayer, images: int) -> AttentionRecord:
    """What a result keeps of a layer that was measured on so many images; an error that is not finite becomes null."""
    errors = {
        name: [float(each) if np.isfinite(each) else None for each in value] for name, value in layer.stderr_of.items()
    }
    return AttentionRecord(
        name=layer.name,
        grid=layer.grid,
        distance=layer.distance.tolist(),
        uniform=layer.uniform,
        diversity=layer.diversity,
        frequency=layer.frequency.tolist(),
        response=layer.response.tolist(),
        gate=None if layer.gate is None else layer.gate.tolist(),
        nmi=layer.nmi.tolist(),
        images=images,
        stderr_of=AttentionErrors(**errors),
    )

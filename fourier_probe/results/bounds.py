"""The numbers of results with their bounds, so that a file with an impossible one is refused. Imports nothing of ours.

A bound leaves room for rounding. Values in nats are logarithms of float64 numbers, so within a thousand of 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

SLACK = 1e-6  # of shares that were computed in float32

Count = Annotated[int, Meta(ge=0, le=2**53)]
Side = Annotated[int, Meta(ge=1, le=1 << 20)]
Share = Annotated[float, Meta(ge=-SLACK, le=1 + SLACK)]
"""A share, a probability, a gate, or a depth from 0 to 1."""
Correlation = Annotated[float, Meta(ge=-1 - SLACK, le=1 + SLACK)]
Nats = Annotated[float, Meta(ge=-1e4, le=1e4)]
"""A logarithm, or a difference of two."""
Size = Annotated[float, Meta(ge=0)]
"""What is never negative: a distance, a norm, a standard error."""
Finite = Annotated[float, Meta(ge=-1e100, le=1e100)]
"""What can be squared and summed."""
Frequency = Annotated[float, Meta(ge=0, le=1 + SLACK)]
"""Along the diagonal, pi rad/sample per axis."""
Radius = Annotated[float, Meta(ge=0, le=1.5)]
"""Of a 2-D frequency, 1 being Nyquist of an axis; the corners are at the square root of 2."""
Pixel = Annotated[float, Meta(ge=0, le=1 + SLACK)]
"""A mean of pixels: black is 0, white 1."""
Spread = Annotated[float, Meta(gt=0, le=2)]
"""What pixels are divided by: their standard deviation is at most 0.5, and networks without any say 1."""

SCALARS: Mapping[str, tuple[float, float]] = {
    "hfd_share": (0, 1),
    "hfd_share_pooled": (0, 1),
    "slope": (-1e4, 1e4),
    "variance": (0, float("inf")),
    "ac_dc": (0, float("inf")),
    "token_cosine": (-1, 1),
    "white_delta": (-1e4, 1e4),
    "effective_rank": (0, 1 << 40),
}
"""Least and largest value of each scalar of this package, rounding aside."""


def out_of_range(name: str, value: float) -> str:
    """What is wrong with the value of a scalar; empty where nothing is, or where its range is not known.

    >>> out_of_range("hfd_share", 1e308)
    'expected `float` from 0 to 1, got 1e+308'
    >>> out_of_range("hfd_share", 0.5), out_of_range("of_a_plugin", 1e308)
    ('', '')
    """
    least, most = SCALARS.get(name, (-float("inf"), float("inf")))
    room = 100 * SLACK
    if least - room <= value <= most + room or value != value:
        return ""
    return f"expected `float` from {least:g} to {most:g}, got {value:g}"

"""Responses of kernels as a part of spectra.json, and their tables. Imports bounds.

The definitions are those of `probe.kernels`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from fourier_probe.results.bounds import Count, Nats, Radius, Share, Size

if TYPE_CHECKING:
    import pandas as pd

Pair = tuple[Count, Count]


class KernelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The response of one convolution or attention layer; see `probe.kernels.KernelResponse`.

    Null is where there is no such number: an error under 20 outputs, or the logarithm of no power.
    """

    name: str
    kind: Literal["dense", "grouped", "depthwise", "transposed", "attention"]
    depth: Share
    size: Pair
    stride: Pair
    dilation: Pair
    groups: Count
    inputs: Count
    outputs: Count
    radius: Annotated[list[Radius], Meta(min_length=2)]
    log_power: list[Nats | None]
    stderr: list[Size | None]
    tilt: Nats | None = None
    tilt_stderr: Size | None = None
    norm: Size

    def __post_init__(self) -> None:
        if not len(self.radius) == len(self.log_power) == len(self.stderr):
            raise ValueError("`radius`, `log_power` and `stderr` are not of one length")

    @property
    def taps(self) -> int:
        """Number of taps; a kernel of one passes every frequency alike."""
        return self.size[0] * self.size[1]


def kernels_frame(kernels: Sequence[KernelRecord]) -> pd.DataFrame:
    """A row per layer and radius."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                **{name: getattr(kernel, name) for name in ("name", "kind", "depth")},
                **{f"{name}_{axis}": getattr(kernel, name)[at]
                   for name in ("size", "stride", "dilation") for at, axis in enumerate("yx")},
                **{name: getattr(kernel, name) for name in ("groups", "inputs", "outputs", "norm")},
                "radius": radius, "log_power": value, "stderr": error,
            }
            for kernel in kernels
            for radius, value, error in zip(kernel.radius, kernel.log_power, kernel.stderr, strict=True)
        ]
    )  # fmt: skip


def kernels_table(kernels: Sequence[KernelRecord], t95: float) -> pd.DataFrame:
    """A row per layer with more than one tap: its tilt, the two ends of its response, and what it is."""
    import pandas as pd

    rows = [
        {
            "layer": kernel.name,
            "kind": kernel.kind,
            "kernel": "x".join(map(str, kernel.size)),
            "channels": f"{kernel.inputs} to {kernel.outputs}"
            if kernel.kind != "attention"
            else f"{kernel.outputs} heads",
            "depth": kernel.depth,
            "at 0": _nan(kernel.log_power[0]),
            "at 1": _nan(kernel.log_power[-1]),
            "tilt": _nan(kernel.tilt),
            "± 95 %": t95 * _nan(kernel.tilt_stderr),
        }
        for kernel in kernels
        if kernel.taps > 1
    ]
    return pd.DataFrame(rows)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value

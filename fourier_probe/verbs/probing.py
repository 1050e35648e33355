"""Where to listen and what to compute, as one record: the flags of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from fourier_probe.errors import ModelError, ResultError, suggest
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.points import Point
from fourier_probe.runtime.distributed import device_of

AMP = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ProbeOptions:
    """Where to listen, and what to compute; the flags of the same names.

    Attributes:
        points: globs of module or point names, or `Point`s; the model's own points by default.
        branches: also the branches of EIT and the halves of gated attention.
        definition: logarithm, window, axis, metrics.
        maps: the mean 2-D log-amplitude of each point, and its figure.
        map_scale: colours of that figure: "common" to all panels, or one per "panel".
        attention: also distance, diversity, response, NMI and gates of each attention layer, and reliance.
        kernels: also the response of each convolution, and with `attention` of each attention map, as filters.
        tokens: also effective rank and singular values of the tokens of each image.
        cka: also how alike all points are.
        strict: stop where a step cannot be read or a map lies elsewhere than said.
        self_check: test where the maps lie, with a few forwards of one image.
        grid: (H, W) of token sequences whose order cannot be learnt.
        device: where to run; null leaves a network where it is and takes a GPU, where there is one, for a named target.
        amp: null, "bf16" or "fp16": the precision of the forward.
        channels_last: whether images and convolutions lie channels-last in memory; null: where that is the rule.
    """

    points: Sequence[str] | Sequence[Point] = ()
    branches: bool = True
    definition: Definition = field(default_factory=Definition)
    maps: bool = False
    map_scale: str = "common"
    attention: bool = False
    kernels: bool = False
    tokens: bool = False
    cka: bool = False
    strict: bool = False
    self_check: bool = True
    grid: tuple[int, int] | None = None
    device: torch.device | str | None = None
    amp: str | torch.dtype | None = None
    channels_last: bool | None = None

    def __post_init__(self) -> None:
        if isinstance(self.device, str):
            object.__setattr__(self, "device", device_of(self.device))
        if isinstance(self.amp, str) and self.amp not in AMP:
            raise ModelError(f"amp {self.amp!r}: expected bf16, fp16 or none.{suggest(self.amp, AMP)}")
        if self.map_scale not in ("common", "panel"):
            raise ResultError(f"map_scale {self.map_scale!r}: expected common or panel.")

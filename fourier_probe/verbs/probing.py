"""Where to listen and what to compute, as one record: the flags of the same names."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fourier_probe.errors import ModelError, ResultError, suggest
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.measuring import Listen
from fourier_probe.runtime.distributed import device_of

AMP = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_of(amp: str | torch.dtype | None) -> torch.dtype | None:
    """The type that a forward runs in under `amp`; None: that of the weights.

    Raises:
        ModelError: there is no precision of this name.
    """
    if not isinstance(amp, str):
        return amp
    if amp not in AMP:
        raise ModelError(f"amp {amp!r}: expected bf16, fp16 or none.{suggest(amp, AMP)}")
    return AMP[amp]


@dataclass(frozen=True)
class ProbeOptions(Listen):
    """Where to listen, and what to compute; the flags of the same names.

    Attributes:
        definition: logarithm, window, axis, metrics.
        map_scale: colours of the figure of maps: "common" to all panels, or one per "panel".
        attention: also distance, diversity, response, NMI and gates of each attention layer, and reliance.
        kernels: also the response of each convolution, and with `attention` of each attention map, as filters.
        device: where to run; null leaves a network where it is and takes a GPU, where there is one, for a named target.
        amp: null, "bf16" or "fp16": the precision of the forward.
        channels_last: whether images and convolutions lie channels-last in memory; null: where that is the rule.
    """

    definition: Definition = field(default_factory=Definition)
    map_scale: str = "common"
    attention: bool = False
    kernels: bool = False
    device: torch.device | str | None = None
    amp: str | torch.dtype | None = None
    channels_last: bool | None = None

    def __post_init__(self) -> None:
        if isinstance(self.device, str):
            object.__setattr__(self, "device", device_of(self.device))
        precision_of(self.amp)
        if self.map_scale not in ("common", "panel"):
            raise ResultError(f"map_scale {self.map_scale!r}: expected common or panel.")

"""How to make the model of a target that is named. Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelOptions:
    """How to make the model of a target that is named; the flags of the same names.

    Attributes:
        model: architecture of the files that do not say: timm's, ours, `torchvision:NAME`, or file.py:factory.
        model_args: its arguments.
        pretrained: for `timm:NAME` and `torchvision:NAME`, fetch the published weights.
        use_ema: the EMA weights or the raw ones; by default EMA where the file has it.
        untrained: the same architecture before any training.
        key: where in the file the weights are: "ema.model".
        prefix: take the weights whose names begin with it, without it.
        ignore_extra: leave out weights that the network has no place for.
    """

    model: str | None = None
    model_args: dict[str, Any] | None = None
    pretrained: bool = False
    use_ema: bool | None = None
    untrained: bool = False
    key: str | None = None
    prefix: str | None = None
    ignore_extra: bool = False

    def __bool__(self) -> bool:
        return self != ModelOptions(model_args=self.model_args if not self.model_args else None)

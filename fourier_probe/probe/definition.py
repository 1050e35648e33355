"""What exactly is computed of a feature map: logarithm, window, axis, groups. Imports torch and errors only."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fourier_probe.errors import ResultError


@dataclass(frozen=True)
class Definition:
    """What exactly is computed; written into every result, and compared before results are.

    Attributes:
        log: "floor" is ln(|F| + floor), as published; "log1p" is ln(1 + |F|); "plain" is ln|F|.
        floor: the floor of "floor", in the units of |F|.
        window: "none", or "hann": the map minus its mean is multiplied by a periodic Hann window of unit mean square
            on both axes, and the mean is put back, so that borders do not leak and the DC bin stays what it was.
        axis: "true" puts bin j of an axis of N at 2 j / N; "paper" reproduces the published axis, which leaves out the
            Nyquist bin and draws the last one at 1.0.
        metrics: "all", or "diagonal" for log-amplitude along the diagonal alone.
        groups: number of image groups for the jackknife.
        grouping: how images went into groups, see `probe.groups`; None before an analysis, and in results of version 1,
            whose groups were the index modulo `groups`.

    >>> Definition(log="log1p").formula, Definition.from_json(Definition().to_json()) == Definition()
    ('ln(1+|F|)', True)
    """

    log: Literal["floor", "log1p", "plain"] = "floor"
    floor: float = 1e-6
    window: Literal["none", "hann"] = "none"
    axis: Literal["true", "paper"] = "true"
    metrics: Literal["all", "diagonal"] = "all"
    groups: int = 20
    grouping: Literal["permutation", "stream"] | None = None

    def __post_init__(self) -> None:
        for name, allowed in (
            ("log", ("floor", "log1p", "plain")),
            ("window", ("none", "hann")),
            ("axis", ("true", "paper")),
            ("metrics", ("all", "diagonal")),
            ("grouping", (None, "permutation", "stream")),
        ):
            if getattr(self, name) not in allowed:
                raise ResultError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(str, allowed))}.")
        if self.log == "floor" and not 0 < self.floor < math.inf:
            raise ResultError(f"floor={self.floor} must be positive and finite; use log='plain' for ln|F| without one.")
        if self.groups < 2:
            raise ResultError(f"groups={self.groups}: a jackknife needs at least 2.")

    @property
    def formula(self) -> str:
        """The logarithm as a formula.

        >>> Definition().formula
        'ln(|F|+1e-6)'
        """
        floor = f"{self.floor:g}".replace("e-0", "e-")
        return {"floor": f"ln(|F|+{floor})", "log1p": "ln(1+|F|)", "plain": "ln|F|"}[self.log]

    def to_json(self) -> dict[str, object]:
        """Plain values for the result file; `log` becomes the formula."""
        return {**asdict(self), "log": self.formula, "log_kind": self.log}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Definition:
        """The inverse of `to_json`."""
        return cls(
            **{k: value[k] for k in ("floor", "window", "axis", "metrics", "groups")},
            log=value["log_kind"],
            grouping=value.get("grouping"),
        )

    def log_of(self, amplitude: Tensor) -> Tensor:
        """The logarithm of |F|, nats."""
        if self.log == "floor":
            return (amplitude + self.floor).log()
        if self.log == "log1p":
            return amplitude.log1p()
        return amplitude.clamp_min(torch.finfo(torch.float32).tiny).log()

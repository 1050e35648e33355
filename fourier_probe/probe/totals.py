"""What one process has seen of a network: sums, never images; ranks merge by addition. May import points, sums, cka."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fourier_probe.probe.cka import Pooled
from fourier_probe.probe.groups import Grouping
from fourier_probe.probe.points import Point
from fourier_probe.probe.sums import Sums
from fourier_probe.runtime.distributed import rank_and_world
from fourier_probe.trace import coverage as trace_coverage


@dataclass
class Totals:
    """What one process has seen: sums, never images."""

    points: list[Point] = field(default_factory=list)
    gates: dict[str, list[float]] = field(default_factory=dict)  # a head, of the points on halves of gated attention
    sums: dict[str, Sums] = field(default_factory=dict)
    images: Sums | None = None  # of the images themselves
    pooled: Pooled | None = None  # features of each image, for CKA
    shape: tuple[int, int, int] = (0, 0, 0)  # of an image: C, H, W
    count: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))  # images of each group
    labelled: int = 0
    correct: int = 0
    digest: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.int64))
    channels_last: bool = False
    no_top1: str = ""  # why there is no top-1 although there are labels
    coverage: trace_coverage.Coverage | None = None  # None where points were chosen
    grouping: Grouping | None = None  # None: this process has seen no image

    def merge(self, other: Totals) -> None:
        """Add what another process has seen."""
        self.points, self.gates = self.points or other.points, self.gates or other.gates
        for name, sums in other.sums.items():
            self.sums.setdefault(name, Sums(sums.groups)).merge(sums)
        if other.images is not None:
            self.images = self.images or Sums(other.images.groups)
            self.images.merge(other.images)
        self.shape = self.shape if any(self.shape) else other.shape
        if other.pooled is not None:
            self.pooled = self.pooled or Pooled()
            self.pooled.merge(other.pooled)
        self.count = self.count + other.count
        self.labelled += other.labelled
        self.correct += other.correct
        self.digest = self.digest + other.digest
        self.channels_last = self.channels_last or other.channels_last
        self.no_top1 = self.no_top1 or other.no_top1
        self.grouping = self.grouping or other.grouping
        self.coverage = self.coverage or other.coverage


def merge_ranks(totals: Totals) -> Totals:
    """The sums of all ranks, on every one of them."""
    world = rank_and_world()[1]
    if world == 1:
        return totals
    totals.sums = {name: sums.cpu() for name, sums in totals.sums.items()}
    totals.images = None if totals.images is None else totals.images.cpu()
    gathered: list[Totals] = [totals] * world
    torch.distributed.all_gather_object(gathered, totals)
    merged = Totals(count=torch.zeros_like(totals.count))
    for part in gathered:
        merged.merge(part)
    return merged

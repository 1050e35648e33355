"""Sums of image statistics in image groups, and jackknife errors of what is computed from them. May import spectrum.

Sums go into G groups by global image index mod G, in float64: additive, constant in memory, and the same groups for
every model that sees the same images, which is what makes intervals of differences between models paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fourier_probe.probe.spectrum import Statistics

Array = NDArray[np.float64]


@dataclass
class Sums:
    """Running sums of one probe point, on the device of the model.

    Attributes:
        groups: number of image groups G.
        sums: name -> (G, ...) float64, the sum over the images of each group.
        flat: (C,) the largest relative standard deviation over positions any image gave each channel.
        bad: number of images whose statistics were not finite.
    """

    groups: int
    sums: dict[str, Tensor] = field(default_factory=dict)
    flat: Tensor | None = None
    bad: Tensor | None = None

    def update(self, statistics: Statistics, group: Tensor) -> None:
        """Add a batch.

        Args:
            statistics: see `image_statistics`; the first dimension is the image.
            group: (B,) int64, the group of each image.
        """
        # A NaN or infinity anywhere in an image's statistics makes their total one.
        total = torch.stack([value.reshape(len(value), -1).sum(1) for value in statistics.values()]).sum(0)
        bad = (~total.isfinite()).sum()
        self.bad = bad if self.bad is None else self.bad + bad
        for name, value in statistics.items():
            if name == "flat":
                largest = value.amax(0)
                self.flat = largest if self.flat is None else torch.maximum(self.flat, largest)
                continue
            if name not in self.sums:
                self.sums[name] = torch.zeros((self.groups, *value.shape[1:]), dtype=torch.float64, device=value.device)
            self.sums[name].index_add_(0, group, value.double())

    def merge(self, other: Sums) -> None:
        """Add what another process or shard saw of the same point."""
        for name, value in other.sums.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        if other.flat is not None:
            self.flat = other.flat if self.flat is None else torch.maximum(self.flat, other.flat)
        if other.bad is not None:
            self.bad = other.bad if self.bad is None else self.bad + other.bad

    def cpu(self) -> Sums:
        """The same sums on the CPU."""
        sums = {name: value.cpu() for name, value in self.sums.items()}
        flat = None if self.flat is None else self.flat.cpu()
        return Sums(self.groups, sums, flat, None if self.bad is None else self.bad.cpu())

    def arrays(self) -> dict[str, Array]:
        """The group sums as numpy arrays."""
        return {name: value.cpu().numpy() for name, value in self.sums.items()}


Estimates = dict[str, Array]


def jackknife(
    estimate: Callable[[Mapping[str, Array]], Estimates], sums: Mapping[str, Array]
) -> tuple[Estimates, Estimates]:
    """Estimates from all images and their delete-a-group jackknife standard errors.

    Args:
        estimate: maps sums with a leading axis (M, ...) to estimates with the same leading axis.
        sums: (G, ...) sums by group; "count" (G,) is the number of images of each.

    Returns:
        Estimates without the leading axis, and their standard errors sqrt((G - 1) / G sum_g (t_g - mean t)^2), t_g
        being the estimate without group g; NaN when a group is empty, as it is with fewer images than groups.

    >>> values = np.arange(20.0)  # one image a group: the jackknife of a mean is its classical standard error
    >>> value, error = jackknife(lambda s: {"mean": s["x"] / s["count"]}, {"x": values, "count": np.ones(20)})
    >>> float(value["mean"]), bool(np.isclose(error["mean"], values.std(ddof=1) / 20**0.5))
    (9.5, True)
    """
    total = {name: value.sum(0) for name, value in sums.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = {name: value[0] for name, value in estimate({k: v[None] for k, v in total.items()}).items()}
        if (sums["count"] == 0).any():
            return whole, {name: np.full(np.shape(value), np.nan) for name, value in whole.items()}
        partial = estimate({name: total[name] - value for name, value in sums.items()})
        groups = len(sums["count"])
        errors = {
            name: np.sqrt((groups - 1) / groups * ((value - value.mean(0)) ** 2).sum(0))
            for name, value in partial.items()
        }
    return whole, errors

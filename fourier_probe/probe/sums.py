"""Sums of image statistics in image groups, and jackknife errors of what is computed from them. May import metrics.

Sums go into G groups (`probe.groups`), in float64: additive, constant in memory, and the same groups for every model
that sees the same images, which is what makes intervals of differences between models paired.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from fourier_probe.probe.metrics import Statistics
from fourier_probe.runtime.accelerator import wide

Array = NDArray[np.float64]


@functools.lru_cache(maxsize=16)
def quantile(groups: int) -> float:
    """Standard errors of a 95 % interval from a jackknife over G groups: Student's t with G - 1 degrees of freedom.

    >>> round(quantile(20), 3), round(quantile(10), 3)
    (2.093, 2.262)
    """
    return float(stdtrit(groups - 1, 0.975))


@dataclass
class Sums:
    """Running sums of one probe point, on the device of the model or, where that has no float64, on the CPU.

    Attributes:
        groups: number of image groups G.
        shapes: name -> shape of one image's statistic, in the order in which they stand side by side.
        rows: (G, D) float64, the sums over the images of each group of all statistics side by side.
        flat: (C,) the largest relative standard deviation over positions any image gave each channel.
        bad: number of images whose statistics were not finite, but for those of metrics that users added.
    """

    groups: int
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    rows: Tensor | None = None
    flat: Tensor | None = None
    bad: Tensor | None = None

    def update(self, statistics: Statistics, group: Tensor) -> None:
        """Add a batch.

        Args:
            statistics: see `image_statistics`; the first dimension is the image.
            group: (B,) int64, the group of each image.
        """
        summed = {name: value for name, value in statistics.items() if name != "flat"}
        rows = wide(torch.cat([value.reshape(len(group), -1) for value in summed.values()], 1))  # (B, D)
        if self.rows is None:
            self.shapes = {name: value.shape[1:] for name, value in summed.items()}
            self.rows = rows.new_zeros(self.groups, rows.shape[1])
        self.rows.index_add_(0, group.to(rows.device), rows)
        ours = sum(value.shape[1:].numel() for name, value in summed.items() if "." not in name)
        # The metrics of users come last. A NaN or infinity anywhere in an image's statistics makes their total one.
        finite = rows[:, :ours].sum(1).isfinite()
        self.bad = _both(self.bad, (~finite).sum(), torch.add)
        if "flat" in statistics:
            self.flat = _both(self.flat, statistics["flat"].amax(0), torch.maximum)

    def merge(self, other: Sums) -> None:
        """Add what another process or shard saw of the same point."""
        self.shapes = self.shapes or other.shapes
        self.rows = _both(self.rows, other.rows, torch.add)
        self.flat = _both(self.flat, other.flat, torch.maximum)
        self.bad = _both(self.bad, other.bad, torch.add)

    def cpu(self) -> Sums:
        """The same sums on the CPU."""
        rows, flat, bad = (None if value is None else value.cpu() for value in (self.rows, self.flat, self.bad))
        return Sums(self.groups, self.shapes, rows, flat, bad)

    def arrays(self) -> dict[str, Array]:
        """The group sums as numpy arrays, name -> (G, ...)."""
        if self.rows is None:
            return {}
        parts = torch.split(self.rows.cpu(), [shape.numel() for shape in self.shapes.values()], 1)
        return {
            name: part.reshape(self.groups, *shape).numpy()
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


def _both(ours: Tensor | None, theirs: Tensor | None, together: Callable[[Tensor, Tensor], Tensor]) -> Tensor | None:
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    return together(ours, theirs)


Estimates = dict[str, Array]


def jackknife(
    estimate: Callable[[Mapping[str, Array]], Estimates], sums: Mapping[str, Array]
) -> tuple[Estimates, Estimates]:
    """Estimates from all images and their delete-a-group jackknife standard errors.

    Args:
        estimate: maps sums with a leading axis (M, ...) to estimates with the same leading axis.
        sums: (G, ...) sums by group; "count" (G,) is the number of images of each.

    Returns:
        Estimates without the leading axis, and their standard errors, see `jackknife_variance`; NaN when a group is
        empty, as it is with fewer images than groups.

    >>> values = np.arange(20.0)  # one image per group: the jackknife of a mean is its classical standard error
    >>> value, error = jackknife(lambda s: {"mean": s["x"] / s["count"]}, {"x": values, "count": np.ones(20)})
    >>> float(value["mean"]), bool(np.isclose(error["mean"], values.std(ddof=1) / 20**0.5))
    (9.5, True)
    """
    total = {name: value.sum(0) for name, value in sums.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        estimates = {name: value[0] for name, value in estimate({k: v[None] for k, v in total.items()}).items()}
        if (sums["count"] == 0).any():
            return estimates, {name: np.full(np.shape(value), np.nan) for name, value in estimates.items()}
        partial = estimate({name: total[name] - value for name, value in sums.items()})
        errors = {
            name: np.sqrt(jackknife_variance(estimates[name], value, sums["count"])) for name, value in partial.items()
        }
    return estimates, errors


def jackknife_variance(estimate: Array, partial: Array, count: Array) -> Array:
    """Delete-a-group jackknife variance of an estimate, for groups of unequal size.

    With h_g = n / n_g and t_g the estimate without group g, the pseudo-values are h_g t - (h_g - 1) t_g, the jackknife
    estimate is G t - sum_g (1 - 1 / h_g) t_g, and the variance is the mean over groups of their squared difference over
    h_g - 1. For groups of one size it is (G - 1) / G sum_g (t_g - mean t)^2.

    Args:
        estimate: (...) the estimate t from all images.
        partial: (G, ...) the estimates t_g.
        count: (G,) number of images n_g of each group, above 0.

    Source: Busing, Meijer & van der Leeden, "Delete-m jackknife for unequal m", Statistics and Computing 9 (1999).
    """
    h = (count.sum() / count).reshape(-1, *[1] * (partial.ndim - 1))  # (G, 1, ...)
    moved = partial - estimate  # of differences, which keep their digits
    spread = (1 - 1 / h) * moved
    return np.asarray(((spread.sum(0) - (h - 1) * moved) ** 2 / (h - 1)).mean(0))

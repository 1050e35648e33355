"""`preview`: what a schedule would convert, and when. May import training; no click."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from fourier_probe.training.preview import SchedulePlan


def preview(model: str | nn.Module = "cifar_resnet20", *, schedule: str = "linear", **options: object) -> SchedulePlan:
    """The plan of `train` with the same options: each layer's epoch, parameters and multiply-adds; nothing trains.

    Args:
        model: a name, or a network of one's own.
        schedule: as for `train`.
        **options: other fields of `TrainConfig`.

    Returns:
        The plan: `.layers`, `.switches` (layer -> epoch), `.before`, `.after`, `.to_frame()`, `.plot()`.

    Raises:
        ProbeError: as `train` would.

    >>> plan = preview("cifar_resnet8", epochs=10)
    >>> plan
    SchedulePlan(cifar_resnet8, linear: 1 layers in 10 epochs of 42 steps, 12.2 -> 15.5 M multiply-adds)
    >>> dict(plan.switches)
    {'layer3.0.conv2': 2}
    """
    from fourier_probe.training.config import TrainConfig
    from fourier_probe.training.preview import lay_out

    if isinstance(model, str):
        return lay_out(TrainConfig.of(model=model, schedule=schedule, **options))
    return lay_out(TrainConfig.of(schedule=schedule, **options), model)

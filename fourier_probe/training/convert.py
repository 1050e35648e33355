"""The switch of layers to attention in the middle of training: model, average, optimizer together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fourier_probe.errors import TrainingError
from fourier_probe.models.gpsa.layer import GATE, GPSAConv2d
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.inputs import derived
from fourier_probe.training.optim import adopt
from fourier_probe.training.plan import Plan

EASED_GATE = 1.0
"""Logit lambda that ConViT starts from, 0.73 positional: with `--anneal-gate` on top of it at first the switch costs
nothing, and once that is gone the layer is no convolution any more. At 4 the gates hardly move: docs/training.md."""

_RECAST = 4  # a stream of the seed of its own


def convert_(
    layers: Sequence[str],
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
) -> None:
    """Recast layers in place, here and in the averaged copy, and hand their new parameters to the optimizer.

    The initial queries and keys of a layer depend on the seed and its name only, not on when it converts.

    Raises:
        ModelError: a layer that cannot be recast, or an option that recast does not have.
        TrainingError: model and average have come apart.
    """
    for layer in layers:
        for network in (model, average):
            if network is None:
                continue
            generator = torch.Generator().manual_seed(derived(_RECAST, config.seed, *layer.encode()))
            try:
                recast_(network, [layer], generator=generator, **options(config))
            except TypeError as error:
                raise TrainingError(
                    f"--recast-arg: {error}; expected locality_strength, gate or head_dim, as KEY=NUMBER."
                ) from error
    adopt(optimizer, model, layers)
    if average is not None and list(average.state_dict()) != list(model.state_dict()):
        raise TrainingError("the averaged copy and the model have different weights after a conversion: report this.")


def options(config: TrainConfig) -> dict[str, Any]:
    """Arguments of `recast`: as given, else its own, but a layer that is eased out comes to rest at ConViT's gate."""
    length = config.anneal_epochs if config.anneal_steps < 0 else config.anneal_steps
    eased = length > 0 or config.schedule == "soft"
    coarse: dict[str, object] = {"content_stride": config.content_stride} if config.content_stride != 1 else {}
    if config.content_maps:
        coarse["content_maps"] = config.content_maps
    return {"gate": EASED_GATE if eased else GATE, **coarse, **config.recast_args}


def ease_(model: nn.Module, layers: Sequence[str], plan: Plan, config: TrainConfig, time: float) -> None:
    """Set the annealing shifts of converted layers for `time` epochs; nothing where no annealing was asked for."""
    if not layers or not (plan.schedule.ends or config.anneal_epochs or config.anneal_steps > 0):
        return
    for layer in layers:
        module = model.get_submodule(layer)
        if isinstance(module, GPSAConv2d):
            share = plan.eased(config, layer, time)
            module.anneal(gate=share * config.anneal_gate, locality=share * config.anneal_locality)

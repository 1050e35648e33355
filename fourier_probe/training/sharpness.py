"""Sharpness-aware minimisation (Foret et al., 2021, arXiv 2010.01412): what lies between its two passes. Torch only.

The gradient of a step is taken where the loss is highest nearby, to first order: at w + rho g / |g|. Each process
climbs by the gradient of its own images, as the authors do (m-sharpness), so that nothing is exchanged in the first
pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from fourier_probe.runtime.accelerator import random_state, set_random_state


@contextlib.contextmanager
def climbed(optimizer: torch.optim.Optimizer, rho: float) -> Iterator[None]:
    """Inside, the weights are `rho` further along their gradient; afterwards they are as they were, to the bit.

    Where the gradient is not finite, or nothing but zeros, they stay.
    """
    weights = [
        parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None
    ]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        good = torch.isfinite(norm) & (norm > 0)
        length = torch.where(good, rho / norm, 0.0)
        for weight in weights:
            if weight.grad is not None:
                weight.add_(torch.where(good, weight.grad, 0.0) * length.to(weight.dtype))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)


@contextlib.contextmanager
def statistics_frozen(net: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm normalises over the batch and leaves its running statistics alone."""
    norms = [module for module in net.modules() if getattr(module, "track_running_stats", False)]
    try:
        for module in norms:
            setattr(module, "track_running_stats", False)  # noqa: B010 - no attribute of every module
        yield
    finally:
        for module in norms:
            setattr(module, "track_running_stats", True)  # noqa: B010


def draws_of(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A block in which torch draws what it draws from this call on: the same dropout and drop path again."""
    state = torch.get_rng_state()
    on_device = random_state(device)

    @contextlib.contextmanager
    def again() -> Iterator[None]:
        torch.set_rng_state(state)
        if on_device is not None:
            set_random_state(on_device, device)
        yield

    return again()

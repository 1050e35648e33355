"""What is not the same on all devices: float64, generators, waiting. Imports torch only.

Apple's and many of Intel's GPUs have no float64. Sums that need it are then made on the CPU, of float32 numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def has_float64(device: torch.device) -> bool:
    """Whether the device has float64; `mps` has none, and of `xpu` only some cards, so it counts as having none."""
    return device.type in ("cpu", "cuda", "meta")


def summing(device: torch.device) -> torch.device:
    """Where sums in float64 of what lies on this device are made: there, or on the CPU."""
    return device if has_float64(device) else torch.device("cpu")


def wide(values: Tensor) -> Tensor:
    """Values in float64, on their device or, where that has none, on the CPU.

    >>> wide(torch.ones(2)).dtype
    torch.float64
    """
    return values.to(summing(values.device)).double()


def wait(device: torch.device) -> None:
    """Until the device has done all that it was asked for."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def random_state(device: torch.device) -> Tensor | None:
    """The state of the device's generator; none for the CPU, whose generator is torch's global one."""
    if device.type == "cpu":
        return None
    state: Tensor = torch.get_device_module(device).get_rng_state(device)
    return state


def set_random_state(state: Tensor, device: torch.device) -> None:
    """Put back what `random_state` gave."""
    torch.get_device_module(device).set_rng_state(state, device)

"""Batch statistics over all ranks, on any device: the batch is that of the step, not a rank's part. Imports torch only.

`nn.SyncBatchNorm` takes a GPU and replaces modules. Here modules stay as they are, and so do the names in a state dict:
inside the block every call of `torch.nn.functional.batch_norm` in training, which BatchNorm modules and timm's
make, sums over ranks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fourier_probe.runtime.distributed import Ranks


def synchronised(ranks: Ranks) -> contextlib.AbstractContextManager[object]:
    """Inside, batch normalisation in training takes its statistics over all ranks."""
    return _Synchronised() if ranks.world > 1 else contextlib.nullcontext()


class _Synchronised(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        made = batch_norm if func is F.batch_norm else func
        return made(*args, **(kwargs or {}))


class _Sum(torch.autograd.Function):
    """Sum over ranks; so is its gradient."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` of the images of all ranks; (B, C, ...), statistics in at least float32."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    values = input.to(torch.promote_types(input.dtype, torch.float32))
    axes = [axis for axis in range(values.ndim) if axis != 1]
    shape = (1, -1, *(1,) * (values.ndim - 2))
    own = values.new_full((1,), values.numel() / values.shape[1])
    first: Tensor = _Sum.apply(torch.cat([values.sum(axes), own]))
    count = first[-1].detach()
    mean = first[:-1] / count
    centred = values - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(axes)) / count
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    out = centred * torch.rsqrt(variance + eps).view(shape)
    if weight is not None:
        out = out * weight.view(shape)
    if bias is not None:
        out = out + bias.view(shape)
    return out.to(input.dtype)

"""What a part of a network does: attention, a convolution or an MLP. May import events, layouts and models.recast."""

from __future__ import annotations

import re

from torch import nn

from fourier_probe.models.gpsa.layer import GPSAConv2d
from fourier_probe.trace.events import Call
from fourier_probe.trace.layouts import Forward

ATTENTION = re.compile(r"attn|attention|gpsa(?!conv)|xca|[ms]h?sa|litemla", re.IGNORECASE)
GATE = re.compile(  # attention by name that multiplies channels or positions by a number, or weighs branches
    r"squeeze|effective|channelattn|cbam|gather|coordattn|efficientlocal|stripattn|spatialatt|splitattn|selective",
    re.IGNORECASE,
)


def operation(forward: Forward, calls: list[Call], start: int, end: int) -> str:
    """What a part of a block does, by what ran in it: attention, else a spatial convolution or pooling, else an MLP.

    A part whose spatial convolutions are all recast as GPSA is attention; with only some recast it is a convolution.
    """
    spatial = [
        module
        for call in calls
        for module in call.module.modules()
        if is_spatial(module) and any(True for _ in module.parameters(recurse=False))
    ]
    if spatial and all(isinstance(module, GPSAConv2d) for module in spatial):
        return "attention"
    return made_as(forward, calls, start, end)


def made_as(forward: Forward, calls: list[Call], start: int, end: int) -> str:
    """`operation` with a recast convolution taken for the one it was: points keep their names through a training."""
    ran = [ran for ran in forward.trace.ran if start < ran.when < end]
    recast = {call.name for call in forward.trace.calls if isinstance(call.module, GPSAConv2d)}
    if any(ran.kind == "attention" and ran.owner not in recast for ran in ran):
        return "attention"
    modules = [(f"{call.name}.{name}", m) for call in calls for name, m in call.module.named_modules()]
    for name, module in modules:  # attention without a softmax over positions: its name is all that is left
        kind = type(module).__name__
        gate = GATE.search(kind) or re.search(r"\bse\b", name)
        if ATTENTION.search(kind) and not gate and any(True for _ in module.parameters()):
            return "attention"
    if any(ran.kind in ("conv", "pool") or ran.owner in recast for ran in ran) or any(
        is_spatial(m) for _, m in modules
    ):
        return "conv"
    return "mlp" if any(ran.kind == "linear" for ran in ran) else "conv"


def part_name(forward: Forward, calls: list[Call], start: int, end: int) -> str:
    """What the name of a point says of a part: "attn", "mlp" or "conv", as it was made."""
    made = made_as(forward, calls, start, end)
    return "attn" if made == "attention" else made


def is_spatial(module: nn.Module) -> bool:
    """Whether a layer has a kernel larger than 1."""
    kernel = getattr(module, "kernel_size", 1)
    return max(kernel) > 1 if isinstance(kernel, tuple) else isinstance(kernel, int) and kernel > 1

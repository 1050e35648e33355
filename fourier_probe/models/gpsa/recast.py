"""A convolution recast as gated positional self-attention: same function, same kernel parameters, free to leave it.

`recast` makes one layer (`layer` has the maths), `recast_` replaces layers of a network, `logit_change` says what
that changes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import TypedDict, cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from fourier_probe.errors import ModelError, suggest
from fourier_probe.models.gpsa.layer import GATE, GROUPS, LOCALITY_STRENGTH, GPSAConv2d, refusal


def recast(
    conv: nn.Conv2d,
    *,
    locality_strength: float = LOCALITY_STRENGTH,
    gate: float = GATE,
    head_dim: int | None = None,
    content_stride: int = 1,
    content_maps: int | None = None,
    generator: torch.Generator | None = None,
) -> GPSAConv2d:
    """The convolution as a GPSA layer of (nearly) the same function; `conv` itself is left as it is.

    The function is the convolution's up to `sigmoid(-gate)` of content attention and a mass of about
    4 exp(-locality_strength) off each tap: exact in float64 at 60 and 60. Small values jump at the switch but learn at
    once; large ones preserve the function, but their gradients fade (ConViT itself starts from 1 and 1).

    Args:
        conv: a plain `nn.Conv2d` with zero padding and a kernel larger than 1x1: any size, stride, dilation, groups.
        locality_strength: initial alpha, nats per squared pixel.
        gate: initial logit lambda; the gate is sigmoid(lambda).
        head_dim: width of queries and keys; None takes `default_head_dim(conv)`.
        content_stride: 2 makes the content half look at means of 2 x 2 pixels: another architecture, cheaper.
        content_maps: 1 makes one content map serve all taps: another architecture, cheaper.
        generator: of the small random queries and keys (both at zero would be a saddle), on the CPU; none takes a
            fresh generator with seed 0, so that a recast is repeatable and touches no global state.

    Raises:
        ModelError: a 1x1 kernel (nothing to move), a subclass (another forward), or another padding mode, by name.

    >>> conv = nn.Conv2d(3, 4, 3, padding=1)
    >>> layer = recast(conv, locality_strength=20.0, gate=12.0)
    >>> layer.weight is conv.weight
    True
    >>> image = torch.linspace(-1, 1, 192).view(1, 3, 8, 8)
    >>> bool(torch.allclose(layer(image), conv(image), atol=1e-4))
    True
    """
    return GPSAConv2d(
        conv,
        locality_strength=locality_strength,
        gate=gate,
        head_dim=head_dim,
        content_stride=content_stride,
        content_maps=content_maps,
        generator=generator,
    )


class RecastOptions(TypedDict, total=False):
    """The options of `recast`, which documents them."""

    locality_strength: float
    gate: float
    head_dim: int | None
    content_stride: int
    content_maps: int | None
    generator: torch.Generator | None


def recast_(model: nn.Module, names: Iterable[str], **options: Unpack[RecastOptions]) -> list[str]:
    """Recast convolutions of any network in place; the options are `recast`'s. All or none.

    Each layer draws its queries and keys from the one generator in the order of `names`. A convolution that the network
    holds under several names is replaced under all of them. Hooks on a replaced module stay with the old one.

    Returns:
        The names, in the order given.

    Raises:
        ModelError: a name that is unknown or no convolution, one given twice, or a convolution that `recast` refuses.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    >>> recast_(model, ["0"]), type(model[0]).__name__
    (['0'], 'GPSAConv2d')
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if options.get("generator") is None:
        options["generator"] = torch.Generator().manual_seed(0)
    replaced: dict[int, GPSAConv2d] = {}
    done: list[str] = []
    for name in names:
        module = modules.get(name)
        if module is None or not name:
            convolutions = [n for n, m in modules.items() if n and isinstance(m, nn.Conv2d)]
            near = suggest(name, convolutions) or f" It has {len(convolutions)} convolutions."
            raise ModelError(f"recast: {type(model).__name__} has no module {name!r} to replace.{near}")
        reason = refusal(module)
        if not reason and id(module) in replaced:
            reason = "this convolution is named twice"
        if reason:
            raise ModelError(f"recast {name}: {reason}.")
        replaced[id(module)] = recast(cast("nn.Conv2d", module), **options)  # `refusal` passed it
        done.append(name)
    for name, module in modules.items():
        if id(module) in replaced:
            parent, _, child = name.rpartition(".")
            setattr(modules[parent], child, replaced[id(module)])
    return done


@torch.no_grad()
def logit_change(model: nn.Module, names: Iterable[str], images: Tensor, **options: Unpack[RecastOptions]) -> float:
    """How much a recast of these layers would change the logits: max |after - before| / max |before|, in eval mode.

    Both are computed on a copy; `model` stays as it is.

    Args:
        model: a network that returns logits.
        names: convolutions to recast, as for `recast_`.
        images: what the network takes, normalised and on its device.
        **options: of `recast`.

    Raises:
        ModelError: what `recast_` refuses, an output that is no tensor, logits that are all zero or not finite.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> logit_change(net, ["0"], torch.rand(2, 3, 8, 8), gate=12.0) < 0.01
    True
    >>> type(net[0]).__name__
    'Conv2d'
    """
    double = copy.deepcopy(model).eval()
    before = double(images)
    recast_(double, names, **options)
    after = double(images)
    if not isinstance(before, Tensor):
        raise ModelError(f"recast: expected logits in a tensor, but {type(model).__name__} returns {type(before)}.")
    scale = float(before.abs().max())
    if not 0 < scale < math.inf:
        raise ModelError(f"recast: the largest logit is {scale}, so no change relative to it exists: check the images.")
    return float((after - before).abs().max()) / scale


def added_parameters(model: nn.Module) -> dict[str, list[str]]:
    """Names of the parameters that recast layers add, by group: `positions`, `gates` and `qk` (keys of `GROUPS`)."""
    names: dict[str, list[str]] = {group: [] for group in GROUPS}
    for prefix, module in model.named_modules():
        if isinstance(module, GPSAConv2d):
            for group, parameters in GROUPS.items():
                names[group] += [f"{prefix}.{name}" if prefix else name for name in parameters]
    return names

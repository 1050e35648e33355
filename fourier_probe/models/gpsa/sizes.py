"""Sizes of a recast layer: padding, taps, the width of queries and keys, in which order it computes. Imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fourier_probe.models.gpsa.attend import DENSE

if TYPE_CHECKING:
    from fourier_probe.models.gpsa.layer import GPSAConv2d


def default_head_dim(conv: nn.Conv2d) -> int:
    """Width of queries and keys: an eighth of the inputs a kernel mixes, between 4 and 16 (ours).

    A dense layer of 64 channels gains a quarter more parameters, one of 256 an eighth; a depthwise one, whose kernel is
    small, 8 times its own (two (C, 4) projections a tap).
    """
    return max(4, min(16, conv.in_channels // conv.groups // 8))


def folds(conv: nn.Conv2d | GPSAConv2d, queries: int, keys: int) -> bool:
    """Whether the kernel is applied to the values before attention, not to what each head sees (on the CPU).

    The first makes no (B, C, heads, N) tensor, but makes its values again in the backward pass: as fast where the maps
    cost far more than the kernel, and a fraction of the memory (measured: `benchmarks/gpsa.py`).
    """
    wide = max(conv.in_channels, conv.out_channels)
    return conv.groups == 1 and queries * keys <= DENSE and min(queries, keys) >= 4 * wide


def architecture(content_stride: int = 1, content_maps: int | None = None, heads: int = 0) -> str:
    """What tells a recast layer from GPSA, to add to a name; empty where nothing does.

    >>> architecture(), architecture(2, 1)
    ('', ', content_stride=2, content_maps=1')
    """
    stride = f", content_stride={content_stride}" if content_stride > 1 else ""
    return stride + (f", content_maps={content_maps}" if content_maps and content_maps != heads else "")


def taps(layer: GPSAConv2d) -> Tensor:
    """The kernel's taps, Delta = dilation * (ky, kx) - padding, (heads, 2), pixels; torch's order, ky Kw + kx."""
    Kh, Kw = layer.kernel_size
    y, x = (layer.dilation[a] * torch.arange(layer.kernel_size[a]) - layer._pads[a][0] for a in (0, 1))
    return torch.stack([y.repeat_interleave(Kw), x.repeat(Kh)], dim=1)


def pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    """The two of a convolution's sizes, (y, x)."""
    return sizes[0], sizes[1]


def padding_of(conv: nn.Conv2d | GPSAConv2d) -> tuple[tuple[int, int], tuple[int, int]]:
    """Zero padding (before, after) along y and x, in pixels; `same` puts the odd one after, as torch does."""
    if isinstance(conv.padding, str):
        if conv.padding == "valid":
            return (0, 0), (0, 0)
        totals = [d * (k - 1) for d, k in zip(pair(conv.dilation), pair(conv.kernel_size), strict=True)]
        (y, x) = totals
        return (y // 2, y - y // 2), (x // 2, x - x // 2)
    y, x = pair(conv.padding)
    return (y, y), (x, x)

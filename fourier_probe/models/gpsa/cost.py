"""What a recast layer costs: multiply-adds. Imports torch and the layer."""

from __future__ import annotations

from torch import nn

from fourier_probe.models.gpsa.attend import DENSE
from fourier_probe.models.gpsa.layer import GPSAConv2d
from fourier_probe.models.gpsa.sizes import default_head_dim, folds, padding_of, pair


def multiply_adds(
    conv: nn.Conv2d | GPSAConv2d,
    keys: tuple[int, int],
    *,
    head_dim: int | None = None,
    content_stride: int = 1,
    content_maps: int | None = None,
) -> int:
    """Multiply-adds of one image through the recast layer on an (H, W) key grid, as used on the CPU, softmax free.

    Queries, keys, scores, the content map on the values, the positional half (an axis at a time, or mixed into the
    content map on small grids) and the kernel, on the values or on what each head sees.
    """
    kernel, stride, dilation = pair(conv.kernel_size), pair(conv.stride), pair(conv.dilation)
    pads = padding_of(conv)
    H, W = keys
    Ho, Wo = (
        (size + sum(pads[a]) - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a, size in enumerate((H, W))
    )
    heads, C = kernel[0] * kernel[1], conv.in_channels
    if isinstance(conv, GPSAConv2d):
        D, content_stride, content_maps = conv.head_dim, conv.content_stride, conv.content_maps
    else:
        D = default_head_dim(conv) if head_dim is None else head_dim
    queries, N, seen = Ho * Wo, H * W, -(-H // content_stride) * -(-W // content_stride)
    content_maps = content_maps or heads
    width = D + any(size % content_stride for size in (H, W))
    scores = content_maps * (D * C * (queries + seen) + queries * seen * width)
    kernels = heads * (C // conv.groups) * conv.out_channels  # at one place
    apart = heads * C * Ho * W * (H + Wo)  # the positional half, an axis at a time
    if content_maps < heads or content_stride > 1:
        one = queries * (C // conv.groups) * conv.out_channels if content_maps < heads else 0
        return scores + content_maps * queries * seen * C + one + apart + kernels * queries
    if folds(conv, queries, N):
        return scores + heads * queries * N * (conv.out_channels + 1) + kernels * N
    positional = heads * queries * N if queries * N <= DENSE else apart
    return scores + heads * queries * N * C + positional + kernels * queries

"""Positional attention maps: exactly a product of one softmax an axis. Imports torch only."""

from __future__ import annotations

import torch
from torch import Tensor


def axis_offsets(
    keys: int,
    queries: int,
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Offset, in pixels, of every key from every query along one axis: (queries, before + keys + after).

    Query i sits at pixel `stride * i`; `padding` adds keys (before, after) outside the grid.

    >>> axis_offsets(3, 2, stride=2, padding=(1, 0))
    tensor([[-1.,  0.,  1.,  2.],
            [-3., -2., -1.,  0.]])
    """
    before, after = padding
    positions = torch.arange(-before, keys + after, device=device, dtype=dtype)
    return positions - stride * torch.arange(queries, device=device, dtype=dtype)[:, None]


def local_map(offsets: Tensor, centre: Tensor, strength: Tensor, *, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """Positional attention along one axis, P[h, i, j] = softmax_j(-strength_h (offset_ij - centre_h)^2).

    The softmax runs over the padded axis; the keys outside are then dropped without renormalising, so that attention
    that falls outside is lost, as under a convolution's zero padding (our reading: border mode `zero`). Without
    padding this is ConViT's mode, `renormalise`.

    Args:
        offsets: (Q, before + K + after) from `axis_offsets`, pixels.
        centre: (heads,) attention centre, pixels from the query.
        strength: (heads,) locality strength, nats per squared pixel.
        padding: keys (before, after) to drop.

    Returns:
        (heads, Q, K); rows sum to one, or to less where attention falls outside.
    """
    distance = offsets - centre[:, None, None]
    weights = torch.softmax(-strength[:, None, None] * distance.square(), dim=-1)
    return weights[..., padding[0] : weights.shape[-1] - padding[1]]


def apply_positional(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply P_y (x) P_x to every channel, an axis at a time: N (h + w) multiply-adds per channel, no N x N map.

    Args:
        maps: (B, C, H, W).
        rows: (heads, Ho, H), P_y.
        columns: (heads, Wo, W), P_x.

    Returns:
        (B, C, heads, Ho, Wo), a strided view.
    """
    B, C, H, W = maps.shape
    heads, Ho, _ = rows.shape
    mixed = torch.mm(rows.flatten(0, 1), maps.permute(2, 0, 1, 3).reshape(H, B * C * W))  # (heads * Ho, B * C * W)
    both = torch.bmm(mixed.view(heads, Ho * B * C, W), columns.transpose(1, 2))  # (heads, Ho * B * C, Wo)
    return both.view(heads, Ho, B, C, columns.shape[1]).permute(2, 3, 0, 1, 4)


def dense_map(rows: Tensor, columns: Tensor) -> Tensor:
    """P_y (x) P_x written out, (heads, Ho * Wo, H * W): for small grids and for pictures."""
    return (rows[:, :, None, :, None] * columns[:, None, :, None, :]).flatten(3, 4).flatten(1, 2)

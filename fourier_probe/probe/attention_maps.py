"""The measures of attention maps, plain maths. Imports torch, numpy and frequency.

The map of a head is A (N, N), rows summing to one (`attention` says what each measure is).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fourier_probe.probe.frequency import frequencies
from fourier_probe.runtime.accelerator import wide


def mutual_information(attention: Tensor) -> Tensor:
    """NMI (...) of maps (..., queries, keys) of any positive rows, uniform over queries; 0 for one query or one key.

    I(q; k) = H(k) - H(k | q), with H(k) of the mean row.

    >>> mutual_information(torch.eye(4)), mutual_information(torch.ones(4, 4) / 4)
    (tensor(1., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    A = wide(attention)
    A = A / A.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)

    def entropy(p: Tensor) -> Tensor:
        parts: Tensor = torch.special.xlogy(p, p)
        return -parts.sum(-1)

    keys = entropy(A.mean(-2))
    information = (keys - entropy(A).mean(-1)).clamp_min(0)
    scale = (keys * math.log(max(A.shape[-2], 1))).clamp_min(0).sqrt()
    return torch.where(scale > 1e-12, information / scale.clamp_min(1e-12), 0.0).clamp_max(1)


def offsets(attention: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps (B, heads, N, N) as a function of the offset from query to key, a mean over queries.

    Returns:
        (B, heads, 2 H - 1, 2 W - 1); the middle is the query's own position, and the sum is 1 where rows sum to 1.
    """
    H, W = grid
    A = wide(attention)
    A = A / A.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    y = torch.arange(H, device=A.device).repeat_interleave(W)
    x = torch.arange(W, device=A.device).repeat(H)
    index = (y - y[:, None] + H - 1) * (2 * W - 1) + x - x[:, None] + W - 1  # (query, key)
    out = A.new_zeros(*A.shape[:2], (2 * H - 1) * (2 * W - 1))
    out.index_add_(2, index.flatten(), A.flatten(2) / (H * W))
    return out.view(*A.shape[:2], 2 * H - 1, 2 * W - 1)


def map_measures(
    attention: Tensor, grid: tuple[int, int], step: tuple[float, float]
) -> tuple[Tensor, Tensor, NDArray[np.float64]]:
    """Distance and spectral response of attention maps.

    Args:
        attention: (B, heads, N, N), any positive rows; they are made to sum to one.
        grid: (H, W), N = H W, row by row.
        step: pixels between tokens, (y, x).

    Returns:
        distance (B, heads), pixels; response (B, heads, K); frequency (K,), pi rad/sample per axis.
    """
    H, W = grid
    A = wide(attention)
    A = A / A.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    y = torch.arange(H, device=A.device, dtype=torch.float64).repeat_interleave(W)  # (N,), in tokens
    x = torch.arange(W, device=A.device, dtype=torch.float64).repeat(H)
    gap = torch.hypot((y[:, None] - y) * step[0], (x[:, None] - x) * step[1])  # (N, N), pixels
    distance = (A * gap).sum((-2, -1)) / (H * W)
    frequency = frequencies(grid)
    phase = math.pi * torch.outer(y + x, torch.tensor(frequency, dtype=torch.float64, device=A.device))  # (N, K)
    real, imaginary = phase.cos(), -phase.sin()
    seen = A @ torch.cat([real, imaginary], 1)  # (B, heads, N, 2 K)
    re, im = seen.chunk(2, -1)
    total_re = (re * real + im * imaginary).sum(-2)  # times the conjugate of the query's own wave
    total_im = (im * real - re * imaginary).sum(-2)
    return distance, torch.hypot(total_re, total_im) / (H * W), np.asarray(frequency)

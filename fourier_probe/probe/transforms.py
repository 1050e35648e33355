"""Fourier transforms that give what the statistics need and no more, measured where two ways compete. Imports torch.

May import definition, frequency, metrics.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from fourier_probe.probe.definition import Definition
from fourier_probe.probe.frequency import frequencies, half_plane
from fourier_probe.probe.metrics import Statistics, hann
from fourier_probe.runtime.accelerator import summing, wide

# --- the diagonal ----------------------------------------------------------------------------------------------------


def antidiagonal_sums(padded: Tensor) -> Tensor:
    """Sums over (x + y) mod N = s of square maps, (B, C, N).

    Args:
        padded: (B, C, N, N + 1), the map with a column of zeros behind it; a row ends in memory where the next begins.
    """
    B, C, N = padded.shape[:3]
    # The column of zeros makes a row N + 1 long: read in rows of N, (y, x) then stands in column (x + y) mod N.
    if padded.stride(1) == 1 and C > 1:
        return padded.permute(0, 2, 3, 1).reshape(B, N + 1, N * C).sum(1).view(B, N, C).transpose(1, 2)
    return padded.reshape(B, C, N + 1, N).sum(2)


def between_bins(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Transform (B, C, K) of a non-square map (B, C, H, W) at the two bins of the longer axis around each place."""
    H, W = maps.shape[2:]
    rows = torch.fft.rfft(wide(maps if H < W else maps.transpose(2, 3)), dim=2)  # (B, C, K, long)
    long = rows.shape[3]
    lower = _positions((H, W), rows.device).floor()
    positions = torch.arange(long, device=rows.device, dtype=torch.float64)

    def at(k: Tensor) -> Tensor:
        wave = torch.polar(torch.ones(()).to(positions), -2 * torch.pi / long * torch.outer(k, positions))  # (K, long)
        return torch.einsum("bckl,kl->bck", rows, wave)

    return at(lower), at(lower + 1)


def _positions(grid: tuple[int, int], device: torch.device) -> Tensor:
    """(K,) where the bins of the shorter axis fall on the longer one, in its bins, at the same true frequency."""
    return torch.arange(min(grid) // 2 + 1, device=device, dtype=torch.float64) * max(grid) / min(grid)


def log_diagonal(raw: Statistics, definition: Definition, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Log-amplitude (B, C, K) of each channel along the diagonal, nats, exactly, without a 2-D transform; and F(0, 0).

    On a square map F(k, k) = sum_s g(s) exp(-2 pi i k s / N), where g(s) are the anti-diagonal sums: one 1-D transform,
    in the precision those sums have. On a non-square map bin j of the shorter axis falls between two bins of the
    longer, and ln|F| is interpolated.
    """
    dtype, bins = raw["offset"].dtype, len(frequencies(grid, definition.axis))

    def log(real: Tensor, imaginary: Tensor) -> Tensor:
        real[..., 0].add_(raw["offset"])
        real, imaginary = real[..., :bins].to(dtype), imaginary[..., :bins].to(dtype)
        return definition.log_of(torch.addcmul(real.square(), imaginary, imaginary).sqrt_())  # faster than complex abs

    if "sums" in raw:
        parts = _transform(raw["sums"])
        return log(*parts), parts[0][..., 0]
    first, second = (torch.view_as_real(raw[name]).unbind(-1) for name in ("first", "second"))
    position = _positions(grid, raw["first"].device)[:bins]
    weight = position - position.floor()
    logs, other = log(*first), log(*second)
    return torch.where(weight > 0, logs + weight * (other - logs), logs), first[0][..., 0].to(
        dtype
    )  # hits take the first


def _transform(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part (B, C, K) of the transform of (B, C, N), which may lie channels last."""
    N = sums.shape[2]
    if sums.device.type == "cpu" and N <= 32 and _in_full_precision(sums.dtype):  # a product is faster there (measured)
        waves = _fourier((1, N), sums.dtype)[0]  # (2 K, N)
        if sums.stride(1) == 1:
            both = torch.bmm(waves.expand(len(sums), -1, -1), sums.transpose(1, 2)).transpose(1, 2)  # (B, C, 2 K)
        else:
            both = sums @ waves.t()
        real, imaginary = both.chunk(2, 2)
        return real, imaginary
    real, imaginary = torch.view_as_real(torch.fft.rfft(sums)).unbind(-1)
    return real, imaginary


# --- the plane -------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def bin_weights(grid: tuple[int, int], device: torch.device, window: str = "none") -> tuple[Tensor, Tensor]:
    """What turns |F|^2 in the half plane, each entry standing for one of a pair, into powers.

    Returns:
        (2, P) float32 for the power of all non-DC bins, and for that of those beyond r = 0.5; (P, R) float64 for the
        mean power of each ring; P = H (W // 2 + 1). With a window each bin is divided by what is left there of white
        noise once its mean is taken off, 1 - |W(k)|^2 / n^2, so that white noise is flat still.
    """
    counts, ring, high = half_plane(grid)
    left = torch.ones(len(counts), dtype=torch.float64)
    if window == "hann":
        left -= (
            torch.fft.rfft2(hann(grid, torch.device("cpu")).double()).abs().square().flatten() / math.prod(grid) ** 2
        )
    times = [t / float(r) if t else 0.0 for t, r in zip(counts, left, strict=True)]
    rings = min(grid) // 2
    means = torch.zeros(len(times), rings, dtype=torch.float64)
    for row, (t, m) in enumerate(zip(times, ring, strict=True)):
        if t and 1 <= m <= rings:
            means[row, m - 1] = t
    bins = [sum(t for t, m in zip(counts, ring, strict=True) if m == r) for r in range(1, rings + 1)]
    means /= torch.tensor(bins, dtype=torch.float64).clamp_min(1)
    high_times = [t * h for t, h in zip(times, high, strict=True)]
    return torch.tensor([times, high_times], dtype=torch.float32, device=device), means.to(summing(device))


def powers(deviation: Tensor, window: str = "none") -> tuple[Tensor, Tensor, Tensor]:
    """Power of all non-DC bins and of those beyond r = 0.5, (B, C) each; |F|^2 of each bin over channels (B, P)."""
    B, C, H, W = deviation.shape
    K = W // 2 + 1
    weights = bin_weights((H, W), deviation.device, window)[0].to(deviation.dtype)
    products = deviation.device.type == "cpu" and _in_full_precision(deviation.dtype)
    if products and deviation.stride(1) == 1 and max(H, W) <= 16:  # two matrix products beat the FFT there (measured)
        along_x, along_y = _fourier((H, W), deviation.dtype)
        rows = along_x @ deviation.permute(0, 2, 3, 1)  # (B, H, 2 K, C): real parts, imaginary parts
        plane = along_y @ rows.view(B, 2 * H, K * C)  # (B, 2 H, K C)
        squares = plane.square_().view(B, H, 2, K, C).sum(2).view(B, H * K, C)
        both = weights @ squares  # (B, 2, C)
        return both[:, 0], both[:, 1], squares.sum(2)
    pairs = torch.view_as_real(torch.fft.rfft2(deviation)).view(B, C, 2 * H * K).square_()
    weights = weights.repeat_interleave(2, 1)
    if products:  # a product with a vector would leave the memory to the wrong thread for the next FFT (measured)
        both = torch.bmm(weights.expand(B, -1, -1), pairs.transpose(1, 2))  # (B, 2, C)
    else:
        both = torch.stack([pairs @ row for row in weights], 1)
    return both[:, 0], both[:, 1], pairs.sum(1).view(B, H * K, 2).sum(2)


def _in_full_precision(dtype: torch.dtype) -> bool:
    """Whether matrix products on a CPU keep their digits, whatever `set_float32_matmul_precision` and the like say."""
    mkldnn = torch.backends.mkldnn
    settings = (torch.backends.fp32_precision, mkldnn.fp32_precision, mkldnn.matmul.fp32_precision)  # type: ignore[attr-defined]
    return dtype == torch.float64 or not {"bf16", "tf32"} & set(settings)


@functools.lru_cache(maxsize=64)
def _fourier(grid: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The 2-D real Fourier transform as two matrices.

    Returns:
        (2 K, W) from a row to the real, then the imaginary parts of its K = W // 2 + 1 bins; (2 H, 2 H) along the other
        axis, in and out as H pairs of real and imaginary part.
    """
    H, W = grid

    def wave(bins: int, size: int) -> Tensor:
        phase = torch.outer(torch.arange(bins), torch.arange(size)).remainder(size).double() * (-2 * math.pi / size)
        return torch.polar(torch.ones_like(phase), phase)

    x, y = wave(W // 2 + 1, W), wave(H, H)
    pairs = torch.stack([torch.stack([y.real, -y.imag], -1), torch.stack([y.imag, y.real], -1)], 1)  # (H, 2, H, 2)
    return torch.cat([x.real, x.imag]).to(dtype), pairs.view(2 * H, 2 * H).to(dtype)

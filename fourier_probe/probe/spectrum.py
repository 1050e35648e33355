"""The metrics of one batch of feature maps: pure functions on tensors. Imports torch and errors only.

Every function takes maps (B, C, H, W) of any floating dtype on any device and computes in float32 or better, whatever
autocast says. F is the unnormalised 2-D discrete Fourier transform of a map; frequencies are in units of pi rad/sample
per axis, 1.0 being Nyquist. `image_statistics` gives sufficient statistics image by image: everything the result
reports is a function of their sums, so that batches, shards and ranks merge by addition.

Source of the metric: Park & Kim, "How Do Vision Transformers Work?", ICLR 2022 (arXiv 2202.06709). The rest is defined
where it is computed.
"""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fourier_probe.errors import ResultError

EULER_GAMMA = 0.5772156649015329
ZERO_MEAN_WHITE_NOISE = math.log(2) / 2  # delta of zero-mean white noise below Nyquist, nats
DEAD = 1e-6  # a channel whose standard deviation is below this share of the map's RMS is dead
CACHED = 2**19  # elements worked on at a time on a CPU

Statistics = dict[str, Tensor]


@dataclass(frozen=True)
class Definition:
    """What exactly is computed; written into every result, and compared before results are.

    Attributes:
        log: "floor" is ln(|F| + floor), as published; "log1p" is ln(1 + |F|); "plain" is ln|F|.
        floor: the floor of "floor", in the units of |F|.
        window: "none", or "hann": the map minus its mean is multiplied by a periodic Hann window of unit mean square
            on both axes, and the mean is put back, so that borders do not leak and the DC bin stays what it was.
        axis: "true" puts bin j of an axis of N at 2 j / N; "paper" reproduces the published axis, which leaves out the
            Nyquist bin and draws the last one at 1.0.
        metrics: "all", or "diagonal" for log-amplitude along the diagonal alone.
        groups: number of image groups for the jackknife.
    """

    log: Literal["floor", "log1p", "plain"] = "floor"
    floor: float = 1e-6
    window: Literal["none", "hann"] = "none"
    axis: Literal["true", "paper"] = "true"
    metrics: Literal["all", "diagonal"] = "all"
    groups: int = 20

    def __post_init__(self) -> None:
        for name, allowed in (
            ("log", ("floor", "log1p", "plain")),
            ("window", ("none", "hann")),
            ("axis", ("true", "paper")),
            ("metrics", ("all", "diagonal")),
        ):
            if getattr(self, name) not in allowed:
                raise ResultError(f"{name}={getattr(self, name)!r} is not one of {', '.join(allowed)}.")
        if self.log == "floor" and not 0 < self.floor < math.inf:
            raise ResultError(f"floor={self.floor} must be positive and finite; use log='plain' for ln|F| without one.")
        if self.groups < 2:
            raise ResultError(f"groups={self.groups}: a jackknife needs at least 2.")

    @property
    def formula(self) -> str:
        """The logarithm as a formula.

        >>> Definition().formula
        'ln(|F|+1e-6)'
        """
        floor = f"{self.floor:g}".replace("e-0", "e-")
        return {"floor": f"ln(|F|+{floor})", "log1p": "ln(1+|F|)", "plain": "ln|F|"}[self.log]

    def to_json(self) -> dict[str, Any]:
        """Plain values for the result file; `log` becomes the formula."""
        return {**asdict(self), "log": self.formula, "log_kind": self.log}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Definition:
        """The inverse of `to_json`."""
        return cls(
            **{**{k: value[k] for k in ("floor", "window", "axis", "metrics", "groups")}, "log": value["log_kind"]}
        )

    def log_of(self, amplitude: Tensor) -> Tensor:
        """The logarithm of |F|, nats."""
        if self.log == "floor":
            return (amplitude + self.floor).log()
        if self.log == "log1p":
            return amplitude.log1p()
        return amplitude.clamp_min(torch.finfo(torch.float32).tiny).log()


# --- frequencies of a grid: no tensors -------------------------------------------------------------------------------


def frequencies(grid: tuple[int, int], axis: str = "true") -> list[float]:
    """Frequency of each bin of the diagonal, per axis, in pi rad/sample, 0 first (0.5 means radius 0.707).

    >>> frequencies((4, 4)), frequencies((7, 7))[-1] == 6 / 7
    ([0.0, 0.5, 1.0], True)
    >>> frequencies((8, 8), "paper")  # the published axis: no Nyquist bin, the last bin drawn at 1.0
    [0.0, 0.3333333333333333, 0.6666666666666666, 1.0]
    """
    short = min(grid)
    if axis == "true":
        return [2 * j / short for j in range(short // 2 + 1)]
    if grid[0] != grid[1]:
        raise ResultError(
            f"the paper's axis is defined for square maps only and this grid is {grid[0]}x{grid[1]}: use axis='true'."
        )
    bins = (short + 1) // 2
    return [j / max(bins - 1, 1) for j in range(bins)]


def usable_bins(grid: tuple[int, int]) -> int:
    """Number of leading diagonal bins fit for comparison: all but Nyquist, which is a real coefficient on even grids.

    >>> usable_bins((56, 56)), usable_bins((7, 7)), usable_bins((1, 1))
    (28, 4, 1)
    """
    return (min(grid) + 1) // 2


def ring_radii(grid: tuple[int, int]) -> list[float]:
    """Radii of the rings of `log_density`: multiples of 2 / min(H, W) up to 1, without 0.

    >>> ring_radii((4, 6))
    [0.5, 1.0]
    """
    short = min(grid)
    return [2 * m / short for m in range(1, short // 2 + 1)]


@functools.lru_cache(maxsize=256)
def _half_plane(grid: tuple[int, int]) -> tuple[list[int], list[int], list[bool]]:
    """Of every bin that rfft2 returns, row-major: how often it stands in the full plane, its ring, whether r > 0.5.

    Everything is decided in integers: the ring nearest to r = sqrt((2 ky / H)^2 + (2 kx / W)^2), ties outward, and
    r > 0.5 as 16 (ky^2 W^2 + kx^2 H^2) > H^2 W^2.
    """
    H, W = grid
    short = min(grid)
    times, ring, high = [], [], []
    for y in range(H):
        for kx in range(W // 2 + 1):
            ky = min(y, H - y)
            square = ky * ky * W * W + kx * kx * H * H
            times.append(0 if square == 0 else 1 if kx == 0 or 2 * kx == W else 2)
            ring.append((math.isqrt(4 * short * short * square // (H * H * W * W)) + 1) // 2)
            high.append(16 * square > H * H * W * W)
    return times, ring, high


def white_noise_hfd_share(grid: tuple[int, int]) -> float | None:
    """HFD share of white noise: the share of non-DC bins beyond r = 0.5. None where there is no frequency.

    >>> [round(white_noise_hfd_share((n, n)), 3) for n in (4, 7, 8, 14, 56)]
    [0.733, 0.833, 0.81, 0.815, 0.805]
    """
    times, _, high = _half_plane(grid)
    total = sum(times)
    return sum(t for t, h in zip(times, high, strict=True) if h) / total if total else None


@functools.lru_cache(maxsize=64)
def _weights(grid: tuple[int, int], device: torch.device, window: str = "none") -> tuple[Tensor, Tensor, Tensor]:
    """What turns squared (real, imaginary) pairs of the half plane into powers, each entry standing for one of a pair.

    Returns:
        (P,) for the power of all non-DC bins; (P,) for that of those beyond r = 0.5; (P, R) for the mean power of each
        ring; P = 2 H (W // 2 + 1), float32. With a window each bin is divided by what is left there of white noise
        once its mean is taken off, 1 - |W(k)|^2 / n^2, so that white noise is flat still.
    """
    counts, ring, high = _half_plane(grid)
    left = torch.ones(len(counts), dtype=torch.float64)
    if window == "hann":
        left -= (
            torch.fft.rfft2(_hann(grid, torch.device("cpu")).double()).abs().square().flatten() / math.prod(grid) ** 2
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
    weights = (torch.tensor(times), torch.tensor(high_times), means)
    return tuple(w.repeat_interleave(2, 0).float().to(device) for w in weights)  # type: ignore[return-value]


@functools.lru_cache(maxsize=64)
def _hann(grid: tuple[int, int], device: torch.device) -> Tensor:
    """(H, W) periodic Hann window on both axes, unit mean square; constant on an axis of one position."""
    axes = [torch.hann_window(n, periodic=True, dtype=torch.float64) if n > 1 else torch.ones(1).double() for n in grid]
    window = axes[0][:, None] * axes[1][None, :]
    return (window / window.square().mean().sqrt()).float().to(device)


# --- the diagonal ----------------------------------------------------------------------------------------------------


def diagonal_amplitude(padded: Tensor, total: Tensor) -> tuple[Tensor, ...]:
    """|F(j, j)| along the diagonal, exactly, at a fraction of the cost of a 2-D transform.

    On a square map F(k, k) = sum_s g(s) exp(-2 pi i k s / N), where g(s) is the sum over (x + y) mod N = s: wrapped
    anti-diagonal sums, then one 1-D transform in float64. A constant taken off the map changes only F(0, 0), so it is
    done on the deviation from one, which keeps the digits of nearly constant channels. On a non-square map bin j of the
    shorter axis falls between two bins of the longer: both are returned with their weights.

    Args:
        padded: (B, C, H, W + 1) contiguous, the map less any constant of each channel, and behind it a column of zeros.
        total: (B, C) sum of the map itself over positions, which is F(0, 0).

    Returns:
        One amplitude (B, C, K) for a square map; for another two, and the weight (K,) of the second.
    """
    B, C, H, W = (*padded.shape[:3], padded.shape[3] - 1)
    if H == W:
        # The column of zeros makes a row N + 1 long: read in rows of N, (y, x) then stands in column (x + y) mod N.
        sums = padded.view(B, C, H + 1, H).sum(2)  # (B, C, N)
        return (_amplitude(torch.fft.rfft(sums.double()), total),)  # (B, C, K)
    short, long = min(H, W), max(H, W)
    maps = padded[..., :W] if H < W else padded[..., :W].transpose(2, 3)  # (B, C, short, long)
    rows = torch.fft.rfft(maps.double(), dim=2)  # (B, C, K, long)
    bins = torch.arange(rows.shape[2], device=maps.device, dtype=torch.float64)  # j
    place = bins * long / short  # the same true frequency on the longer axis, in bins
    positions = torch.arange(long, device=maps.device, dtype=torch.float64)

    def at(k: Tensor) -> Tensor:
        wave = torch.polar(torch.ones(()).to(positions), -2 * torch.pi / long * torch.outer(k, positions))  # (K, long)
        return _amplitude((rows * wave).sum(-1), total)

    return at(place.floor()), at(place.floor() + 1), place - place.floor()


def _amplitude(transform: Tensor, total: Tensor) -> Tensor:
    """|F| of complex128 (B, C, K), in the precision of `total`, which replaces the DC bin.

    The transform needs its digits, what it leaves does not; and this is several times faster than a complex abs.
    """
    power = torch.addcmul(transform.real.square(), transform.imag, transform.imag)
    amplitude = power.to(total.dtype).sqrt_()
    amplitude[..., 0] = total.abs()
    return amplitude


def _log_diagonal(padded: Tensor, total: Tensor, definition: Definition) -> Tensor:
    """Log-amplitude of each channel along the diagonal, (B, C, K), nats."""
    parts = diagonal_amplitude(padded, total)
    logs = definition.log_of(parts[0])
    if (
        len(parts) == 3
    ):  # between two bins of the longer axis ln|F| is interpolated; bin 0 and exact hits take the first
        weight = parts[2]
        logs = torch.where(weight > 0, logs + weight * (definition.log_of(parts[1]) - logs), logs)
    grid = (padded.shape[2], padded.shape[3] - 1)
    return logs[..., : len(frequencies(grid, definition.axis))]


# --- all of it -------------------------------------------------------------------------------------------------------


def image_statistics(features: Tensor, definition: Definition | None = None, *, maps: bool = False) -> Statistics:
    """Sufficient statistics of a batch of feature maps, image by image.

    Args:
        features: (B, C, H, W), any floating dtype, not modified.
        definition: what to compute; see `Definition`.
        maps: add the 2-D log-amplitude of each image.

    Returns:
        Tensors whose first dimension is the image, all float64:
        `log_amplitude` (B, K): mean over channels of the log-amplitude along the diagonal, nats, dead ones included.
        With metrics "all" also, all of them sums over channels:
        `ring` (B, R): mean power |F|^2 per bin of each ring; `power`, `high`: power of all non-DC bins and of those
        beyond r = 0.5; `share`, `live`: HFD share of each channel that has any non-DC power, and the number of those
        channels; `white`: mean over channels of the expected ln|F| of white noise of the channel's own power;
        `variance`: over positions, mean over channels; `ac`, `dc`: squared norms of the non-DC and of the DC part;
        `cosine`: mean cosine between position vectors i != j, and `pairs`, 1 where it exists;
        `flat` (B, C): standard deviation of each channel over its positions, over the RMS of the image's whole map.
        With `maps` also `map` (B, H, W): the log-amplitude mean over channels, DC in the middle.

    Raises:
        ResultError: features are not 4-D floating maps.
    """
    definition = definition or Definition()
    if features.ndim != 4 or not features.is_floating_point():
        raise ResultError(f"expected floating feature maps (B, C, H, W), got {features.dtype} {tuple(features.shape)}.")
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        x = features if features.dtype == torch.float64 else features.float()  # fp16/bf16 have too few digits to sum
        if x.device.type != "cpu":
            return _statistics(x, definition, maps)
        # On a CPU a few images at a time stay in its cache through all passes.
        images = max(CACHED // max(x[0].numel(), 1), 1)
        parts = [_statistics(part, definition, maps) for part in torch.split(x, images)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if len(parts) > 1 else parts[0]


def _statistics(x: Tensor, definition: Definition, maps: bool) -> Statistics:
    B, C, H, W = x.shape
    total = x.sum((2, 3))  # (B, C)
    # The diagonal alone is so cheap that fresh memory shows; with a 2-D transform behind it, it does not (measured).
    reuse = x.device.type == "cpu" and definition.metrics == "diagonal" and not maps
    padded = _scratch((B, C, H, W + 1), x.dtype) if reuse else x.new_zeros(B, C, H, W + 1)
    deviation = torch.sub(x, x[..., :1, :1], out=padded[..., :W])
    if definition.window == "hann":
        deviation -= deviation.mean((2, 3), keepdim=True)
        deviation *= _hann((H, W), x.device).to(x.dtype)
    out: Statistics = {"log_amplitude": _log_diagonal(padded, total, definition).mean(1, dtype=torch.float64)}
    if definition.metrics == "all":
        out |= _plane_statistics(x, deviation, total, definition)
    if maps:
        plane = torch.fft.fft2(deviation)
        plane[..., 0, 0] = total.to(plane.dtype)
        out["map"] = torch.fft.fftshift(definition.log_of(plane.abs()).mean(1), dim=(1, 2)).double()
    return out


@functools.lru_cache(maxsize=8)
def _scratch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros on the CPU to be written over in all but the last column: fresh memory costs more than the sums do."""
    with torch.inference_mode(False):
        return torch.zeros(shape, dtype=dtype)


def _plane_statistics(x: Tensor, deviation: Tensor, total: Tensor, definition: Definition) -> Statistics:
    """Everything that needs the whole frequency plane or the positions themselves; see `image_statistics`."""
    B, C, H, W = x.shape
    n = H * W
    squares = _squares(deviation).flatten(0, 1)  # (B * C, P)
    all_bins, high_bins, means = (w.to(squares) for w in _weights((H, W), x.device, definition.window))
    power = (squares @ all_bins).view(B, C).double()  # over non-DC bins
    high = (squares @ high_bins).view(B, C).double()
    ring = (squares.view(B, C, -1).sum(1) @ means).double()  # (B, R)
    live = power > 0
    dc = total.double().square() / n  # squared norm over positions of the mean, (B, C)
    if definition.window == "none":
        ac = power / n  # Parseval: squared norm over positions of the map less its mean
    else:
        ac = (x.double() - total[..., None, None] / n).square().sum((2, 3))
    scale = ((ac + dc).sum(1, keepdim=True) / (C * n)).sqrt()  # RMS of the whole map, (B, 1)
    tiny = torch.finfo(torch.float32).tiny
    white = _white_log(power / max(n - 1, 1), definition)
    cosine, pairs = _token_cosine(x)
    return {
        "ring": ring,
        "power": power.sum(1),
        "high": high.sum(1),
        "share": torch.where(live, high / power.clamp_min(tiny), 0.0).sum(1),
        "live": live.sum(1).double(),
        "white": white.mean(1),
        "variance": ac.mean(1) / n,
        "ac": ac.sum(1),
        "dc": dc.sum(1),
        "cosine": cosine,
        "pairs": pairs,
        "flat": (ac / n).sqrt() / scale.clamp_min(tiny),
    }


def _white_log(power: Tensor, definition: Definition) -> Tensor:
    """Expected log-amplitude, nats, of a complex Gaussian bin of this mean power: |F|^2 is exponential."""
    if definition.log == "log1p":
        nodes, weights = (torch.from_numpy(a).to(power) for a in np.polynomial.laguerre.laggauss(32))
        return ((power[..., None] * nodes).sqrt().log1p() * weights).sum(-1)
    nothing = definition.log_of(torch.zeros_like(power))
    return torch.where(power > 0, torch.maximum(0.5 * power.log() - EULER_GAMMA / 2, nothing), nothing)


def _squares(deviation: Tensor) -> Tensor:
    """Squared real and imaginary part of every bin of the half plane, side by side: (B, C, 2 H (W // 2 + 1))."""
    return torch.view_as_real(torch.fft.rfft2(deviation)).flatten(2).square_()


def _token_cosine(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine of position vectors i != j, (B,) float64, and 1.0 where there are two non-zero vectors, else 0.

    The sum over all pairs of unit vectors is the squared norm of their sum, so nothing of size N x N is made.
    """
    vectors = x.flatten(2)  # (B, C, N)
    norm = vectors.square().sum(1).sqrt()  # (B, N); several times faster than vector_norm over this dimension
    inverse = torch.where(norm > 0, 1 / norm, 0.0)
    mean = (vectors * inverse.unsqueeze(1)).sum(2).double()  # sum of unit vectors, (B, C)
    count = (norm > 0).sum(1).double()
    pairs = count * (count - 1)
    exists = pairs > 0
    return torch.where(exists, (mean.square().sum(1) - count) / pairs.clamp_min(1), 0.0), exists.double()


def relative_log_amplitude(features: Tensor, *, definition: Definition | None = None) -> tuple[Tensor, Tensor]:
    """The field's metric for one batch: a(f) - a(0), where a is the mean log-amplitude over images and channels.

    Args:
        features: (B, C, H, W) feature maps.
        definition: logarithm, window and axis; the published logarithm and the true axis by default.

    Returns:
        frequency (K,) in pi rad/sample per axis, 0 first, and delta (K,) in nats; both float64 on the CPU.

    Source: Park & Kim 2022, figure 2 and appendix; the axis is ours (theirs is `Definition(axis="paper")`).

    >>> x = torch.cos(2 * torch.pi * torch.arange(8) * 2 / 8).expand(1, 1, 8, 8) + 1.0
    >>> frequency, delta = relative_log_amplitude(x)
    >>> frequency.tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    definition = definition or Definition()
    diagonal = Definition(definition.log, definition.floor, definition.window, definition.axis, "diagonal")
    amplitude = image_statistics(features, diagonal)["log_amplitude"].mean(0).cpu()
    frequency = frequencies((features.shape[2], features.shape[3]), definition.axis)
    return torch.tensor(frequency, dtype=torch.float64), amplitude - amplitude[0]


def hfd_share(features: Tensor) -> Tensor:
    """Share of non-DC power at r > 0.5 of each image and channel, corners included: (B, C); NaN where it has none.

    Args:
        features: (B, C, H, W) feature maps.
    """
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        x = features.float()
        squares = _squares(x - x[..., :1, :1])
        all_bins, high_bins, _ = _weights((x.shape[2], x.shape[3]), x.device)
        return (squares @ high_bins) / (squares @ all_bins)

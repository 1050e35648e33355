"""The metrics of one batch of feature maps: pure functions on tensors. Imports torch and errors only.

Every function takes maps (B, C, H, W) of any floating dtype on any device and computes in float32 or better, whatever
autocast says. F is the unnormalised 2-D discrete Fourier transform of a map; frequencies are in units of pi rad/sample
per axis, 1.0 being Nyquist. `image_statistics` gives sufficient statistics image by image: everything the result
reports is a function of their sums, so that batches, shards and ranks merge by addition.

Source of the metric: Park & Kim, "How Do Vision Transformers Work?", ICLR 2022 (arXiv 2202.06709). The rest is defined
where it is computed.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fourier_probe.errors import ResultError

EULER_GAMMA = 0.5772156649015329
ZERO_MEAN_WHITE_NOISE = math.log(2) / 2  # delta of zero-mean white noise below Nyquist, nats
DEAD = 1e-6  # a channel whose standard deviation is below this share of the map's RMS is dead
CACHED = 2**20  # elements worked on at a time on a CPU

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
        grouping: how images went into groups, see `probe.groups`; None before an analysis, and in results of version 1,
            whose groups were the index modulo `groups`.
    """

    log: Literal["floor", "log1p", "plain"] = "floor"
    floor: float = 1e-6
    window: Literal["none", "hann"] = "none"
    axis: Literal["true", "paper"] = "true"
    metrics: Literal["all", "diagonal"] = "all"
    groups: int = 20
    grouping: Literal["permutation", "stream"] | None = None

    def __post_init__(self) -> None:
        for name, allowed in (
            ("log", ("floor", "log1p", "plain")),
            ("window", ("none", "hann")),
            ("axis", ("true", "paper")),
            ("metrics", ("all", "diagonal")),
            ("grouping", (None, "permutation", "stream")),
        ):
            if getattr(self, name) not in allowed:
                raise ResultError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(str, allowed))}.")
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
            **{k: value[k] for k in ("floor", "window", "axis", "metrics", "groups")},
            log=value["log_kind"],
            grouping=value.get("grouping"),
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
def _weights(grid: tuple[int, int], device: torch.device, window: str = "none") -> tuple[Tensor, Tensor]:
    """What turns |F|^2 in the half plane, each entry standing for one of a pair, into powers.

    Returns:
        (2, P) float32 for the power of all non-DC bins, and for that of those beyond r = 0.5; (P, R) float64 for the
        mean power of each ring; P = H (W // 2 + 1). With a window each bin is divided by what is left there of white
        noise once its mean is taken off, 1 - |W(k)|^2 / n^2, so that white noise is flat still.
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
    return torch.tensor([times, high_times], dtype=torch.float32, device=device), means.to(device)


@functools.lru_cache(maxsize=64)
def _hann(grid: tuple[int, int], device: torch.device) -> Tensor:
    """(H, W) periodic Hann window on both axes, unit mean square; constant on an axis of one position."""
    axes = [torch.hann_window(n, periodic=True, dtype=torch.float64) if n > 1 else torch.ones(1).double() for n in grid]
    window = axes[0][:, None] * axes[1][None, :]
    return (window / window.square().mean().sqrt()).float().to(device)


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


def _between_bins(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Transform (B, C, K) of a non-square map (B, C, H, W) at the two bins of the longer axis around each place."""
    H, W = maps.shape[2:]
    rows = torch.fft.rfft((maps if H < W else maps.transpose(2, 3)).double(), dim=2)  # (B, C, K, long)
    long = rows.shape[3]
    place = _places((H, W), maps.device).floor()
    positions = torch.arange(long, device=maps.device, dtype=torch.float64)

    def at(k: Tensor) -> Tensor:
        wave = torch.polar(torch.ones(()).to(positions), -2 * torch.pi / long * torch.outer(k, positions))  # (K, long)
        return torch.einsum("bckl,kl->bck", rows, wave)

    return at(place), at(place + 1)


def _places(grid: tuple[int, int], device: torch.device) -> Tensor:
    """(K,) where the bins of the shorter axis fall on the longer one, in its bins, at the same true frequency."""
    return torch.arange(min(grid) // 2 + 1, device=device, dtype=torch.float64) * max(grid) / min(grid)


def _log_diagonal(raw: Statistics, definition: Definition, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
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
    place = _places(grid, raw["first"].device)[:bins]
    weight = place - place.floor()
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


# --- all of it -------------------------------------------------------------------------------------------------------


def image_statistics(features: Tensor, definition: Definition | None = None, *, maps: bool = False) -> Statistics:
    """Sufficient statistics of a batch of feature maps, image by image.

    Args:
        features: (B, C, H, W), any floating dtype, not modified.
        definition: what to compute; see `Definition`.
        maps: add the 2-D log-amplitude of each image.

    Returns:
        Tensors whose first dimension is the image, in float32 or better:
        `log_amplitude` (B, K): mean over channels of the log-amplitude along the diagonal, nats, dead ones included.
        With metrics "all" also, all of them sums over channels:
        `ring` (B, R): mean power |F|^2 per bin of each ring; `power`, `high`: power of all non-DC bins and of those
        beyond r = 0.5; `share`, `live`: HFD share of each channel that has any non-DC power, and the number of those
        channels; `white`: mean over channels of the expected ln|F| of white noise of the channel's own power;
        `variance`: over positions, mean over channels; `ac`, `dc`: squared norms of the non-DC and of the DC part,
        times H W;
        `cosine`: mean cosine between position vectors i != j, and `pairs`, 1 where it exists;
        `flat` (B, C): standard deviation of each channel over its positions, over the RMS of the image's whole map.
        With `maps` also `map` (B, H, W): the log-amplitude mean over channels, DC in the middle.

    Raises:
        ResultError: features are not 4-D floating maps.
    """
    definition = definition or Definition()
    if features.ndim != 4 or not features.is_floating_point():
        raise ResultError(f"expected floating feature maps (B, C, H, W), got {features.dtype} {tuple(features.shape)}.")
    with torch.no_grad(), _no_autocast(features.device.type):
        x = features if features.dtype == torch.float64 else features.float()  # fp16/bf16 have too few digits to sum
        images = _at_a_time(x)
        parts = [_passes(part, definition, maps) for part in (torch.split(x, images) if images < len(x) else [x])]
        whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if len(parts) > 1 else parts[0]
        return _finish(whole, definition, (x.shape[2], x.shape[3]))


def _at_a_time(x: Tensor) -> int:
    """How many images to take through all passes together.

    On a CPU few enough to stay in its cache; and as many for each thread, so that a thread finds in its own cache what
    it wrote in the pass before and not in that of another (measured: the FFT alone gets up to four times slower).
    """
    if x.device.type != "cpu":
        return len(x)
    threads = torch.get_num_threads()
    return threads * max(CACHED * len(x) // max(x.numel() * threads, 1), 1)


def _no_autocast(device: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else contextlib.nullcontext()


def _passes(x: Tensor, definition: Definition, maps: bool) -> Statistics:
    """What takes passes over whole maps (B, C, H, W), image by image; everything in it is small. See `_finish`."""
    H, W = x.shape[2:]
    padded = _less_a_constant(x)
    deviation = padded[..., :W]
    out: Statistics = {"offset": x[..., 0, 0] * (H * W)}  # what F(0, 0) of the deviation lacks
    if definition.window == "hann":
        deviation -= deviation.mean((2, 3), keepdim=True)
        deviation *= _hann((H, W), x.device).to(x.dtype)
        total = x.double().sum((2, 3))
        out["offset"] = (total - deviation.double().sum((2, 3))).to(x.dtype)
    if H == W:
        out["sums"] = antidiagonal_sums(padded)
    else:
        out["first"], out["second"] = _between_bins(deviation)
    if definition.metrics == "all":
        out["power"], out["high"], out["plane"] = _powers(deviation, definition.window)
        out["unit"], out["vectors"] = _unit_vectors(x)
        if definition.window != "none":
            out["ac"] = (x.double() - total[..., None, None] / (H * W)).square().sum((2, 3)).to(x.dtype)
    if maps:
        plane = torch.fft.fft2(deviation)
        torch.view_as_real(plane)[..., 0, 0, 0] += out["offset"]
        out["map"] = torch.fft.fftshift(definition.log_of(plane.abs()).mean(1), dim=(1, 2))
    return out


def _less_a_constant(x: Tensor) -> Tensor:
    """Maps less the first value of each, which keeps the digits of nearly constant ones, a column of zeros behind."""
    padded = _room(x, padding=1)
    torch.sub(x, x[..., :1, :1], out=padded[..., :-1])
    return padded


def _finish(raw: Statistics, definition: Definition, grid: tuple[int, int]) -> Statistics:
    """From what `_passes` found to what `image_statistics` returns: operations few, and on small tensors only."""
    logs, total = _log_diagonal(raw, definition, grid)
    out = {"log_amplitude": logs.mean(1, dtype=torch.float64)}
    if "map" in raw:
        out["map"] = raw["map"].double()
    if "power" not in raw:
        return out
    n, channels = math.prod(grid), total.shape[1]
    tiny = torch.finfo(torch.float32).tiny
    power, high = raw["power"], raw["high"]  # (B, C)
    dc = total.square()  # n times the squared norm over positions of the mean
    ac = raw["ac"] * n if "ac" in raw else power  # n times that of the map less its mean: Parseval, unless windowed
    out |= {
        "power": power.sum(1),
        "high": high.sum(1),
        "share": (high / power.clamp_min(tiny)).sum(1),
        "live": (power > 0).sum(1),
        "white": _white_log(power / max(n - 1, 1), definition).mean(1),
        "dc": dc.sum(1),
        "ac": ac.sum(1),
    }
    whole = (out["ac"] + out["dc"]).clamp_min(tiny)  # (B,)
    out["variance"] = out["ac"] / (n * n * channels)
    out["flat"] = (ac * (channels / whole).unsqueeze(1)).sqrt()
    out["ring"] = raw["plane"].double() @ _weights(grid, logs.device, definition.window)[1]
    # The sum over all pairs of unit vectors is the squared norm of their sum: nothing of size N x N is made.
    count = raw["vectors"]
    pairs = count * (count - 1)
    together = raw["unit"].square().sum(1, dtype=torch.float64) - count
    out["pairs"] = pairs.clamp_max(1)
    out["cosine"] = together / pairs.clamp_min(1) * out["pairs"]
    return out


def _white_log(power: Tensor, definition: Definition) -> Tensor:
    """Expected log-amplitude, nats, of a complex Gaussian bin of this mean power: E ln(|F| + floor).

    |F| is Rayleigh: far above the floor this is ln sqrt(power) - gamma / 2 + sqrt(pi) floor / sqrt(power), up to terms
    of (floor^2 / power); near it and below, a quadrature.
    """
    nothing = float(definition.log_of(torch.zeros((), dtype=torch.float64)))
    if definition.log == "plain":
        return power.log().mul_(0.5).sub_(EULER_GAMMA / 2).clamp_min_(nothing)
    floor = 1.0 if definition.log == "log1p" else definition.floor
    amplitude = power.double().sqrt()  # (B, C)
    near = amplitude < 1e4 * floor
    far = torch.where(near, amplitude + floor, amplitude)  # finite where it is not used
    out = far.log() - EULER_GAMMA / 2 + math.sqrt(math.pi) * floor / far
    nodes, weights = (part.to(power.device) for part in _rayleigh())
    if power.device.type == "cpu":  # few channels are near the floor: only these pay
        if near.any():
            out[near] = ((amplitude[near][:, None] * nodes + floor).log() * weights).sum(-1)
        return out
    return torch.where(near, ((amplitude[..., None] * nodes + floor).log() * weights).sum(-1), out)  # no waiting


@functools.lru_cache(maxsize=1)
def _rayleigh() -> tuple[Tensor, Tensor]:
    """Nodes and weights (81,) of the expectation over v of density 2 v exp(-v^2): the trapezoid rule in ln v.

    It converges exponentially there; for ln(v + s), s from 1e-4 up, the error is below 1e-9 nats.
    """
    t = torch.linspace(-14, 2, 81, dtype=torch.float64)
    weights = 2 * (2 * t).exp() * (-(2 * t).exp()).exp()
    return t.exp(), weights / weights.sum()


def _powers(deviation: Tensor, window: str = "none") -> tuple[Tensor, Tensor, Tensor]:
    """Power of all non-DC bins and of those beyond r = 0.5, (B, C) each; |F|^2 of each bin over channels (B, P)."""
    B, C, H, W = deviation.shape
    K = W // 2 + 1
    weights = _weights((H, W), deviation.device, window)[0].to(deviation.dtype)
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


def _unit_vectors(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of the vectors over channels at each position: sum of their directions (B, C), number of non-zero ones (B,)."""
    room = _room(x)
    norm = torch.mul(x, x, out=room).sum(1, keepdim=True).sqrt()  # (B, 1, H, W); much faster than vector_norm
    inverse = torch.where(norm > 0, 1 / norm, 0.0)
    return torch.mul(x, inverse, out=room).sum((2, 3)), (norm > 0).sum((1, 2, 3))


def _room(x: Tensor, padding: int = 0) -> Tensor:
    """Memory (B, C, H, W + padding) to be written over in all but its zero padding; it lies as x does in memory.

    On a CPU it is kept for the next call, one for each thread of the caller: fresh pages cost more than the sums.
    """
    B, C, H, W = x.shape
    last = x.stride(1) == 1 and C > 1
    shape = (B, H, W + padding, C) if last else (B, C, H, W + padding)
    room = _kept(shape, padding, x.dtype, threading.get_ident()) if x.device.type == "cpu" else x.new_zeros(shape)
    return room.permute(0, 3, 1, 2) if last else room


@functools.lru_cache(maxsize=16)
def _kept(shape: tuple[int, ...], _padding: int, dtype: torch.dtype, _thread: int) -> Tensor:
    with torch.inference_mode(False):
        return torch.zeros(shape, dtype=dtype)


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
        power, high, _ = _powers(x - x[..., :1, :1])
        return high / power

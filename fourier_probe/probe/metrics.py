"""The metrics, in plain maths: one function each, from the maps of a batch to numbers of each image that add up.

`fast` computes the same sums in few passes and is what an analysis runs; these are what it is tested against. Every
function takes a `MetricRequest`; (B, C, H, W) are images, channels, rows, columns, F is the unnormalised 2-D discrete
Fourier transform of a map, and frequencies are in units of pi rad/sample per axis, 1.0 being Nyquist. Imports torch,
definition, frequency, registered.

Source: Park & Kim, "How Do Vision Transformers Work?", ICLR 2022 (arXiv 2202.06709) for the log-amplitude along the
diagonal. The rest is defined where it is computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fourier_probe.probe.definition import Definition
from fourier_probe.probe.frequency import frequencies, plane, ring_radii
from fourier_probe.probe.registered import METRICS, Array, Estimate, Kind, Measure, Metric, Sums
from fourier_probe.runtime.accelerator import wide

EULER_GAMMA = 0.5772156649015329
ZERO_MEAN_WHITE_NOISE = math.log(2) / 2  # delta of zero-mean white noise below Nyquist, nats
DEAD = 1e-6  # a channel whose standard deviation is below this share of the map's RMS is dead

Statistics = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class MetricRequest:
    """What a metric may look at: the maps of one batch at one point, and what is computed of them when first asked for.

    Attributes:
        maps: (B, C, H, W) in float32 or float64, not to be modified.
        definition: logarithm, window and axis of the analysis.

    >>> request = MetricRequest(torch.rand(2, 3, 8, 8))
    >>> request.power.shape, request.radius.shape, request.radii
    (torch.Size([2, 3, 8, 8]), torch.Size([8, 8]), [0.25, 0.5, 0.75, 1.0])
    >>> request.ring_means(request.power.sum(1)).shape
    torch.Size([2, 4])
    """

    maps: Tensor
    definition: Definition = field(default_factory=Definition)

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return self.maps.shape[2], self.maps.shape[3]

    @functools.cached_property
    def deviation(self) -> Tensor:
        """(B, C, H, W) the maps minus their means over positions; exactly 0 of a constant channel."""
        deviation = self.maps - self.maps[..., :1, :1]
        return deviation - deviation.mean((2, 3), keepdim=True)

    @functools.cached_property
    def transform(self) -> Tensor:
        """(B, C, H, W) F, DC first; of a Hann window the map minus its mean is windowed, and the mean put back."""
        deviation = self.deviation
        if self.definition.window == "hann":
            deviation = deviation * hann(self.grid, self.maps.device).to(self.maps.dtype)
        transform: Tensor = torch.fft.fft2(deviation)
        transform[..., 0, 0] = self.maps.sum((2, 3))
        return transform

    @functools.cached_property
    def power(self) -> Tensor:
        """(B, C, H, W) |F|^2, 0 at DC.

        With a window each bin is divided by what is left there of white noise once its mean is taken off,
        1 - |W(k)|^2 / (H W)^2, so that white noise is flat still.
        """
        power = self.transform.abs().square()
        if self.definition.window == "hann":
            window = hann(self.grid, self.maps.device).to(self.maps.dtype)
            left = 1 - torch.fft.fft2(window).abs().square() / math.prod(self.grid) ** 2
            left[0, 0] = 1
            power = power / left
        power[..., 0, 0] = 0
        return power

    @property
    def frequencies(self) -> tuple[Tensor, Tensor]:
        """(H, 1) and (1, W): the frequency of each bin along the rows and the columns, -1 to 1, DC first."""
        ky, kx = (torch.fft.fftfreq(n, 0.5, dtype=self.maps.dtype, device=self.maps.device) for n in self.grid)
        return ky[:, None], kx[None, :]

    @property
    def radius(self) -> Tensor:
        """(H, W) r of each bin, DC first."""
        return torch.hypot(*self.frequencies)

    @property
    def radii(self) -> list[float]:
        """The R radii of the rings."""
        return ring_radii(self.grid)

    @functools.cached_property
    def high(self) -> Tensor:
        """(H, W) whether r > 0.5, decided in integers."""
        return torch.tensor(plane(self.grid)[1], device=self.maps.device)

    def ring_means(self, values: Tensor) -> Tensor:
        """Mean over the bins of each ring: (B, H, W) -> (B, R). A bin is in the ring nearest to its r; DC in none."""
        ring = torch.tensor(plane(self.grid)[0], device=values.device)
        means = [values[:, ring == m].mean(1) for m in range(1, len(self.radii) + 1)]
        return torch.stack(means, 1) if means else values.new_zeros(len(values), 0)


def _metric(
    *shared: str, label: str, unit: str = "", kind: Kind = "scalar", estimate: Estimate
) -> Callable[[Measure], Metric]:
    """A decorator that makes a `Metric` of a function of this module; `shared`: the sums that it needs."""

    def make(measure: Measure) -> Metric:
        name = measure.__name__
        summary = next(entry.summary for entry in METRICS.entries() if entry.name == name)
        return Metric(name, label, unit, kind, summary, measure, estimate, shared)

    return make


# --- along the diagonal ----------------------------------------------------------------------------------------------


def log_amplitude(request: MetricRequest) -> Tensor:
    """(B, K) the log-amplitude at the bins of the diagonal, nats, mean over channels, dead ones included.

    On a non-square map bin j of the shorter axis falls between two bins of the longer one, at the same true frequency,
    and the logarithm is interpolated.
    """
    H, W = request.grid
    short, long = min(H, W), max(H, W)
    logs = request.definition.log_of(request.transform.abs())
    logs = logs if H <= W else logs.transpose(2, 3)  # (B, C, short, long)
    values = []
    for j in range(len(frequencies(request.grid, request.definition.axis))):
        left, part = divmod(j * long, short)
        value = logs[..., j, left]
        values.append(value if part == 0 else value + part / short * (logs[..., j, left + 1] - value))
    return torch.stack(values, -1).mean(1)


# --- over the plane --------------------------------------------------------------------------------------------------


def _density(sums: Sums, grid: tuple[int, int]) -> Array:
    mean_power = sums["power"] / max(math.prod(grid) - 1, 1)
    return np.asarray(np.log(sums["ring"] / mean_power[:, None]))


@_metric("ring", "power", label="log density", unit="nats", kind="radial", estimate=_density)
def log_density(request: MetricRequest) -> Statistics:
    """`ring` (B, R): mean power per bin of each ring; `power` (B,): of all bins but DC; sums over channels."""
    power = request.power.sum(1)
    return {"ring": request.ring_means(power), "power": power.sum((1, 2))}


@_metric("share", "live", label="HFD share", estimate=lambda sums, _grid: sums["share"] / sums["live"])
def hfd_share(request: MetricRequest) -> Statistics:
    """`share` (B,): share of power at r > 0.5, summed over the channels that have any; `live`: their number."""
    power = request.power.sum((2, 3))
    high = (request.power * request.high).sum((2, 3))
    live = power > 0
    return {"share": torch.where(live, high / power, 0.0).sum(1), "live": live.sum(1)}


@_metric("high", "power", label="HFD share, pooled", estimate=lambda sums, _grid: sums["high"] / sums["power"])
def hfd_share_pooled(request: MetricRequest) -> Statistics:
    """`high` (B,): power at r > 0.5; `power`: of all bins but DC."""
    return {"high": (request.power * request.high).sum((1, 2, 3)), "power": request.power.sum((1, 2, 3))}


def _slope(sums: Sums, grid: tuple[int, int]) -> Array:
    radii = ring_radii(grid)
    density = _density(sums, grid)
    if len(radii) < 4:
        return np.full(len(density), np.nan)
    x = np.log(radii) - np.log(radii).mean()
    return np.asarray((density - density.mean(1, keepdims=True)) @ x / (x @ x))


@_metric("ring", "power", label="slope", estimate=_slope)
def slope(request: MetricRequest) -> Statistics:
    """The sums of `log_density`, whose least-squares slope on ln r is taken; none under 4 rings."""
    return dict(log_density.measure(request))  # type: ignore[arg-type]


# --- over positions --------------------------------------------------------------------------------------------------


@_metric("variance", label="variance", estimate=lambda sums, _grid: sums["variance"] / sums["count"])
def variance(request: MetricRequest) -> Statistics:
    """`variance` (B,): over positions, mean over channels."""
    return {"variance": request.deviation.square().mean((1, 2, 3))}


@_metric("ac", "dc", label="AC / DC", estimate=lambda sums, _grid: np.sqrt(sums["ac"] / sums["dc"]))
def ac_dc(request: MetricRequest) -> Statistics:
    """`ac`, `dc` (B,): squared norms of the map minus its mean, and of its mean, times H W, summed over channels."""
    ac = request.deviation.square().sum((1, 2, 3)) * math.prod(request.grid)
    return {"ac": ac, "dc": request.maps.sum((2, 3)).square().sum(1)}


@_metric("cosine", "pairs", label="token cosine", estimate=lambda sums, _grid: sums["cosine"] / sums["pairs"])
def token_cosine(request: MetricRequest) -> Statistics:
    """`cosine` (B,): mean cosine of the vectors at two positions i != j that are not zero; `pairs`: 1 if it exists."""
    vectors = request.maps.flatten(2)  # (B, C, N)
    unit = torch.nn.functional.normalize(vectors, dim=1, eps=torch.finfo(vectors.dtype).tiny)
    live = (vectors != 0).any(1).sum(1)  # (B,)
    pairs = live * (live - 1)
    cosines = (unit.transpose(1, 2) @ unit).sum((1, 2)) - live
    return {"cosine": torch.where(pairs > 0, cosines / pairs.clamp_min(1), 0.0), "pairs": pairs.clamp_max(1)}


def _white_delta(sums: Sums, grid: tuple[int, int]) -> Array:
    amplitude = sums["log_amplitude"][:, 0] / sums["count"]
    return np.asarray(sums["white"] / sums["count"] - amplitude + (0.0 if math.prod(grid) > 1 else np.nan))


@_metric("white", "log_amplitude", label="delta of white noise", unit="nats", estimate=_white_delta)
def white_delta(request: MetricRequest) -> Statistics:
    """`white` (B,): expected log-amplitude of white noise of each channel's own power, mean over channels."""
    power = request.power.sum((2, 3)) / max(math.prod(request.grid) - 1, 1)  # (B, C), of one bin
    return {"white": expected_log(power, request.definition).mean(1), "log_amplitude": log_amplitude(request)}


def expected_log(power: Tensor, definition: Definition) -> Tensor:
    """Expected log-amplitude, nats, of a complex Gaussian bin of this mean power: |F| is Rayleigh."""
    power = wide(power)
    nodes, weights = (part.to(power.device) for part in rayleigh())
    amplitude = power.sqrt()[..., None] * nodes
    return (definition.log_of(amplitude) * weights).sum(-1)


@functools.lru_cache(maxsize=1)
def rayleigh() -> tuple[Tensor, Tensor]:
    """Nodes and weights (81,) of the expectation over v of density 2 v exp(-v^2): the trapezoid rule in ln v.

    It converges exponentially there; for ln(v + s), s from 1e-4 up, the error is below 1e-9 nats.
    """
    t = torch.linspace(-14, 2, 81, dtype=torch.float64)
    weights = 2 * (2 * t).exp() * (-(2 * t).exp()).exp()
    return t.exp(), weights / weights.sum()


def flatness(request: MetricRequest) -> Tensor:
    """(B, C) standard deviation of each channel over its positions, over the RMS of the image's whole map."""
    rms = request.maps.square().mean((1, 2, 3)).sqrt().clamp_min(torch.finfo(request.maps.dtype).tiny)
    return request.deviation.square().mean((2, 3)).sqrt() / rms[:, None]


@functools.lru_cache(maxsize=64)
def hann(grid: tuple[int, int], device: torch.device) -> Tensor:
    """(H, W) periodic Hann window on both axes, unit mean square; constant on an axis of one position."""
    axes = [torch.hann_window(n, periodic=True, dtype=torch.float64) if n > 1 else torch.ones(1).double() for n in grid]
    window = axes[0][:, None] * axes[1][None, :]
    return (window / window.square().mean().sqrt()).float().to(device)


def plain_statistics(features: Tensor, definition: Definition | None = None) -> Statistics:
    """What `fast.image_statistics` gives, from the functions above, in float64; slow, and readable."""
    request = MetricRequest(features.double(), definition or Definition())
    out = {"log_amplitude": log_amplitude(request)}
    if request.definition.metrics == "all":
        for name in METRICS:
            metric = METRICS.get(name)
            if metric.shared and not metric.asked:
                out |= metric.statistics(request)
        out["flat"] = flatness(request)
    return out

"""All statistics of a batch of feature maps in few passes over them: what an analysis runs. Imports metrics.

The same numbers as the plain functions of `metrics`, tested equal. F(k, k) comes of anti-diagonal sums without a 2-D
transform, powers of small maps of two matrix products, and what is large is written over from batch to batch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fourier_probe.errors import ResultError
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.frequency import frequencies
from fourier_probe.probe.metrics import EULER_GAMMA, MetricRequest, Statistics, hann, rayleigh
from fourier_probe.probe.registered import Metric
from fourier_probe.probe.transforms import antidiagonal_sums, between_bins, bin_weights, log_diagonal, powers
from fourier_probe.runtime.accelerator import summing, wide

CACHED = 2**20  # elements worked on at a time on a CPU


class Scratch:
    """Memory for one stream of batches, written over by each: on a CPU fresh pages cost more than the sums.

    One thread at a time may use it.
    """

    ROOMS = 16

    def __init__(self) -> None:
        self._rooms: dict[tuple[tuple[int, ...], int, torch.dtype], Tensor] = {}

    def room(self, x: Tensor, padding: int = 0) -> Tensor:
        """Memory (B, C, H, W + padding) to be written over in all but its zero padding; it lies as x does in memory."""
        B, C, H, W = x.shape
        last = x.stride(1) == 1 and C > 1
        shape = (B, H, W + padding, C) if last else (B, C, H, W + padding)
        room = self._from_before(shape, padding, x.dtype) if x.device.type == "cpu" else x.new_zeros(shape)
        return room.permute(0, 3, 1, 2) if last else room

    def _from_before(self, shape: tuple[int, ...], padding: int, dtype: torch.dtype) -> Tensor:
        key = (shape, padding, dtype)
        room = self._rooms.pop(key, None)
        if room is None:
            while len(self._rooms) >= self.ROOMS:
                del self._rooms[next(iter(self._rooms))]
            with torch.inference_mode(False):
                room = torch.zeros(shape, dtype=dtype)
        self._rooms[key] = room  # the latest stands last
        return room


def image_statistics(
    features: Tensor,
    definition: Definition | None = None,
    *,
    maps: bool = False,
    metrics: Sequence[Metric] = (),
    scratch: Scratch | None = None,
) -> Statistics:
    """Sufficient statistics of a batch of feature maps, image by image.

    Args:
        features: (B, C, H, W), any floating dtype, not modified.
        definition: what to compute; see `Definition`.
        maps: add the 2-D log-amplitude of each image.
        metrics: add what these sum, under their own names; not with metrics="diagonal" of the definition.
        scratch: memory to write over, for the next batch of the same maps to use again.

    Returns:
        Tensors whose first dimension is the image, in float32 or better, on the CPU where a device has no float64:
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
        ResultError: features are not 4-D floating maps, or a metric fails.

    >>> statistics = image_statistics(torch.rand(2, 3, 8, 8))
    >>> statistics["log_amplitude"].shape, statistics["ring"].shape
    (torch.Size([2, 5]), torch.Size([2, 4]))
    """
    definition, scratch = definition or Definition(), scratch or Scratch()
    if features.ndim != 4 or not features.is_floating_point():
        raise ResultError(f"expected floating feature maps (B, C, H, W), got {features.dtype} {tuple(features.shape)}.")
    with torch.no_grad(), _no_autocast(features.device.type):
        x = features if features.dtype == torch.float64 else features.float()  # fp16/bf16 have too few digits to sum
        images = _at_a_time(x)
        split = torch.split(x, images) if images < len(x) else [x]
        parts = [_passes(part, definition, maps, scratch) for part in split]
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if len(parts) > 1 else parts[0]
        sums = summing(x.device)
        out = _finish({name: value.to(sums) for name, value in joined.items()}, definition, (x.shape[2], x.shape[3]))
        if metrics and definition.metrics == "all":
            request = MetricRequest(x, definition)
            for metric in metrics:
                out |= {name: value.to(sums) for name, value in metric.statistics(request).items()}
        return out


def _at_a_time(x: Tensor) -> int:
    """How many images to take through all passes together.

    On a CPU few enough to stay in its cache; and as many for each thread, so that a thread finds in its own cache what
    it wrote in the pass before and not in that of another (measured: the FFT alone gets up to four times slower).
    """
    if x.device.type != "cpu":
        return len(x)
    threads = torch.get_num_threads()
    return threads * max(CACHED * len(x) // max(x.numel() * threads, 1), 1)


def _no_autocast(device: str) -> contextlib.AbstractContextManager[object]:
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else contextlib.nullcontext()


def _passes(x: Tensor, definition: Definition, maps: bool, scratch: Scratch) -> Statistics:
    """What takes passes over whole maps (B, C, H, W), image by image; everything in it is small. See `_finish`."""
    H, W = x.shape[2:]
    padded = _less_a_constant(x, scratch)
    deviation = padded[..., :W]
    out: Statistics = {"offset": x[..., 0, 0] * (H * W)}  # what F(0, 0) of the deviation lacks
    if definition.window == "hann":
        deviation -= deviation.mean((2, 3), keepdim=True)
        deviation *= hann((H, W), x.device).to(x.dtype)
        total = wide(x).sum((2, 3))
        out["offset"] = (total - wide(deviation).sum((2, 3))).to(x.dtype)
    if H == W:
        out["sums"] = antidiagonal_sums(padded)
    else:
        out["first"], out["second"] = between_bins(deviation)
    if definition.metrics == "all":
        out["power"], out["high"], out["plane"] = powers(deviation, definition.window)
        out["unit"], out["vectors"] = _unit_vectors(x, scratch)
        if definition.window != "none":
            out["ac"] = (wide(x) - total[..., None, None] / (H * W)).square().sum((2, 3)).to(x.dtype)
    if maps:
        plane = torch.fft.fft2(deviation)
        torch.view_as_real(plane)[..., 0, 0, 0] += out["offset"].to(x.device)
        out["map"] = torch.fft.fftshift(definition.log_of(plane.abs()).mean(1), dim=(1, 2))
    return out


def _less_a_constant(x: Tensor, scratch: Scratch) -> Tensor:
    """Maps minus the first value of each, which keeps the digits of nearly constant ones, a column of zeros behind."""
    padded = scratch.room(x, padding=1)
    torch.sub(x, x[..., :1, :1], out=padded[..., :-1])
    return padded


def _finish(raw: Statistics, definition: Definition, grid: tuple[int, int]) -> Statistics:
    """From what `_passes` found to what `image_statistics` returns: operations few, and on small tensors only."""
    logs, total = log_diagonal(raw, definition, grid)
    out = {"log_amplitude": logs.mean(1, dtype=torch.float64)}
    if "map" in raw:
        out["map"] = wide(raw["map"])
    if "power" not in raw:
        return out
    n, channels = math.prod(grid), total.shape[1]
    tiny = torch.finfo(torch.float32).tiny
    power, high = raw["power"], raw["high"]  # (B, C)
    dc = total.square()  # n times the squared norm over positions of the mean
    ac = raw["ac"] * n if "ac" in raw else power  # n times that of the map minus its mean: Parseval, unless windowed
    out |= {
        "power": power.sum(1),
        "high": high.sum(1),
        "share": (high / power.clamp_min(tiny)).sum(1),
        "live": (power > 0).sum(1),
        "white": white_log(power / max(n - 1, 1), definition).mean(1),
        "dc": dc.sum(1),
        "ac": ac.sum(1),
    }
    power_of_image = (out["ac"] + out["dc"]).clamp_min(tiny)  # (B,)
    out["variance"] = out["ac"] / (n * n * channels)
    out["flat"] = (ac * (channels / power_of_image).unsqueeze(1)).sqrt()
    out["ring"] = wide(raw["plane"]) @ bin_weights(grid, logs.device, definition.window)[1]
    # The sum over all pairs of unit vectors is the squared norm of their sum: nothing of size N x N is made.
    count = raw["vectors"]
    pairs = count * (count - 1)
    together = raw["unit"].square().sum(1, dtype=torch.float64) - count
    out["pairs"] = pairs.clamp_max(1)
    out["cosine"] = together / pairs.clamp_min(1) * out["pairs"]
    return out


def _unit_vectors(x: Tensor, scratch: Scratch) -> tuple[Tensor, Tensor]:
    """Of the vectors over channels at each position: sum of their directions (B, C), number of non-zero ones (B,)."""
    room = scratch.room(x)
    norm = torch.mul(x, x, out=room).sum(1, keepdim=True).sqrt()  # (B, 1, H, W); much faster than vector_norm
    inverse = torch.where(norm > 0, 1 / norm, 0.0)
    return torch.mul(x, inverse, out=room).sum((2, 3)), (norm > 0).sum((1, 2, 3))


def white_log(power: Tensor, definition: Definition) -> Tensor:
    """Expected log-amplitude, nats, of a complex Gaussian bin of this mean power: E ln(|F| + floor).

    |F| is Rayleigh: far above the floor this is ln sqrt(power) - gamma / 2 + sqrt(pi) floor / sqrt(power), up to terms
    of (floor^2 / power); near it and below, a quadrature.
    """
    if definition.log == "plain":
        nothing = math.log(torch.finfo(torch.float32).tiny)  # what `log_of` makes of 0
        return power.log().mul_(0.5).sub_(EULER_GAMMA / 2).clamp_min_(nothing)
    floor = 1.0 if definition.log == "log1p" else definition.floor
    amplitude = wide(power).sqrt()  # (B, C)
    near = amplitude < 1e4 * floor
    far = torch.where(near, amplitude + floor, amplitude)  # finite where it is not used
    out = far.log() - EULER_GAMMA / 2 + math.sqrt(math.pi) * floor / far
    nodes, weights = (part.to(amplitude.device) for part in rayleigh())
    if amplitude.device.type == "cpu":  # few channels are near the floor: only these pay
        if near.any():
            out[near] = ((amplitude[near][:, None] * nodes + floor).log() * weights).sum(-1)
        return out
    return torch.where(near, ((amplitude[..., None] * nodes + floor).log() * weights).sum(-1), out)  # no waiting


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

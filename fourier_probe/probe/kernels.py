"""What convolutions, and attention maps as filters, do to each frequency, by their kernels. May import points, capture.

The response of a convolution is the discrete Fourier transform of its kernel, one per pair of input and output channel;
its power |K(f)|^2 is averaged over pairs, then over rings of frequencies. On any grid the mean of |K(f)|^2 over all
frequencies is the sum of the squared taps (Parseval), so

    log_power(r) = ln(mean power of the ring r / sum of squared taps),   r = 0 is frequency 0 alone,

needs no unit and no grid: it is 0 at every r for a kernel of one tap, about 0 for random taps, and the largest it can
be at r = 0 is ln(taps). `tilt` is log_power(1) - log_power(0): below 0 the layer passes low frequencies, above 0 high
ones. The grid has at least 32 x 32 frequencies, and holds the kernel with its dilation. The effective filter of an
attention head is its map as a function of the offset from query to key, a mean over queries and images
(`attention`): the same formula, heads in place of pairs.

Kernels are taken where they are used, from one forward, not from the modules: a layer that standardises, prunes or
quantises its weights, or a plain function, shows the kernel that runs. Errors are a jackknife over groups of output
channels: what another draw of filters would change; it says nothing about training another network.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fourier_probe.errors import PointError
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.groups import group_of
from fourier_probe.probe.points import Point, find_points
from fourier_probe.probe.sums import Array, Estimates, jackknife
from fourier_probe.trace.calling import eager, giving, run

GRID = 32  # frequencies on each axis, at least
GROUPS = 20
Kind = Literal["dense", "grouped", "depthwise", "transposed", "attention"]


@dataclass(frozen=True)
class Kernel:
    """One kernel as it ran.

    Attributes:
        name: of the module; a second kernel that runs in it is `name#2`.
        kind: "dense", "grouped" or "depthwise" convolution, "transposed", or "attention".
        size: (H, W) of the kernel; of attention the extent of its offsets.
        stride, dilation: (y, x). groups: of channels. inputs, outputs: channels; of attention both are heads.
        radius: (R,) from 0, 1 is Nyquist of an axis.
    """

    name: str
    kind: Kind
    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    inputs: int
    outputs: int
    radius: Array


@dataclass(frozen=True)
class KernelResponse(Kernel):
    """The response of one layer.

    Attributes:
        depth: of the step of the stream that the layer belongs to, 0 to 1.
        log_power, stderr: (R,) nats, see the top of this module; the error is NaN under 20 outputs.
        tilt, tilt_stderr: log_power at 1 minus that at 0, nats.
        norm: root of the sum of squared taps per output.
    """

    depth: float
    log_power: Array
    stderr: Array
    tilt: float
    tilt_stderr: float
    norm: float


@dataclass(frozen=True)
class _Seen(Kernel):
    """A kernel reduced to its sums by groups of output channels."""

    sums: dict[str, Array]


def kernel_responses(model: nn.Module, example: Tensor) -> tuple[list[KernelResponse], dict[str, str]]:
    """The response of every convolution over two axes that runs in a forward.

    Args:
        model: any module; runs once, in eval mode without gradients, and is left as it was.
        example: (1, C, H, W), of the size that the model takes; its values do not matter.

    Returns:
        The responses in execution order, and for each convolution left out the reason.

    Raises:
        ModelError: the model does not take such an image.

    >>> from torch import nn
    >>> layers, _ = kernel_responses(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.zeros(1, 3, 8, 8))
    >>> layers[0].name, layers[0].kind, layers[0].log_power.shape
    ('0', 'dense', (17,))
    """
    model = eager(model)
    example = example[:1]
    points: list[Point] = []
    try:
        points = find_points(model, example, branches=False)
    except PointError:
        pass  # depth is then the order
    heard = _Heard()

    def reached(point: Point, _maps: Tensor) -> None:
        if point.kind in ("stem", "residual"):
            heard.step(point.depth)

    hooks = [
        module.register_forward_pre_hook(lambda _m, _i, name=name: heard.running.append(name))
        for name, module in model.named_modules()
    ] + [module.register_forward_hook(heard.leave) for module in model.modules()]
    try:
        # Hooks of Capture come after those above: a step is over before its module is taken off the list.
        with Capture(model, points, reached), torch.no_grad(), giving(model, example), heard:
            run(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    depths = heard.depths(bool(points))
    return [_response(seen, depth) for seen, depth in zip(heard.seen, depths, strict=True)], heard.left_out


class _Heard(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every convolution of a forward, once per kernel, inside the innermost running module."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.running: list[str] = []
        self.seen: list[_Seen] = []
        self.left_out: dict[str, str] = {}
        self._depths: list[float] = []
        self._keys: dict[tuple[str, int, tuple[int, ...]], None] = {}

    def leave(self, _module: nn.Module, _inputs: object, _output: object) -> None:
        """The innermost running module is done."""
        self.running.pop()

    def step(self, depth: float) -> None:
        """A point of the stream: what ran since the one before leads to it."""
        self._depths += [depth] * (len(self.seen) - len(self._depths))

    def depths(self, known: bool) -> list[float]:
        """Of each kernel; by order where the model has no points."""
        if not known:
            return [at / max(len(self.seen) - 1, 1) for at in range(len(self.seen))]
        return self._depths + [1.0] * (len(self.seen) - len(self._depths))

    def __torch_dispatch__(
        self, function: Any, _types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        if function is torch.ops.aten.convolution.default:
            self._hear(*args)
        return function(*args, **(kwargs or {}))

    def _hear(
        self, _images: Tensor, weight: Tensor, _bias: object, stride: list[int], _padding: list[int],
        dilation: list[int], transposed: bool, _output_padding: list[int], groups: int,
    ) -> None:  # fmt: skip
        name = self.running[-1] if self.running else ""
        if weight.ndim != 4:
            self.left_out[name] = f"it runs over {weight.ndim - 2} axes, and responses are of two"
            return
        key = (name, weight.data_ptr(), tuple(weight.shape))
        if key in self._keys:
            return  # the same kernel again
        count = 1 + sum(other[0] == name for other in self._keys)
        self._keys[key] = None
        y, x = (2 * stride)[:2], (2 * dilation)[:2]  # one number stands for both axes
        kernel = weight.detach().cpu().double()  # (outputs, inputs / groups, H, W)
        if transposed:  # (inputs, outputs / groups, H, W)
            inputs, each, *size = kernel.shape
            kernel = kernel.reshape(groups, inputs // groups, each, *size).transpose(1, 2).flatten(0, 1)
        label = name if count == 1 else f"{name}#{count}"
        self.seen.append(_reduced(label, kernel, transposed, (y[0], y[1]), (x[0], x[1]), groups))


def _reduced(
    name: str, kernel: Tensor, transposed: bool, stride: tuple[int, int], dilation: tuple[int, int], groups: int
) -> _Seen:
    outputs, per_group, height, width = kernel.shape
    kind: Kind = "dense" if groups == 1 else "depthwise" if per_group == 1 else "grouped"
    waves = _waves((height, width), dilation)
    group = group_of(np.arange(outputs), outputs, GROUPS)
    rows = [_sums(kernel[torch.from_numpy(np.flatnonzero(group == g))], waves) for g in range(GROUPS)]
    sums = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    kind = "transposed" if transposed else kind
    size = (height, width)
    return _Seen(name, kind, size, stride, dilation, groups, per_group * groups, outputs, waves.radius, sums)


def _response(seen: _Seen, depth: float) -> KernelResponse:
    value, error = jackknife(estimates, seen.sums)
    return KernelResponse(
        **{name: value for name, value in vars(seen).items() if name != "sums"},
        depth=depth,
        log_power=value["log_power"],
        stderr=error["log_power"],
        tilt=float(value["tilt"]),
        tilt_stderr=float(error["tilt"]),
        norm=math.sqrt(float(seen.sums["energy"].sum()) / seen.outputs),
    )


def _sums(kernel: Tensor, waves: Waves) -> dict[str, Array]:
    """Sums over the pairs of some output channels, with their number."""
    taps = kernel.flatten(0, 1).flatten(1).numpy()  # (pairs, taps)
    return {"count": np.array(float(len(kernel))), **waves.powers(taps.T @ taps)}


@functools.lru_cache(maxsize=16)
def _waves(size: tuple[int, int], dilation: tuple[int, int]) -> Waves:
    extent = max((n - 1) * d + 1 for n, d in zip(size, dilation, strict=True))
    return Waves(size, dilation, max(GRID, 2 * math.ceil(extent / 2)))


def estimates(sums: Mapping[str, Array]) -> Estimates:
    """log_power (M, R) and tilt (M,) from sums (M, ...) of powers and energy; NaN where there is no tap but 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_power = np.log(sums["power"] / sums["energy"][:, None])
    return {"log_power": log_power, "tilt": log_power[:, -1] - log_power[:, 0]}


class Waves:
    """From products of taps to radial power: the transform of kernels of one size on one grid.

    Attributes:
        radius: (R,) of the rings, 0 first.
    """

    def __init__(self, size: tuple[int, int], dilation: tuple[int, int], grid: int) -> None:
        ky, kx = np.meshgrid(np.arange(grid) - grid // 2, np.arange(grid // 2 + 1), indexing="ij")
        y, x = np.meshgrid(np.arange(size[0]) * dilation[0], np.arange(size[1]) * dilation[1], indexing="ij")
        phase = (np.outer(ky.ravel(), y.ravel()) + np.outer(kx.ravel(), x.ravel())) % grid * (2 * math.pi / grid)
        self._cos, self._sin = np.cos(phase), np.sin(phase)  # (frequencies, taps)
        times = np.where((kx == 0) | (2 * kx == grid), 1.0, 2.0).ravel()  # how often a bin stands in the whole plane
        ring = np.floor(np.hypot(ky, kx) + 0.5).astype(int).ravel()  # no integers have a root that ends in .5
        self.radius = 2 * np.arange(grid // 2 + 1) / grid
        self._rings = np.zeros((len(self.radius), len(ring)))
        inside = ring < len(self.radius)
        self._rings[ring[inside], np.flatnonzero(inside)] = times[inside]
        self._rings /= self._rings.sum(1, keepdims=True)

    def powers(self, products: Array) -> dict[str, Array]:
        """Radial power (R,) and energy, sums over kernels, from the sum over kernels of the products of taps (T, T)."""
        both = sum((wave @ products * wave).sum(1) for wave in (self._cos, self._sin))
        return {"power": self._rings @ np.asarray(both), "energy": np.array(float(np.trace(products)))}


def attention_response(name: str, sums: Array, count: Array, *, depth: float) -> KernelResponse:
    """The effective filter of an attention layer.

    Args:
        name: of the layer.
        sums: (G, heads, 2 H - 1, 2 W - 1) sums over the images of each group of the map as a function of the offset.
        count: (G,) images of each group.
        depth: of the layer.
    """
    groups, heads, *size = sums.shape
    waves = _waves((size[0], size[1]), (1, 1))
    flat = sums.reshape(groups, heads, -1)

    def responses(s: Mapping[str, Array]) -> Estimates:
        filters = s["x"] / s["count"][:, None, None]  # (M, heads, offsets)
        parts = [waves.powers(kernel.T @ kernel) for kernel in filters]
        return estimates({key: np.stack([part[key] for part in parts]) for key in parts[0]})

    value, error = jackknife(responses, {"x": flat, "count": count})
    filters = flat.sum(0) / count.sum()
    return KernelResponse(
        name=name,
        kind="attention",
        depth=depth,
        size=(size[0], size[1]),
        stride=(1, 1),
        dilation=(1, 1),
        groups=heads,
        inputs=heads,
        outputs=heads,
        radius=waves.radius,
        log_power=value["log_power"],
        stderr=error["log_power"],
        tilt=float(value["tilt"]),
        tilt_stderr=float(error["tilt"]),
        norm=float(np.sqrt((filters**2).sum() / heads)),
    )

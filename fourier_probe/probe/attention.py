"""What attention maps look like: distance, diversity, spectral response, gates. May import points, capture, models.

The map of a head is A (N, N), rows summing to one; class and register tokens are taken off and the rows made to sum to
one again. Definitions (r_i the position of token i in pixels):

- distance of a head: mean over queries of sum_j A_ij |r_j - r_i|, pixels (as in Raghu et al. 2021, arXiv 2108.08810);
- head diversity of a layer: standard deviation of that over its heads;
- spectral response of a head: R(f) = |1/N sum_ij A_ij exp(-2 pi i f . (r_j - r_i))|, along the diagonal of frequencies,
  R(0) = 1: the gain of the head as a filter.

Maps are taken where they are made, without changing the model or its output: at every softmax over keys and at every
fused call, inside the innermost running module, whoever wrote it. What queries and keys run over is followed from the
image (`trace`), so an attention over channels, over windows or over queries is left out by name, and the class token is
where the network put it. Our own gated layers give their map themselves.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fourier_probe.errors import DataError, PointError
from fourier_probe.models.gpsa.attention import GPSA, gated
from fourier_probe.models.gpsa.recast import GPSAConv2d
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.metrics import frequencies
from fourier_probe.probe.points import Point, find_points
from fourier_probe.trace import axes as ax
from fourier_probe.trace.forward import Attention, eager, trace

Array = NDArray[np.float64]


@dataclass
class AttentionLayer:
    """One attention layer, means over images.

    Attributes:
        name: of the module.
        grid: (H, W) of the tokens.
        distance: (heads,) pixels.
        diversity: standard deviation of `distance` over heads, pixels.
        frequency: (K,) pi rad/sample per axis of the token grid.
        response: (heads, K), 1 at frequency 0.
        gate: (heads,) share of the positional half, for gated layers.
        uniform: distance of attention that is the same everywhere, pixels.
    """

    name: str
    grid: tuple[int, int]
    distance: Array
    diversity: float
    frequency: Array
    response: Array
    gate: Array | None
    uniform: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for the result file."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}


def attention_layers(
    model: nn.Module, images: Iterable[Any], *, device: torch.device | str | None = None
) -> tuple[list[AttentionLayer], dict[str, str]]:
    """The measures of every self-attention layer whose tokens lie on a grid.

    Args:
        model: any module; it runs in eval mode without gradients and is left as it was.
        images: batches (B, C, H, W) normalised for the model, or pairs with labels, or `Batch`es.
        device: where the model is; taken from its parameters by default.

    Returns:
        The layers in the order in which they run, and for each left out the reason.

    Raises:
        DataError: no images. PointError: no layer has attention over a grid.

    >>> from timm import create_model
    >>> layers, _ = attention_layers(create_model("vit_tiny_patch16_224", depth=1), [torch.zeros(1, 3, 224, 224)])
    >>> layers[0].name, layers[0].grid, layers[0].distance.shape
    ('blocks.0.attn', (14, 14), (3,))
    """
    model = eager(model)
    tensor = next(model.parameters(), torch.zeros(()))
    device = torch.device(device) if device is not None else tensor.device
    sums: dict[str, _Sums] = {}
    left_out: dict[str, str] = {}
    points: list[Point] = []
    count = 0
    for item in images:
        batch = (item[0] if isinstance(item, tuple | list) else item).to(device, tensor.dtype)
        points = points or find_points(model, batch[:1])
        listener = _Listener(model, points, sums, left_out, batch)
        with Capture(model, [], lambda _point, _maps: None), torch.no_grad(), listener.own_layers():
            trace(model, batch if len(batch) > 1 else batch.repeat(2, 1, 1, 1), hear=listener.hear)
        count += len(batch)
    if not count:
        raise DataError("there are no images to look at attention with: the source is empty.")
    if not sums:
        found = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:2])
        raise PointError(f"no layer has self-attention over a grid of tokens{f' ({found})' if found else ''}.")
    modules = dict(model.named_modules())
    return [_layer(name, total, count, _gate(modules[total.module])) for name, total in sums.items()], left_out


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
    A = attention.double()
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


@dataclass
class _Sums:
    """What was seen of one layer."""

    module: str
    grid: tuple[int, int]
    step: tuple[float, float]
    frequency: Array
    distance: Tensor
    response: Tensor


class _Listener:
    """Takes each attention of one forward: adds its measures up, or writes down why it is left out."""

    def __init__(
        self, model: nn.Module, points: list[Point], sums: dict[str, _Sums], left_out: dict[str, str], batch: Tensor
    ) -> None:
        self.model, self.sums, self.left_out = model, sums, left_out
        self.points, self.size, self.images = points, (batch.shape[2], batch.shape[3]), len(batch)
        self.seen: Counter[str] = Counter()
        self.own = [name for name, module in model.named_modules() if _gives_map(module)]
        self.busy = False

    @contextlib.contextmanager
    def own_layers(self) -> Iterator[None]:
        """Around a forward: layers that give their map themselves are asked for it."""
        with contextlib.ExitStack() as stack:
            for name in self.own:
                hook = self._ask(name)
                stack.callback(self.model.get_submodule(name).register_forward_pre_hook(hook).remove)
            yield

    def _ask(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def ask(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            method: Any = getattr(module, "attention", None) or module.get_attention
            self.busy = True
            try:
                maps = method(inputs[0])
            finally:
                self.busy = False
            grids = self._grids(name)
            grid = next((grid for grid in grids if math.prod(grid) == maps.shape[-1]), None)
            if maps.shape[-1] != maps.shape[-2]:
                self.left_out[name] = _NOT_SELF
            elif grid is None:
                self.left_out[name] = f"its {maps.shape[-1]} tokens are no grid of a probe point"
            else:
                self._add(name, name, maps, grid)

        return ask

    def hear(self, heard: Attention, maps: Callable[[], Tensor] | None) -> None:
        """One softmax or fused call."""
        if self.busy or any(heard.owner == name or heard.owner.startswith(f"{name}.") for name in self.own):
            return
        name = heard.owner
        self.seen[name] += 1
        if self.seen[name] > 1:
            name = f"{name}#{self.seen[name]}"
        grid = ax.grid(heard.queries)
        reason = self._why_not(heard, grid)
        if maps is None:
            reason = reason or "flex_attention does not give its map"
        if reason or grid is None or maps is None:
            self.left_out[name] = reason
            return
        first, last = ax.ends(heard.queries)
        here = slice(first, heard.shape[-1] - last)
        self._add(name, heard.owner, _by_image(maps(), heard)[..., here, here], grid)

    def _why_not(self, heard: Attention, grid: tuple[int, int] | None) -> str:
        """Why an attention is none of tokens on a grid with each other; empty where it is."""
        queries, keys = ax.has_positions(heard.queries), ax.has_positions(heard.keys)
        if not queries and not keys:
            return "its queries and keys run over channels or learned queries, not over positions"
        if any(ax.has_positions(axis) for axis in heard.axes[:-2]):
            windows = math.prod(part.size for axis in heard.axes[:-2] for part in axis if part.along in "yx")
            return f"it works on {windows} windows of {heard.shape[-2]} tokens per image"
        if heard.queries != heard.keys:
            return _NOT_SELF
        if grid is None:
            return f"its {heard.shape[-1]} tokens do not lie row by row"
        parts = [part.along for axis in heard.axes[:-2] for part in axis]
        if parts.count("b") != 1 or set(parts) - {"b", "f"}:
            return "its maps cannot be told apart by image"
        grids = self._grids(heard.owner)
        if grid not in grids:
            own = " or ".join(f"{H}x{W}" for H, W in grids)
            return f"it runs over {grid[0]}x{grid[1]} tokens where the map has {own}: a padded window"
        if math.prod(grid) < 2:
            return "it runs over a single position"
        return ""

    def _grids(self, owner: str) -> list[tuple[int, int]]:
        """The grids of the layer's own points, those of the module around it; of all points where none is around it."""
        around = [p for p in self.points if (name := p.name.partition("+")[0]) and f"{owner}.".startswith(f"{name}.")]
        return list(dict.fromkeys(point.layout.grid for point in around or self.points))

    def _add(self, name: str, module: str, maps: Tensor, grid: tuple[int, int]) -> None:
        step = (self.size[0] / grid[0], self.size[1] / grid[1])
        distance, response, frequency = map_measures(maps[: self.images], grid, step)
        one = _Sums(module, grid, step, frequency, distance.sum(0).cpu(), response.sum(0).cpu())
        total = self.sums.setdefault(name, one)
        if total is not one:
            total.distance, total.response = total.distance + one.distance, total.response + one.response


_NOT_SELF = "queries and keys are not the same tokens"


def _gives_map(module: nn.Module) -> bool:
    return isinstance(module, GPSA | GPSAConv2d) or callable(getattr(module, "get_attention", None))


def _by_image(maps: Tensor, heard: Attention) -> Tensor:
    """Maps as (B, heads, queries, keys)."""
    parts = [part for axis in heard.axes[:-2] for part in axis]
    sizes = [part.size for part in parts]
    at = next(index for index, part in enumerate(parts) if part.along == "b")
    split = maps.reshape(*sizes, *maps.shape[-2:]).movedim(at, 0)
    return split.reshape(len(split), -1, *maps.shape[-2:])


def _layer(name: str, total: _Sums, count: int, gate: Array | None) -> AttentionLayer:
    distance = (total.distance / count).numpy()
    n = math.prod(total.grid)
    uniform, _, _ = map_measures(torch.ones(1, 1, n, n), total.grid, total.step)
    return AttentionLayer(
        name=name,
        grid=total.grid,
        distance=distance,
        diversity=float(distance.std()),
        frequency=total.frequency,
        response=(total.response / count).numpy(),
        gate=gate,
        uniform=float(uniform),
    )


def _gate(module: nn.Module) -> Array | None:
    layer = gated(module)
    return None if layer is None else layer.gates().double().cpu().numpy()

"""What attention maps look like: distance, diversity, spectral response, gates. May import points, capture, models.

The map of a head is A (N, N), rows summing to one; class and register tokens are taken off and the rows made to sum to
one again. Definitions (r_i the position of token i in pixels):

- distance of a head: mean over queries of sum_j A_ij |r_j - r_i|, pixels (as in Raghu et al. 2021, arXiv 2108.08810);
- head diversity of a layer: standard deviation of that over its heads;
- spectral response of a head: R(f) = |1/N sum_ij A_ij exp(-2 pi i f . (r_j - r_i))|, along the diagonal of frequencies,
  R(0) = 1: the gain of the head as a filter.

Maps are taken where they are made, without changing the model or its output: at `scaled_dot_product_attention` (the map
is made again from the same query and key) or at a softmax of four dimensions, inside a module with heads; from
`attention()` of our own gated layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fourier_probe.errors import DataError, PointError
from fourier_probe.models.gpsa.attention import GPSA, gated
from fourier_probe.models.gpsa.recast import GPSAConv2d
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.metrics import frequencies
from fourier_probe.probe.points import Point, find_points
from fourier_probe.trace.forward import eager

Array = NDArray[np.float64]
PREFIX = 16  # tokens beside the grid that a layer may have
_SOFTMAX = (torch.softmax, F.softmax, torch.Tensor.softmax)


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
    totals: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    points: list[Point] = []
    count = 0
    with torch.inference_mode():
        for item in images:
            batch = (item[0] if isinstance(item, tuple | list) else item).to(device, tensor.dtype)
            points = points or find_points(model, batch[:1])
            grids = {point.name: point.layout.grid for point in points}
            size = (batch.shape[2], batch.shape[3])

            def take(name: str, attention: Tensor, *, size: tuple[int, int] = size) -> None:
                _add(totals, left_out, name, attention, grids, size, len(batch))  # noqa: B023

            with Capture(model, [], lambda _point, _maps: None), _Listening(model, take):
                model(batch)
            count += len(batch)
    if not count:
        raise DataError("there are no images to look at attention with: the source is empty.")
    if not totals:
        found = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:2])
        raise PointError(f"no layer has self-attention over a grid of tokens{f' ({found})' if found else ''}.")
    gates = {name: _gate(module) for name, module in model.named_modules()}
    return [_layer(name, total, count, gates[name]) for name, total in totals.items()], left_out


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


class _Listening(TorchFunctionMode):
    """Gives `take` the name of the module with heads and each attention map it makes, while the model runs."""

    def __init__(self, model: nn.Module, take: Callable[[str, Tensor], None]) -> None:
        super().__init__()
        self.model, self.take = model, take
        self._inside: list[tuple[str, bool]] = []  # modules with heads that are running, and whether they give the map
        self._handles: list[Any] = []
        self._busy = False

    def __enter__(self) -> _Listening:
        for name, module in self.model.named_modules():
            own = isinstance(module, GPSA | GPSAConv2d) or callable(getattr(module, "get_attention", None))
            if own or hasattr(module, "num_heads"):
                self._handles.append(module.register_forward_pre_hook(self._enter(name, own)))
                self._handles.append(module.register_forward_hook(self._leave))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def _enter(self, name: str, own: bool) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._inside.append((name, own))
            if own:
                method: Any = getattr(module, "attention", None) or module.get_attention
                self._busy = True
                try:
                    self.take(name, method(inputs[0]))
                finally:
                    self._busy = False

        return enter

    def _leave(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        self._inside.pop()

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self._busy or not self._inside or self._inside[-1][1]:
            return out
        self._busy = True
        try:
            if func is F.scaled_dot_product_attention:
                self.take(self._inside[-1][0], _softmax_of(*args, **kwargs))
            elif func in _SOFTMAX and out.ndim == 4:
                self.take(self._inside[-1][0], out)
        finally:
            self._busy = False
        return out


def _softmax_of(
    query: Tensor,
    key: Tensor,
    _value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The map that `scaled_dot_product_attention` applies."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query.float() @ key.float().transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1)


def _add(
    totals: dict[str, dict[str, Any]],
    left_out: dict[str, str],
    name: str,
    attention: Tensor,
    grids: dict[str, tuple[int, int]],
    size: tuple[int, int],
    images: int,
) -> None:
    if attention.ndim != 4 or attention.shape[-1] != attention.shape[-2]:
        left_out[name] = f"its map is {tuple(attention.shape)}: queries and keys are not the same tokens"
        return
    if attention.shape[0] != images:
        left_out[name] = f"it works on {attention.shape[0]} windows of {images} images"
        return
    N = attention.shape[-1]
    fits = {grid for grid in grids.values() if 0 <= N - math.prod(grid) <= PREFIX and math.prod(grid) > 1}
    if not fits:
        left_out[name] = f"its {N} tokens are no grid of a probe point"
        return
    grid = max(fits, key=math.prod)
    prefix = N - math.prod(grid)
    step = (size[0] / grid[0], size[1] / grid[1])
    distance, response, frequency = map_measures(attention[..., prefix:, prefix:], grid, step)
    total = totals.setdefault(name, {"grid": grid, "step": step, "frequency": frequency, "distance": 0, "response": 0})
    total["distance"] = total["distance"] + distance.sum(0).cpu()
    total["response"] = total["response"] + response.sum(0).cpu()


def _layer(name: str, total: dict[str, Any], count: int, gate: Array | None) -> AttentionLayer:
    distance = (total["distance"] / count).numpy()
    n = math.prod(total["grid"])
    uniform, _, _ = map_measures(torch.ones(1, 1, n, n), total["grid"], total["step"])
    return AttentionLayer(
        name=name,
        grid=total["grid"],
        distance=distance,
        diversity=float(distance.std()),
        frequency=total["frequency"],
        response=(total["response"] / count).numpy(),
        gate=gate,
        uniform=float(uniform),
    )


def _gate(module: nn.Module) -> Array | None:
    layer = gated(module)
    return None if layer is None else layer.gates().double().cpu().numpy()

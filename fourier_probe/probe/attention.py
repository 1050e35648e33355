"""What attention maps look like: distance, diversity, spectral response, gates. May import points, capture, models.

The map of a head is A (N, N), rows summing to one; class and register tokens are taken off and the rows made to sum to
one again. Definitions (r_i the position of token i in pixels):

- distance of a head: mean over queries of sum_j A_ij |r_j - r_i|, pixels (as in Raghu et al. 2021, arXiv 2108.08810);
- head diversity of a layer: standard deviation of that over its heads;
- NMI of a head: normalised mutual information I(q; k) / sqrt(H(q) H(k)) between query and key positions, uniform over
  queries (Park et al. 2023, arXiv 2305.00729): 0 where the map does not depend on the query, 1 where each query has
  a key of its own. Also of attention over windows, channels or learned queries, which has no distance;
- effective filter: the map as a function of the offset from query to key, a mean over queries and images; its response
  is that of a kernel (`kernels`);
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
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from fourier_probe.probe.frequency import frequencies
from fourier_probe.probe.groups import group_of
from fourier_probe.probe.kernels import GROUPS, KernelResponse, attention_response
from fourier_probe.probe.points import Point, find_points
from fourier_probe.probe.sums import Estimates, jackknife
from fourier_probe.trace import axes as ax
from fourier_probe.trace.calling import eager
from fourier_probe.trace.events import Attention
from fourier_probe.trace.forward import trace

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
        nmi: (heads,) normalised mutual information of queries and keys, 0 to 1.
        stderr_of: of distance and nmi (heads,), of diversity and of mean_nmi (1,): over images, a jackknife; NaN under
            20.
        filter: what the layer's maps do as a filter, as a function of the offset.
    """

    name: str
    grid: tuple[int, int]
    distance: Array
    diversity: float
    frequency: Array
    response: Array
    gate: Array | None
    uniform: float
    nmi: Array
    stderr_of: dict[str, Array]
    filter: KernelResponse

    def to_json(self) -> dict[str, Any]:
        """Plain values for the result file; what is not finite becomes null."""
        plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}
        errors = {
            name: [float(each) if np.isfinite(each) else None for each in value]
            for name, value in self.stderr_of.items()
        }
        return {**{name: value for name, value in plain.items() if name != "filter"}, "stderr_of": errors}


@dataclass(frozen=True)
class Information:
    """What queries of one attention say of its keys.

    Attributes:
        name: of the module. over: what it runs over, in words. queries, keys: their number.
        nmi, stderr: (heads,) mean over images (and windows), and its error; NaN under 20 images.
        mean, mean_stderr: over heads.
    """

    name: str
    over: str
    queries: int
    keys: int
    nmi: Array
    stderr: Array
    mean: float
    mean_stderr: float


@dataclass(frozen=True)
class Observed:
    """All of the attention of a network.

    Attributes:
        layers: those whose tokens lie on a grid.
        information: of every attention that has a map, those among them, in execution order.
        left_out: for each that is not in `layers`, the reason.
        images: how many were looked at.
    """

    layers: list[AttentionLayer]
    information: list[Information]
    left_out: dict[str, str]
    images: int


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
    seen = observe(model, images, device=device)
    if not seen.layers:
        found = "; ".join(f"{name}: {reason}" for name, reason in list(seen.left_out.items())[:2])
        raise PointError(f"no layer has self-attention over a grid of tokens{f' ({found})' if found else ''}.")
    return seen.layers, seen.left_out


def observe(
    model: nn.Module, images: Iterable[Any], *, total: int | None = None, device: torch.device | str | None = None
) -> Observed:
    """Every attention of a model.

    Args:
        model: as for `attention_layers`.
        images: likewise.
        total: how many images there are, where that is known; it decides the groups of the errors (`groups`).
        device: likewise.

    Raises:
        DataError: no images.
    """
    model = eager(model)
    tensor = next(model.parameters(), torch.zeros(()))
    device = torch.device(device) if device is not None else tensor.device
    sums: dict[str, _Sums] = {}
    information: dict[str, _Bits] = {}
    left_out: dict[str, str] = {}
    points: list[Point] = []
    count = 0
    counts = np.zeros(GROUPS)
    for item in images:
        batch = (item[0] if isinstance(item, tuple | list) else item).to(device, tensor.dtype)
        points = points or find_points(model, batch[:1])
        group = group_of(np.arange(count, count + len(batch)), total, GROUPS)
        listener = _Listener(model, points, sums, information, left_out, batch, group)
        with Capture(model, [], lambda _point, _maps: None), torch.no_grad(), listener.own_layers():
            trace(model, batch if len(batch) > 1 else batch.repeat(2, 1, 1, 1), hear=listener.hear)
        count += len(batch)
        counts += np.bincount(group, minlength=GROUPS)
    if not count:
        raise DataError("there are no images to look at attention with: the source is empty.")
    modules = dict(model.named_modules())
    layers = [
        _layer(name, each, counts, _gate(modules[each.module]), _depth(name, at, len(sums), points))
        for at, (name, each) in enumerate(sums.items())
    ]
    return Observed(layers, [_information(name, each, counts) for name, each in information.items()], left_out, count)


def mutual_information(attention: Tensor) -> Tensor:
    """NMI (...) of maps (..., queries, keys) of any positive rows, uniform over queries; 0 for one query or one key.

    I(q; k) = H(k) - H(k | q), with H(k) of the mean row.

    >>> mutual_information(torch.eye(4)), mutual_information(torch.ones(4, 4) / 4)
    (tensor(1., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    A = attention.double()
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
    A = attention.double()
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
    """What was seen of one layer: sums over the images of each group (G, ...), by name."""

    module: str
    grid: tuple[int, int]
    step: tuple[float, float]
    frequency: Array
    sums: dict[str, Array]


@dataclass
class _Bits:
    """The NMI of one attention: sums (G, heads) over the images of each group."""

    over: str
    queries: int
    keys: int
    nmi: Array


class _Listener:
    """Takes each attention of one forward: adds its measures up, or writes down why it is left out."""

    def __init__(
        self,
        model: nn.Module,
        points: list[Point],
        sums: dict[str, _Sums],
        information: dict[str, _Bits],
        left_out: dict[str, str],
        batch: Tensor,
        group: NDArray[np.int64],
    ) -> None:
        self.model, self.sums, self.information, self.left_out, self.group = model, sums, information, left_out, group
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
                self._inform(name, maps, "queries that are not its keys")
            elif grid is None:
                self.left_out[name] = f"its {maps.shape[-1]} tokens are no grid of a probe point"
                self._inform(name, maps, f"{maps.shape[-1]} tokens")
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
            if maps is not None and (by_image := _by_image_and_head(maps(), heard)) is not None:
                self._inform(name, by_image, _over(heard))
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
        maps = maps[: self.images]
        distance, response, frequency = map_measures(maps, grid, step)
        measures = {"distance": distance, "response": response, "filter": offsets(maps, grid)}
        summed = {key: self._by_group(value) for key, value in measures.items()}
        summed["nmi"] = self._inform(name, maps, f"{grid[0]}x{grid[1]} positions")
        one = _Sums(module, grid, step, frequency, summed)
        total = self.sums.setdefault(name, one)
        if total is not one:
            total.sums = {key: value + summed[key] for key, value in total.sums.items()}

    def _inform(self, name: str, maps: Tensor, over: str) -> Array:
        """Add the NMI of maps (B, heads, queries, keys), or (B, heads, windows, queries, keys); returns its sums."""
        nmi = mutual_information(maps[: self.images])
        summed = self._by_group(nmi.flatten(2).mean(2) if nmi.ndim > 2 else nmi)
        one = _Bits(over, maps.shape[-2], maps.shape[-1], summed)
        total = self.information.setdefault(name, one)
        if total is not one:
            total.nmi = total.nmi + summed
        return summed

    def _by_group(self, values: Tensor) -> Array:
        """Sums (G, ...) over the images of each group of values (B, ...)."""
        out = np.zeros((GROUPS, *values.shape[1:]))
        np.add.at(out, self.group, values.double().cpu().numpy())
        return out


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


def _by_image_and_head(maps: Tensor, heard: Attention) -> Tensor | None:
    """Maps as (B, heads, windows, queries, keys), windows of whatever kind; None where images cannot be told apart."""
    parts = [part for axis in heard.axes[:-2] for part in axis]
    if [part.along for part in parts].count("b") != 1 or math.prod(part.size for part in parts) != math.prod(
        maps.shape[:-2]
    ):
        return None
    split = maps.reshape(*[part.size for part in parts], *maps.shape[-2:])
    order = sorted(range(len(parts)), key=lambda at: {"b": 0, "f": 1}.get(parts[at].along, 2))
    images = next(part.size for part in parts if part.along == "b")
    heads = math.prod(part.size for part in parts if part.along == "f")
    return split.permute(*order, len(order), len(order) + 1).reshape(images, heads, -1, *maps.shape[-2:])


def _over(heard: Attention) -> str:
    """What an attention that is none over a grid runs over, in words."""
    queries, keys = ax.has_positions(heard.queries), ax.has_positions(heard.keys)
    if not queries and not keys:
        return f"{heard.shape[-1]} channels or learned queries"
    windows = math.prod(part.size for axis in heard.axes[:-2] for part in axis if part.along in "yx")
    if any(ax.has_positions(axis) for axis in heard.axes[:-2]):
        return f"{windows} windows of {heard.shape[-2]} tokens"
    if heard.queries != heard.keys:
        return f"{heard.shape[-2]} queries, {heard.shape[-1]} keys"
    return f"{heard.shape[-1]} tokens"


def _depth(name: str, at: int, count: int, points: list[Point]) -> float:
    """Of the step that an attention leads to: the first point of the stream around it; its order where none is."""
    around = [
        point.depth
        for point in points
        if point.kind in ("stem", "residual") and name.startswith(f"{point.name.partition('+')[0]}.")
    ]
    return min(around, default=at / max(count - 1, 1))


def _information(name: str, total: _Bits, counts: Array) -> Information:
    def means(s: Mapping[str, Array]) -> Estimates:
        nmi = s["nmi"] / s["count"][:, None]
        return {"nmi": nmi, "mean": nmi.mean(1)}

    value, error = jackknife(means, {"nmi": total.nmi, "count": counts})
    return Information(
        name, total.over, total.queries, total.keys,
        value["nmi"], error["nmi"], float(value["mean"]), float(error["mean"]),
    )  # fmt: skip


def _layer(name: str, total: _Sums, counts: Array, gate: Array | None, depth: float) -> AttentionLayer:
    def means(s: Mapping[str, Array]) -> Estimates:
        out = {
            key: s[key] / s["count"].reshape(-1, *[1] * (s[key].ndim - 1)) for key in ("distance", "nmi", "response")
        }
        return {**out, "diversity": out["distance"].std(1), "mean_nmi": out["nmi"].mean(1)}

    value, error = jackknife(means, {**total.sums, "count": counts})
    distance = value["distance"]
    n = math.prod(total.grid)
    uniform, _, _ = map_measures(torch.ones(1, 1, n, n), total.grid, total.step)
    return AttentionLayer(
        name=name,
        grid=total.grid,
        distance=distance,
        diversity=float(distance.std()),
        frequency=total.frequency,
        response=value["response"],
        gate=gate,
        uniform=float(uniform),
        nmi=value["nmi"],
        stderr_of={key: np.atleast_1d(error[key]) for key in ("distance", "nmi", "diversity", "mean_nmi")},
        filter=attention_response(name, total.sums["filter"], counts, depth=depth),
    )


def _gate(module: nn.Module) -> Array | None:
    layer = gated(module)
    return None if layer is None else layer.gates().double().cpu().numpy()

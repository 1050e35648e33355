"""Listens to the attention of a forward, and adds its measures up. May import the rest of attention, points and trace.

Maps are taken where they are made, without changing the model or its output: at every softmax over keys and at every
fused call, inside the innermost running module, whoever wrote it. What queries and keys run over is followed from the
image (`trace`), so an attention over channels, over windows or over queries is left out by name, and the class token is
where the network put it. Our own gated layers give their map themselves.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fourier_probe.models.gpsa.attention import GPSA
from fourier_probe.models.gpsa.layer import GPSAConv2d
from fourier_probe.probe.attention_maps import map_measures, mutual_information, offsets
from fourier_probe.probe.kernels import GROUPS
from fourier_probe.probe.points import Point
from fourier_probe.runtime.accelerator import wide
from fourier_probe.trace import axes as ax
from fourier_probe.trace.events import Attention

Array = NDArray[np.float64]


@dataclass
class LayerSums:
    """What was seen of one layer: sums over the images of each group (G, ...), by name."""

    module: str
    grid: tuple[int, int]
    step: tuple[float, float]
    frequency: Array
    sums: dict[str, Array]


@dataclass
class NMISums:
    """The NMI of one attention: sums (G, heads) over the images of each group."""

    over: str
    queries: int
    keys: int
    nmi: Array


class Listener:
    """Takes each attention of one forward: adds its measures up, or writes down why it is left out."""

    def __init__(
        self,
        model: nn.Module,
        points: list[Point],
        sums: dict[str, LayerSums],
        information: dict[str, NMISums],
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

    def _ask(self, name: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def ask(module: nn.Module, inputs: tuple[object, ...]) -> None:
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
        one = LayerSums(module, grid, step, frequency, summed)
        total = self.sums.setdefault(name, one)
        if total is not one:
            total.sums = {key: value + summed[key] for key, value in total.sums.items()}

    def _inform(self, name: str, maps: Tensor, over: str) -> Array:
        """Add the NMI of maps (B, heads, queries, keys), or (B, heads, windows, queries, keys); returns its sums."""
        nmi = mutual_information(maps[: self.images])
        summed = self._by_group(nmi.flatten(2).mean(2) if nmi.ndim > 2 else nmi)
        one = NMISums(over, maps.shape[-2], maps.shape[-1], summed)
        total = self.information.setdefault(name, one)
        if total is not one:
            total.nmi = total.nmi + summed
        return summed

    def _by_group(self, values: Tensor) -> Array:
        """Sums (G, ...) over the images of each group of values (B, ...)."""
        out = np.zeros((GROUPS, *values.shape[1:]))
        np.add.at(out, self.group, wide(values).cpu().numpy())
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

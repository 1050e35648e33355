"""A traced forward and the layout of everything in it, from evidence. May import axes, grid and forward.

Evidence is weighed by `LAYOUT_RULES`, in order: each rule says a layout, or why there can be none, or nothing. The
first are exact, for tensors whose axes were followed from the image; the last are for what was not followed.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from fourier_probe.runtime.modes import evaluating, keeping_random_state
from fourier_probe.trace import axes as ax
from fourier_probe.trace.axes import Axes
from fourier_probe.trace.calling import eager
from fourier_probe.trace.events import Call, Sum, Trace, Value
from fourier_probe.trace.forward import trace
from fourier_probe.trace.grid import PREFIX_LIMIT, Factor, Grid, Kind4D, Layout, infer_layout

READS_NCHW = re.compile(r"conv2d|batchnorm|norm2d|groupnorm|pool2d|pool(ing)?$|gpsaconv", re.IGNORECASE)
READS_NHWC = re.compile(r"^(linear|layernorm|rmsnorm)$", re.IGNORECASE)


@dataclass(frozen=True)
class Unread:
    """Why features cannot be laid out as maps."""

    reason: str


COMPLEX = Unread("its features are complex numbers, and spectra are of real maps")


@dataclass(frozen=True)
class Features:
    """What is known of a tensor: its shape, its axes, when it was there, and how the layers around it read it."""

    shape: tuple[int, ...]
    axes: Axes
    when: int
    around: Kind4D | None = None


class Forward:
    """A trace with the questions the rules ask of it."""

    def __init__(self, recorded: Trace, image: Grid, declared: Iterable[Grid], by_hand: Grid | None) -> None:
        self.trace, self.image, self.by_hand = recorded, image, by_hand
        recorded.sums = [s for s in recorded.sums if not _is_onto_the_image(s, recorded)]
        self.grids: list[tuple[int, Grid]] = [(-1, grid) for grid in [*declared, image]]  # certain, and when seen
        self.users: dict[tuple[Value | None, tuple[int, ...]], set[Kind4D]] = {}
        for call in recorded.calls:
            self._learn(call)
        self.grids.sort(key=lambda seen: seen[0])
        self.homes: dict[Sum, Call] = {addition: self._home(addition) for addition in self.trace.sums}

    def _home(self, addition: Sum) -> Call:
        """The innermost call that holds an addition and all that led from one operand to the other."""
        begins = addition.begins if addition.skip is not None else addition.when
        holding = [call for call in self.trace.calls if call.holds(addition) and call.start < begins]
        return holding[-1] if holding else self.trace.calls[0]

    def returns_own_sum(self, call: Call) -> bool:
        """Whether what a call returns is, unchanged, a sum of its own."""
        return isinstance(call.returns, Sum) and self.homes.get(call.returns) is call

    def _learn(self, call: Call) -> None:
        """A convolution or pooling knows its grid; so does a layer that works on the last of four dimensions."""
        kind = reads(call.module)
        for shape, value, when in (
            (call.inputs, call.takes, call.start),
            (call.output, call.returns, call.end),
        ):
            if kind and shape and len(shape) == 4 and shape[0] == self.trace.batch:
                self.users.setdefault((value, shape), set()).add(kind)
                grid = (shape[2], shape[3]) if kind == "nchw" else (shape[1], shape[2])
                if kind == "nchw" or self.looks_like_the_image(grid):
                    self.grids.append((when, grid))

    def looks_like_the_image(self, grid: Grid) -> bool:
        """Whether a grid has the image's proportions, up to rounding; (blocks, tokens of a block) has not."""
        (H, W), (h, w) = self.image, grid
        return abs(h * W - w * H) <= max(H, W)

    def read(self, features: Features) -> Layout | Unread:
        """The layout of features, by the first rule that knows."""
        for rule in LAYOUT_RULES:
            answer = rule(self, features)
            if answer is not None:
                return answer
        return Unread(f"its shape {features.shape} fits no grid that was seen before it")

    def read_output(self, call: Call) -> Layout | Unread:
        """Layout of what a call returns, or why there is none."""
        if call.output is None:
            return Unread("it returns no tensor")
        around = reads(call.module) or self._beside(call.returns, call.output) or self._inside(call, call.output)
        return self.read(Features(call.output, call.output_axes, call.end, around))

    def read_input(self, call: Call) -> Layout | Unread:
        """Layout of what a call takes in, or why there is none."""
        if call.inputs is None:
            return Unread("it takes no tensor")
        around = reads(call.module) or self._beside(call.takes, call.inputs) or self._inside(call, call.inputs)
        return self.read(Features(call.inputs, call.input_axes, call.end, around))

    def read_sum(self, addition: Sum) -> Layout | Unread:
        """Layout of a sum, or why there is none."""
        return self.read(Features(addition.shape, addition.axes, addition.when))

    def of_output(self, call: Call) -> Layout | None:
        """Layout of what a call returns."""
        answer = self.read_output(call)
        return answer if isinstance(answer, Layout) else None

    def of_input(self, call: Call) -> Layout | None:
        """Layout of what a call takes in."""
        answer = self.read_input(call)
        return answer if isinstance(answer, Layout) else None

    def _beside(self, value: Value | None, shape: tuple[int, ...]) -> Kind4D | None:
        """How the layers that made or took in this very tensor lay it out, where they agree."""
        kinds = self.users.get((value, shape), set())
        return next(iter(kinds)) if len(kinds) == 1 else None

    def _inside(self, call: Call, shape: tuple[int, ...]) -> Kind4D | None:
        """How the layers inside a call lay out maps of this shape, where they agree."""
        if len(shape) != 4:
            return None
        inside = [c for c in self.trace.calls if call.holds(c)]
        kinds = {kind for c in inside if shape in (c.inputs, c.output) and (kind := reads(c.module))}
        return kinds.pop() if len(kinds) == 1 else None


def run_forward(model: nn.Module, example: Tensor, grid: Grid | None = None) -> Forward:
    """One forward of the first of the example's images, in eval mode; the model is left as it was.

    Args:
        model: any module.
        example: images.
        grid: (H, W) of token sequences whose order cannot be learnt.

    Raises:
        ModelError: the model does not take the example.
    """
    model = eager(model)
    twice = example[:1].repeat(2, 1, 1, 1)  # two images tell a batch from a broadcast
    with evaluating(model), keeping_random_state(gpus=True):
        recorded = trace(model, twice)
    image = (int(example.shape[2]), int(example.shape[3]))
    return Forward(recorded, image, declared_grids(model, image), grid)


def _is_onto_the_image(addition: Sum, trace: Trace) -> bool:
    """Whether a network adds to the image itself, as a denoiser does in the end: that is no step of a stream.

    One that goes on so, addition after addition on the image, has its stream there.
    """
    first = trace.ran[0].when if trace.ran else 0
    return addition.skip is not None and addition.skip.when < first and not any(s.skip is addition for s in trace.sums)


# --- rules -----------------------------------------------------------------------------------------------------------

LayoutRule = Callable[[Forward, Features], Layout | Unread | None]


def complex_numbers(forward: Forward, features: Features) -> Layout | Unread | None:
    """Complex features have no spectrum of a real map."""
    return COMPLEX if any("i" in ax.along(axis) for axis in features.axes) else None


def gathered(forward: Forward, features: Features) -> Layout | Unread | None:
    """Positions that were picked out by an index have no place any more."""
    if any("?" in ax.along(axis) for axis in features.axes):
        return Unread("its positions were gathered, dropped or joined before, in an order that cannot be followed")
    return None


def without_places(forward: Forward, features: Features) -> Layout | Unread | None:
    """Queries, class tokens and pooled features run over no positions."""
    kinds = [ax.along(axis) for axis in features.axes]
    if features.axes and not any(ax.has_positions(axis) for axis in features.axes) and "~" not in set().union(*kinds):
        return Unread("none of its axes runs over positions of the image: queries, class tokens or pooled features")
    return None


def followed(forward: Forward, features: Features) -> Layout | Unread | None:
    """Axes that were followed from the image: one of images, one of features, and positions row by row."""
    # A channel may hold the pixels of a patch: rows and columns beside features are features.
    kinds = ["f" if "f" in (over := ax.along(axis)) or not over else "".join(sorted(over)) for axis in features.axes]
    if any("~" in kind or {"b", "f"} <= ax.along(axis) for kind, axis in zip(kinds, features.axes, strict=True)):
        return None
    images = [index for index, kind in enumerate(kinds) if kind == "b"]
    if len(images) != 1 or features.shape[images[0]] != forward.trace.batch:
        return None
    batch = images[0]
    rest = [index for index in range(len(kinds)) if index != batch]
    order = [kinds[index] for index in rest]
    grids = [ax.grid(features.axes[index]) for index in rest]
    sizes = [features.shape[index] for index in rest]
    if order in (["xy", "f"], ["f", "xy"]):
        tokens = order.index("xy")
        grid = grids[tokens]
        if grid is None:
            return None
        before, after = ax.ends(features.axes[rest[tokens]])
        return Layout(
            "tokens" if tokens == 0 else "ncl", grid, sizes[1 - tokens], before, after, batch, evidence="axes"
        )
    if order in (["f", "y", "x"], ["y", "x", "f"]) and batch == 0:
        rows, columns = (1, 2) if order[0] == "f" else (0, 1)
        if any(ax.ends(features.axes[rest[index]]) != (0, 0) or grids[index] is None for index in (rows, columns)):
            return None
        kind: Kind4D = "nchw" if order[0] == "f" else "nhwc"
        channels = sizes[0] if kind == "nchw" else sizes[2]
        return Layout(kind, (sizes[rows], sizes[columns]), channels, evidence="axes")
    return None


def folded(forward: Forward, features: Features) -> Layout | Unread | None:
    """Positions in windows, unfolded patches or an order of their own, all of which are known: put back in rows."""
    parts = [part for axis in features.axes for part in axis]
    images = [index for index, axis in enumerate(features.axes) if any(part.along == "b" for part in axis)]
    if len(images) != 1 or any(part.along not in "bfyx" or part.stride < 1 for part in parts):
        return None
    if [part.size for part in parts if part.along == "b"] != [forward.trace.batch]:
        return None
    if features.axes[images[0]][0].along != "b":  # windows before images: images are not told apart by a view
        return None
    sides: list[int] = []
    for kind in "yx":
        strided = sorted((part for part in parts if part.along == kind), key=lambda part: -part.stride)
        if not strided or any(a.stride != b.size * b.stride for a, b in itertools.pairwise(strided)):
            return None
        sides.append(math.prod(part.size for part in strided))
    channels = math.prod(part.size for part in parts if part.along == "f")
    fold = tuple(tuple((part.along, part.size, part.stride) for part in axis) for axis in features.axes)
    grid = (sides[0], sides[1])
    return Layout(
        "folded", grid, channels, batch=images[0], fold=cast("tuple[tuple[Factor, ...], ...]", fold), evidence="axes"
    )


def in_blocks(forward: Forward, features: Features) -> Layout | Unread | None:
    """Positions that were followed but do not lie row by row: windows, unfolded patches, an order of its own."""
    kinds = set().union(*(ax.along(axis) for axis in features.axes)) if features.axes else set()
    if {"y", "x"} & kinds and not {"~", "?"} & kinds:
        axes = ", ".join(ax.show(axis) for axis in features.axes)
        return Unread(f"its positions do not lie row by row but in blocks or in an order of their own ({axes})")
    return None


def grid_by_hand(forward: Forward, features: Features) -> Layout | Unread | None:
    """The user says which grid the tokens lie on, after at most so many others; not of what was followed."""
    if forward.by_hand is None or len(features.shape) != 3 or forward.trace.batch not in features.shape[:2]:
        return None
    batch = 0 if features.shape[0] == forward.trace.batch else 1
    H, W = forward.by_hand
    before = features.shape[1 - batch] - H * W
    if not 0 <= before <= PREFIX_LIMIT:
        return None
    return Layout("tokens", (H, W), features.shape[2], before, batch=batch, evidence="hand")


def layers_around(forward: Forward, features: Features) -> Layout | Unread | None:
    """The layers that made or take a 4-D tensor read it so."""
    if len(features.shape) != 4 or features.around is None or features.shape[0] != forward.trace.batch:
        return None
    return _plausible(forward, infer_layout(features.shape, [], evidence=features.around))


def fitting_grid(forward: Forward, features: Features) -> Layout | Unread | None:
    """The latest grid that was seen before and fits."""
    if not features.shape or features.shape[0] != forward.trace.batch:
        return None
    known = [grid for seen, grid in forward.grids if seen <= features.when]
    return _plausible(forward, infer_layout(features.shape, known))


def _plausible(forward: Forward, layout: Layout | None) -> Layout | None:
    return None if layout and layout.kind == "nhwc" and not forward.looks_like_the_image(layout.grid) else layout


LAYOUT_RULES: list[LayoutRule] = [
    complex_numbers,
    followed,
    folded,
    in_blocks,
    grid_by_hand,
    gathered,
    without_places,
    layers_around,
    fitting_grid,
]
"""In the order in which they are asked."""


def reads(module: nn.Module) -> Kind4D | None:
    """The layout a layer reads and writes 4-D maps in, where its class says so."""
    name = type(module).__name__
    if READS_NCHW.search(name) or isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm):
        return "nchw"
    weight = getattr(module, "weight", None)
    plain = isinstance(module, nn.Linear | nn.LayerNorm) or (
        READS_NHWC.search(name) and getattr(weight, "ndim", 0) <= 2
    )
    return "nhwc" if plain else None


def declared_grids(model: nn.Module, image: Grid) -> list[Grid]:
    """Grids that timm's `feature_info` declares, for models that cut patches without a convolution."""
    info = getattr(model, "feature_info", None)
    strides = [layer["reduction"] for layer in info if "reduction" in layer] if isinstance(info, list) else []
    return [(-(-image[0] // s), -(-image[1] // s)) for s in dict.fromkeys(strides)]

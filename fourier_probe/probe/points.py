"""Where to listen: the probe points of any model, in execution order. May import grid, trace and errors.

A point is found from one traced forward (`fourier_probe.probe.trace`), by rules in this order (docs/points.md):

1. Blocks. The modules whose own forward adds two maps of one shape are the residual blocks; of nested ones the
   outermost counts, unless it holds several of one kind and its sum is not its output: then it is a stage. Modules that
   stand where a block could (`blocks.3.0` beside `blocks.3.1`) are blocks too, with or without a shortcut.
2. The stream. Each sum inside a block is listened to where another module of the block takes it in (`blocks.3+attn` is
   read at the input of `blocks.3.norm2`); the last at the block's output. The stem is what the first block takes in.
3. Subsampling. Between two blocks the last module that changed the grid is a point.
4. Without sums: concatenations in place of additions (DenseNet, Inception); without these the trunk of plain layers,
   each convolution with the normalisation and activation behind it.

What is no map, such as the class token alone, is not on the stream.
"""

from __future__ import annotations

import contextlib
import fnmatch
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from fourier_probe.errors import PointError, suggest
from fourier_probe.probe.grid import Grid, Layout, infer_layout
from fourier_probe.probe.trace import Call, Sum, Trace, Value, trace

Kind = Literal["nchw", "nhwc"]

ATTENTION = re.compile(r"attn|attention|gpsa(?!conv)|xca|[ms]h?sa|litemla", re.IGNORECASE)
GATE = re.compile(  # attention by name that multiplies channels or positions by a number, or weighs branches
    r"squeeze|effective|channelattn|cbam|gather|coordattn|efficientlocal|stripattn|spatialatt|splitattn|selective",
    re.IGNORECASE,
)
CLASS_ATTENTION = re.compile(r"class_?att", re.IGNORECASE)
SIDE_STREAM = {"FeatureBlock"}  # GCViT's global queries: pooled on the side, never added to the stream
REORDERS = {"Hiera"}  # keep tokens in an order of their own, which no grid describes
READS_NCHW = re.compile(r"conv2d|batchnorm|norm2d|groupnorm|pool2d|pool(ing)?$|gpsaconv", re.IGNORECASE)
READS_NHWC = re.compile(r"^(linear|layernorm|rmsnorm)$", re.IGNORECASE)


@dataclass(frozen=True)
class Point:
    """A place to listen.

    Attributes:
        name: unique and stable: the module's path, with `+attn`, `+mlp` or `+conv` for the residual stream after that
            part of a block, `stem` for what the first block takes in, and `#2` for a second call.
        module, side: the hook: "output" of the module at this path, or "input".
        call: which of several calls of the module in one forward.
        kind: "stem", "residual" (on the main stream, after attention too; in plain networks the trunk), "branch".
        op: what the step to this point did: "embed", "attention", "mlp", "conv", "downsample".
        depth: index of the residual step over their number, 0 to 1.
        layout: how its features lie in memory.
    """

    name: str
    module: str
    side: Literal["output", "input"]
    call: int
    kind: str
    op: str
    depth: float
    layout: Layout


def find_points(model: nn.Module, example: Tensor, *, select: Sequence[str] = ()) -> list[Point]:
    """The probe points of a model.

    Args:
        model: any module; runs once, in eval mode without gradients, and is left as it was.
        example: (B, C, H, W) images of the size to be analyzed; only the first is used.
        select: globs of module names, or of names of the model's own points, to listen at instead.

    Returns:
        Points in execution order.

    Raises:
        PointError: nothing was found, a glob matches nothing, a named module was never called, or its features cannot
            be laid out as maps; names the point, its shape, and near names.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    >>> [(point.name, point.op, point.layout.grid) for point in find_points(model, torch.zeros(1, 3, 8, 8))]
    [('1', 'embed', (8, 8)), ('2', 'downsample', (4, 4))]
    """
    for module in model.modules():
        if type(module).__name__ in REORDERS:
            raise PointError(
                f"{type(module).__name__} keeps its tokens in an order of its own, which cannot be laid out as maps."
            )
    twice = example[:1].expand(2, *example.shape[1:])  # two images tell a batch from a broadcast
    with _undisturbed(model):
        found = trace(model, twice)
    image = (int(example.shape[2]), int(example.shape[3]))
    forward = _Forward(found, image, _declared(model, image))
    points = _numbered(_stream(forward))
    if select:
        return _selected(model, forward, points, select)
    if not points:
        lost = next((s for s in found.sums if s.kind == "add" and not _is_map(forward, s)), None)
        why = f" The stream in {lost.owner!r} has shape {lost.shape} for two images, which fits none." if lost else ""
        raise PointError(
            f"no probe point was found in {type(model).__name__}: it gives no feature maps that can be laid out on a "
            f"grid seen in its forward.{why} Name modules with --points GLOB."
        )
    return points


class _Forward:
    """A trace with the questions the rules ask of it."""

    def __init__(self, found: Trace, image: Grid, declared: list[Grid]) -> None:
        self.trace, self.image = found, image
        self.grids: list[tuple[int, Grid]] = [(-1, grid) for grid in [*declared, image]]  # certain, and when seen
        self.users: dict[tuple[Value | None, tuple[int, ...] | None], set[Kind]] = {}
        for call in found.calls:
            self._learn(call)
        self.grids.sort(key=lambda seen: seen[0])

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
                if kind == "nchw" or self._looks_like_the_image(grid):
                    self.grids.append((when, grid))

    def _looks_like_the_image(self, grid: Grid) -> bool:
        """Whether a grid has the image's proportions, up to rounding; (blocks, tokens of a block) has not."""
        (H, W), (h, w) = self.image, grid
        return abs(h * W - w * H) <= max(H, W)

    def layout(self, shape: tuple[int, ...] | None, when: int, evidence: Kind | None = None) -> Layout | None:
        """Layout of features of this shape at this moment of the forward."""
        if shape is None or shape[0] != self.trace.batch:
            return None
        known = [grid for seen, grid in self.grids if seen <= when]
        found = infer_layout(shape, known, evidence=evidence)
        return None if found and found.kind == "nhwc" and not self._looks_like_the_image(found.grid) else found

    def of_output(self, call: Call) -> Layout | None:
        """Layout of what a call returns."""
        evidence = reads(call.module) or self._beside(call.returns, call.output) or self._inside(call, call.output)
        return self.layout(call.output, call.end, evidence)

    def of_input(self, call: Call) -> Layout | None:
        """Layout of what a call takes in."""
        evidence = reads(call.module) or self._beside(call.takes, call.inputs) or self._inside(call, call.inputs)
        return self.layout(call.inputs, call.end, evidence)

    def _beside(self, value: Value | None, shape: tuple[int, ...] | None) -> Kind | None:
        """How the layers that made or took in this very tensor lay it out, where they agree."""
        kinds = self.users.get((value, shape), set())
        return next(iter(kinds)) if len(kinds) == 1 else None

    def _inside(self, call: Call, shape: tuple[int, ...] | None) -> Kind | None:
        """How the layers inside a call lay out maps of this shape, where they agree."""
        inside = [c for c in self.trace.calls if call.holds(c)]
        kinds = {kind for c in inside if shape in (c.inputs, c.output) and (kind := reads(c.module))}
        return kinds.pop() if len(kinds) == 1 else None


def reads(module: nn.Module) -> Kind | None:
    """The layout a layer reads and writes 4-D maps in, where its class says so."""
    name = type(module).__name__
    if READS_NCHW.search(name) or isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm):
        return "nchw"
    return "nhwc" if READS_NHWC.search(name) else None


# --- the stream ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """A point before depths are known; `when` orders it."""

    when: int
    name: str
    call: Call
    side: Literal["output", "input"]
    op: str
    layout: Layout


def _stream(forward: _Forward) -> list[Point]:
    if not forward.trace.calls:
        return []
    for kind in ("add", "cat"):
        blocks = _blocks(forward, kind)
        if blocks:
            steps = _block_steps(forward, blocks, kind)
            if len(steps) > 1:
                return _with_depth(steps)
    return _with_depth(_trunk(forward))


def _blocks(forward: _Forward, kind: str) -> list[Call]:
    """Calls of the blocks, in execution order."""
    calls = forward.trace.calls
    aside = [call for call in calls if type(call.module).__name__ in SIDE_STREAM]
    sums = [
        s
        for s in forward.trace.sums
        if s.kind == kind
        and _is_map(forward, s)
        and _is_of_block(forward, s)
        and not any(call.holds(s) for call in aside)
    ]
    owners = {s.owner for s in sums}
    returned = {call.name for call in calls if call.returns_own_sum()}

    def is_stage(name: str) -> bool:
        inside = [_pattern(other) for other in owners if other.startswith(name + "." if name else "") and other != name]
        repeated = len(inside) > len(set(inside))
        return name == "" or (repeated and (kind == "cat" or name not in returned))

    owners = {name for name in owners if not is_stage(name)}
    outermost = {name for name in owners if not any(_inside(name, other) for other in owners)}
    patterns = {_pattern(name) for name in outermost}
    classes = {type(call.module) for call in calls if call.name in outermost}
    siblings = {
        call.name
        for call in calls
        if (_pattern(call.name) in patterns or type(call.module) in classes)
        and not any(other.holds(call) for other in aside)
        and _is_sibling(call)
        and forward.of_output(call) is not None
        # One that holds a block is a stage, and one inside a block is a part.
        and not any(_inside(name, call.name) or _inside(call.name, name) for name in outermost)
    }
    names = outermost | {name for name in siblings if not any(_inside(name, other) for other in siblings)}
    blocks = [call for call in calls if call.name in names]
    image = calls[0].inputs
    if blocks and image and blocks[0].inputs == image and (blocks[0].output or ())[1:] != image[1:]:
        blocks = blocks[1:]  # what turns the image into something else is the embedding, position embedding added
    return blocks


def _block_steps(forward: _Forward, blocks: list[Call], kind: str) -> list[_Step]:
    calls = forward.trace.calls
    first = blocks[0]
    steps: list[_Step] = []
    layout = forward.of_input(first)
    if layout is not None and first.inputs != calls[0].inputs:  # the image itself is no stem
        steps.append(_Step(first.start, "stem", first, "input", "embed", layout))
    previous = first
    for block in blocks:
        if block is not first:
            steps += _between(forward, previous, block, steps)
        inner = [c for c in calls if block.start < c.start < block.end]
        if not any(CLASS_ATTENTION.search(type(c.module).__name__) for c in [block, *inner]):
            steps += _inside_block(forward, block, inner, kind, previous)
        previous = block
    if kind == "cat":  # a dense block returns the concatenation of all it made
        ends = [c for c in calls if c.returns_own_sum() and isinstance(c.returns, Sum) and c.returns.kind == "cat"]
        steps += [_Step(c.end, c.name, c, "output", "conv", layout) for c in ends if (layout := forward.of_output(c))]
    unique = {(s.call.name, s.call.index, s.side): s for s in sorted(steps, key=lambda s: s.when)}
    return sorted(unique.values(), key=lambda s: s.when)


def _inside_block(forward: _Forward, block: Call, inner: list[Call], kind: str, previous: Call) -> Iterator[_Step]:
    """The stream inside one block and behind it."""
    output = forward.of_output(block)
    children = [c for c in inner if not any(o.holds(c) for o in inner)]
    since = block.start
    used: Counter[str] = Counter()
    for found in _sums_on_the_stream(forward, block, kind):
        segment = [c for c in children if since < c.start < found.start]
        part = next((c for c in inner if c.returns is found and c.holds(found)), None)
        if part is not None:  # a residual part of its own, such as a convolution that adds its position embedding
            if layout := forward.of_output(part):
                yield _Step(part.end, part.name, part, "output", _op(segment or [part]), layout)
                since = found.start
            continue
        taken = next((c for c in inner if c.takes is found), None)
        if taken is None:
            continue
        layout = forward.of_input(taken) or (output if output and block.output == taken.inputs else None)
        if layout is None:
            continue
        op = _op(segment) if segment else "conv"
        label = {"attention": "attn"}.get(op, op)
        used[label] += 1
        label += str(used[label]) if used[label] > 1 else ""
        name = f"{block.name}+{label}" if segment else previous.name
        yield _Step(found.start, name, taken, "input", op, layout)
        since = found.start
    if kind == "add" and output is not None:
        segment = [c for c in children if since < c.start] or children
        yield _Step(block.end, block.name, block, "output", _op(segment), output)


def _sums_on_the_stream(forward: _Forward, block: Call, kind: str) -> list[Sum]:
    """The sums inside a block that are the stream: all but the last, whose result is read at the block's output.

    They are those that the last one leads back to, each an operand of the next, as far as the block's input. Where an
    operand was changed in between (a projected shortcut, a norm behind the sum) that chain is broken, and all the
    block's own sums of the output's size count that a layer goes on from; sums of parallel branches are not.
    """
    mine = [s for s in forward.trace.sums if s.owner == block.name and block.holds(s)]
    if kind == "cat" or not mine:
        return mine
    chain = _chain(mine[-1], block)
    if chain is not None:
        return chain[:-1]
    size = math.prod(block.output or ())
    used = [c.takes for c in forward.trace.calls if block.holds(c) and c.returns is not c.takes]
    return [s for s in mine[:-1] if math.prod(s.shape) == size and s in used]


def _chain(last: Sum, block: Call) -> list[Sum] | None:
    """The sums from a block's input to `last`, where the operands lead there unchanged."""
    if block.takes in last.operands:
        return [last]
    for operand in last.operands:
        if isinstance(operand, Sum) and block.holds(operand):
            before = _chain(operand, block)
            if before is not None:
                return [*before, last]
    return None


def _between(forward: _Forward, previous: Call, block: Call, steps: list[_Step]) -> list[_Step]:
    """The last module between two blocks that changed the grid, if any did."""
    if not steps:
        return []
    grid = min((step.layout.grid for step in steps), key=math.prod)
    found = [
        (call, layout)
        for call in forward.trace.calls
        if previous.end < call.start and 0 <= call.end < block.start and (layout := forward.of_output(call)) is not None
    ]
    if not found:
        return []
    target = (forward.of_input(block) or found[-1][1]).grid
    if math.prod(target) >= math.prod(grid):
        return []
    right = [(call, layout) for call, layout in found if layout.grid == target]
    outer = [(c, lay) for c, lay in right if not any(o.start < c.start and c.end < o.end for o, _ in right)]
    return [_Step(c.end, c.name, c, "output", "downsample", lay) for c, lay in outer[-1:]]


def _trunk(forward: _Forward) -> list[_Step]:
    """Plain layers: every convolution, linear map or pooling with the layers without weights that follow it."""
    steps: list[_Step] = []
    for call in forward.trace.calls:
        unit = not list(call.module.children()) or any(True for _ in call.module.parameters(recurse=False))
        nested = any(s.call.start < call.start and call.end < s.call.end for s in steps[-1:])
        layout = forward.of_output(call)
        if not unit or nested or layout is None:
            continue
        if layout.grid == (1, 1) and steps and steps[-1].layout.grid != (1, 1):
            break  # pooled to one position: the classifier begins
        weights = [p for p in call.module.parameters() if p.ndim >= 2]
        pool = not weights and bool(steps) and layout.grid != steps[-1].layout.grid
        if weights or pool:
            steps.append(_Step(call.end, call.name, call, "output", "downsample" if pool else _op([call]), layout))
        elif steps and layout == steps[-1].layout:
            steps[-1] = replace(steps[-1], when=call.end, name=call.name, call=call)
    return steps


def _with_depth(steps: list[_Step]) -> list[Point]:
    points = []
    smallest = math.inf  # positions; of several streams of different resolution (HRNet, CrossViT) each counts once
    for index, step in enumerate(steps):
        positions = math.prod(step.layout.grid)
        op = "downsample" if positions < smallest else step.op
        smallest = min(smallest, positions)
        points.append(
            Point(
                name=step.name if not step.call.index else f"{step.name}#{step.call.index + 1}",
                module=step.call.name,
                side=step.side,
                call=step.call.index,
                kind="residual" if index else "stem",
                op=op if index else "embed",
                depth=index / max(len(steps) - 1, 1),
                layout=step.layout,
            )
        )
    return points


def _numbered(points: list[Point]) -> list[Point]:
    """Unique names: a second point of one name is `name#2`."""
    seen: dict[str, int] = {}
    out = []
    for point in points:
        seen[point.name] = seen.get(point.name, 0) + 1
        count = seen[point.name]
        out.append(point if count == 1 else replace(point, name=f"{point.name}#{count}"))
    return out


# --- points by name --------------------------------------------------------------------------------------------------


def _selected(model: nn.Module, forward: _Forward, stream: list[Point], select: Sequence[str]) -> list[Point]:
    modules = [name for name, _ in model.named_modules() if name]
    aliases = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    own = {point.name: point for point in stream}
    chosen: dict[tuple[str, str, int], tuple[int, Point]] = {}
    starts = {(call.name, call.index): call for call in forward.trace.calls}
    for glob in select:
        names = fnmatch.filter([*own, *aliases], glob)
        if not names:
            near = suggest(glob, [*own, *modules])
            raise PointError(f"--points {glob!r} matches no probe point and no module.{near}")
        for name in dict.fromkeys(names):
            found = (
                [own[name]] if name in own else list(_module_points(model, forward, stream, name, exact=name == glob))
            )
            for point in found:
                call = starts[(point.module, point.call)]
                key = (point.module, point.side, point.call)
                chosen.setdefault(key, (call.end if point.side == "output" else call.start, point))
    return [point for _, point in sorted(chosen.values(), key=lambda item: item[0])]


def _module_points(
    model: nn.Module, forward: _Forward, stream: list[Point], name: str, *, exact: bool
) -> Iterator[Point]:
    """A point for each call of a named module, on the stream where one of the model's own points is read there."""
    module = model.get_submodule(name)
    calls = [call for call in forward.trace.calls if call.module is module]
    if not calls and exact:
        raise PointError(f"module {name!r} is never called in the forward of {type(model).__name__}.")
    by_key = {(c.name, c.index): c for c in forward.trace.calls}

    def moment(point: Point) -> int:
        of = by_key[(point.module, point.call)]
        return of.end if point.side == "output" else of.start

    for call in calls:
        layout = forward.of_output(call)
        if layout is None:
            raise PointError(
                f"point {name}: its output of shape {_shown(call.output)} for two images cannot be laid out as maps "
                "(B, C, H, W): no grid that was seen before it fits. Leave it out of --points."
            )
        own = [p for p in stream if (p.module, p.call, p.side) == (call.name, call.index, "output")]
        if own:
            yield own[0]
            continue
        before = [p.depth for p in stream if moment(p) <= call.start]
        suffix = f"#{call.index + 1}" if call.index else ""
        yield Point(
            name + suffix, call.name, "output", call.index, "branch", _op([call]), max(before, default=0.0), layout
        )


# --- small questions -------------------------------------------------------------------------------------------------


def _op(calls: list[Call]) -> str:
    """What a part of a block does, by its layers: attention, else a spatial convolution or pooling, else an MLP."""
    modules = [(f"{call.name}.{name}", m) for call in calls for name, m in call.module.named_modules()]
    for name, module in modules:
        kind = type(module).__name__
        gate = GATE.search(kind) or re.search(r"\bse\b", name)
        if ATTENTION.search(kind) and not gate and any(True for _ in module.parameters()):
            return "attention"
    for _, module in modules:
        kernel = getattr(module, "kernel_size", 1)
        if max(kernel) > 1 if isinstance(kernel, tuple) else isinstance(kernel, int) and kernel > 1:
            return "conv"
    return "mlp" if any(isinstance(m, nn.Linear | nn.Conv2d) for _, m in modules) else "conv"


def _is_of_block(forward: _Forward, found: Sum) -> bool:
    """Whether a sum may be a block's: inside a layer without layers only if it adds to the layer's own input."""
    owner = next(c for c in reversed(forward.trace.calls) if c.name == found.owner and c.holds(found))
    return bool(list(owner.module.children())) or owner.takes in found.operands


def _is_map(forward: _Forward, found: Sum) -> bool:
    if len(found.shape) == 3:
        return forward.layout(found.shape, found.start) is not None
    return True


def _is_sibling(call: Call) -> bool:
    """A composite module that is more than a bare chain of layers."""
    children = list(call.module.children())
    chain = isinstance(call.module, nn.Sequential) and not any(list(child.children()) for child in children)
    return bool(children) and not chain


def _pattern(name: str) -> str:
    """A path with its numbers left out: `layer2.0` and `layer1.3` are in the same place."""
    return re.sub(r"\d+", "*", name)


def _declared(model: nn.Module, image: Grid) -> list[Grid]:
    """Grids that timm's `feature_info` declares, for models that cut patches without a convolution."""
    info = getattr(model, "feature_info", None)
    strides = [each["reduction"] for each in info if "reduction" in each] if isinstance(info, list) else []
    return [(-(-image[0] // s), -(-image[1] // s)) for s in dict.fromkeys(strides)]


def _inside(name: str, other: str) -> bool:
    return name != other and name.startswith(other + ".")


def _shown(shape: tuple[int, ...] | None) -> str:
    return "no tensor" if shape is None else str(shape)


@contextlib.contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; train/eval mode of every module and torch's random state as they were afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training

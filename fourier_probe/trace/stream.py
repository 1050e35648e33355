"""The main stream of a model as steps. May import grid, trace, layouts, models.recast.

The rules on a traced forward, in this order (docs/points.md):

1. Blocks. The modules whose own forward adds two maps of one shape are the residual blocks; of nested ones the
   outermost counts, unless it holds several of one kind and its sum is not its output: then it is a stage. Modules of
   the same class, or that stand where a block could (`blocks.3.0` beside `blocks.3.1`), are blocks too, with or without
   a shortcut.
2. The stream. From a block's last sum its operands lead back to the block's input: the sums on that way are the stream.
   Each is listened to where another module of the block takes it in (`blocks.3+attn` is read at the input of
   `blocks.3.norm2`); the last at the block's output. The stem is what the first block takes in.
3. Subsampling. Between two blocks the last module that shrank the grid is a point.
4. Without sums: concatenations in place of additions (DenseNet, Inception); without these the trunk of plain layers,
   each convolution with the normalisation and activation behind it.

What is no map, such as the class token alone, is not on the stream.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from fourier_probe.models.gpsa.recast import GPSAConv2d
from fourier_probe.trace.forward import Call, Sum
from fourier_probe.trace.grid import Layout
from fourier_probe.trace.layouts import Forward

ATTENTION = re.compile(r"attn|attention|gpsa(?!conv)|xca|[ms]h?sa|litemla", re.IGNORECASE)
GATE = re.compile(  # attention by name that multiplies channels or positions by a number, or weighs branches
    r"squeeze|effective|channelattn|cbam|gather|coordattn|efficientlocal|stripattn|spatialatt|splitattn|selective",
    re.IGNORECASE,
)
CLASS_ATTENTION = re.compile(r"class_?att", re.IGNORECASE)
SIDE_STREAM = {"FeatureBlock"}  # GCViT's global queries: pooled on the side, never added to the stream


@dataclass(frozen=True)
class Step:
    """A point before depths are known; `when` orders it."""

    when: int
    name: str
    call: Call
    side: Literal["output", "input"]
    op: str
    layout: Layout


def stream(forward: Forward) -> list[Step]:
    """The steps of the main stream in execution order; none where nothing can be laid out."""
    if not forward.trace.calls:
        return []
    for kind in ("add", "cat"):
        blocks = _blocks(forward, kind)
        if blocks:
            steps = _block_steps(forward, blocks, kind)
            if len(steps) > 1:
                return steps
    return _trunk(forward)


def _blocks(forward: Forward, kind: str) -> list[Call]:
    """Calls of the blocks, in execution order."""
    calls = forward.trace.calls
    aside = [call for call in calls if type(call.module).__name__ in SIDE_STREAM]
    sums = [
        s
        for s in forward.trace.sums
        if s.kind == kind
        and is_map(forward, s)
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


def _block_steps(forward: Forward, blocks: list[Call], kind: str) -> list[Step]:
    calls = forward.trace.calls
    first = blocks[0]
    steps: list[Step] = []
    layout = forward.of_input(first)
    if layout is not None and first.inputs != calls[0].inputs:  # the image itself is no stem
        steps.append(Step(first.start, "stem", first, "input", "embed", layout))
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
        steps += [Step(c.end, c.name, c, "output", "conv", layout) for c in ends if (layout := forward.of_output(c))]
    unique = {(s.call.name, s.call.index, s.side): s for s in sorted(steps, key=lambda s: s.when)}
    return sorted(unique.values(), key=lambda s: s.when)


def _inside_block(forward: Forward, block: Call, inner: list[Call], kind: str, previous: Call) -> Iterator[Step]:
    """The stream inside one block and behind it."""
    output = forward.of_output(block)
    children = [c for c in inner if not any(o.holds(c) for o in inner)]
    since = block.start
    used: Counter[str] = Counter()
    for found in _sums_on_thestream(forward, block, kind):
        segment = [c for c in children if since < c.start < found.start]
        part = next((c for c in inner if c.returns is found and c.holds(found)), None)
        if part is not None:  # a residual part of its own, such as a convolution that adds its position embedding
            if layout := forward.of_output(part):
                yield Step(part.end, part.name, part, "output", operation(segment or [part]), layout)
                since = found.start
            continue
        taken = next((c for c in inner if c.takes is found), None)
        if taken is None:
            continue
        layout = forward.of_input(taken) or (output if output and block.output == taken.inputs else None)
        if layout is None:
            continue
        op = operation(segment) if segment else "conv"
        made = _made_as(segment) if segment else "conv"
        label = {"attention": "attn"}.get(made, made)
        used[label] += 1
        label += str(used[label]) if used[label] > 1 else ""
        name = f"{block.name}+{label}" if segment else previous.name
        yield Step(found.start, name, taken, "input", op, layout)
        since = found.start
    if kind == "add" and output is not None:
        segment = [c for c in children if since < c.start] or children
        yield Step(block.end, block.name, block, "output", operation(segment), output)


def _sums_on_thestream(forward: Forward, block: Call, kind: str) -> list[Sum]:
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


def _between(forward: Forward, previous: Call, block: Call, steps: list[Step]) -> list[Step]:
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
    return [Step(c.end, c.name, c, "output", "downsample", lay) for c, lay in outer[-1:]]


def _trunk(forward: Forward) -> list[Step]:
    """Plain layers: every convolution, linear map or pooling with the layers without weights that follow it."""
    steps: list[Step] = []
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
            steps.append(Step(call.end, call.name, call, "output", "downsample" if pool else operation([call]), layout))
        elif steps and layout == steps[-1].layout:
            steps[-1] = replace(steps[-1], when=call.end, name=call.name, call=call)
    return steps


# --- small questions ---


def operation(calls: list[Call]) -> str:
    """What a part of a block does, by its layers: attention, else a spatial convolution or pooling, else an MLP.

    A part whose spatial convolutions are all recast as GPSA is attention; with only some recast it is a convolution.
    """
    spatial = [
        module
        for call in calls
        for module in call.module.modules()
        if _is_spatial(module) and any(True for _ in module.parameters(recurse=False))
    ]
    if spatial and all(isinstance(module, GPSAConv2d) for module in spatial):
        return "attention"
    return _made_as(calls)


def _made_as(calls: list[Call]) -> str:
    """`operation` with a recast convolution taken for the one it was: points keep their names through a training."""
    modules = [(f"{call.name}.{name}", m) for call in calls for name, m in call.module.named_modules()]
    for name, module in modules:
        kind = type(module).__name__
        gate = GATE.search(kind) or re.search(r"\bse\b", name)
        if ATTENTION.search(kind) and not gate and any(True for _ in module.parameters()):
            return "attention"
        if name.rstrip(".").endswith(".q_norm"):  # computed in the block's own forward
            return "attention"
    if any(_is_spatial(module) for _, module in modules):
        return "conv"
    return "mlp" if any(isinstance(m, nn.Linear | nn.Conv2d) for _, m in modules) else "conv"


def _is_spatial(module: nn.Module) -> bool:
    """Whether a layer has a kernel larger than 1."""
    kernel = getattr(module, "kernel_size", 1)
    return max(kernel) > 1 if isinstance(kernel, tuple) else isinstance(kernel, int) and kernel > 1


def _is_of_block(forward: Forward, found: Sum) -> bool:
    """Whether a sum may be a block's: inside a layer without layers only if it adds to the layer's own input."""
    owner = next(c for c in reversed(forward.trace.calls) if c.name == found.owner and c.holds(found))
    return bool(list(owner.module.children())) or owner.takes in found.operands


def is_map(forward: Forward, found: Sum) -> bool:
    """Whether a sum may be of maps: a 3-D one must fit a grid."""
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


def _inside(name: str, other: str) -> bool:
    return name != other and name.startswith(other + ".")

"""The main stream of a model as steps. May import blocks, grid, trace, layouts, models.recast.

What a rule of the user's names (`blocks`) is a block, with its additions and its output. Else the rules on a traced
forward are, in this order (docs/points.md):

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

from fourier_probe.errors import PointError
from fourier_probe.models.gpsa.recast import GPSAConv2d
from fourier_probe.trace import axes as ax
from fourier_probe.trace.blocks import BLOCKS, BlockRequest, named_blocks
from fourier_probe.trace.coverage import UnreadStep, unread_steps
from fourier_probe.trace.forward import Attention, Call, Sum, Value
from fourier_probe.trace.grid import Layout
from fourier_probe.trace.layouts import Forward, Unread

ATTENTION = re.compile(r"attn|attention|gpsa(?!conv)|xca|[ms]h?sa|litemla", re.IGNORECASE)
GATE = re.compile(  # attention by name that multiplies channels or positions by a number, or weighs branches
    r"squeeze|effective|channelattn|cbam|gather|coordattn|efficientlocal|stripattn|spatialatt|splitattn|selective",
    re.IGNORECASE,
)
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
    own_name: bool = True  # whether the name is that of the call


@dataclass(frozen=True)
class Stream:
    """What is read of a forward, and what is not.

    Attributes:
        steps: of the main stream in execution order; none where nothing can be laid out.
        unread: residual steps without a point.
    """

    steps: list[Step]
    unread: list[UnreadStep]


def stream(forward: Forward) -> Stream:
    """The main stream of a forward."""
    if not forward.trace.calls:
        return Stream([], [])
    aside = [s for s in forward.trace.sums if any(call.holds(s) for call in _beside_the_stream(forward))]
    rule, named = _named(forward)
    if named:
        return _stream_of(forward, rule, named, aside)
    steps = _block_steps(forward, "add")
    unread = _unread(forward, steps, aside)
    if len(steps) + len(unread) > 1:
        if not steps:  # no addition can be laid out: what leads to the first is all there is
            first = min(step.when for step in unread)
            steps = [step for step in _trunk(forward)[0] if step.when < first][-1:]
        return Stream(steps, unread)
    steps = _block_steps(forward, "cat")
    if len(steps) > 1:
        return Stream(steps, _unread(forward, steps, aside))
    return Stream(*_trunk(forward))


def _named(forward: Forward) -> tuple[str, list[Call]]:
    """The rule of the user's that knows this network, and the calls of the blocks that it names."""
    if not len(BLOCKS):
        return "", []
    calls = forward.trace.calls
    called = {call.name: call.module for call in calls}
    adds = frozenset(call.name for s, call in forward.homes.items() if s.kind == "add" and is_map(forward, s))
    rule, names = named_blocks(BlockRequest(calls[0].module, called, adds))
    return rule, [call for call in calls if call.name in names]


def _stream_of(forward: Forward, rule: str, blocks: list[Call], aside: list[Sum]) -> Stream:
    """The stream through blocks that a rule of the user's names; what they add inside is part of them."""
    steps = _with_loose(forward, _steps_of(forward, blocks, "add"), blocks)
    read = {step.call for step in steps}
    unread = [step for step in _unread(forward, steps, aside) if not any(b.start < step.when < b.end for b in blocks)]
    for block in blocks:
        answer = forward.read_output(block)
        if block not in read and isinstance(answer, Unread):
            unread.append(UnreadStep(block.name, answer.reason, block.end))
    if not steps:
        raise PointError(f"block rule {rule!r}: no block has maps that can be laid out ({unread[0].reason}).")
    return Stream(steps, unread)


def _unread(forward: Forward, steps: list[Step], aside: list[Sum]) -> list[UnreadStep]:
    values = [(step.call.returns if step.side == "output" else step.call.takes, step.layout.grid) for step in steps]
    return unread_steps(forward, [(value, grid) for value, grid in values if value is not None], aside)


def residual_blocks(forward: Forward) -> list[Call]:
    """The calls whose sums are the stream, in execution order; none in a plain network."""
    return _named(forward)[1] or _blocks(forward, "add")


def _beside_the_stream(forward: Forward) -> list[Call]:
    """Calls that pool on the side, and blocks in which the class token alone asks."""
    asked: dict[Call, list[Attention]] = {}
    for heard in forward.trace.attention:
        for call in forward.trace.calls:
            if call.holds(heard):
                asked.setdefault(call, []).append(heard)
    alone = [call for call, heard in asked.items() if all(map(_is_of_one_token, heard)) and _adds(forward, call)]
    return [call for call in forward.trace.calls if type(call.module).__name__ in SIDE_STREAM] + alone


def _is_of_one_token(heard: Attention) -> bool:
    return not ax.has_positions(heard.queries) and heard.shape[-2] == 1 and ax.has_positions(heard.keys)


def _adds(forward: Forward, call: Call) -> bool:
    return any(home is call for home in forward.homes.values())


def _blocks(forward: Forward, kind: str) -> list[Call]:
    """Calls of the blocks, in execution order."""
    calls = forward.trace.calls
    aside = _beside_the_stream(forward)
    sums = [
        s
        for s in forward.trace.sums
        if s.kind == kind
        and is_map(forward, s)
        and _is_of_block(forward, s)
        and not any(call.holds(s) for call in aside)
    ]
    owners = {forward.homes[s].name for s in sums}
    returned = {call.name for call in calls if forward.returns_own_sum(call)}

    steps = [s for s in sums if s.skip is not None]

    def is_part(name: str, outer: str) -> bool:
        """Whether all sums of a module happen inside the branches of another's, and hand no stream on."""
        branches = [step for step in steps if forward.homes[step].name == outer]
        own = [s for s in sums if forward.homes[s].name == name]
        return all(any(step.begins <= s.when < step.when for step in branches) for s in own) and not _is_chain(
            forward, [other for other in owners if _pattern(other) == _pattern(name)]
        )

    def is_stage(name: str) -> bool:
        inside = [other for other in owners if other.startswith(name + "." if name else "") and other != name]
        repeated = len(inside) > len(set(map(_pattern, inside)))
        return name == "" or (repeated and (kind == "cat" or name not in returned or _is_chain(forward, inside)))

    owners = {name for name in owners if not any(is_part(name, outer) for outer in owners if _inside(name, outer))}
    owners = {name for name in owners if not is_stage(name)}
    outermost = {name for name in owners if not any(_inside(name, other) for other in owners)}
    patterns = {_pattern(name) for name in outermost}
    classes = {type(call.module) for call in calls if call.name in outermost}
    siblings = {
        call.name
        for call in calls
        if (_pattern(call.name) in patterns or type(call.module) in classes)
        and not any(other is call or other.holds(call) for other in aside)
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


def _block_steps(forward: Forward, kind: str) -> list[Step]:
    blocks = _blocks(forward, kind)
    steps = _steps_of(forward, blocks, kind) if blocks else []
    return _with_loose(forward, steps, blocks) if kind == "add" else steps


def _steps_of(forward: Forward, blocks: list[Call], kind: str) -> list[Step]:
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
        steps += _inside_block(forward, block, inner, kind, previous)
        previous = block
    steps += _holders(forward, blocks)
    if kind == "cat":  # a dense block returns the concatenation of all it made
        ends = [c for c in calls if forward.returns_own_sum(c) and getattr(c.returns, "kind", "") == "cat"]
        steps += [Step(c.end, c.name, c, "output", "conv", layout) for c in ends if (layout := forward.of_output(c))]
    unique = {(s.call.name, s.call.index, s.side): s for s in sorted(steps, key=lambda s: s.when)}
    return sorted(unique.values(), key=lambda s: s.when)


def _inside_block(forward: Forward, block: Call, inner: list[Call], kind: str, previous: Call) -> Iterator[Step]:
    """The stream inside one block and behind it."""
    output = forward.of_output(block)
    children = [c for c in inner if not any(o.holds(c) for o in inner)]
    since = block.start
    used: Counter[str] = Counter()
    for found in _sums_on_the_stream(forward, block, kind):
        segment = [c for c in children if since < c.start < found.when]
        part = next((c for c in inner if c.returns is found and c.holds(found)), None)
        if part is not None:  # a residual part of its own, such as a convolution that adds its position embedding
            if layout := forward.of_output(part):
                op = operation(forward, segment or [part], since, part.end)
                yield Step(part.end, part.name, part, "output", op, layout)
                since = found.when
            continue
        taken = next((c for c in inner if c.takes is found), None)
        if taken is None:
            continue
        layout = forward.of_input(taken) or (output if output and block.output == taken.inputs else None)
        if layout is None:
            continue
        op = operation(forward, segment, since, found.when)
        made = _made_as(forward, segment, since, found.when)
        label = {"attention": "attn"}.get(made, made)
        used[label] += 1
        label += str(used[label]) if used[label] > 1 else ""
        name = f"{block.name}+{label}" if segment else previous.name
        yield Step(found.when, name, taken, "input", op, layout)
        since = found.when
    sums = [s for s in forward.trace.sums if forward.homes[s] is block and s.kind == kind and is_map(forward, s)]
    if kind == "add" and output is not None and not (sums and since == sums[-1].when):
        segment = [c for c in children if since < c.start] or children
        yield Step(block.end, block.name, block, "output", operation(forward, segment, since, block.end), output)


def _sums_on_the_stream(forward: Forward, block: Call, kind: str) -> list[Sum]:
    """The sums inside a block that are the stream: all but the last, whose result is read at the block's output.

    They are those that the last one leads back to, each an operand of the next, as far as the block's input. Where an
    operand was changed in between (a projected shortcut, a norm behind the sum) that chain is broken, and all the
    block's own sums of the output's size count that a layer goes on from; sums of parallel branches are not.
    """
    mine = [s for s in forward.trace.sums if forward.homes[s] is block and s.kind == kind]
    mine = mine if kind == "cat" else [s for s in mine if is_map(forward, s)]
    if kind == "cat" or not mine:
        return mine
    last = block.returns if isinstance(block.returns, Sum) and is_map(forward, block.returns) else mine[-1]
    last = last if block.holds(last) else mine[-1]
    chain = _chain(last, block)
    if chain is not None:
        return chain if _goes_on(forward, chain, block) else chain[:-1]
    size = math.prod(block.output or ())
    used = [c.takes for c in forward.trace.calls if block.holds(c) and c.returns is not c.takes]
    return [s for s in mine[:-1] if math.prod(s.shape) == size and s in used]


def _goes_on(forward: Forward, chain: list[Sum], block: Call) -> bool:
    """Whether a block changes its stream after the last sum: a whole network as one block, and its last norm."""
    last = chain[-1]
    return block.returns is not last and (
        len(chain) > 2 or (last.skip is not None and forward.of_output(block) is None)
    )


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


def _holders(forward: Forward, blocks: list[Call]) -> Iterator[Step]:
    """What stands where a block could, holds blocks and goes on after the last of them, as MobileViT does."""
    places = {_pattern(block.name) for block in blocks}
    for call in forward.trace.calls:
        beside = {type(block.module) for block in blocks if _pattern(block.name) == _pattern(call.name)}
        inner = [block for block in blocks if call.holds(block) and type(block.module) not in beside]
        layout = forward.of_output(call) if inner and call not in blocks and _pattern(call.name) in places else None
        if layout is not None and call.returns is not inner[-1].returns:
            after = [c for c in forward.trace.calls if call.holds(c) and c.start > inner[-1].end]
            outer = [c for c in after if not any(o.holds(c) for o in after)]
            op = operation(forward, outer, inner[-1].end, call.end)
            yield Step(call.end, call.name, call, "output", op, layout)


def _is_chain(forward: Forward, names: list[str]) -> bool:
    """Whether modules of one place hand a residual stream from one to the next."""
    for pattern in {_pattern(name) for name in names}:
        homes = [n for n in names if _pattern(n) == pattern]
        sums = [s for s in forward.trace.sums if forward.homes[s].name in homes]
        ends = {forward.homes[s].name: s for s in sums}
        for found in sums:
            others = [end for name, end in ends.items() if name != forward.homes[found].name and end.when < found.when]
            if found.skip is not None and any(found.skip is end or found.skip.holds(end) for end in others):
                return True
    return False


def _with_loose(forward: Forward, steps: list[Step], blocks: list[Call]) -> list[Step]:
    """The steps, with those whose addition stands in the forward of the root or of a stage, outside of any block."""
    aside = _beside_the_stream(forward)
    sums = [
        s
        for s in forward.trace.sums
        if s.kind == "add" and is_map(forward, s) and not any(call.holds(s) for call in [*blocks, *aside])
    ]
    loose: list[Sum] = []
    for found in sums:
        split = not blocks and loose and all(operand.made_of(loose[-1]) for operand in found.operands)
        if (found.skip is not None and _is_of_block(forward, found)) or split:
            if loose and loose[-1] in found.operands and found.skip is None:
                loose.pop()  # one of three branches
            loose.append(found)
    more: list[Step] = []
    before = [step.when for step in steps]
    for index, found in enumerate(loose):
        if index == 0 and not steps and found.skip is not None:
            name = "" if isinstance(found.skip, Sum) else "stem"  # a sum that is read beside this one alone is no stem
            more += _read(forward, found.skip, name, "embed", found.when)
        since = max([when for when in before if when < found.when], default=0)
        began = max(since, found.begins - 1)
        inside = [c for c in forward.trace.calls if began < c.start and 0 <= c.end < found.when]
        outer = [c for c in inside if not any(o.holds(c) for o in inside)]
        if index and found.skip is not None and found.skip.when > since and _shrank(forward, loose[index - 1], found):
            more += _read(forward, found.skip, "", "downsample", found.skip.when)
        op = operation(forward, outer, began, found.when)
        made = _made_as(forward, outer, began, found.when)
        label = {"attention": "attn"}.get(made, made)
        name = f"{outer[-1].name}+{label}" if outer else label
        home = forward.homes[found]
        if home.name and home.returns is found and (layout := forward.of_output(home)):
            more.append(Step(found.when, home.name, home, "output", op, layout))
        else:
            more += _read(forward, found, _once(name, more), op, found.when)
        before.append(found.when)
    taken = {(step.call.name, step.call.index, step.side) for step in steps}
    new = [step for step in more if (step.call.name, step.call.index, step.side) not in taken]
    return sorted([*steps, *new], key=lambda step: step.when)


def _shrank(forward: Forward, before: Sum, after: Sum) -> bool:
    layouts = [forward.read_sum(found) for found in (before, after)]
    grids = [math.prod(layout.grid) for layout in layouts if isinstance(layout, Layout)]
    skips = after.skip is not None and after.skip.parents != (before,)
    return skips and len(grids) == 2 and grids[1] < grids[0]


def _once(name: str, steps: list[Step]) -> str:
    count = sum(step.name.rstrip("0123456789") == name for step in steps)
    return f"{name}{count + 1}" if count else name


def _read(forward: Forward, value: Value, name: str, op: str, when: int) -> list[Step]:
    """A step where a module takes a value in as it is, or returns it; behind an activation that alone takes it in.

    As it is: also beside other tokens, and behind what has no weights and was made of nothing else (a function that
    normalises).
    """
    calls = forward.trace.calls
    takers = [c for c in calls if c.takes is not None and c.start > value.when and c.name]
    takers = [c for c in takers if c.takes is not None and (c.takes is value or c.takes.holds(value))]
    for call in takers[:1]:
        leaf = not any(True for _ in call.module.children()) and not any(True for _ in call.module.parameters())
        alone = call.takes is value and sum(c.takes is value for c in takers) == 1
        layout = forward.of_output(call) if leaf and alone else None
        if layout is not None and call.output == call.inputs:
            return [Step(value.when, name or call.name, call, "output", op, layout, not name)]
    for call in takers:
        layout = forward.of_input(call)
        if layout is not None:
            return [Step(value.when, name or call.name, call, "input", op, layout, not name)]
    for call in reversed(calls):
        layout = forward.of_output(call) if call.returns is value else None
        if layout is not None and call.end > value.when:
            return [Step(value.when, name or call.name, call, "output", op, layout, not name)]
    return []


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


def _trunk(forward: Forward) -> tuple[list[Step], list[UnreadStep]]:
    """Plain layers: every convolution, linear map or pooling with the layers without weights that follow it.

    Only those on the one way from the image to the last of the coarsest maps (a network that goes up again has skips);
    layers side by side are no stream and are named as unread.
    """
    steps: list[Step] = []
    beside: list[UnreadStep] = []
    units = [
        (call, layout)
        for call in forward.trace.calls
        if (not list(call.module.children()) or any(True for _ in call.module.parameters(recurse=False)))
        and (layout := forward.of_output(call)) is not None
    ]
    coarse = [(call, layout) for call, layout in units if layout.grid != (1, 1)] or units
    smallest = min((math.prod(layout.grid) for _, layout in coarse), default=0)
    end = next((call.returns for call, layout in reversed(coarse) if math.prod(layout.grid) == smallest), None)
    for call, layout in units:
        if any(s.call.start < call.start and call.end < s.call.end for s in steps[-1:]):
            continue
        if layout.grid == (1, 1) and steps and steps[-1].layout.grid != (1, 1):
            continue  # pooled to one position: a gate, or the classifier
        if steps and math.prod(layout.grid) > math.prod(steps[-1].layout.grid):
            break  # made larger again: a tail that makes an image
        weights = [p for p in call.module.parameters() if p.ndim >= 2]
        pool = not weights and bool(steps) and layout.grid != steps[-1].layout.grid
        if weights or pool:
            if call.returns is None or not forward.trace.passes(call.returns, end):
                beside.append(UnreadStep(call.name, _SIDE_BY_SIDE, call.end))
                continue
            op = "downsample" if pool else operation(forward, [call], call.start, call.end)
            steps.append(Step(call.end, call.name, call, "output", op, layout))
        elif steps and layout == steps[-1].layout and call.returns and forward.trace.passes(call.returns, end):
            steps[-1] = replace(steps[-1], when=call.end, name=call.name, call=call)
    return steps, beside


_SIDE_BY_SIDE = "nothing is added or concatenated to a stream, and it is one of several layers side by side"


# --- small questions ---


def operation(forward: Forward, calls: list[Call], start: int, end: int) -> str:
    """What a part of a block does, by what ran in it: attention, else a spatial convolution or pooling, else an MLP.

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
    return _made_as(forward, calls, start, end)


def _made_as(forward: Forward, calls: list[Call], start: int, end: int) -> str:
    """`operation` with a recast convolution taken for the one it was: points keep their names through a training."""
    ran = [ran for ran in forward.trace.ran if start < ran.when < end]
    recast = {call.name for call in forward.trace.calls if isinstance(call.module, GPSAConv2d)}
    if any(ran.kind == "attention" and ran.owner not in recast for ran in ran):
        return "attention"
    modules = [(f"{call.name}.{name}", m) for call in calls for name, m in call.module.named_modules()]
    for name, module in modules:  # attention without a softmax over positions: its name is all that is left
        kind = type(module).__name__
        gate = GATE.search(kind) or re.search(r"\bse\b", name)
        if ATTENTION.search(kind) and not gate and any(True for _ in module.parameters()):
            return "attention"
    if any(ran.kind in ("conv", "pool") or ran.owner in recast for ran in ran) or any(
        _is_spatial(m) for _, m in modules
    ):
        return "conv"
    return "mlp" if any(ran.kind == "linear" for ran in ran) else "conv"


def _is_spatial(module: nn.Module) -> bool:
    """Whether a layer has a kernel larger than 1."""
    kernel = getattr(module, "kernel_size", 1)
    return max(kernel) > 1 if isinstance(kernel, tuple) else isinstance(kernel, int) and kernel > 1


def _is_of_block(forward: Forward, found: Sum) -> bool:
    """Whether a sum may be a block's: inside a layer without layers only if it adds to the layer's own input."""
    owner = forward.homes[found]
    return bool(list(owner.module.children())) or owner.takes in found.operands


def is_map(forward: Forward, found: Sum) -> bool:
    """Whether a sum may be of maps: a 3-D one must be laid out."""
    return len(found.shape) == 4 or isinstance(forward.read_sum(found), Layout)


def _is_sibling(call: Call) -> bool:
    """A composite module that is more than a bare chain of layers."""
    children = list(call.module.children())
    chain = isinstance(call.module, nn.Sequential) and not any(list(child.children()) for child in children)
    return bool(children) and not chain


def _pattern(name: str) -> str:
    """A path with its numbers left out: `layer2.0` and `layer1.3` are in the same place."""
    return re.sub(r"\d+", "*", name)


def _inside(name: str, other: str) -> bool:
    return name != other and name.startswith(other + "." if other else "")

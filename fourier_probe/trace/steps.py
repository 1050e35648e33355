"""The steps of the stream through given blocks, and between them. May import events, grid, layouts, op, residual.

From a block's last sum its operands lead back to the block's input: the sums on that way are the stream. Each is
listened to where another module of the block takes it in (`blocks.3+attn` is read at the input of `blocks.3.norm2`);
the last at the block's output. A sum that no module takes in or returns is read at the addition itself. The stem is
what the first block takes in. Between two blocks the last module that shrank the grid is a point.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fourier_probe.trace.events import Call, Sum, Value, outermost
from fourier_probe.trace.grid import Layout
from fourier_probe.trace.layouts import Forward
from fourier_probe.trace.op import operation, part_name
from fourier_probe.trace.residual import is_map, pattern_of


@dataclass(frozen=True)
class Addressed:
    """Which addition of a call's own forward: its index among those of one shape, their number, and what it makes."""

    index: int
    count: int
    value: Value


@dataclass(frozen=True)
class Step:
    """A point before depths are known; `when` orders it. `side` "sum" is the `addition` of the call's own forward."""

    when: int
    name: str
    call: Call
    side: Literal["output", "input", "sum"]
    op: str
    layout: Layout
    own_name: bool = True  # whether the name is that of the call
    addition: Addressed | None = None

    @property
    def key(self) -> tuple[str, int, str, int]:
        """Where it is listened to."""
        return self.call.name, self.call.index, self.side, self.addition.index if self.addition else -1

    @property
    def value(self) -> Value | None:
        """What is read."""
        if self.addition is not None:
            return self.addition.value
        return self.call.returns if self.side == "output" else self.call.takes


def at_the_addition(forward: Forward, addition: Sum, name: str, op: str) -> Step | None:
    """A step read at the addition itself, where it is laid out."""
    layout = forward.read_sum(addition)
    found_at = forward.trace.nth_addition(addition, layout.fits_shape) if isinstance(layout, Layout) else None
    if found_at is None or not isinstance(layout, Layout):
        return None
    call, index, count = found_at
    return Step(addition.when, name, call, "sum", op, layout, False, Addressed(index, count, addition))


def steps_of(forward: Forward, blocks: list[Call], kind: str) -> list[Step]:
    """The steps of the stream through blocks and between them, in execution order."""
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
    unique = {s.key: s for s in sorted(steps, key=lambda s: s.when)}
    return sorted(unique.values(), key=lambda s: s.when)


def _inside_block(forward: Forward, block: Call, inner: list[Call], kind: str, previous: Call) -> Iterator[Step]:
    """The stream inside one block and behind it."""
    output = forward.of_output(block)
    children = outermost(inner)
    since = block.start
    used: Counter[str] = Counter()
    for addition in _sums_on_the_stream(forward, block, kind):
        segment = [c for c in children if since < c.start < addition.when]
        part = next((c for c in inner if c.returns is addition and c.holds(addition)), None)
        if part is not None:  # a residual part of its own, such as a convolution that adds its position embedding
            if layout := forward.of_output(part):
                op = operation(forward, segment or [part], since, part.end)
                yield Step(part.end, part.name, part, "output", op, layout)
                since = addition.when
            continue
        taken = next((c for c in inner if c.takes is addition), None)
        layout = None
        if taken is not None:
            layout = forward.of_input(taken) or (output if output and block.output == taken.inputs else None)
        op = operation(forward, segment, since, addition.when)
        label = part_name(forward, segment, since, addition.when)
        used[label] += 1
        label += str(used[label]) if used[label] > 1 else ""
        name = f"{block.name}+{label}" if segment else previous.name
        if taken is not None and layout is not None:
            yield Step(addition.when, name, taken, "input", op, layout)
        elif not _is_partial(forward, addition) and (step := at_the_addition(forward, addition, name, op)):
            yield step
        else:
            continue
        since = addition.when
    sums = [s for s in forward.trace.sums if forward.homes[s] is block and s.kind == kind and is_map(forward, s)]
    if kind == "add" and output is not None and not (sums and since == sums[-1].when):
        segment = [c for c in children if since < c.start] or children
        yield Step(block.end, block.name, block, "output", operation(forward, segment, since, block.end), output)


def _is_partial(forward: Forward, addition: Sum) -> bool:
    """Whether another branch of the same step is added to a sum: `x + attention(y) + mlp(y)`."""
    return any(addition in other.operands and other.skip is not addition for other in forward.trace.sums)


def _sums_on_the_stream(forward: Forward, block: Call, kind: str) -> list[Sum]:
    """The sums inside a block that are the stream: all but the last, whose result is read at the block's output.

    They are those that the last one leads back to, each an operand of the next, as far as the block's input. Where an
    operand was changed in between (a projected shortcut, a norm behind the sum) that chain is broken, and all the
    block's own sums of the output's size count that a layer goes on from; sums of parallel branches are not.
    """
    own = [s for s in forward.trace.sums if forward.homes[s] is block and s.kind == kind]
    own = own if kind == "cat" else [s for s in own if is_map(forward, s)]
    if kind == "cat" or not own:
        return own
    last = block.returns if isinstance(block.returns, Sum) and is_map(forward, block.returns) else own[-1]
    last = last if block.holds(last) else own[-1]
    chain = _chain(last, block)
    if chain is not None:
        return chain if _goes_on(forward, chain, block) else chain[:-1]
    size = math.prod(block.output or ())
    used = [c.takes for c in forward.trace.calls if block.holds(c) and c.returns is not c.takes]
    on = [s for s in own[:-1] if math.prod(s.shape) == size or s.skip is block.takes]
    return [s for s in on if s in used]


def _goes_on(forward: Forward, chain: list[Sum], block: Call) -> bool:
    """Whether a block changes its stream after the last sum: a whole network as one block, and its last norm."""
    last = chain[-1]
    return block.returns is not last and (
        len(chain) > 2 or (last.skip is not None and forward.of_output(block) is None)
    )


def _chain(last: Sum, block: Call) -> list[Sum] | None:
    """The sums from a block's input to `last`, where the operands lead there unchanged."""
    if block.takes in (*last.operands, last.skip):
        return [last]
    for operand in last.operands:
        if isinstance(operand, Sum) and block.holds(operand):
            before = _chain(operand, block)
            if before is not None:
                return [*before, last]
    return None


def _holders(forward: Forward, blocks: list[Call]) -> Iterator[Step]:
    """What stands where a block could, holds blocks and goes on after the last of them, as MobileViT does."""
    patterns = {pattern_of(block.name) for block in blocks}
    for call in forward.trace.calls:
        beside = {type(block.module) for block in blocks if pattern_of(block.name) == pattern_of(call.name)}
        inner = [block for block in blocks if call.holds(block) and type(block.module) not in beside]
        layout = forward.of_output(call) if inner and call not in blocks and pattern_of(call.name) in patterns else None
        if layout is not None and call.returns is not inner[-1].returns:
            outer = outermost(c for c in forward.trace.calls if call.holds(c) and c.start > inner[-1].end)
            op = operation(forward, outer, inner[-1].end, call.end)
            yield Step(call.end, call.name, call, "output", op, layout)


def _between(forward: Forward, previous: Call, block: Call, steps: list[Step]) -> list[Step]:
    """The last module between two blocks that changed the grid, if any did."""
    if not steps:
        return []
    grid = min((step.layout.grid for step in steps), key=math.prod)
    candidates = [
        (call, layout)
        for call in forward.trace.calls
        if previous.end < call.start and 0 <= call.end < block.start and (layout := forward.of_output(call)) is not None
    ]
    if not candidates:
        return []
    target = (forward.of_input(block) or candidates[-1][1]).grid
    if math.prod(target) >= math.prod(grid):
        return []
    right = {call: layout for call, layout in candidates if layout.grid == target}
    return [Step(c.end, c.name, c, "output", "downsample", right[c]) for c in outermost(right)[-1:]]

"""Which calls are the residual blocks. May import axes, blocks, events, layouts.

What a rule of the user's names (`blocks`) is a block. Else the modules whose own forward adds two maps of one shape are
the residual blocks; of nested ones the outermost counts, unless it holds several of one kind and its sum is not its
output: then it is a stage. Modules of the same class, or that stand where a block could (`blocks.3.0` beside
`blocks.3.1`), are blocks too, with or without a shortcut.
"""

from __future__ import annotations

import re

from torch import nn

from fourier_probe.trace import axes as ax
from fourier_probe.trace.blocks import BLOCKS, BlockRequest, named_blocks
from fourier_probe.trace.events import Attention, Call, Sum
from fourier_probe.trace.grid import Layout
from fourier_probe.trace.layouts import COMPLEX, Forward

SIDE_STREAM = {"FeatureBlock"}  # GCViT's global queries: pooled on the side, never added to the stream


def named_by_a_rule(forward: Forward) -> tuple[str, list[Call]]:
    """The rule of the user's that knows this network, and the calls of the blocks that it names."""
    if not len(BLOCKS):
        return "", []
    calls = forward.trace.calls
    called = {call.name: call.module for call in calls}
    adds = frozenset(call.name for s, call in forward.homes.items() if s.kind == "add" and is_map(forward, s))
    rule, names = named_blocks(BlockRequest(calls[0].module, called, adds))
    return rule, [call for call in calls if call.name in names]


def residual_blocks(forward: Forward) -> list[Call]:
    """The calls whose sums are the stream, in execution order; none in a plain network."""
    return named_by_a_rule(forward)[1] or blocks_of(forward, "add")


def beside_the_stream(forward: Forward) -> list[Call]:
    """Calls that pool on the side, and blocks in which the class token alone asks."""
    asked: dict[Call, list[Attention]] = {}
    for heard in forward.trace.attention:
        for call in forward.trace.calls:
            if call.holds(heard):
                asked.setdefault(call, []).append(heard)
    homes = set(forward.homes.values())
    alone = [call for call, heard in asked.items() if all(map(_is_of_one_token, heard)) and call in homes]
    return [call for call in forward.trace.calls if type(call.module).__name__ in SIDE_STREAM] + alone


def _is_of_one_token(heard: Attention) -> bool:
    """Whether one token asks that stands among the keys; a map pooled by its own weights (global context) is none."""
    alone = not ax.has_positions(heard.queries) and heard.shape[-2] == 1
    return alone and ax.has_positions(heard.keys) and ax.ends(heard.keys) != (0, 0)


def blocks_of(forward: Forward, kind: str) -> list[Call]:
    """Calls of the blocks, in execution order."""
    calls = forward.trace.calls
    aside = beside_the_stream(forward)
    sums = [
        s
        for s in forward.trace.sums
        if s.kind == kind
        and is_map(forward, s)
        and is_of_block(forward, s)
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
            forward, [other for other in owners if pattern_of(other) == pattern_of(name)]
        )

    def is_stage(name: str) -> bool:
        inside = [other for other in owners if other.startswith(name + "." if name else "") and other != name]
        repeated = len(inside) > len(set(map(pattern_of, inside)))
        return name == "" or (repeated and (kind == "cat" or name not in returned or _is_chain(forward, inside)))

    owners = {name for name in owners if not any(is_part(name, outer) for outer in owners if is_inside(name, outer))}
    owners = {name for name in owners if not is_stage(name)}
    outermost = {name for name in owners if not any(is_inside(name, other) for other in owners)}
    patterns = {pattern_of(name) for name in outermost}
    classes = {type(call.module) for call in calls if call.name in outermost}
    siblings = {
        call.name
        for call in calls
        if (pattern_of(call.name) in patterns or type(call.module) in classes)
        and not any(other is call or other.holds(call) for other in aside)
        and _is_sibling(call)
        and forward.of_output(call) is not None
        # One that holds a block is a stage, and one inside a block is a part.
        and not any(is_inside(name, call.name) or is_inside(call.name, name) for name in outermost)
    }
    names = outermost | {name for name in siblings if not any(is_inside(name, other) for other in siblings)}
    blocks = [call for call in calls if call.name in names]
    image = calls[0].inputs
    if blocks and image and blocks[0].inputs == image and (blocks[0].output or ())[1:] != image[1:]:
        blocks = blocks[1:]  # what turns the image into something else is the embedding, position embedding added
    return blocks


def _is_chain(forward: Forward, names: list[str]) -> bool:
    """Whether modules of one place hand a residual stream from one to the next."""
    for pattern in {pattern_of(name) for name in names}:
        homes = [n for n in names if pattern_of(n) == pattern]
        sums = [s for s in forward.trace.sums if forward.homes[s].name in homes]
        ends = {forward.homes[s].name: s for s in sums}
        for addition in sums:
            others = [
                end for name, end in ends.items() if name != forward.homes[addition].name and end.when < addition.when
            ]
            if addition.skip is not None and any(addition.skip is end or addition.skip.holds(end) for end in others):
                return True
    return False


def is_of_block(forward: Forward, addition: Sum) -> bool:
    """Whether a sum may be a block's: inside a layer without layers only if it adds to the layer's own input."""
    owner = forward.homes[addition]
    return bool(list(owner.module.children())) or owner.takes in addition.operands


def is_map(forward: Forward, addition: Sum) -> bool:
    """Whether a sum may be of maps: a 3-D one must be laid out."""
    answer = forward.read_sum(addition)
    return isinstance(answer, Layout) or (len(addition.shape) == 4 and answer is not COMPLEX)


def _is_sibling(call: Call) -> bool:
    """A composite module that is more than a bare chain of layers."""
    children = list(call.module.children())
    chain = isinstance(call.module, nn.Sequential) and not any(list(child.children()) for child in children)
    return bool(children) and not chain


def pattern_of(name: str) -> str:
    """A path with its numbers left out: `layer2.0` and `layer1.3` are in the same place."""
    return re.sub(r"\d+", "*", name)


def is_inside(name: str, other: str) -> bool:
    """Whether a module lies in another, by their paths."""
    return name != other and name.startswith(other + "." if other else "")

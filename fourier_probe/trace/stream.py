"""The main stream of a model as steps. May import the rest of trace.

What a rule of the user's names (`blocks`) is a block, with its additions and its output. Else the rules on a traced
forward are, in this order (docs/points.md): the residual blocks (`residual`), the sums through them (`steps`) and
outside of them (`loose`); without sums, concatenations in place of additions (DenseNet, Inception); without these the
trunk of plain layers (`trunk`), each convolution with the normalisation and activation behind it.

What is no map, such as the class token alone, is not on the stream.
"""

from __future__ import annotations

from dataclasses import dataclass

from fourier_probe.errors import PointError
from fourier_probe.trace.coverage import UnreadStep, unread_steps
from fourier_probe.trace.events import Call, Sum
from fourier_probe.trace.layouts import Forward, Unread
from fourier_probe.trace.loose import with_loose
from fourier_probe.trace.residual import beside_the_stream, blocks_of, named_by_a_rule
from fourier_probe.trace.steps import Step, steps_of
from fourier_probe.trace.trunk import trunk


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
    aside = [s for s in forward.trace.sums if any(call.holds(s) for call in beside_the_stream(forward))]
    rule, named = named_by_a_rule(forward)
    if named:
        return _stream_of(forward, rule, named, aside)
    steps = _block_steps(forward, "add")
    unread = _unread(forward, steps, aside)
    if len(steps) + len(unread) > 1:
        if not steps:  # no addition can be laid out: what leads to the first is all there is
            first = min(step.when for step in unread)
            steps = [step for step in trunk(forward)[0] if step.when < first][-1:]
        return Stream(steps, unread)
    steps = _block_steps(forward, "cat")
    if len(steps) > 1:
        return Stream(steps, _unread(forward, steps, aside))
    return Stream(*trunk(forward))


def _stream_of(forward: Forward, rule: str, blocks: list[Call], aside: list[Sum]) -> Stream:
    """The stream through blocks that a rule of the user's names; what they add inside is part of them."""
    steps = with_loose(forward, steps_of(forward, blocks, "add"), blocks)
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
    values = [(step.value, step.layout.grid) for step in steps]
    return unread_steps(forward, [(value, grid) for value, grid in values if value is not None], aside)


def _block_steps(forward: Forward, kind: str) -> list[Step]:
    blocks = blocks_of(forward, kind)
    steps = steps_of(forward, blocks, kind) if blocks else []
    return with_loose(forward, steps, blocks) if kind == "add" else steps


# --- small questions ---

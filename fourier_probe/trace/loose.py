"""Steps whose addition stands in the forward of the root or of a stage, outside of any block.

May import events, grid, layouts, op, residual, steps.
"""

from __future__ import annotations

import math

from fourier_probe.trace.events import Call, Sum, Value, outermost
from fourier_probe.trace.grid import Layout
from fourier_probe.trace.layouts import Forward
from fourier_probe.trace.op import operation, part_name
from fourier_probe.trace.residual import beside_the_stream, is_map, is_of_block
from fourier_probe.trace.steps import Step, at_the_addition


def with_loose(forward: Forward, steps: list[Step], blocks: list[Call]) -> list[Step]:
    """The steps, with those whose addition stands in the forward of the root or of a stage, outside of any block."""
    aside = beside_the_stream(forward)
    sums = [
        s
        for s in forward.trace.sums
        if s.kind == "add" and is_map(forward, s) and not any(call.holds(s) for call in [*blocks, *aside])
    ]
    loose: list[Sum] = []
    for addition in sums:
        split = not blocks and loose and all(operand.made_of(loose[-1]) for operand in addition.operands)
        if (addition.skip is not None and is_of_block(forward, addition)) or split:
            if loose and loose[-1] in addition.operands and addition.skip is None:
                loose.pop()  # one of three branches
            loose.append(addition)
    more: list[Step] = []
    before = [step.when for step in steps]
    for index, addition in enumerate(loose):
        if index == 0 and not steps and addition.skip is not None:
            # A sum that is read beside this one alone is no stem.
            name = "" if isinstance(addition.skip, Sum) else "stem"
            more += _read(forward, addition.skip, name, "embed", addition.when)
        since = max([when for when in before if when < addition.when], default=0)
        began = max(since, addition.begins - 1)
        outer = outermost(c for c in forward.trace.calls if began < c.start and 0 <= c.end < addition.when)
        if not outer:  # a branch of one module
            behind = max(since, addition.skip.when if addition.skip is not None else 0)
            outer = outermost(
                c for c in forward.trace.calls if behind < c.start and addition.begins <= c.end < addition.when
            )
        if (
            index
            and addition.skip is not None
            and addition.skip.when > since
            and _shrank(forward, loose[index - 1], addition)
        ):
            more += _read(forward, addition.skip, "", "downsample", addition.skip.when)
        op = operation(forward, outer, began, addition.when)
        label = part_name(forward, outer, began, addition.when)
        name = f"{outer[-1].name}+{label}" if outer else label
        home = forward.homes[addition]
        if home.name and home.returns is addition and (layout := forward.of_output(home)):
            more.append(Step(addition.when, home.name, home, "output", op, layout))
        else:
            steps_here = _read(forward, addition, _once(name, more), op, addition.when)
            in_branch = any(other.begins <= addition.when < other.when for other in sums if other.skip)
            if not steps_here and not in_branch and any(began < ran.when < addition.when for ran in forward.trace.ran):
                step = at_the_addition(forward, addition, _once(name, more), op)
                steps_here = [] if step is None else [step]
            more += steps_here
        before.append(addition.when)
    taken = {step.key for step in steps}
    new = [step for step in more if step.key not in taken]
    return sorted([*steps, *new], key=lambda step: step.when)


def _shrank(forward: Forward, before: Sum, after: Sum) -> bool:
    layouts = [forward.read_sum(addition) for addition in (before, after)]
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
    own = forward.read_sum(value) if isinstance(value, Sum) else None
    for call in takers:
        layout = forward.of_input(call)
        pooled = layout is not None and isinstance(own, Layout) and own.grid != layout.grid
        if layout is not None and not pooled:
            return [Step(value.when, name or call.name, call, "input", op, layout, not name)]
    for call in reversed(calls):
        layout = forward.of_output(call) if call.returns is value else None
        if layout is not None and call.end > value.when:
            return [Step(value.when, name or call.name, call, "output", op, layout, not name)]
    return []

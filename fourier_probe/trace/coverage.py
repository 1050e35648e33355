"""Which residual steps of a forward were read, and why the others were not. May import all of trace but stream.

A residual step is an addition of a value to something that was made of it, on maps of more than one position. What is
added inside the branch of a step is part of that step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

from fourier_probe.trace import axes as ax
from fourier_probe.trace.events import Sum, Value
from fourier_probe.trace.grid import Grid
from fourier_probe.trace.layouts import Forward, Unread


@dataclass(frozen=True)
class UnreadStep:
    """A residual step without a point.

    Attributes:
        name: the module that makes it. reason: why it is not read. when: the order of events.
    """

    name: str
    reason: str
    when: int


@dataclass(frozen=True)
class Misplaced:
    """A point whose map changes somewhere else than the image.

    Attributes:
        name: of the point. expected, observed: (row, column) on its map, of the first patch.
        missed, patches: how many of the patches that had a place were found elsewhere.
    """

    name: str
    expected: tuple[int, int]
    observed: tuple[int, int]
    missed: int
    patches: int

    def text(self) -> str:
        """One sentence, without a full stop."""
        return (
            f"point {self.name} may be laid out wrongly: a patch changed at {self.expected} of its map was found at "
            f"{self.observed} ({self.missed} of {self.patches} patches lie elsewhere). Do not trust its spectrum, nor "
            "those of the points after it on this grid"
        )


@dataclass(frozen=True)
class SelfCheck:
    """Whether maps change where the image does.

    Attributes:
        tested: names of the points: the first, and the first of each later grid.
        misplaced: those that lie elsewhere. undecided: those where the change has no place.
    """

    tested: tuple[str, ...]
    misplaced: tuple[Misplaced, ...] = ()
    undecided: tuple[str, ...] = ()

    def text(self) -> str:
        """A few words."""
        count = len(self.tested) - len(self.undecided)
        words = f"layout tested at {count} point{'' if count == 1 else 's'}"
        return words + (f", {len(self.misplaced)} WRONG" if self.misplaced else "")

    def warnings(self) -> list[str]:
        """One sentence per misplaced point."""
        return [point.text() for point in self.misplaced]

    def to_json(self) -> dict[str, object]:
        """Plain values for the result file."""
        return {
            "tested": list(self.tested),
            "misplaced": [{"name": point.name, "reason": point.text()} for point in self.misplaced],
            "undecided": list(self.undecided),
        }


@dataclass(frozen=True)
class Coverage:
    """How much of a forward was read.

    Attributes:
        steps: residual steps of the forward, the stem and subsamplings among them.
        read: those that have a point.
        unread: the others, with the reason.
        evidence: of each point by name, why its layout is believed: "axes" (followed from the image), "layers" (the
            layers around it read it so), "size" (the latest grid that fits).
        self_check: what the check with changed patches found; None where it was not made.
    """

    steps: int
    read: int
    unread: tuple[UnreadStep, ...]
    evidence: dict[str, str]
    self_check: SelfCheck | None = None

    def text(self) -> str:
        """One line.

        >>> Coverage(7, 7, (), {}).text()
        '7 of 7 steps read'
        """
        words = [f"{self.read} of {self.steps} steps read"]
        if self.self_check is not None:
            words.append(self.self_check.text())
        return "; ".join(words)

    def warnings(self) -> list[str]:
        """What a reader must know: steps that were not read, by reason, and points that lie elsewhere than said."""
        reasons: dict[str, list[str]] = {}
        for step in self.unread:
            reasons.setdefault(step.reason, []).append(step.name)
        out = []
        for reason, names in reasons.items():
            modules = list(dict.fromkeys(names))
            more = f" and {len(modules) - 3} more" if len(modules) > 3 else ""
            out.append(f"{len(names)} of {self.steps} steps are not read ({', '.join(modules[:3])}{more}): {reason}")
        return out + (self.self_check.warnings() if self.self_check is not None else [])

    def to_json(self) -> dict[str, object]:
        """Plain values for the result file."""
        return {
            "steps": self.steps,
            "read": self.read,
            "unread": [{"name": step.name, "reason": step.reason} for step in self.unread],
            "evidence": self.evidence,
            "self_check": None if self.self_check is None else self.self_check.to_json(),
        }


def unread_steps(forward: Forward, read: Sequence[tuple[Value, Grid]], aside: Sequence[Sum]) -> list[UnreadStep]:
    """The residual steps that none of the values that are read holds.

    Args:
        forward: the traced forward.
        read: the values at the points and their grids, in the order of events.
        aside: sums that are not on the stream, such as those of class attention.
    """
    beside = set(aside)
    residual = [
        s
        for s in forward.trace.sums
        if _is_step(s) and s not in beside and not _is_of_parallel_layers(forward, s) and _is_behind_layers(forward, s)
    ]
    seen = {
        step
        for point_value, (H, W) in read
        for value in (point_value, *point_value.beside)
        if (step := _latest(value, residual)) is not None and _positions(step) in (None, H * W)
    }
    inside = {s for s in residual for r in seen if s not in seen and r.begins <= s.when < r.when}
    for value, _ in read:  # a block whose own sum is of two branches is read as one step
        last = _latest(value, [s for s in forward.trace.sums if s.kind == "add"])
        if last is not None and last.skip is None and forward.homes[last].name:
            inside |= {s for s in residual if forward.homes[last].holds(s) and s.when < last.when}
    values = {value for value, _ in read}
    return [
        UnreadStep(forward.homes[s].name or type(forward.homes[s].module).__name__, _reason(forward, s, values), s.when)
        for s in residual
        if s not in seen and s not in inside
    ]


def _is_step(addition: Sum) -> bool:
    """Whether a sum is residual, and of more than a single token."""
    if addition.kind != "add" or addition.skip is None:
        return False
    placed = any(ax.has_positions(axis) or "~" in ax.along(axis) for axis in addition.axes)
    return placed or (len(addition.shape) == 3 and addition.shape[0] > 1 and addition.shape[1] > 1)


def _is_behind_layers(forward: Forward, addition: Sum) -> bool:
    """Whether a layer ran before; before the first, colours are mixed or normalised."""
    return not forward.trace.ran or forward.trace.ran[0].when < addition.when


def _is_of_parallel_layers(forward: Forward, addition: Sum) -> bool:
    """Whether the branch is itself a sum of convolutions side by side: one layer, written as several (RepVGG)."""
    branch = next((operand for operand in addition.operands if operand is not addition.skip), None)
    if not isinstance(branch, Sum) or branch.skip is not None or forward.homes[branch] is not forward.homes[addition]:
        return False
    ran = {ran.kind for ran in forward.trace.ran if addition.begins <= ran.when <= addition.when}
    return "conv" in ran and "attention" not in ran


def _positions(addition: Sum) -> int | None:
    """Over how many positions a sum runs; None where its axes were not followed."""
    parts = [inner for axis in addition.axes for part in axis for inner in (part.inside or (part,))]
    if any(part.along in "?~" for part in parts):
        return None
    return math.prod(part.size for part in parts if part.along in "yx")


def _latest(value: Value, sums: Sequence[Sum]) -> Sum | None:
    """The latest of these sums that a value is, or was made of."""
    wanted = set(sums)
    best: Sum | None = None
    seen, todo = {value}, [value]
    while todo:
        here = todo.pop()
        if isinstance(here, Sum) and here in wanted:
            if best is None or here.when > best.when:
                best = here
            continue
        fresh = {parent for parent in here.parents if best is None or parent.when > best.when} - seen
        seen |= fresh
        todo.extend(fresh)
    return best


def _reason(forward: Forward, addition: Sum, read: Set[Value]) -> str:
    layout = forward.read_sum(addition)
    if isinstance(layout, Unread):
        return layout.reason
    H, W = layout.grid
    home = forward.homes[addition]
    holder = next((call for call in forward.trace.calls if call.holds(home) and call.returns in read), None)
    if holder is not None and holder.name:
        return f"it lies inside {holder.name}, which is read as one step ({layout.channels} x {H} x {W})"
    return (
        f"no module takes in or returns the sum as it is, or it is of a second stream ({layout.channels} x {H} x {W})"
    )

"""What is written down of one forward: values, additions, calls, layers, attention. May import axes.

A value is the content of a tensor: views, copies and reshapes keep it, any other operation makes a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from fourier_probe.trace.axes import Axes, Axis


@dataclass(eq=False)
class Value:
    """Content of a tensor.

    Attributes:
        when: the order of events. parents: the values it was made of.
        owner: path of the module whose own forward made it, None of what was there before.
        beside: of a concatenation along tokens, what was concatenated.
        product: whether it was made by a multiplication or a division.
    """

    when: int
    parents: tuple[Value, ...] = ()
    owner: str | None = None
    beside: tuple[Value, ...] = ()
    product: bool = False

    def holds(self, other: Value) -> bool:
        """Whether this is the other beside other tokens, or was made of it and of nothing else later."""
        if other in self.beside:
            return True
        seen, todo = {self}, [self]
        ends = False
        while todo:
            for parent in todo.pop().parents:
                if parent is other:
                    ends = True
                elif parent.parents and parent not in seen:
                    if parent.when < other.when or isinstance(parent, Sum):
                        return False
                    seen.add(parent)
                    todo.append(parent)
        return ends

    def without_factor(self, images: Value) -> Value:
        """What a constant was multiplied with, as in `0.8 * x + f(x)`; else the value itself."""
        sources = [parent for parent in self.parents if parent.made_of(images)] if self.product else []
        return sources[0] if len(sources) == 1 else self

    def made_of(self, other: Value) -> bool:
        """Whether the other is among what this was made of, at whatever remove."""
        seen, todo = {self}, [self]
        while todo:
            value = todo.pop()
            if value is other:
                return True
            fresh = {parent for parent in value.parents if parent.when >= other.when} - seen
            seen |= fresh
            todo.extend(fresh)
        return False


@dataclass(eq=False)
class Sum(Value):
    """An addition of two maps of one shape (or a concatenation of maps along channels).

    Attributes:
        shape, axes: of the result. kind: "add" or "cat". operands: the values that were added.
        skip: the operand that the other was made of, None where neither was: the addition is residual if there is one.
        begins: when the operand that was made of `skip` began to be.
    """

    shape: tuple[int, ...] = ()
    axes: Axes = ()
    kind: Literal["add", "cat"] = "add"
    operands: tuple[Value, ...] = ()
    skip: Value | None = None
    begins: int = 0


@dataclass(eq=False)
class Call:
    """One call of one module.

    Attributes:
        name: module path. index: how many calls of it came before. start, end: the order of events.
        inputs, output: shape of the first tensor that could be maps of these images, None without a tensor.
        input_axes, output_axes: what its axes run over. takes, returns: its value.
    """

    name: str
    module: nn.Module
    index: int
    start: int
    end: int = -1
    inputs: tuple[int, ...] | None = None
    output: tuple[int, ...] | None = None
    input_axes: Axes = ()
    output_axes: Axes = ()
    takes: Value | None = None
    returns: Value | None = None

    def holds(self, other: Call | Value | Ran | Attention) -> bool:
        """Whether the other happened while this call ran."""
        return self.start < (other.start if isinstance(other, Call) else other.when) < self.end


def outermost(calls: Iterable[Call]) -> list[Call]:
    """Those that no other of them holds."""
    calls = list(calls)
    return [call for call in calls if not any(other.holds(call) for other in calls)]


@dataclass(frozen=True)
class Ran:
    """A layer's arithmetic, whatever module did it: "conv" and "pool" have a kernel larger than 1, "linear" none."""

    when: int
    kind: Literal["conv", "pool", "linear", "attention"]
    owner: str


@dataclass(frozen=True)
class Attention:
    """A softmax, or a fused call, over the keys of queries.

    Attributes:
        when: the order of events. owner, call: the innermost running module, and which call of it.
        shape, axes: of the map (..., queries, keys).
    """

    when: int
    owner: str
    call: int
    shape: tuple[int, ...]
    axes: Axes

    @property
    def queries(self) -> Axis:
        """What the queries run over."""
        return self.axes[-2]

    @property
    def keys(self) -> Axis:
        """What the keys run over."""
        return self.axes[-1]


@dataclass(frozen=True, eq=False)
class Addition:
    """An operation that adds, of whatever: where it stands, and what it made.

    Attributes:
        call: the innermost running call. shape: of the result. value: of the result.
    """

    call: Call
    shape: tuple[int, ...]
    value: Value


@dataclass
class Trace:
    """All calls, sums and layers of one forward, in the order they began."""

    batch: int
    images: Value
    calls: list[Call] = field(default_factory=list)
    sums: list[Sum] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)
    attention: list[Attention] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)

    def nth_addition(self, value: Value, fits: Callable[[tuple[int, ...]], bool]) -> tuple[Call, int, int] | None:
        """The call whose own forward adds up to a value, which of its additions of this shape it is, and of how many.

        None of what is no addition.
        """
        made = next((addition for addition in self.additions if addition.value is value), None)
        if made is None:
            return None
        alike = [a for a in self.additions if a.call is made.call and fits(a.shape)]
        return (made.call, alike.index(made), len(alike)) if made in alike else None

    def passes(self, value: Value, end: Value | None) -> bool:
        """Whether all that leads from the images to another value leads through this one."""
        if end is None or not (value is end or end.made_of(value)):
            return False
        seen, todo = {value}, [end]
        while todo:
            here = todo.pop()
            if here is self.images:
                return False
            if here not in seen:
                seen.add(here)
                todo.extend(here.parents)
        return True

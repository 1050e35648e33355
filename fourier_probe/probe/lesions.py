"""Residual steps that can be taken out of a forward: what they add is set to 0. May import points and trace.

A step is an addition to the stream; what it adds is what a module returned. A hook there returns zeros, so that the
addition gives back the stream as it was: the step is the identity, and everything else runs as it did. An activation or
a norm behind the addition stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fourier_probe.errors import ModelError
from fourier_probe.probe.points import find_points, value_at
from fourier_probe.trace.calling import eager
from fourier_probe.trace.events import Call, Sum, Value
from fourier_probe.trace.layouts import Forward, run_forward
from fourier_probe.trace.tensors import pick


@dataclass(frozen=True)
class Removable:
    """A residual step whose branch a hook can silence.

    Attributes:
        name, op, depth: of the point behind the step.
        module, call: which call of which module returns what is added.
        shape: of that, for two images.
    """

    name: str
    op: str
    depth: float
    module: str
    call: int
    shape: tuple[int, ...]


def removable_steps(model: nn.Module, example: Tensor) -> tuple[list[Removable], dict[str, str]]:
    """The steps that can be taken out, in execution order, and the others with the reason.

    Args:
        model: any module, left as it was.
        example: (B, C, H, W) of the size to be used; the first image runs.
    """
    points = [point for point in find_points(model, example, branches=False) if point.kind == "residual"]
    forward = run_forward(model, example)
    steps, left = [], {}
    since = 0
    for point in points:
        value = value_at(forward, point)
        addition = _residual_sum(forward, value, since)
        since = value.when if value is not None else since
        if addition is None:
            left[point.name] = "it adds nothing to what came before: there is no shortcut that could stay alone"
            continue
        branch = next(operand for operand in addition.operands if operand is not addition.skip)
        source = _returning(forward, branch)
        if source is None:
            left[point.name] = "what it adds is computed outside of any module, where no hook can silence it"
            continue
        steps.append(Removable(point.name, point.op, point.depth, source.name, source.index, source.output or ()))
    return steps, left


@contextlib.contextmanager
def without(model: nn.Module, step: Removable) -> Iterator[None]:
    """Inside, the step adds zeros.

    Raises:
        ModelError: from the forward, where the module does not return what it did when it was traced.
    """
    model = eager(model)
    count = 0

    def begin(_module: nn.Module, _inputs: object) -> None:
        nonlocal count
        count = 0

    def silence(_module: nn.Module, _inputs: object, output: object) -> object:
        nonlocal count
        count += 1
        return _zeroed(output, step) if count - 1 == step.call else output

    handles = [model.register_forward_pre_hook(begin), model.get_submodule(step.module).register_forward_hook(silence)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _residual_sum(forward: Forward, value: Value | None, since: int) -> Sum | None:
    """The last addition with a shortcut that made a value, behind the step before; an activation or norm may follow."""
    while value is not None and value.when > since:
        if isinstance(value, Sum) and value.kind == "add":
            return value if value.skip is not None and len(value.operands) == 2 else None
        made = [parent for parent in value.parents if parent.when > since]
        value = made[0] if len(made) == 1 else None
    return None


def _returning(forward: Forward, branch: Value) -> Call | None:
    """The last call that returned a value as it is, with a name that hooks can use."""
    calls = [call for call in forward.trace.calls if call.returns is branch and call.name and call.end >= 0]
    return max(calls, key=lambda call: call.end, default=None)


def _zeroed(output: object, step: Removable) -> object:
    """The output with the tensor that is added replaced by zeros."""
    wanted = pick(output, lambda tensor: tuple(tensor.shape[1:]) == step.shape[1:])
    if isinstance(output, Tensor):
        return torch.zeros_like(output)
    if isinstance(output, tuple | list) and wanted is not None:
        parts = [torch.zeros_like(part) if part is wanted else part for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    raise ModelError(f"{step.name}: {step.module} returns {type(output).__name__}, in which no tensor can be replaced.")

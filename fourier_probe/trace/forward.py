"""What happens in one forward: which modules run, and where the residual additions are. Imports torch and errors only.

A residual network is recognised by what it computes, not by the names of its classes: a `TorchDispatchMode` sees every
addition of two equally shaped feature maps, and hooks say which module's forward was running when it happened. What a
module takes in or returns, and what an addition adds, is traced back to the addition that made it through the memory
it lies in: views, copies and reshapes keep it, any other operation makes a new value.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fourier_probe.errors import ModelError

ADD = {torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor}
CAT = {torch.ops.aten.cat.default}
COPY = {
    torch.ops.aten.clone.default,
    torch.ops.aten._to_copy.default,
    torch.ops.aten.contiguous.default,
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.copy_.default,
}


@dataclass(eq=False)
class Sum:
    """An addition of two maps of one shape (or a concatenation of maps along channels).

    Attributes:
        owner: path of the module whose own forward did it. shape: of the result. start: when.
        kind: "add" or "cat".
        operands: the values that were added, other sums among them.
    """

    owner: str
    shape: tuple[int, ...]
    start: int
    kind: str
    operands: tuple[Value, ...]


Value = Sum | int
"""Content of a tensor: the sum that it is the result of, or a number of its own."""


@dataclass(eq=False)
class Call:
    """One call of one module.

    Attributes:
        name: module path. index: how many calls of it came before. start, end: the order of events.
        inputs, output: shape of the first tensor that could be maps of these images, None without a tensor.
        takes, returns: value of the same tensor.
    """

    name: str
    module: nn.Module
    index: int
    start: int
    end: int = -1
    inputs: tuple[int, ...] | None = None
    output: tuple[int, ...] | None = None
    takes: Value | None = None
    returns: Value | None = None

    def holds(self, other: Call | Sum) -> bool:
        """Whether the other happened while this call ran."""
        return self.start < other.start < self.end

    def returns_own_sum(self) -> bool:
        """Whether what it returns is, unchanged, a sum of its own forward."""
        return isinstance(self.returns, Sum) and self.returns.owner == self.name and self.holds(self.returns)


@dataclass
class Trace:
    """All calls and sums of one forward, in the order they began."""

    batch: int
    calls: list[Call] = field(default_factory=list)
    sums: list[Sum] = field(default_factory=list)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a module's input or output, looking into tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    for item in items:
        yield from tensors(item)


def pick(value: Any, fits: Callable[[Tensor], bool]) -> Tensor | None:
    """The first tensor of a module's input or output that fits, else the first of all."""
    found = list(tensors(value))
    return next((tensor for tensor in found if fits(tensor)), found[0] if found else None)


def eager(model: nn.Module) -> nn.Module:
    """What `torch.compile` wrapped, or the model itself: hooks are for modules that run one by one."""
    inner = getattr(model, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else model


@contextlib.contextmanager
def giving(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Around a first forward: what the model's own code raises on (B, C, H, W) images becomes a `ModelError`.

    Raises:
        ModelError: names the model, the size and what was raised. Memory that runs out is no fault of the size.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelError(
            f"{type(eager(model)).__name__} fails on an image of {' x '.join(map(str, images.shape[1:]))}: {first}. "
            "Give images of a size it takes with --img-size; one that is made for a size, with --model-arg img_size=PX."
        ) from error


def trace(model: nn.Module, example: Tensor) -> Trace:
    """Run one forward of `model` in its present mode and write down what happens. Leaves no hook behind.

    Raises:
        ModelError: the model does not take the example.
    """
    recorder = _Recorder(len(example))
    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # takes no hooks
            stack.callback(module.register_forward_pre_hook(recorder.before(name), with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(recorder.after).remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(recorder)
        stack.enter_context(giving(model, example))
        model(example)
    return recorder.found


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, batch: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = Trace(batch)
        self.running: list[Call] = []
        self.seen: Counter[str] = Counter()
        self.clock = 0
        # Memory -> what was last written there. Memory that is freed and used again is written by another operation
        # first, so nothing needs to be kept alive.
        self.written: dict[int, Value] = {}

    def before(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            call = Call(name, module, self.seen[name], self._tick())
            self.seen[name] += 1
            tensor = self._map([args, kwargs])
            if tensor is not None:
                call.inputs, call.takes = tuple(tensor.shape), self._value(tensor)
            self.found.calls.append(call)
            self.running.append(call)

        return hook

    def after(self, _module: nn.Module, _args: Any, output: Any) -> None:
        call = self.running.pop()
        call.end = self._tick()
        tensor = self._map(output)
        if tensor is not None:
            call.output, call.returns = tuple(tensor.shape), self._value(tensor)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.is_view:
            return result
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.written[_memory(tensor)] = self._made(function, args, tensor)
        return result

    def _made(self, function: Any, args: Any, result: Tensor) -> Value:
        """The value that an operation gave its result."""
        if function in COPY:
            source = args[1] if function is torch.ops.aten.copy_.default else args[0]
            if isinstance(source, Tensor) and source.numel() == result.numel():
                return self._value(source)
        if self.running and result.ndim in (3, 4) and len(result) == self.found.batch:
            if function in ADD and _same_shape(args[:2], result):
                return self._sum("add", args[:2], result)
            if function in CAT and len(args[0]) > 1 and result.ndim == 4 and args[1:2] == (1,):
                return self._sum("cat", args[0], result)
        return self._tick()

    def _sum(self, kind: str, parts: Sequence[Tensor], result: Tensor) -> Sum:
        operands = tuple(self._value(part) for part in parts)
        found = Sum(self.running[-1].name, tuple(result.shape), self._tick(), kind, operands)
        self.found.sums.append(found)
        return found

    def _map(self, value: Any) -> Tensor | None:
        return pick(value, lambda tensor: tensor.ndim in (3, 4) and len(tensor) == self.found.batch)

    def _value(self, tensor: Tensor) -> Value:
        return self.written.setdefault(_memory(tensor), self._tick())

    def _tick(self) -> int:
        self.clock += 1
        return self.clock


def _same_shape(parts: Sequence[Any], result: Tensor) -> bool:
    return all(isinstance(part, Tensor) and part.shape == result.shape for part in parts)


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextlib.contextmanager
def random_state() -> Iterator[None]:
    """Keep the generators of torch, numpy and Python as they are; those of a GPU only where one has been used."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - a model's forward may draw from it
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002

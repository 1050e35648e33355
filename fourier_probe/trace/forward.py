"""What happens in one forward: calls of modules, values and what they are made of, additions, attention.

Imports torch, errors and, of this room, axes, operations and calling. A `TorchDispatchMode` sees every operation,
whoever wrote the network, and hooks say which module was running. Of every tensor it is known what its axes run over
(`axes`), and of every value which values it was made of: views, copies and reshapes keep a value, any other operation
makes a new one. Nothing here decides what a block or a layout is.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from fourier_probe.trace import axes as ax
from fourier_probe.trace.axes import Axes, Axis, Part
from fourier_probe.trace.calling import eager, giving, run
from fourier_probe.trace.operations import by_shape, follow, tensors_of

__all__ = ["Attention", "Call", "Ran", "Sum", "Trace", "Value", "eager", "giving", "pick", "trace"]

aten = torch.ops.aten
ADD = {aten.add.Tensor, aten.add_.Tensor}
COPY = {
    aten.clone.default,
    aten._to_copy.default,
    aten.contiguous.default,
    aten._unsafe_view.default,
    aten.copy_.default,
}
SOFTMAX = {aten._softmax.default, aten._safe_softmax.default}
FUSED = {
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
    aten._scaled_dot_product_fused_attention_overrideable,
    aten._native_multi_head_attention,
}
LINEAR = {aten.mm, aten.addmm, aten.linear}
POOL = {aten.avg_pool2d, aten.max_pool2d_with_indices, aten.max_pool2d}


@dataclass(eq=False)
class Value:
    """Content of a tensor.

    Attributes:
        when: the order of events. parents: the values it was made of.
        owner: path of the module whose own forward made it, None of what was there before.
    """

    when: int
    parents: tuple[Value, ...] = ()
    owner: str | None = None

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


@dataclass
class Trace:
    """All calls, sums and layers of one forward, in the order they began."""

    batch: int
    calls: list[Call] = field(default_factory=list)
    sums: list[Sum] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)
    attention: list[Attention] = field(default_factory=list)


Hear = Callable[[Attention, Callable[[], Tensor] | None], None]
"""Called with an attention when it runs and with a function that gives its map, None where it cannot be made again."""


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a module's input or output, looking into sequences, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
        return
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, tuple | list):
        items = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = vars(value).values()
    for item in items:
        yield from tensors(item)


def pick(value: Any, fits: Callable[[Tensor], bool]) -> Tensor | None:
    """The first tensor of a module's input or output that fits, else the first of all."""
    found = list(tensors(value))
    return next((tensor for tensor in found if fits(tensor)), found[0] if found else None)


def trace(model: nn.Module, example: Tensor, *, hear: Hear | None = None) -> Trace:
    """Run one forward of `model` in its present mode and write down what happens. Leaves no hook behind.

    Args:
        model: any module.
        example: (B, C, H, W) images.
        hear: called with each attention while it runs.

    Raises:
        ModelError: the model does not take the example.
    """
    model = eager(model)
    # Outside of inference mode, where operations would come undivided and views without a trace.
    with torch.inference_mode(False), torch.no_grad(), giving(model, example), contextlib.ExitStack() as stack:
        example = example.clone()
        recorder = _Recorder(example, hear)
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # takes no hooks
            stack.callback(module.register_forward_pre_hook(recorder.before(name), with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(recorder.after).remove)
        stack.enter_context(recorder)
        run(model, example)
    return recorder.found


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    supports_higher_order_operators = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """What a layer compiles for itself, as flex_attention does, is one operation."""
        return True

    def __init__(self, images: Tensor, hear: Hear | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = Trace(len(images))
        self.hear = hear
        self.running: list[Call] = []
        self.seen: Counter[str] = Counter()
        self.clock = 0
        self.whole: set[Any] = set()  # operations that are not made of others
        # Memory -> what was last written there. Memory that is freed and used again is written by another operation
        # first, so nothing needs to be kept alive.
        self.written: dict[int, tuple[Value, int]] = {}
        self.known: Any = WeakTensorKeyDictionary()
        self.known[images] = ax.of_images(images.shape)
        self.images = Value(0, owner="")
        self.written[_memory(images)] = (self.images, images.numel())

    # --- modules ---

    def before(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            call = Call(name, module, self.seen[name], self._tick())
            self.seen[name] += 1
            tensor = self._map([args, kwargs])
            if tensor is not None:
                call.inputs, call.takes, call.input_axes = tuple(tensor.shape), self._value(tensor), self._axes(tensor)
            self.found.calls.append(call)
            self.running.append(call)

        return hook

    def after(self, _module: nn.Module, _args: Any, output: Any) -> None:
        call = self.running.pop()
        call.end = self._tick()
        tensor = self._map(output)
        if tensor is not None:
            call.output, call.returns, call.output_axes = tuple(tensor.shape), self._value(tensor), self._axes(tensor)

    def _map(self, value: Any) -> Tensor | None:
        """The first tensor that is maps of these images as far as its axes tell, else by its shape, else the first."""
        found = list(tensors(value))
        for fits in (self._has_rows_of_images, self._has_places, self._may_be_maps):
            for tensor in found:
                if fits(tensor):
                    return tensor
        return found[0] if found else None

    def _has_rows_of_images(self, tensor: Tensor) -> bool:
        return (
            tensor.ndim in (3, 4) and self._has_places(tensor) and (Part("b", self.found.batch),) in self._axes(tensor)
        )

    def _has_places(self, tensor: Tensor) -> bool:
        if tensor.ndim < 3:
            return False
        axes = self._axes(tensor)
        return any(map(ax.has_positions, axes)) and any("b" in ax.along(axis) for axis in axes)

    def _may_be_maps(self, tensor: Tensor) -> bool:
        return tensor.ndim in (3, 4) and len(tensor) == self.found.batch

    # --- operations ---

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(function, torch._ops.OpOverload):
            return self._whole_function(function, args, kwargs)
        if function not in self.whole:
            with self:  # an operation made of others is followed in its parts
                result = function.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            self.whole.add(function)
        inputs = tensors_of([args, kwargs])
        before = [self._value(tensor) for tensor in inputs]
        operands = args[:2] if function in ADD else ()
        wholes = [self._is_whole(operand) for operand in operands] if self._adds(operands) else []
        result = function(*args, **kwargs)
        results = tensors_of([result])
        followed = follow(function, args, kwargs, results, self._axes)
        for tensor, axes in zip(results, followed, strict=True):
            self.known[tensor] = axes
        if not function.is_view:
            for tensor, axes in zip(results, followed, strict=True):
                self._write(function, args, kwargs, tensor, axes, before, wholes)
        if results:
            self._note(function, args, kwargs, results[0], followed[0])
        return result

    def _whole_function(self, function: Any, args: Any, kwargs: Any) -> Any:
        """An operation that takes functions, such as `flex_attention`: run as it is, its results known by shape."""
        before = [self._value(tensor) for tensor in tensors_of([args, kwargs])]
        result = function(*args, **kwargs)
        owner = next((call for call in reversed(self.running) if _is_layer(call.module)), None)
        for tensor in tensors_of([result]):
            self.known[tensor] = by_shape([args, kwargs], tensor, self._axes)
            name = owner.name if owner else None
            self.written[_memory(tensor)] = (Value(self._tick(), tuple(dict.fromkeys(before)), name), tensor.numel())
        if owner is not None and getattr(function, "__name__", "") == "flex_attention":
            query, key = args[0], args[1]
            axes = (*self._axes(query)[:-1], self._axes(key)[-2])
            self._attend(owner, (*query.shape[:-1], key.shape[-2]), axes, None)
        return result

    def _write(
        self, function: Any, args: Any, kwargs: Any, tensor: Tensor, axes: Axes, before: list[Value], wholes: list[bool]
    ) -> None:
        """Give the memory of a result the value that the operation made."""
        if function in COPY:
            source = args[1] if function is aten.copy_.default else args[0]
            at = 1 if function is aten.copy_.default else 0
            if isinstance(source, Tensor) and source.numel() == tensor.numel() and self._is_whole(source):
                self.written[_memory(tensor)] = (before[at], tensor.numel())
                return
        parents = tuple(dict.fromkeys(before))
        owner = self.running[-1].name if self.running else None
        value: Value
        if wholes:
            value = self._sum("add", parents, owner, tensor, axes, before[:2], wholes)
        elif function is aten.cat.default and self._joins(args, kwargs, tensor, axes):
            value = self._sum("cat", parents, owner, tensor, axes, before)
        else:
            value = Value(self._tick(), parents, owner)
        self.written[_memory(tensor)] = (value, tensor.numel())

    def _adds(self, operands: Sequence[Any]) -> bool:
        """Whether an addition is of two maps of one shape."""
        if len(operands) < 2 or not self.running or not all(isinstance(operand, Tensor) for operand in operands):
            return False
        first, second = operands
        return bool(first.shape == second.shape and first.ndim >= 3 and self._is_of_images(first, second))

    def _is_of_images(self, *operands: Tensor) -> bool:
        axes = [axis for operand in operands for axis in self._axes(operand)]
        return any("b" in ax.along(axis) for axis in axes) or (
            any("~" in ax.along(axis) for axis in axes) and len(operands[0]) == self.found.batch
        )

    def _joins(self, args: Any, kwargs: Any, result: Tensor, axes: Axes) -> bool:
        """Whether a concatenation is of maps, along channels."""
        dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        return bool(
            self.running
            and result.ndim == 4
            and len(args[0]) > 1
            and dim % 4 == 1
            and ax.along(axes[1]) <= {"f", "~"}
            and ax.along(axes[0]) <= {"b", "~"}
        )

    def _sum(
        self,
        kind: Literal["add", "cat"],
        parents: tuple[Value, ...],
        owner: str | None,
        tensor: Tensor,
        axes: Axes,
        operands: Sequence[Value],
        wholes: Sequence[bool] = (True, True),
    ) -> Sum:
        found = Sum(self._tick(), parents, owner, tuple(tensor.shape), axes, kind, tuple(operands))
        if kind == "add" and len(operands) == 2:
            for (skip, other), whole in zip((operands, operands[::-1]), wholes, strict=True):
                if whole and skip is not other and other.made_of(skip) and skip.made_of(self.images):
                    found.skip, found.begins = skip, _beginning(other, skip)
        self.found.sums.append(found)
        return found

    def _note(self, function: Any, args: Any, kwargs: Any, result: Tensor, axes: Axes) -> None:
        """Write down what kind of layer ran."""
        # A module of its own for a softmax, or for nothing, is no layer.
        owner = next((call for call in reversed(self.running) if _is_layer(call.module)), None)
        if owner is None:
            return
        packet = function.overloadpacket
        if packet is aten.convolution:
            spatial = any(size > 1 for size in args[1].shape[2:])
            self.found.ran.append(Ran(self.clock, "conv" if spatial else "linear", owner.name))
        elif packet in POOL:
            self.found.ran.append(Ran(self.clock, "pool", owner.name))
        elif packet in LINEAR:
            self.found.ran.append(Ran(self.clock, "linear", owner.name))
        elif function in SOFTMAX and result.ndim >= 3 and int(args[1]) % result.ndim == result.ndim - 1:
            self._attend(owner, tuple(result.shape), axes, lambda: result)
        elif packet in FUSED:
            query, key = args[0], args[1]
            q, k = self._axes(query), self._axes(key)
            if packet is aten._native_multi_head_attention:
                heads = int(args[4])
                axes = (q[0], ax.features(heads), q[1], k[1])
                shape = (query.shape[0], heads, query.shape[1], key.shape[1])
                self._attend(owner, shape, axes, lambda: _weights(function, args, kwargs))
            else:
                shape = (*query.shape[:-1], key.shape[-2])
                self._attend(owner, shape, (*q[:-1], k[-2]), lambda: _scores(function, args, kwargs))

    def _attend(self, owner: Call, shape: tuple[int, ...], axes: Axes, maps: Callable[[], Tensor] | None) -> None:
        placed = ax.has_positions(axes[-1]) or ax.has_positions(axes[-2])
        if not placed and (len(axes) < 4 or shape[-1] != shape[-2]):
            return  # a choice between branches
        heard = Attention(self._tick(), owner.name, owner.index, shape, axes)
        self.found.attention.append(heard)
        if ax.has_positions(axes[-1]) and ax.has_positions(axes[-2]):
            self.found.ran.append(Ran(self.clock, "attention", owner.name))
        if self.hear is not None:
            self.hear(heard, maps)

    # --- what is known of a tensor ---

    def _value(self, tensor: Tensor) -> Value:
        memory = _memory(tensor)
        if memory not in self.written:
            self.written[memory] = (Value(self._tick()), tensor.untyped_storage().nbytes() // tensor.element_size())
        return self.written[memory][0]

    def _is_whole(self, tensor: Tensor) -> bool:
        """Whether a tensor is all that was written, not a slice of it."""
        written = self.written.get(_memory(tensor))
        return written is None or tensor.numel() >= written[1]

    def _axes(self, tensor: Tensor) -> Axes:
        axes: Axes | None = self.known.get(tensor)
        if axes is not None and len(axes) == tensor.ndim:
            return axes
        written = self.written.get(_memory(tensor))
        if written is not None and written[0].owner is not None:
            return tuple(ax.lost(size) for size in tensor.shape)
        return ax.plain(tensor.shape)

    def _tick(self) -> int:
        self.clock += 1
        return self.clock


def _beginning(branch: Value, skip: Value) -> int:
    """When the first of what leads from `skip` to `branch` was made."""
    first, seen, todo = branch.when, {branch}, [branch]
    leads: dict[Value, bool] = {}
    while todo:
        value = todo.pop()
        if skip in value.parents:
            leads[value] = True
            first = min(first, value.when)
        fresh = {parent for parent in value.parents if parent.when > skip.when} - seen
        seen |= fresh
        todo.extend(fresh)
    return first


def _scores(function: Any, args: Any, kwargs: Any) -> Tensor:
    """The map that a fused attention applies, made again from its queries and keys."""
    named = dict(zip((argument.name for argument in function._schema.arguments), args, strict=False)) | kwargs
    query, key = named["query"].float(), named["key"].float()
    mask, scale = named.get("attn_mask", named.get("attn_bias")), named.get("scale")
    scores: Tensor = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if named.get("is_causal"):
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)


def _weights(function: Any, args: Any, kwargs: Any) -> Tensor:
    """The map of torch's own multi-head attention where it runs as one operation."""
    query, key, _, width, heads, weight, bias = args[:7]
    q, k = (
        torch.nn.functional.linear(source, part, offset)
        .reshape(*source.shape[:2], heads, width // heads)
        .transpose(1, 2)
        for source, part, offset in zip((query, key), weight.chunk(3)[:2], bias.chunk(3)[:2], strict=True)
    )
    scores: Tensor = q.float() @ k.float().transpose(-2, -1) * (width // heads) ** -0.5
    return scores.softmax(-1)


def _is_layer(module: nn.Module) -> bool:
    """Whether a module holds weights or modules."""
    return any(True for _ in module.parameters()) or any(True for _ in module.children())


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

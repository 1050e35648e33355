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
ADD = {aten.add, aten.add_}
ONTO = {aten.sub, aten.sub_, aten.lerp, aten.lerp_, aten.addcmul, aten.addcmul_}
"""Operations that add what the others give to their first argument, as in `x - f(x)` or `lerp(x, f(x), t)`."""
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
        beside: of a concatenation along tokens, what was concatenated.
    """

    when: int
    parents: tuple[Value, ...] = ()
    owner: str | None = None
    beside: tuple[Value, ...] = ()

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
    images: Value
    calls: list[Call] = field(default_factory=list)
    sums: list[Sum] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)
    attention: list[Attention] = field(default_factory=list)

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


Hear = Callable[[Attention, Callable[[], Tensor] | None], None]
"""Called with an attention when it runs and with a function that gives its map, None where it cannot be made again."""


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a module's input or output, looking into sequences, mappings and dataclasses.

    Inside of `torch.vmap` they are of one image and have no memory: there is nothing to listen to.
    """
    if isinstance(value, Tensor):
        if not torch._C._functorch.is_functorch_wrapped_tensor(value):
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
        self.images = Value(0, owner="")
        self.found = Trace(len(images), self.images)
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
        if function not in self.whole and not str(function).startswith("aten.upsample"):
            with self:  # an operation made of others is followed in its parts
                result = function.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            self.whole.add(function)
        inputs = tensors_of([args, kwargs])
        before = [self._value(tensor) for tensor in inputs]
        adds = function.overloadpacket in ADD | ONTO and self._adds(args)
        result = function(*args, **kwargs)
        results = tensors_of([result])
        followed = follow(function, args, kwargs, results, self._axes)
        for tensor, axes in zip(results, followed, strict=True):
            self.known[tensor] = axes
        if not function.is_view:
            for tensor, axes in zip(results, followed, strict=True):
                self._write(function, args, kwargs, tensor, axes, before, adds=adds)
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
        self, function: Any, args: Any, kwargs: Any, tensor: Tensor, axes: Axes, before: list[Value], *, adds: bool
    ) -> None:
        """Give the memory of a result the value that the operation made."""
        if function in COPY:
            source = args[1] if function is aten.copy_.default else args[0]
            at = 1 if function is aten.copy_.default else 0
            part = function is aten.copy_.default and not self._is_whole(tensor)
            same = isinstance(source, Tensor) and source.numel() == tensor.numel()
            if same and not part and self._is_whole(source):
                self.written[_memory(tensor)] = (before[at], tensor.numel())
                return
        parents = tuple(dict.fromkeys(before))
        owner = self.running[-1].name if self.running else None
        value: Value
        if adds:
            value = self._sum("add", parents, owner, tensor, axes, _operands(function, before))
            if function.overloadpacket in ONTO and value.skip is not before[0]:
                self.found.sums.pop()  # a difference of two maps, such as a pooled one minus itself
                value = Value(self._tick(), parents, owner)
        elif function is aten.cat.default and self._joins(args, kwargs, tensor, axes):
            value = self._sum("cat", parents, owner, tensor, axes, before)
        else:
            tokens = function is aten.cat.default and any(part.along == "n" for axis in axes for part in axis)
            value = Value(self._tick(), parents, owner, tuple(before) if tokens else ())
        size = tensor.numel()
        if function._schema.is_mutable and _memory(tensor) in self.written:  # a part may be written in place
            size = max(size, self.written[_memory(tensor)][1])
            self._place(tensor, axes)
        self.written[_memory(tensor)] = (value, size)

    def _place(self, part: Tensor, axes: Axes) -> None:
        """Positions written into a part of a tensor that has none lie there: tokens behind a class token."""
        base = part._base
        if base is None or base.ndim != part.ndim or base.stride() != part.stride():
            return
        where = [dim for dim in range(part.ndim) if part.shape[dim] != base.shape[dim]]
        known = list(self._axes(base))
        if len(where) != 1 or any(map(ax.has_positions, known)) or not any(map(ax.has_positions, axes)):
            return
        at = where[0]
        first = int(part.storage_offset() - base.storage_offset()) // int(base.stride(at))
        sizes = [first, int(part.shape[at]), int(base.shape[at]) - first - int(part.shape[at])]
        self.known[base] = (
            *axes[:at],
            ax.joined([ax.features(sizes[0]), axes[at], ax.features(sizes[2])], sizes),
            *axes[at + 1 :],
        )

    def _adds(self, args: Sequence[Any]) -> bool:
        """Whether an addition is of two maps of one shape."""
        operands = [arg for arg in args if isinstance(arg, Tensor) and arg.shape == args[0].shape]
        if len(operands) < 2 or operands[0] is not args[0] or not self.running:
            return False
        return operands[0].ndim >= 3 and self._is_of_images(*operands)

    def _is_of_images(self, *operands: Tensor) -> bool:
        axes = [axis for operand in operands for axis in self._axes(operand)]
        return any("b" in ax.along(axis) or ax.has_positions(axis) for axis in axes) or (
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
    ) -> Sum:
        found = Sum(self._tick(), parents, owner, shape=tuple(tensor.shape), axes=axes, kind=kind)
        found.operands = tuple(operands)
        if kind == "add" and len(operands) == 2:
            for skip, other in (operands, operands[::-1]):
                if skip is not other and other.made_of(skip) and skip.made_of(self.images):
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


def _operands(function: Any, before: list[Value]) -> tuple[Value, Value]:
    """What an addition adds to what; the product of an `addcmul` is a value of its own."""
    if function.overloadpacket in (aten.addcmul, aten.addcmul_):
        return before[0], Value(max(value.when for value in before), tuple(dict.fromkeys(before[1:3])))
    return before[0], before[1]


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

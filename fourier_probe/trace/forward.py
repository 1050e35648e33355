"""What happens in one forward: calls of modules, values and what they are made of, additions, attention.

Imports torch, the recast layer and, of this room, axes, operations and calling. A `TorchDispatchMode` sees every
operation, whoever wrote the network, and hooks say which module was running. Of every tensor it is known what its axes
run over (`axes`), and of every value which values it was made of: views, copies and reshapes keep a value, any other
operation makes a new one. Nothing here decides what a block or a layout is.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from fourier_probe.models.gpsa.layer import GPSAConv2d
from fourier_probe.trace import axes as ax
from fourier_probe.trace.axes import Axes, Part
from fourier_probe.trace.calling import eager, giving, run
from fourier_probe.trace.events import Addition, Attention, Call, Ran, Sum, Trace, Value
from fourier_probe.trace.fused import scores_of_fused, scores_of_multi_head
from fourier_probe.trace.known import Known
from fourier_probe.trace.operations import by_shape, convolved, follow
from fourier_probe.trace.tensors import Operation, tensors, tensors_of

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
PRODUCT = {aten.mul, aten.mul_, aten.div, aten.div_}
POOL = {aten.avg_pool2d, aten.max_pool2d_with_indices, aten.max_pool2d}


Hear = Callable[[Attention, Callable[[], Tensor] | None], None]
"""Called with an attention when it runs and with a function that gives its map, None where it cannot be made again."""


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
    return recorder.trace


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    supports_higher_order_operators = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """What a layer compiles for itself, as flex_attention does, is one operation."""
        return True

    def __init__(self, images: Tensor, hear: Hear | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = Known(images)
        self.trace = Trace(len(images), self.known.images)
        self.hear = hear
        self.running: list[Call] = []
        self.seen: Counter[str] = Counter()
        self.indivisible: set[OpOverload] = set()  # operations that are not made of others
        self.unfolded: set[int] = set()  # sizes of neighbourhoods, whose keys are gathered by unfold

    # --- modules ---

    def before(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, args: object, kwargs: object) -> None:
            call = Call(name, module, self.seen[name], self.known.tick())
            self.seen[name] += 1
            tensor = self._map([args, kwargs])
            if tensor is not None:
                call.inputs, call.takes, call.input_axes = self._seen(tensor)
            self.trace.calls.append(call)
            self.running.append(call)

        return hook

    def after(self, _module: nn.Module, _args: object, output: object) -> None:
        call = self.running.pop()
        call.end = self.known.tick()
        tensor = self._map(output)
        if tensor is not None:
            if isinstance(call.module, GPSAConv2d) and len(call.input_axes) == tensor.ndim == 4 and call.inputs:
                # It works in blocks whose memory is used again; its output lies as that of the convolution it was.
                rows, columns = convolved(call.input_axes, call.inputs, tensor.shape)
                axes = (call.input_axes[0], ax.features(tensor.shape[1]), rows, columns)
                self.known.run_over(tensor, axes)
            call.output, call.returns, call.output_axes = self._seen(tensor)

    def _seen(self, tensor: Tensor) -> tuple[tuple[int, ...], Value, Axes]:
        axes = self.known.axes(tensor)
        return tuple(tensor.shape), self.known.value(tensor), _marked(tensor, axes)

    def _map(self, value: object) -> Tensor | None:
        """The first tensor that is maps of these images as far as its axes tell, else by its shape, else the first."""
        candidates = list(tensors(value))
        for fits in (self._has_rows_of_images, self._has_places, self._may_be_maps):
            for tensor in candidates:
                if fits(tensor):
                    return tensor
        return candidates[0] if candidates else None

    def _has_rows_of_images(self, tensor: Tensor) -> bool:
        return (
            tensor.ndim in (3, 4)
            and self._has_places(tensor)
            and (Part("b", self.trace.batch),) in self.known.axes(tensor)
        )

    def _has_places(self, tensor: Tensor) -> bool:
        axes = self.known.axes(tensor)
        return (tensor.ndim >= 3 and _has_images_and_places(axes)) or (tensor.ndim == 2 and _is_packed(axes))

    def _may_be_maps(self, tensor: Tensor) -> bool:
        return tensor.ndim in (3, 4) and len(tensor) == self.trace.batch

    # --- operations ---

    def __torch_dispatch__(self, function: Any, types: object, args: Any = (), kwargs: Any = None) -> object:
        kwargs = kwargs or {}
        if not isinstance(function, OpOverload):
            return self._higher_order(function, args, kwargs)
        if function not in self.indivisible and not str(function).startswith("aten.upsample"):
            with self:  # an operation made of others is followed in its parts
                result: object = function.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            self.indivisible.add(function)
        operation = Operation(function, args, kwargs)
        before = [self.known.value(tensor) for tensor in operation.tensors]
        adds = operation.packet in ADD | ONTO and self._adds(args)
        result = function(*args, **kwargs)
        results = tensors_of([result])
        followed = follow(operation, results, self.known.axes)
        for tensor, axes in zip(results, followed, strict=True):
            self.known.run_over(tensor, axes)
        if not function.is_view:
            for tensor, axes in zip(results, followed, strict=True):
                self._write(operation, tensor, axes, before, adds=adds)
        if results:
            self._note(operation, results[0], followed[0])
        return result

    def _higher_order(self, function: Callable[..., object], args: Any, kwargs: Any) -> object:
        """An operation that takes functions, such as `flex_attention`: run as it is, its results known by shape."""
        before = [self.known.value(tensor) for tensor in tensors_of([args, kwargs])]
        result = function(*args, **kwargs)
        owner = next((call for call in reversed(self.running) if _is_layer(call.module)), None)
        for tensor in tensors_of([result]):
            self.known.run_over(tensor, by_shape([args, kwargs], tensor, self.known.axes))
            name = owner.name if owner else None
            self.known.write(tensor, Value(self.known.tick(), tuple(dict.fromkeys(before)), name))
        if owner is not None and getattr(function, "__name__", "") == "flex_attention":
            query, key = args[0], args[1]
            axes = (*self.known.axes(query)[:-1], self.known.axes(key)[-2])
            self._attend(owner, (*query.shape[:-1], key.shape[-2]), axes, None)
        return result

    def _write(self, operation: Operation, tensor: Tensor, axes: Axes, before: list[Value], *, adds: bool) -> None:
        """Give the memory of a result the value that the operation made."""
        function = operation.function
        if function in COPY:
            at = int(function is aten.copy_.default)  # copies its second argument into its first
            source = operation.args[at]
            part = at == 1 and not self.known.is_whole(tensor)
            same = isinstance(source, Tensor) and source.numel() == tensor.numel()
            if same and not part and self.known.is_whole(source):
                self.known.write(tensor, before[at])
                return
        parents = tuple(dict.fromkeys(before))
        owner = self.running[-1].name if self.running else None
        value: Value
        if adds:
            value = self._sum("add", parents, owner, tensor, axes, _operands(operation, before))
            if operation.packet in ONTO and value.skip not in (before[0], before[0].without_factor(self.known.images)):
                self.trace.sums.pop()  # a difference of two maps, such as a pooled one minus itself
                value = Value(self.known.tick(), parents, owner)
        elif function is aten.cat.default and self._joins(operation, tensor, axes):
            value = self._sum("cat", parents, owner, tensor, axes, before)
        else:
            tokens = function is aten.cat.default and any(part.along == "n" for axis in axes for part in axis)
            product = operation.packet in PRODUCT and _has_one_factor(operation, tensor)
            value = Value(self.known.tick(), parents, owner, tuple(before) if tokens else (), product)
        if operation.packet in ADD | ONTO and self.running:
            self.trace.additions.append(Addition(self.running[-1], tuple(tensor.shape), value))
        if function._schema.is_mutable:
            self.known.write_in_place(tensor, axes, value)
        else:
            self.known.write(tensor, value)

    def _adds(self, args: Sequence[object]) -> bool:
        """Whether an addition is of two maps of one shape."""
        maps = [arg for arg in args if isinstance(arg, Tensor)]
        operands = [arg for arg in maps if arg.shape == maps[0].shape]
        if len(operands) < 2 or operands[0] is not args[0] or not self.running:
            return False
        packed = operands[0].ndim == 2 and _is_packed(self.known.axes(operands[0]))
        return packed or (operands[0].ndim >= 3 and self._is_of_images(*operands))

    def _is_of_images(self, *operands: Tensor) -> bool:
        axes = [axis for operand in operands for axis in self.known.axes(operand)]
        return any("b" in ax.along(axis) or ax.has_positions(axis) for axis in axes) or (
            any("~" in ax.along(axis) for axis in axes) and len(operands[0]) == self.trace.batch
        )

    def _joins(self, operation: Operation, result: Tensor, axes: Axes) -> bool:
        """Whether a concatenation is of maps, along channels."""
        maps, dim = operation.args[0], operation.named.get("dim", 0)
        return bool(
            self.running
            and result.ndim == 4
            and len(maps) > 1
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
        addition = Sum(
            self.known.tick(), parents, owner, shape=tuple(tensor.shape), axes=_marked(tensor, axes), kind=kind
        )
        addition.operands = tuple(operands)
        if kind == "add" and len(operands) == 2:
            for first, other in (operands, operands[::-1]):
                for skip in dict.fromkeys((first, first.without_factor(self.known.images))):
                    if skip is not other and other.made_of(skip) and skip.made_of(self.known.images):
                        addition.skip, addition.begins = skip, _beginning(other, skip)
                        break
        self.trace.sums.append(addition)
        return addition

    def _note(self, operation: Operation, result: Tensor, axes: Axes) -> None:
        """Write down what kind of layer ran."""
        # A module of its own for a softmax, or for nothing, is no layer.
        owner = next((call for call in reversed(self.running) if _is_layer(call.module)), None)
        if owner is None:
            return
        packet, args = operation.packet, operation.args
        if packet is aten.convolution:
            spatial = any(size > 1 for size in args[1].shape[2:])
            self.trace.ran.append(Ran(self.known.clock, "conv" if spatial else "linear", owner.name))
        elif packet in POOL:
            self.trace.ran.append(Ran(self.known.clock, "pool", owner.name))
        elif packet is aten.im2col:
            self.unfolded.add(math.prod(operation.named["kernel_size"]))
        elif packet in LINEAR:
            self.trace.ran.append(Ran(self.known.clock, "linear", owner.name))
        elif operation.function in SOFTMAX and result.ndim >= 3 and int(args[1]) % result.ndim == result.ndim - 1:
            self._attend(owner, tuple(result.shape), axes, lambda: result)
        elif packet in FUSED:
            query, key = args[0], args[1]
            q, k = self.known.axes(query), self.known.axes(key)
            if packet is aten._native_multi_head_attention:
                heads = int(args[4])
                axes = (q[0], ax.features(heads), q[1], k[1])
                shape = (query.shape[0], heads, query.shape[1], key.shape[1])
                self._attend(owner, shape, axes, lambda: scores_of_multi_head(operation))
            else:
                shape = (*query.shape[:-1], key.shape[-2])
                self._attend(owner, shape, (*q[:-1], k[-2]), lambda: scores_of_fused(operation))

    def _attend(self, owner: Call, shape: tuple[int, ...], axes: Axes, maps: Callable[[], Tensor] | None) -> None:
        placed = ax.has_positions(axes[-1]) or ax.has_positions(axes[-2])
        if not placed and (len(axes) < 4 or shape[-1] != shape[-2]):
            return  # a choice between branches
        heard = Attention(self.known.tick(), owner.name, owner.index, shape, axes)
        self.trace.attention.append(heard)
        if ax.has_positions(axes[-2]) and (ax.has_positions(axes[-1]) or shape[-1] in self.unfolded):
            self.trace.ran.append(Ran(self.known.clock, "attention", owner.name))
        if self.hear is not None:
            self.hear(heard, maps)


def _operands(operation: Operation, before: list[Value]) -> tuple[Value, Value]:
    """What an addition adds to what; the product of an `addcmul` is a value of its own."""
    if operation.packet in (aten.addcmul, aten.addcmul_):
        return before[0], Value(max(value.when for value in before), tuple(dict.fromkeys(before[1:3])))
    return before[0], before[1]


def _marked(tensor: Tensor, axes: Axes) -> Axes:
    return ax.complex_numbers(axes) if tensor.is_complex() else axes


def _has_images_and_places(axes: Axes) -> bool:
    return any(map(ax.has_positions, axes)) and any("b" in ax.along(axis) for axis in axes)


def _is_packed(axes: Axes) -> bool:
    """Whether one axis holds the tokens of all images, one image after the other."""
    return any("b" in ax.along(axis) and ax.has_positions(axis) for axis in axes)


def _has_one_factor(operation: Operation, result: Tensor) -> bool:
    """Whether a tensor was multiplied with a number, or one for each channel; rotations of positions are no factor."""
    factors = [tensor for tensor in operation.tensors if tensor.shape != result.shape]
    full = len(operation.tensors) - len(factors)
    return full == 1 and all(sum(size > 1 for size in factor.shape) <= 1 for factor in factors)


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


def _is_layer(module: nn.Module) -> bool:
    """Whether a module holds weights or modules."""
    return any(True for _ in module.parameters()) or any(True for _ in module.children())

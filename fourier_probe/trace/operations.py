"""What each operation does to the axes of its tensors. Imports torch, axes and tensors only.

Views are followed exactly. Layers with weights keep the axes they broadcast over and make new features. An operation
that is not listed keeps an axis where its result has one of that size, and resizes rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._ops import OpOverloadPacket

from fourier_probe.trace import axes as ax
from fourier_probe.trace.axes import Axes, Axis, Part
from fourier_probe.trace.tensors import Arguments, Operation, tensors_of

aten = torch.ops.aten
AxesOf = Callable[[Tensor], Axes]
Rule = Callable[[AxesOf, Arguments, Tensor], Axes]
"""Gives the axes of a result from those of the arguments, by their names in the operation's schema."""


def follow(operation: Operation, results: Sequence[Tensor], axes_of: AxesOf) -> list[Axes]:
    """The axes of each result of an operation."""
    named, packet = operation.named, operation.packet
    try:
        if packet in _LISTS:
            return _LISTS[packet](axes_of, named, results)
        rule = _RULES.get(packet)
        if rule is None:
            rule = _reduced if "keepdim" in operation.takes else _alike
        out = []
        for index, result in enumerate(results):
            axes = (rule if index == 0 or rule is _reduced else _alike)(axes_of, named, result)
            out.append(axes if _fits(axes, result) else _alike(axes_of, named, result))
        return out
    except (IndexError, KeyError, ValueError, ZeroDivisionError):  # an overload with other arguments: not followed
        return [_alike(axes_of, named, result) for result in results]


def by_shape(arguments: object, result: Tensor, axes_of: AxesOf) -> Axes:
    """The axes of a result of an operation of which nothing but its arguments is known."""
    return _alike(axes_of, {"arguments": arguments}, result)


def _fits(axes: Axes, result: Tensor) -> bool:
    return len(axes) == result.ndim and all(
        math.prod(part.size for part in axis) == size for axis, size in zip(axes, result.shape, strict=True)
    )


def _alike(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    """Each axis from the first argument that has one of this size there, aligned at the right as in broadcasting."""
    sources = [(axes_of(tensor), tensor.shape) for tensor in tensors_of(named)]
    out: list[Axis] = []
    for index, size in enumerate(result.shape):
        back = result.ndim - index
        here = [(axes[-back], shape[-back], len(shape)) for axes, shape in sources if len(shape) >= back]
        same = [axis for axis, length, _ in here if length == size]
        told = [axis for axis in same if not ax.along(axis) <= {"f"}]
        if told:  # of a broadcast with what runs over positions
            out.append(max(told, key=lambda axis: len(ax.along(axis) & {"b", "y", "x"})))
        elif same and size != 1:
            out.append(ax.features(size))
        elif here and here[0][2] == result.ndim:
            out.append(ax.resized(here[0][0], size))
        else:
            out.append(ax.features(size) if not sources else ax.lost(size))
    return tuple(out)


def _dim(named: Arguments, ndim: int, key: str = "dim", default: int = 0) -> int:
    return int(named.get(key, default)) % max(ndim, 1)


def _self(named: Arguments) -> Tensor:
    tensor = named.get("self", named.get("input"))
    if not isinstance(tensor, Tensor):
        raise KeyError("self")
    return tensor


def _reduced(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source = _self(named)
    dims = named.get("dim")
    dims = list(range(source.ndim)) if dims in (None, []) else [dims] if isinstance(dims, int) else dims
    gone = {dim % source.ndim for dim in dims}
    axes = axes_of(source)
    if named.get("keepdim"):
        return tuple(ax.resized(axis, 1) if index in gone else axis for index, axis in enumerate(axes))
    return tuple(axis for index, axis in enumerate(axes) if index not in gone)


def _view(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source = _self(named)
    return ax.view(axes_of(source), list(source.shape), list(result.shape))


def _permute(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    axes = axes_of(_self(named))
    return tuple(axes[dim] for dim in named["dims"])


def _transpose(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    axes = list(axes_of(_self(named)))
    a, b = _dim(named, len(axes), "dim0"), _dim(named, len(axes), "dim1", 1)
    if len(axes) > 1:
        axes[a], axes[b] = axes[b], axes[a]
    return tuple(axes)


def _squeeze(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source = _self(named)
    dims = named.get("dim", list(range(source.ndim)))
    dims = {dim % source.ndim for dim in ([dims] if isinstance(dims, int) else dims)}
    gone = {dim for dim in dims if source.shape[dim] == 1}
    return tuple(axis for index, axis in enumerate(axes_of(source)) if index not in gone)


def _real(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    return (*axes_of(_self(named)), ax.features(2))


def _complex(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    return axes_of(_self(named))[:-1]


def _unsqueeze(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    axes = list(axes_of(_self(named)))
    axes.insert(_dim(named, len(axes) + 1), ())
    return tuple(axes)


def _expand(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source = _self(named)
    axes, new = axes_of(source), result.ndim - source.ndim
    out = [ax.features(size) for size in result.shape[:new]]
    for axis, was, size in zip(axes, source.shape, result.shape[new:], strict=True):
        out.append(axis if was == size else ax.features(size))
    return tuple(out)


def _repeat(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source = _self(named)
    axes: list[Axis] = [()] * (result.ndim - source.ndim) + list(axes_of(source))
    sizes = [1] * (result.ndim - source.ndim) + list(source.shape)
    return tuple(
        axis if was == size else ax.features(size) if ax.along(axis) <= {"f"} else ax.lost(size)
        for axis, was, size in zip(axes, sizes, result.shape, strict=True)
    )


def _slice(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source = _self(named)
    dim = _dim(named, source.ndim)
    size = source.shape[dim]
    start, stop = (_bounded(named.get(key), size, end) for key, end in (("start", 0), ("end", size)))
    axes = list(axes_of(source))
    axes[dim] = ax.cut(axes[dim], start, stop, int(named.get("step", 1) or 1))
    return tuple(axes)


def _bounded(index: int | None, size: int, default: int) -> int:
    if index is None:
        return default
    return min(max(index + size if index < 0 else index, 0), size)


def _select(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    axes = list(axes_of(_self(named)))
    axes.pop(_dim(named, len(axes)))
    return tuple(axes)


def _cat(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    pieces = [tensor for tensor in named["tensors"] if tensor.ndim == result.ndim]
    dim = _dim(named, result.ndim)
    out = list(_alike(axes_of, {"tensors": pieces}, result))
    out[dim] = ax.joined([axes_of(piece)[dim] for piece in pieces], [int(piece.shape[dim]) for piece in pieces])
    return tuple(out)


def _stack(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    dim = _dim(named, result.ndim)
    first: Tensor = named["tensors"][0]
    inner = list(_alike(axes_of, named, first))
    inner.insert(dim, ax.features(result.shape[dim]))
    return tuple(inner)


def convolved(axes: Axes, was: Sequence[int], shape: Sequence[int]) -> list[Axis]:
    """What rows and columns run over behind a convolution, from the axes before it and both shapes."""
    return [
        axis if before == size and len(axis) > 0 and ax.grid(axis) is not None else ax.resized(axis, size)
        for axis, before, size in zip(axes[2:], was[2:], shape[2:], strict=True)
    ]


def _convolution(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source: Tensor = named["input"]
    axes = axes_of(source)
    if source.ndim == 4 and not any(ax.has_positions(axis) for axis in axes) and any(map(_is_lost, axes[2:])):
        axes = (axes[0], axes[1], (Part("y", source.shape[2]),), (Part("x", source.shape[3]),))  # its class says so
    spatial = convolved(axes, source.shape, result.shape)
    images = axes[1][:1]
    if images and images[0].along == "b" and named["groups"] % images[0].size == 0:  # a kernel of its own for each
        return (axes[0], (*images, *ax.features(result.shape[1] // images[0].size)), *spatial)
    return (axes[0], ax.features(result.shape[1]), *spatial)


def _is_lost(axis: Axis) -> bool:
    return "~" in ax.along(axis)


def _matmul(left: str, right: str) -> Rule:
    def rule(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
        a, b = axes_of(named[left]), axes_of(named[right])
        leading = a[0] if result.ndim == 3 and not ax.along(a[0]) <= {"f"} else b[0]
        return (*((leading,) if result.ndim == 3 else ()), a[-2], b[-1])

    return rule


def _linear(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    return (*axes_of(named["input"])[:-1], ax.features(result.shape[-1]))


def _query(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    query, key = axes_of(named["query"]), axes_of(named["key"])
    leading = [k if ax.along(q) <= {"f"} else q for q, k in zip(query[:-2], key[:-2], strict=True)]
    return (*leading, query[-2], ax.features(result.shape[-1]))


def _gather(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source = _self(named)
    axes, dim = list(axes_of(source)), _dim(named, source.ndim)
    if axes:
        axes[dim] = _unordered(axes[dim], result.shape[dim])
    return tuple(axes)


def _unordered(axis: Axis, size: int) -> Axis:
    if ax.has_positions(axis):
        return (Part("?", size),)
    return ax.features(size) if ax.along(axis) <= {"f"} else ax.lost(size)


def _index(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source, indices = _self(named), list(named["indices"])
    axes = axes_of(source)
    indices += [None] * (len(axes) - len(indices))
    if any(isinstance(index, Tensor) and index.dtype == torch.bool and index.ndim > 1 for index in indices):
        return tuple(ax.lost(size) for size in result.shape)
    at = [dim for dim, index in enumerate(indices) if index is not None]
    count = result.ndim - (len(axes) - len(at))
    placed = any(ax.has_positions(axes[dim]) for dim in at)
    remaining = [axis for dim, axis in enumerate(axes) if dim not in at]
    together = at == list(range(at[0], at[0] + len(at)))
    where = at[0] if together else 0
    sizes = result.shape[where : where + count]
    if len(at) == 1 and ax.along(axes[at[0]]) <= {"f"}:
        new = list(axes_of(indices[at[0]]))
        new = new if len(new) == count else [ax.features(size) for size in sizes]
    else:
        new = [(Part("?", size),) if placed and size != 1 else ax.features(size) for size in sizes]
        if count == 1 and at == [dim for dim in at if "b" in ax.along(axes[dim])] and sizes[0] == source.shape[at[0]]:
            new = [axes[at[0]]]
    return (*remaining[:where], *new, *remaining[where:])


def _pad(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source, pads = _self(named), list(named["pad"])
    axes = list(axes_of(source))
    for index in range(len(pads) // 2):
        before, after = pads[2 * index], pads[2 * index + 1]
        dim = source.ndim - 1 - index
        axis, size = axes[dim], int(result.shape[dim])
        if before or after:
            tokens = ax.grid(axis) is not None and ax.along(axis) not in ({"y"}, {"x"})
            pieces = [ax.features(before), axis, ax.features(after)]
            axes[dim] = (
                ax.joined(pieces, [before, source.shape[dim], after])
                if tokens and before >= 0 and after >= 0
                else ax.resized(axis, size)
            )
    return tuple(axes)


def _im2col(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source = _self(named)
    axes = axes_of(source)
    y, x = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, d, p, s in zip(
            source.shape[-2:], named["kernel_size"], named["dilation"], named["padding"], named["stride"], strict=True
        )
    )
    positions = ax.simplify([*ax.resized(axes[-2], y), *ax.resized(axes[-1], x)])
    apart = named["kernel_size"] == named["stride"] and not any(named["padding"]) and set(named["dilation"]) == {1}
    if apart and [ax.show(axis)[:1] for axis in axes[-2:]] == ["y", "x"]:  # patches side by side
        kh, kw = named["kernel_size"]
        positions = (Part("y", y, kh), Part("x", x, kw))
        patch = ax.simplify([*axes[-3], Part("y", kh), Part("x", kw)])
        return (*axes[: source.ndim - 3], patch, positions)
    return (*axes[: source.ndim - 3], ax.features(result.shape[-2]), positions)


def _col2im(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    axes = axes_of(_self(named))
    H, W = result.shape[-2:]
    tail: tuple[Axis, Axis] = ((Part("y", H),), (Part("x", W),))
    if not ax.has_positions(axes[-1]):
        tail = (ax.lost(H), ax.lost(W))
    return (*axes[: result.ndim - 3], ax.features(result.shape[-3]), *tail)


def _flip(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    axes = list(axes_of(_self(named)))
    for dim in named["dims"]:
        axes[dim] = ax.flipped(axes[dim])
    return tuple(axes)


def _unfold(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source = _self(named)
    dim = _dim(named, source.ndim, "dimension")
    axes = list(axes_of(source))
    axes[dim] = ax.resized(axes[dim], result.shape[dim])
    return (*axes, ax.features(result.shape[-1]))


def _strided(axes_of: AxesOf, named: Arguments, result: Tensor) -> Axes:
    source = _self(named)
    if source.shape == result.shape and source.stride() == result.stride():
        return axes_of(source)
    if ax.along(sum(axes_of(source), ())) <= {"f"}:
        return ax.plain(result.shape)
    if source.numel() == result.numel() and source.is_contiguous() and result.is_contiguous():
        return _view(axes_of, named, result)
    return tuple(ax.lost(size) for size in result.shape)


def _pieces(axes_of: AxesOf, named: Arguments, results: Sequence[Tensor]) -> list[Axes]:
    """Slices of a split, one after the other."""
    source = _self(named)
    dim, begin, out = _dim(named, source.ndim), 0, []
    for result in results:
        axes = list(axes_of(source))
        axes[dim] = ax.cut(axes[dim], begin, begin + int(result.shape[dim]), 1)
        begin += int(result.shape[dim])
        out.append(tuple(axes))
    return out


def _unbound(axes_of: AxesOf, named: Arguments, results: Sequence[Tensor]) -> list[Axes]:
    axes = list(axes_of(_self(named)))
    axes.pop(_dim(named, len(axes)))
    return [tuple(axes)] * len(results)


_LISTS: dict[OpOverloadPacket, Callable[[AxesOf, Arguments, Sequence[Tensor]], list[Axes]]] = {
    aten.split: _pieces,
    aten.split_with_sizes: _pieces,
    aten.unsafe_split: _pieces,
    aten.unsafe_split_with_sizes: _pieces,
    aten.chunk: _pieces,
    aten.unbind: _unbound,
}

_RULES: dict[OpOverloadPacket, Rule] = {
    **dict.fromkeys([aten.view, aten._unsafe_view, aten._reshape_alias, aten.reshape], _view),
    aten.permute: _permute,
    **dict.fromkeys([aten.transpose, aten.t, aten.transpose_], _transpose),
    aten.view_as_real: _real,
    aten.view_as_complex: _complex,
    aten.squeeze: _squeeze,
    aten.unsqueeze: _unsqueeze,
    aten.expand: _expand,
    aten.repeat: _repeat,
    aten.slice: _slice,
    aten.select: _select,
    aten.cat: _cat,
    aten.stack: _stack,
    aten.convolution: _convolution,
    aten.bmm: _matmul("self", "mat2"),
    aten.mm: _matmul("self", "mat2"),
    aten.addmm: _matmul("mat1", "mat2"),
    aten.baddbmm: _matmul("batch1", "batch2"),
    aten.linear: _linear,
    aten._native_multi_head_attention: _query,
    aten._scaled_dot_product_flash_attention_for_cpu: _query,
    aten._scaled_dot_product_flash_attention: _query,
    aten._scaled_dot_product_efficient_attention: _query,
    aten._scaled_dot_product_cudnn_attention: _query,
    aten._scaled_dot_product_fused_attention_overrideable: _query,
    **dict.fromkeys([aten.gather, aten.index_select, aten.topk, aten.sort], _gather),
    **dict.fromkeys([aten.index, aten._unsafe_index], _index),
    aten.constant_pad_nd: _pad,
    aten.im2col: _im2col,
    aten.col2im: _col2im,
    aten.flip: _flip,
    aten.unfold: _unfold,
    aten.as_strided: _strided,
    **dict.fromkeys([aten.zeros_like, aten.ones_like, aten.new_zeros, aten.new_ones, aten.new_empty], _alike),
}

"""Gated attention of several heads over one value, without a map or a head's output of a batch. Imports torch only.

With C the content map of a head, P its positional map and g its gate, A = (1 - g) C + g P, and the output is either
what each head sees, A X, or with a kernel W a head the sum over heads of W (X A^T). The kernel is then applied to the
values first, Z = W X, and one product with the maps of all heads follows: no (B, C, heads, N) tensor exists.

On the CPU in eager mode both directions run in blocks of images and queries, whose maps are made, used and made again
in the backward pass, in buffers that all blocks share; elsewhere by torch's own operations.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fourier_probe.errors import ModelError

BLOCK = 2**18
"""Elements of the maps of a block of images, on the CPU (measured: `benchmarks/gpsa.py`)."""

IMAGE = 2**20
"""Elements of the maps of one image up to which its queries are not split, on the CPU."""

DENSE = 256 * 256
"""Largest queries x keys for which the two maps are mixed and applied as one, on the CPU."""

DENSE_FUSED = 64 * 64
"""The same where `scaled_dot_product_attention` serves, which stores no content map."""


_TWICE = ContextVar("twice", default=False)


@contextlib.contextmanager
def second_derivatives() -> Iterator[None]:
    """Inside, `attend` has second derivatives: by torch's own operations, since the blocks have first ones alone."""
    token = _TWICE.set(True)
    try:
        yield
    finally:
        _TWICE.reset(token)


def in_blocks(device: torch.device) -> bool:
    """Whether `attend` runs in blocks on this device, here and now."""
    return device.type == "cpu" and not torch.compiler.is_compiling() and not _TWICE.get()


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    gate: Tensor | None = None,
    positional: Tensor | None = None,
    kernel: Tensor | None = None,
) -> Tensor:
    """Attention of several heads over one shared value, gated with a positional map: y^h = A^h value.

    A^h = (1 - sigmoid(gate_h)) softmax_j(query_i . key_j) + sigmoid(gate_h) positional^h. The scale 1/sqrt(D) is the
    caller's (fold it into the query).

    Args:
        query: (B, heads, D, N).
        key: (B, heads, D, M).
        value: (B, C, M).
        gate: (heads,) logit lambda; none gives the content map its full weight.
        positional: (heads, N, M); none leaves the positional term out.
        kernel: (heads, C', C), beside a positional map; none returns what each head sees.

    Returns:
        In the dtype of `query`: (B, C, heads, N), or with a kernel its sum over heads, (B, C', N).
    """
    if positional is not None and gate is None:
        raise ModelError("attend: a positional map needs a gate.")
    if kernel is not None and positional is None:
        raise ModelError("attend: a kernel needs a positional map.")
    value = value.to(query.dtype)
    if kernel is not None:
        kernel = kernel.to(query.dtype).contiguous()
    if in_blocks(value.device):
        out: Tensor = _Attend.apply(query, key, value, gate, positional, kernel)
        return out
    seen = _attend_fused(query, key, value, gate, positional)
    return seen if kernel is None else torch.einsum("hoc,bchn->bon", kernel, seen)


def _attend_fused(query: Tensor, key: Tensor, value: Tensor, gate: Tensor | None, positional: Tensor | None) -> Tensor:
    """`attend` in differentiable torch operations: one product for small grids, fused attention for others."""
    (B, heads, D, N), C, M = query.shape, value.shape[1], key.shape[-1]
    if positional is not None and gate is not None:
        content = torch.softmax(query.transpose(-1, -2) @ key, dim=-1)  # (B, heads, N, M)
        logit = gate[:, None, None]
        weights = torch.addcmul(torch.sigmoid(logit) * positional, content, torch.sigmoid(-logit)).to(value.dtype)
        return torch.bmm(value, weights.flatten(1, 2).transpose(1, 2)).view(B, C, heads, N)
    # The fused kernels want one width for query, key and value; on CUDA at most 256.
    parts = []
    for part in torch.split(value, max(D, 256), dim=1):
        width = max(D, part.shape[1])
        q, k = (F.pad(x.transpose(-1, -2), (0, width - D)) for x in (query, key))
        v = F.pad(part.transpose(1, 2), (0, width - part.shape[1]))[:, None].expand(B, heads, M, width)
        parts.append(F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., : part.shape[1]])
    out = torch.cat(parts, dim=-1).permute(0, 3, 1, 2)  # (B, C, heads, N)
    return out if gate is None else out * torch.sigmoid(-gate).to(out.dtype)[:, None]


def _blocks(batch: int, heads: int, queries: int, keys: int) -> Iterator[tuple[slice, slice]]:
    """Ranges of images and queries: several whole images, one, or a part of the queries of one; as even as can be."""
    maps = heads * queries * keys
    images = _even(batch, max(1, BLOCK // max(1, maps)))
    rows = queries if maps <= IMAGE else _even(queries, max(1, BLOCK // (heads * keys)))
    for first in range(0, batch, images):
        for row in range(0, queries, rows):
            yield slice(first, min(first + images, batch)), slice(row, min(row + rows, queries))


def _even(total: int, most: int) -> int:
    """The size of equal parts of at most `most` (the last may be smaller, the first is the largest)."""
    return -(-total // -(-total // most)) if total else 1


class _Buffers:
    """Tensors that the blocks of one call share: to allocate them anew costs as much as a product (measured)."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._flat: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size:
            flat = self._flat[name] = self._like.new_empty(size)
        return flat[:size].view(shape)


class _Attend(torch.autograd.Function):
    """`attend` in blocks.

    With C the content map, P the positional, g = sigmoid(gate), Z what is attended (the value, or the kernel's product
    with it) and dA = dY^T Z:

    dZ = dY A,   dP = g sum_b dA,   dscore = (1 - g) (dA C - C rowsum(dA C)),
    dgate = g (1 - g) (<sum_b dA, P> - <dA, C>).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        gate: Tensor | None,
        positional: Tensor | None,
        kernel: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, gate, positional, kernel)
        (B, heads, _, N), (C, M) = query.shape, value.shape[1:]
        out = value.new_empty((B, C, heads, N) if kernel is None else (B, kernel.shape[1], N))
        make = _Buffers(value)
        with torch.autocast("cpu", enabled=False):
            rest, local = _weights(gate, positional, value.dtype)
            for images, rows in _blocks(B, heads, N, M):
                maps = _content(query[images, :, :, rows], key[images], make)  # (b, heads, n, M)
                b, _, n, _ = maps.shape
                if local is not None and rest is not None:
                    torch.addcmul(local[:, rows], maps, rest, out=maps)
                if kernel is None:
                    seen = make("seen", b, C, heads * n)
                    torch.bmm(value[images], maps.view(b, heads * n, M).transpose(1, 2), out=seen)
                    block = seen.view(b, C, heads, n)
                    out[images, :, :, rows] = block if local is not None or rest is None else block * rest[:, 0]
                else:
                    values = _values(kernel, value[images], make)  # (b, heads, C', M)
                    seen = make("seen", b * heads, kernel.shape[1], n)
                    torch.bmm(values.flatten(0, 1), maps.flatten(0, 1).transpose(1, 2), out=seen)
                    out[images, :, rows] = seen.view(b, heads, -1, n).sum(1)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, gate, positional, kernel = ctx.saved_tensors
        (B, heads, D, N), (C, M) = query.shape, value.shape[1:]
        exact = torch.promote_types(value.dtype, torch.float32)  # sums over the batch
        dquery, dkey, dvalue = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        dkernel = None if kernel is None else value.new_zeros(kernel.shape, dtype=exact)
        content_dot = value.new_zeros(heads, dtype=exact)  # <dA, C>, with dA = (1 - g) dY^T value when P is absent
        dmap = value.new_zeros(heads, N, M, dtype=exact) if positional is not None else None  # sum_b dA
        make = _Buffers(value)
        with torch.autocast("cpu", enabled=False):
            rest, local = _weights(gate, positional, value.dtype)
            for images, rows in _blocks(B, heads, N, M):
                q, k, v, dy = query[images, :, :, rows], key[images], value[images], grad[..., rows][images]
                b, n = q.shape[0], q.shape[-1]
                content = _content(q, k, make)
                dmaps = make("dmaps", b, heads, n, M)
                if kernel is None:
                    if local is None and rest is not None:
                        dy = dy * rest[:, 0]
                    dy = dy.reshape(b, C, heads * n)
                    torch.bmm(dy.transpose(1, 2), v, out=dmaps.view(b, heads * n, M))
                else:
                    values = _values(kernel, v, make)
                    dy = dy[:, None].expand(b, heads, -1, n).flatten(0, 1)  # (b heads, C', n)
                    torch.bmm(dy.transpose(1, 2), values.flatten(0, 1), out=dmaps.flatten(0, 1))
                maps = content
                if local is not None and rest is not None and dmap is not None:
                    for image in dmaps if dmap.dtype == dmaps.dtype else (dmaps.sum(0, dtype=exact),):
                        dmap[:, rows] += image  # no sum of many images in a tensor of its own
                    maps = torch.addcmul(local[:, rows], content, rest, out=make("maps", b, heads, n, M))
                if kernel is None or dkernel is None:
                    dvalue[images] += torch.bmm(dy, maps.view(b, heads * n, M), out=make("dvalue", b, C, M))
                else:
                    # The values themselves are used up: their buffer takes their gradient.
                    dvalues = make("values", b, heads * kernel.shape[1], M)
                    torch.bmm(dy, maps.flatten(0, 1), out=dvalues.view(b * heads, -1, M))
                    flat = kernel.flatten(0, 1)
                    dvalue[images] += torch.bmm(flat.t().expand(b, -1, -1), dvalues, out=make("dvalue", b, C, M))
                    for image, above in zip(v, dvalues, strict=True):
                        dkernel.flatten(0, 1).add_(above @ image.t())
                dmaps.mul_(content)
                shares = dmaps.sum(-1, keepdim=True)  # (b, heads, n, 1)
                content_dot += shares.sum((0, 2, 3), dtype=exact)
                dscores = dmaps.addcmul_(content, shares, value=-1).flatten(0, 1)
                dquery[images, :, :, rows] = torch.bmm(
                    k.flatten(0, 1), dscores.transpose(1, 2), out=make("dquery", b * heads, D, n)
                ).view(b, heads, D, n)
                dkey[images] += torch.bmm(q.flatten(0, 1), dscores, out=make("dkey", b * heads, D, M)).view(
                    b, heads, D, M
                )
            if local is not None and rest is not None:
                dquery *= rest
                dkey *= rest
        dgate = dpositional = None
        if gate is not None:
            logit = gate.to(exact)
            dgate = -torch.sigmoid(logit) * content_dot
            if positional is not None and dmap is not None:
                dgate = torch.sigmoid(-logit) * (dgate + torch.sigmoid(logit) * (dmap * positional).sum((1, 2)))
                dpositional = (torch.sigmoid(logit)[:, None, None] * dmap).to(positional.dtype)
            dgate = dgate.to(gate.dtype)
        if dkernel is not None and kernel is not None:
            dkernel = dkernel.to(kernel.dtype)
        return dquery, dkey, dvalue, dgate, dpositional, dkernel


def _content(query: Tensor, key: Tensor, make: _Buffers) -> Tensor:
    """softmax_j(query_i . key_j) of a block, (b, heads, n, M), in a buffer."""
    b, heads, D, n = query.shape
    maps = make("content", b, heads, n, key.shape[-1])
    flat = maps.flatten(0, 1)
    torch.bmm(query.reshape(b * heads, D, n).transpose(1, 2), key.flatten(0, 1), out=flat)
    torch.softmax(flat, dim=-1, out=flat)
    return maps


def _values(kernel: Tensor, value: Tensor, make: _Buffers) -> Tensor:
    """What the heads attend to, each its kernel times the value: (b, heads, C', M), in a buffer."""
    (heads, out, _), (b, _, M) = kernel.shape, value.shape
    values = make("values", b, heads, out, M)
    torch.bmm(kernel.flatten(0, 1).expand(b, -1, -1), value, out=values.flatten(1, 2))
    return values


def _weights(gate: Tensor | None, positional: Tensor | None, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """1 - sigmoid(gate), (heads, 1, 1), and sigmoid(gate) P, (heads, N, M)."""
    if gate is None:
        return None, None
    logit = gate[:, None, None]
    local = None if positional is None else (torch.sigmoid(logit) * positional).to(dtype)
    return torch.sigmoid(-logit).to(dtype), local

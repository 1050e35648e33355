"""Gated positional self-attention (GPSA): the maths, and ConViT's module on it.

d'Ascoli et al. 2021, ConViT (arXiv 2103.10697), equation 7, for head h, query i and key j:

    A^h = (1 - sigmoid(lambda_h)) softmax_j(q_i . k_j / sqrt(D)) + sigmoid(lambda_h) softmax_j(v_pos^h . r_ij)

with r_ij = (|delta|^2, delta_1, delta_2), delta = position(j) - position(i). The score of the second map is a sum of
one term a grid axis, so the map is exactly a Kronecker product, P = P_y (x) P_x, and is applied an axis at a time
(ours; the paper stores it). The first map is never stored for a batch either: fused attention, or blocks that are made
again in the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fourier_probe.errors import ModelError

BLOCK = 2**19
"""Elements of the content map computed at a time on the CPU: 2 MB in float32, about a core's second-level cache."""

DENSE = 64 * 64
"""Largest queries x keys for which the two maps are mixed and applied as one (measured: `benchmarks/gpsa.py`)."""


def axis_offsets(
    keys: int,
    queries: int,
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Offset, in pixels, of every key from every query along one axis: (queries, before + keys + after).

    Query i sits at pixel `stride * i`; `padding` adds keys (before, after) outside the grid.

    >>> axis_offsets(3, 2, stride=2, padding=(1, 0))
    tensor([[-1.,  0.,  1.,  2.],
            [-3., -2., -1.,  0.]])
    """
    before, after = padding
    positions = torch.arange(-before, keys + after, device=device, dtype=dtype)
    return positions - stride * torch.arange(queries, device=device, dtype=dtype)[:, None]


def local_map(offsets: Tensor, centre: Tensor, strength: Tensor, *, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """Positional attention along one axis, P[h, i, j] = softmax_j(-strength_h (offset_ij - centre_h)^2).

    The softmax runs over the padded axis; the keys outside are then dropped without renormalising, so that attention
    that falls outside is lost, as under a convolution's zero padding (our reading: border mode `zero`). Without
    padding this is ConViT's mode, `renormalise`.

    Args:
        offsets: (Q, before + K + after) from `axis_offsets`, pixels.
        centre: (heads,) attention centre, pixels from the query.
        strength: (heads,) locality strength, nats a squared pixel.
        padding: keys (before, after) to drop.

    Returns:
        (heads, Q, K); rows sum to one, or to less where attention falls outside.
    """
    distance = offsets - centre[:, None, None]
    weights = torch.softmax(-strength[:, None, None] * distance.square(), dim=-1)
    return weights[..., padding[0] : weights.shape[-1] - padding[1]]


def apply_positional(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply P_y (x) P_x to every channel, an axis at a time: N (h + w) multiply-adds a channel, no N x N map.

    Args:
        maps: (B, C, H, W).
        rows: (heads, Ho, H), P_y.
        columns: (heads, Wo, W), P_x.

    Returns:
        (B, C, heads, Ho, Wo), a strided view.
    """
    B, C, H, W = maps.shape
    heads, Ho, _ = rows.shape
    mixed = torch.mm(rows.flatten(0, 1), maps.permute(2, 0, 1, 3).reshape(H, B * C * W))  # (heads * Ho, B * C * W)
    both = torch.bmm(mixed.view(heads, Ho * B * C, W), columns.transpose(1, 2))  # (heads, Ho * B * C, Wo)
    return both.view(heads, Ho, B, C, columns.shape[1]).permute(2, 3, 0, 1, 4)


def dense_map(rows: Tensor, columns: Tensor) -> Tensor:
    """P_y (x) P_x written out, (heads, Ho * Wo, H * W): for small grids and for pictures."""
    return (rows[:, :, None, :, None] * columns[:, None, :, None, :]).flatten(3, 4).flatten(1, 2)


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, gate: Tensor | None = None, positional: Tensor | None = None
) -> Tensor:
    """Attention of several heads over one shared value, gated with a positional map: y^h = A^h value.

    A^h = (1 - sigmoid(gate_h)) softmax_j(query_i . key_j) + sigmoid(gate_h) positional^h. The scale 1/sqrt(D) is the
    caller's (fold it into the query). On the CPU in eager mode the map is made, used and dropped `BLOCK` elements at a
    time and made again in the backward pass; elsewhere by `scaled_dot_product_attention`.

    Args:
        query: (B, heads, D, N).
        key: (B, heads, D, M).
        value: (B, C, M).
        gate: (heads,) logit lambda; none gives the content map its full weight.
        positional: (heads, N, M); none leaves the positional term out.

    Returns:
        (B, C, heads, N) in the dtype of `query`.
    """
    value = value.to(query.dtype)
    if value.device.type == "cpu" and not torch.compiler.is_compiling():
        out: Tensor = _Attend.apply(query, key, value, gate, positional)
        return out
    return _attend_fused(query, key, value, gate, positional)


def _attend_fused(query: Tensor, key: Tensor, value: Tensor, gate: Tensor | None, positional: Tensor | None) -> Tensor:
    """`attend` in differentiable torch operations: one product for small grids, fused attention for others."""
    (B, heads, D, N), C, M = query.shape, value.shape[1], key.shape[-1]
    if positional is not None:
        if gate is None:
            raise ModelError("attend: a positional map needs a gate.")
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
    """Ranges of images and queries whose maps hold at most `BLOCK` elements (at least one query of one image)."""
    images = max(1, BLOCK // max(1, heads * queries * keys))
    rows = queries if images > 1 else max(1, min(queries, BLOCK // max(1, heads * keys)))
    for first in range(0, batch, images):
        for row in range(0, queries, rows):
            yield slice(first, min(first + images, batch)), slice(row, min(row + rows, queries))


class _Attend(torch.autograd.Function):
    """`attend` in blocks.

    With C the content map, P the positional, g = sigmoid(gate) and dA = dY^T value:

    dvalue = dY A,   dP = g sum_b dA,   dscore = (1 - g) C (dA - rowsum(dA C)),
    dgate = g (1 - g) (<sum_b dA, P> - <dA, C>).
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, gate: Tensor | None, positional: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, gate, positional)
        B, heads, _, N = query.shape
        C, M = value.shape[1:]
        out = value.new_empty(B, C, heads, N)
        with torch.autocast("cpu", enabled=False):
            rest, local = _weights(gate, positional, value.dtype)
            for images, rows in _blocks(B, heads, N, M):
                weights = torch.softmax(query[images, :, :, rows].transpose(-1, -2) @ key[images], dim=-1)
                if local is not None and rest is not None:
                    weights = torch.addcmul(local[:, rows], weights, rest)  # (b, heads, n, M)
                b, _, n, _ = weights.shape
                block = torch.bmm(value[images], weights.view(b, heads * n, M).transpose(1, 2)).view(b, C, heads, n)
                if local is None and rest is not None:
                    block *= rest[:, 0]
                out[images, :, :, rows] = block
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, gate, positional = ctx.saved_tensors
        B, heads, _, N = query.shape
        C, M = value.shape[1:]
        exact = torch.promote_types(value.dtype, torch.float32)  # sums over the batch
        dquery, dkey, dvalue = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        content_dot = value.new_zeros(heads, dtype=exact)  # <dA, C>, with dA = (1 - g) dY^T value when P is absent
        dmap = value.new_zeros(heads, N, M, dtype=exact) if positional is not None else None  # sum_b dA
        with torch.autocast("cpu", enabled=False):
            rest, local = _weights(gate, positional, value.dtype)
            for images, rows in _blocks(B, heads, N, M):
                q, k, v, dy = query[images, :, :, rows], key[images], value[images], grad[images, :, :, rows]
                b, n = q.shape[0], q.shape[-1]
                if local is None and rest is not None:
                    dy = dy * rest[:, 0]
                dy = dy.reshape(b, C, heads * n)
                content = torch.softmax(q.transpose(-1, -2) @ k, dim=-1)
                dweights = torch.bmm(dy.transpose(1, 2), v).view(b, heads, n, M)
                if gate is not None:
                    flat = b * heads, n * M
                    dot = torch.bmm(dweights.view(flat[0], 1, flat[1]), content.view(*flat, 1))
                    content_dot += dot.view(b, heads).sum(0)
                weights = content
                if local is not None and rest is not None and dmap is not None:
                    dmap[:, rows] += dweights.sum(0, dtype=exact)
                    weights = torch.addcmul(local[:, rows], content, rest)
                dvalue[images] += torch.bmm(dy, weights.view(b, heads * n, M))
                dscore = torch.ops.aten._softmax_backward_data(dweights, content, -1, content.dtype)
                dquery[images, :, :, rows] = k @ dscore.transpose(-1, -2)
                dkey[images] += q @ dscore
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
        return dquery, dkey, dvalue, dgate, dpositional


def _weights(gate: Tensor | None, positional: Tensor | None, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """1 - sigmoid(gate), (heads, 1, 1), and sigmoid(gate) P, (heads, N, M)."""
    if gate is None:
        if positional is not None:
            raise ModelError("attend: a positional map needs a gate.")
        return None, None
    logit = gate[:, None, None]
    local = None if positional is None else (torch.sigmoid(logit) * positional).to(dtype)
    return torch.sigmoid(-logit).to(dtype), local


class GPSA(nn.Module):
    """ConViT's gated positional self-attention on a token sequence, (B, N, dim) -> (B, N, dim), border `renormalise`.

    Parameter names, shapes and outputs are those of timm's `convit` models, whose weights load as they are; the bias of
    `pos_proj`, which a softmax cancels and which gets no gradient, is dropped on loading. Where we differ from timm:
    `grid` may be non-square, a fresh module has its heads on the kernel taps in torch's order (ky * K + kx; timm's is
    transposed), and there is no dropout on the attention map.

    Args:
        dim: channels.
        num_heads: heads, a square number.
        qkv_bias: biases for `qk` and `v`.
        proj_drop: dropout after the projection.
        locality_strength: initial alpha, nats a squared pixel.
        grid: (H, W) of the tokens, row by row; none takes the square grid of each input.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = False,
        proj_drop: float = 0.0,
        locality_strength: float = 1.0,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        taps = math.isqrt(num_heads) if num_heads > 0 else 0
        if not taps or taps * taps != num_heads or dim % num_heads:
            raise ModelError(
                f"GPSA needs a square number of heads (one a kernel tap) that divides the width, "
                f"got {num_heads} heads for width {dim}."
            )
        self.dim, self.num_heads, self.grid = dim, num_heads, grid
        self.qk = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.v = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.pos_proj = nn.Linear(3, num_heads, bias=False)  # v_pos, on (delta_x, delta_y, |delta|^2)
        self.proj_drop = nn.Dropout(proj_drop)
        self.gating_param = nn.Parameter(torch.ones(num_heads))
        self.register_load_state_dict_pre_hook(_drop_positional_bias)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            nn.init.eye_(self.v.weight)
            tap = torch.arange(num_heads)
            centre = (taps - 1) / 2
            self.pos_proj.weight[:, 0] = 2 * locality_strength * (tap % taps - centre)
            self.pos_proj.weight[:, 1] = 2 * locality_strength * (tap // taps - centre)
            self.pos_proj.weight[:, 2] = -locality_strength

    @classmethod
    def like(cls, module: nn.Module, *, grid: tuple[int, int] | None = None) -> GPSA:
        """This module over the parameters (the very objects) of timm's `GPSA`.

        Raises:
            ModelError: `module` drops out attention weights, which are never stored here.
        """
        dropped = _attention_dropout(module)
        if dropped:
            raise ModelError(f"GPSA: attention dropout must be 0, the module has {dropped}.")
        ours = cls.__new__(cls)
        nn.Module.__init__(ours)
        ours.qk, ours.v, ours.proj, ours.proj_drop = module.qk, module.v, module.proj, module.proj_drop  # type: ignore[assignment]
        ours.gating_param = module.gating_param  # type: ignore[assignment]
        ours.dim, ours.num_heads, ours.grid = ours.v.in_features, ours.gating_param.shape[0], grid
        positions: nn.Linear = module.get_submodule("pos_proj")  # type: ignore[assignment]
        ours.pos_proj = nn.Linear(3, ours.num_heads, bias=False, device="meta")
        ours.pos_proj.weight = positions.weight
        ours.register_load_state_dict_pre_hook(_drop_positional_bias)  # type: ignore[no-untyped-call]
        return ours.train(module.training)

    def extra_repr(self) -> str:
        """Width, heads and grid."""
        return f"{self.dim}, num_heads={self.num_heads}, grid={self.grid}"

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        content, positional = self._seen(tokens)
        gate = self.gating_param[:, None, None]
        local = torch.sigmoid(gate).to(content.dtype) * positional
        mixed = torch.addcmul(local, content, torch.sigmoid(-gate).to(content.dtype))
        out: Tensor = self.proj_drop(self.proj(mixed.transpose(1, 2).reshape(tokens.shape)))
        return out

    def halves(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The content and the positional half of the output, each (B, N, dim): they add up to output - bias."""
        content, positional = self._seen(tokens)
        gate = torch.sigmoid(self.gating_param)[:, None, None].to(content.dtype)
        parts = (((1 - gate) * content), gate * positional)
        content, positional = (F.linear(x.transpose(1, 2).reshape(tokens.shape), self.proj.weight) for x in parts)
        return content, positional

    def gates(self) -> Tensor:
        """sigmoid(lambda), (heads,), detached: the share of the positional half."""
        return torch.sigmoid(self.gating_param).detach()

    def _seen(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What content and positional attention make of the values, each (B, heads, N, D)."""
        B, N, C = tokens.shape
        H, W = self._grid(N)
        heads, D = self.num_heads, C // self.num_heads
        q, k = self.qk(tokens).view(B, N, 2, heads, D).permute(2, 0, 3, 1, 4)  # (B, heads, N, D)
        v = self.v(tokens).view(B, N, heads, D).transpose(1, 2)  # (B, heads, N, D)
        content = F.scaled_dot_product_attention(q, k, v)
        rows, columns = (P.to(v.dtype) for P in self._maps(H, W))
        by_row = v.view(B, heads, H, W, D).permute(1, 2, 0, 3, 4).reshape(heads, H, B * W * D)
        half = torch.bmm(rows, by_row).view(heads, H, B, W, D).permute(0, 3, 1, 2, 4).reshape(heads, W, H * B * D)
        positional = torch.bmm(columns, half).view(heads, W, H, B, D).permute(3, 0, 2, 1, 4)  # (B, heads, H, W, D)
        return content, positional.reshape(B, heads, N, D)

    def attention(self, tokens: Tensor) -> Tensor:
        """The gated map written out, (B, heads, N, N), rows sum to one: for pictures and distances."""
        B, N, C = tokens.shape
        q, k = self.qk(tokens).view(B, N, 2, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        content = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        gate = torch.sigmoid(self.gating_param)[:, None, None]
        return (1 - gate) * content + gate * dense_map(*self._maps(*self._grid(N))).to(content.dtype)

    def _maps(self, H: int, W: int) -> tuple[Tensor, Tensor]:
        """P_y (heads, H, H) and P_x (heads, W, W), in at least float32."""
        weight = self.pos_proj.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        x, y, square = weight.to(dtype).t()[..., None, None]  # (heads, 1, 1)
        rows = axis_offsets(H, H, device=weight.device, dtype=dtype)
        columns = axis_offsets(W, W, device=weight.device, dtype=dtype)
        return (
            torch.softmax(square * rows.square() + y * rows, dim=-1),
            torch.softmax(square * columns.square() + x * columns, dim=-1),
        )

    def _grid(self, tokens: int) -> tuple[int, int]:
        side = math.isqrt(tokens)
        H, W = self.grid or (side, side)
        if H * W != tokens:
            expected = f"{H} x {W} = {H * W}" if self.grid else "a square number of"
            raise ModelError(f"GPSA: expected {expected} tokens, got {tokens}; set `grid` to their (H, W).")
        return H, W


def swap_convit_(model: nn.Module, *, grid: tuple[int, int] | None = None) -> list[str]:
    """Replace every timm `GPSA` in a `convit` model by ours, in place, over the same parameters: same outputs.

    Args:
        model: a timm `convit` model, or any module that holds timm's GPSA.
        grid: (H, W) of the tokens; by default the grid of the model's `patch_embed`.

    Returns:
        The names of the replaced modules.

    Raises:
        ModelError: there is none, or one uses attention dropout.
    """
    found = {name: module for name, module in model.named_modules() if name and _is_timm_gpsa(module)}
    if not found:
        raise ModelError(f"{type(model).__name__} holds no GPSA of timm's; pass a `convit` model.")
    if grid is None:
        size = getattr(getattr(model, "patch_embed", None), "grid_size", None)
        grid = (int(size[0]), int(size[1])) if size is not None else None
    ours = {name: GPSA.like(module, grid=grid) for name, module in found.items()}
    for name, module in ours.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module)
    return list(ours)


def gated(module: nn.Module) -> Any:
    """`module` as a layer that has `halves` and `gates`; none if it is no gated attention.

    Ours (`GPSA`, a recast convolution) are themselves; timm's GPSA comes as ours over the same parameters, which gives
    what timm's does in eval mode.
    """
    if callable(getattr(module, "halves", None)):
        return module
    return GPSA.like(module) if _is_timm_gpsa(module) and not _attention_dropout(module) else None


def _is_timm_gpsa(module: nn.Module) -> bool:
    wanted = {"qk", "v", "proj", "pos_proj", "attn_drop", "proj_drop"}
    return not isinstance(module, GPSA) and wanted <= dict(module.named_children()).keys()


def _attention_dropout(module: nn.Module) -> float:
    return float(getattr(module.get_submodule("attn_drop"), "p", 0.0))


def _drop_positional_bias(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state.pop(f"{prefix}pos_proj.bias", None)

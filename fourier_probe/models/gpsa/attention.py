"""Gated positional self-attention as ConViT has it, on token sequences; and what other layers with gates are.

d'Ascoli et al. 2021, ConViT (arXiv 2103.10697), equation 7, for head h, query i and key j:

    A^h = (1 - sigmoid(lambda_h)) softmax_j(q_i . k_j / sqrt(D)) + sigmoid(lambda_h) softmax_j(v_pos^h . r_ij)

with r_ij = (|delta|^2, delta_1, delta_2), delta = position(j) - position(i). The score of the second map is a sum of
one term a grid axis, so the map is exactly a Kronecker product, P = P_y (x) P_x, and is applied an axis at a time
(ours; the paper stores it). The first map is never stored for a batch either: fused attention. May import maps.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourier_probe.errors import ModelError
from fourier_probe.models.gpsa.maps import axis_offsets, dense_map


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
        locality_strength: initial alpha, nats per squared pixel.
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
        mixed = torch.addcmul(positional, content, torch.sigmoid(-self.gating_param)[:, None].to(content.dtype))
        out: Tensor = self.proj_drop(self.proj(mixed.reshape(tokens.shape)))
        return out

    def halves(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The content and the positional half of the output, each (B, N, dim): they add up to output - bias."""
        content, positional = self._seen(tokens)
        content = torch.sigmoid(-self.gating_param)[:, None].to(content.dtype) * content
        content, positional = (F.linear(half.reshape(tokens.shape), self.proj.weight) for half in (content, positional))
        return content, positional

    def gates(self) -> Tensor:
        """sigmoid(lambda), (heads,), detached: the share of the positional half."""
        return torch.sigmoid(self.gating_param).detach()

    def _seen(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What content attention makes of the values, and positional attention times its gate: (B, N, heads, D) each.

        Both lie in memory as the projection reads them, and the gate is a factor of the small maps: no pass over the
        values that torch does not need (measured: `benchmarks/gpsa.py convit`).
        """
        B, N, C = tokens.shape
        H, W = self._grid(N)
        heads, D = self.num_heads, C // self.num_heads
        q, k = (half.view(B, N, heads, D).transpose(1, 2) for half in self.qk(tokens).chunk(2, dim=-1))
        v = self.v(tokens).view(B, N, heads, D)
        content = F.scaled_dot_product_attention(q, k, v.transpose(1, 2)).transpose(1, 2)
        rows, columns = self._maps(H, W)
        rows, columns = (torch.sigmoid(self.gating_param)[:, None, None] * rows).to(v.dtype), columns.to(v.dtype)
        by_row = v.view(B, H, W, heads, D).permute(3, 1, 0, 2, 4).reshape(heads, H, B * W * D)
        half = torch.bmm(rows, by_row).view(heads, H, B, W, D).permute(0, 3, 1, 2, 4).reshape(heads, W, H * B * D)
        positional = torch.bmm(columns, half).view(heads, W, H, B, D).permute(3, 2, 1, 0, 4)  # (B, H, W, heads, D)
        return content, positional.reshape(B, N, heads, D)

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


def swap_convit_(model: nn.Module) -> list[str]:
    """Replace every timm `GPSA` in a `convit` model by ours, in place, over the same parameters: same outputs.

    Its plain attention, in the last blocks, is replaced by one that stores no map, likewise.

    Args:
        model: a timm `convit` model, or any module that holds timm's GPSA.

    Returns:
        The names of the replaced GPSA.

    Raises:
        ModelError: there is none, or one uses attention dropout.
    """
    gated = {name: module for name, module in model.named_modules() if name and _is_timm_gpsa(module)}
    if not gated:
        raise ModelError(f"{type(model).__name__} holds no GPSA of timm's; pass a `convit` model.")
    size = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    grid = (int(size[0]), int(size[1])) if size is not None else None  # (H, W) of the tokens
    plain = {name: module for name, module in model.named_modules() if _is_timm_mhsa(module)}
    ours: dict[str, nn.Module] = {name: GPSA.like(module, grid=grid) for name, module in gated.items()}
    ours |= {name: _Fused.like(module) for name, module in plain.items() if not _attention_dropout(module)}
    for name, module in ours.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module)
    return list(gated)


class _Fused(nn.Module):
    """The plain attention of timm's `convit` models over the same parameters, fused."""

    num_heads: int
    qkv: nn.Linear
    proj: nn.Linear
    proj_drop: nn.Dropout

    @classmethod
    def like(cls, module: nn.Module) -> _Fused:
        """The very parameters of `module`."""
        ours = cls()
        for name in ("num_heads", "qkv", "proj", "proj_drop"):
            setattr(ours, name, getattr(module, name))
        return ours.train(module.training)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        B, N, C = tokens.shape
        q, k, v = (part.view(B, N, self.num_heads, -1).transpose(1, 2) for part in self.qkv(tokens).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, C)
        out: Tensor = self.proj_drop(self.proj(mixed))
        return out


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


def _is_timm_mhsa(module: nn.Module) -> bool:
    wanted = {"qkv", "proj", "attn_drop", "proj_drop"}
    return type(module).__name__ == "MHSA" and wanted == dict(module.named_children()).keys()


def _attention_dropout(module: nn.Module) -> float:
    return float(getattr(module.get_submodule("attn_drop"), "p", 0.0))


def _drop_positional_bias(module: nn.Module, state: dict[str, object], prefix: str, *_: object) -> None:
    state.pop(f"{prefix}pos_proj.bias", None)

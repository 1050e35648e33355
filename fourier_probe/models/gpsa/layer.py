"""A convolution as gated positional self-attention: the layer. `recast` makes it.

T-CNN (d'Ascoli et al. 2021, arXiv 2106.05795) recasts a trained convolution as GPSA (ConViT, arXiv 2103.10697). Ours
differs where a narrow value head could not hold a general kernel (our reading, derived):

    conv:  y[o, q] = sum_{h, i} W[o, i, h] x[i, s q + Delta^h] + b,      Delta^h = d (ky, kx) - p,  h = ky Kw + kx
    GPSA:  y[o, q] = sum_{h, i} W[o, i, h] sum_j A^h[q, j] x[i, j] + b
           A^h = (1 - sigmoid(lambda_h)) softmax_j(q_q . k_j / sqrt(D)) + sigmoid(lambda_h) P_y^h (x) P_x^h

One head per tap of the kernel, the input itself as value of every head, the convolution's own `weight` and `bias`
objects as projection. The query of output q sits at pixel s q (at the last pixel where the padding reaches further).
The positional softmax runs over the zero-padded grid and the outside is dropped without renormalising, which is zero
padding as the locality strength grows.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourier_probe.errors import ModelError
from fourier_probe.models.gpsa.attend import DENSE, DENSE_FUSED, attend, in_blocks
from fourier_probe.models.gpsa.maps import apply_positional, axis_offsets, dense_map, local_map
from fourier_probe.models.gpsa.sizes import architecture, default_head_dim, folds, padding_of, pair, taps

LOCALITY_STRENGTH = 10.0
"""Default alpha, nats per squared pixel: 0.9998 of the attention on the tap, a relative error of 2e-4 (measured)."""


GATE = 4.0
"""Default logit lambda: 1.8 % of the weight leaves the convolution at the switch, and the gate still learns."""


GROUPS = {
    "positions": ("attention_centre", "locality_strength"),
    "gates": ("gate",),
    "qk": ("query_weight", "key_weight"),
}
"""The parameters a conversion adds, by optimizer group. No weight decay belongs on `positions` and `gates`."""


_QK_STD = 0.3  # of initial queries and keys on inputs of unit variance: scores of 0.09 nats, attention near uniform


class GPSAConv2d(nn.Module):
    """A convolution as GPSA, (B, C, H, W) -> (B, C', H', W'); build it with `recast`.

    Takes the grid from each input. Beside the convolution's `weight` and `bias` (the same Parameter objects, so
    optimizer state and EMA names carry over) it has, for `heads` = Kh Kw taps:

    - `attention_centre` (heads, 2), (y, x) in pixels from the query, and `locality_strength` (heads,), nats per squared
      pixel: v_pos in ConViT's own terms, three numbers a head;
    - `gate` (heads,), the logit lambda;
    - `query_weight`, `key_weight` (heads * head_dim, C), no bias (a key bias has zero gradient);
    - buffers `gate_shift` and `locality_shift`, added to the two for annealing (`anneal`).

    Args:
        conv: the convolution; it must be one that `refusal` passes.
        locality_strength, gate, head_dim, content_stride, content_maps, generator: see `recast`.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        *,
        locality_strength: float = LOCALITY_STRENGTH,
        gate: float = GATE,
        head_dim: int | None = None,
        content_stride: int = 1,
        content_maps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        reason = refusal(conv)
        if reason:
            raise ModelError(f"recast: {reason}.")
        if not (math.isfinite(locality_strength) and math.isfinite(gate)):
            raise ModelError(f"recast: expected finite numbers, got {locality_strength=}, {gate=}.")
        head_dim = default_head_dim(conv) if head_dim is None else head_dim
        if head_dim < 1:
            raise ModelError(f"recast: head_dim must be at least 1, got {head_dim}.")
        self.in_channels, self.out_channels, self.groups = conv.in_channels, conv.out_channels, conv.groups
        self.kernel_size, self.stride, self.dilation = (
            pair(conv.kernel_size),
            pair(conv.stride),
            pair(conv.dilation),
        )
        self.padding, self.padding_mode = conv.padding, conv.padding_mode
        self.head_dim = head_dim
        self.heads = self.kernel_size[0] * self.kernel_size[1]
        if content_stride < 1:
            raise ModelError(f"recast: content_stride must be at least 1 pixel, got {content_stride}.")
        if content_maps not in (None, 1, self.heads):
            raise ModelError(f"recast: content_maps must be 1, or {self.heads} for one per tap, got {content_maps}.")
        self.content_stride, self.content_maps = content_stride, content_maps or self.heads
        self._pads = padding_of(conv)

        self.weight = conv.weight  # (C', C / groups, Kh, Kw)
        self.bias = conv.bias
        device, dtype = conv.weight.device, conv.weight.dtype
        self.attention_centre = nn.Parameter(taps(self).to(device, dtype))
        self.locality_strength = nn.Parameter(torch.full((self.heads,), float(locality_strength)).to(device, dtype))
        self.gate = nn.Parameter(torch.full((self.heads,), float(gate)).to(device, dtype))
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        shape, std = (2, self.content_maps * head_dim, self.in_channels), _QK_STD / math.sqrt(self.in_channels)
        query, key = (torch.randn(shape, generator=generator) * std).to(device, dtype)
        self.query_weight = nn.Parameter(query.clone())
        self.key_weight = nn.Parameter(key.clone())
        self.register_buffer("gate_shift", torch.zeros((), device=device, dtype=dtype))
        self.register_buffer("locality_shift", torch.zeros((), device=device, dtype=dtype))
        self.gate_shift: Tensor
        self.locality_shift: Tensor
        self.train(conv.training)

    def extra_repr(self) -> str:
        """As a convolution's, with heads and the width of queries and keys."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}, "
            f"heads={self.heads}, head_dim={self.head_dim}"
        ) + architecture(self.content_stride, self.content_maps, self.heads)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W), or (C, H, W), -> (B, C', H', W') or (C', H', W').

        Raises:
            ModelError: wrong number of channels, or the padded input is smaller than the kernel.
        """
        if maps.dim() == 3:
            return self._forward(maps[None])[0]
        return self._forward(maps)

    def halves(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The content and the positional half of the output, each (B, C', H', W'): they add up to output - bias."""
        query, key, grid = self._project(maps)
        content = self._content(query, key, maps, grid)
        positional = apply_positional(maps.to(query.dtype), *self._maps(maps, grid, query.dtype, gated=True))
        return content, self._combine(positional, grid, bias=False)

    def attention(self, maps: Tensor) -> Tensor:
        """The gated map written out, (B, heads, H' W', H W): for pictures and distances. Rows may lose the outside."""
        query, key, grid = self._project(maps)
        content = torch.softmax(query.transpose(-1, -2) @ key, dim=-1)  # (B, heads or 1, H' W', keys)
        if self.content_stride > 1:  # a mean's share is that of its pixels, in equal parts
            cell, count = self._cells(maps.shape[2], maps.shape[3], maps.device)
            content = (content / count)[..., cell]
        local = dense_map(*self._maps(maps, grid, content.dtype, gated=True))
        return torch.sigmoid(-self.gate - self.gate_shift)[:, None, None].to(content.dtype) * content + local

    def gates(self) -> Tensor:
        """sigmoid(lambda), (heads,): the share of the positional half, detached, with the shift of an annealing."""
        return torch.sigmoid(self.gate + self.gate_shift).detach()

    @torch.no_grad()
    def tap_mass(self, H: int, W: int) -> Tensor:
        """Share of the positional attention on the kernel's own tap, (heads,), mean over the queries it does not leave.

        Times the gate it is the part of the attention that is still the convolution's.
        """
        grid = self.output_grid(H, W)
        like = torch.empty(1, self.in_channels, H, W, device=self.gate.device)
        mass = torch.ones(self.heads, dtype=torch.float32, device=self.gate.device)
        sides = zip(self._maps(like, grid, torch.float32, gated=False), taps(self).t().tolist(), (H, W), strict=True)
        for axis, (attention, offsets, keys) in enumerate(sides):  # (heads, queries, keys)
            query = torch.arange(grid[axis])
            for head, offset in enumerate(offsets):
                key = self.stride[axis] * query + offset
                inside = (key >= 0) & (key < keys)
                mass[head] *= attention[head, query[inside], key[inside]].mean()
        return mass

    def anneal(self, *, gate: float = 0.0, locality: float = 0.0) -> None:
        """Add `gate` to every logit and `locality` to every alpha until told otherwise; 0 and 0 end the annealing.

        A `soft` schedule starts at a large shift (a convolution) and ramps it to zero. The shifts are buffers: saved,
        copied and compiled with the module, not trained.
        """
        self.gate_shift.fill_(gate)
        self.locality_shift.fill_(locality)

    def added_parameters(self) -> int:
        """Number of parameters beside the convolution's own."""
        return sum(self.get_parameter(name).numel() for names in GROUPS.values() for name in names)

    def _forward(self, maps: Tensor) -> Tensor:
        query, key, grid = self._project(maps)
        dtype = query.dtype  # the autocast dtype, where there is one
        gate = self.gate + self.gate_shift
        queries, keys, blocks = query.shape[-1], key.shape[-1], in_blocks(maps.device)
        one, coarse = self.content_maps < self.heads, self.content_stride > 1
        if one or coarse or queries * keys > (DENSE if blocks else DENSE_FUSED):
            positional = apply_positional(maps.to(dtype), *self._maps(maps, grid, dtype, gated=True))
            if one:
                return self._content(query, key, maps, grid) + self._combine(positional, grid, bias=True)
            content = attend(query, key, self._value(maps, dtype), gate=gate)
            return self._combine(content.view(*maps.shape[:2], self.heads, *grid) + positional, grid, bias=True)
        value = self._value(maps, dtype)
        positional = dense_map(*self._maps(maps, grid, gate.dtype, gated=False))  # (heads, H' W', H W)
        if not (blocks and folds(self, queries, keys)):
            return self._combine(attend(query, key, value, gate=gate, positional=positional), grid, bias=True)
        kernel = self.weight.flatten(2).permute(2, 0, 1)  # (heads, C', C)
        out = attend(query, key, value, gate=gate, positional=positional, kernel=kernel)
        out = out.view(maps.shape[0], self.out_channels, *grid)
        return out if self.bias is None else out + self.bias.to(dtype)[:, None, None]

    def _content(self, query: Tensor, key: Tensor, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        """The content half of the output, (B, C', H', W')."""
        gate, value = self.gate + self.gate_shift, self._value(maps, query.dtype)
        if self.content_maps == self.heads:
            return self._combine(attend(query, key, value, gate=gate), grid, bias=False)
        kernel = (self.weight.flatten(2) * torch.sigmoid(-gate)).sum(2)[
            ..., None, None
        ]  # of all taps, (C', C / groups)
        return F.conv2d(attend(query, key, value).view(*maps.shape[:2], *grid), kernel, groups=self.groups)

    def _pooled(self, maps: Tensor) -> Tensor:
        """What the content half looks at: the input, or means over squares of its pixels."""
        side, (H, W) = self.content_stride, maps.shape[2:]
        if side == 1:
            return maps
        # Not avg_pool2d's ceil_mode, which engines that read ONNX take otherwise.
        means = F.avg_pool2d(F.pad(maps, (0, -W % side, 0, -H % side)), side)
        if not (H % side or W % side):
            return means
        count = self._cells(H, W, maps.device)[1].view(means.shape[2:])
        return means * (side * side / count).to(means.dtype)

    def _value(self, maps: Tensor, dtype: torch.dtype) -> Tensor:
        return self._pooled(maps).flatten(2).to(dtype)  # (B, C, keys)

    def _cells(self, H: int, W: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The square that each pixel is in, (H W,), and how many pixels each square has."""
        side, wide = self.content_stride, -(-W // self.content_stride)
        y, x = (torch.arange(size, device=device) // side for size in (H, W))
        cell = (y[:, None] * wide + x).flatten()
        tall, broad = ((size - side * torch.arange(-(-size // side), device=device)).clamp(max=side) for size in (H, W))
        return cell, (tall[:, None] * broad).flatten()

    def _project(self, maps: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Queries (B, maps, D, H' W'), scaled, keys (B, maps, D, keys), with what counts them; the grid (H', W')."""
        if maps.dim() != 4 or maps.shape[1] != self.in_channels:
            raise ModelError(f"GPSAConv2d: expected (B, {self.in_channels}, H, W), got {tuple(maps.shape)}.")
        B = maps.shape[0]
        grid = self.output_grid(*maps.shape[2:])
        scaled = self.query_weight * self.head_dim**-0.5
        if self.stride == (1, 1) and self.content_stride == 1:
            both = F.conv2d(maps, torch.cat([scaled, self.key_weight])[:, :, None, None])
            query, key = both.chunk(2, dim=1)
        else:
            query = F.conv2d(maps, scaled[:, :, None, None], stride=self.stride)
            key = F.conv2d(self._pooled(maps), self.key_weight[:, :, None, None])
        for axis, size in zip((2, 3), grid, strict=True):
            if query.shape[axis] > size:
                query = query.narrow(axis, 0, size)
            elif query.shape[axis] < size:  # the padding reaches beyond the last pixel
                last = query.narrow(axis, query.shape[axis] - 1, 1)
                extra = [size - query.shape[axis] if a == axis else -1 for a in range(4)]
                query = torch.cat([query, last.expand(extra)], dim=axis)
        shape = (B, self.content_maps, self.head_dim, -1)
        query, key = query.reshape(shape), key.reshape(shape)
        if any(size % self.content_stride for size in maps.shape[2:]):  # a mean counts by its pixels
            count = self._cells(maps.shape[2], maps.shape[3], maps.device)[1].float().log().to(key.dtype)
            key = torch.cat([key, count.expand(*key.shape[:2], 1, -1)], dim=2)
            query = torch.cat([query, torch.ones_like(query[:, :, :1])], dim=2)
        return query, key, grid

    def _maps(self, maps: Tensor, grid: tuple[int, int], dtype: torch.dtype, *, gated: bool) -> tuple[Tensor, Tensor]:
        """P_y (heads, H', H), times the gate if `gated`, and P_x (heads, W', W); computed in at least float32."""
        strength = self.locality_strength + self.locality_shift
        centre = self.attention_centre.t()  # (2, heads)
        rows, columns = (
            local_map(
                self._offsets(axis, maps.shape[2 + axis], grid[axis], maps.device),
                centre[axis],
                strength,
                padding=self._pads[axis],
            )
            for axis in (0, 1)
        )
        if gated:
            rows = torch.sigmoid(self.gate + self.gate_shift)[:, None, None] * rows
        return rows.to(dtype), columns.to(dtype)

    def _offsets(self, axis: int, keys: int, queries: int, device: torch.device) -> Tensor:
        dtype = torch.promote_types(self.attention_centre.dtype, torch.float32)
        stride, padding = self.stride[axis], self._pads[axis]
        return axis_offsets(keys, queries, stride=stride, padding=padding, device=device, dtype=dtype)

    def _combine(self, seen: Tensor, grid: tuple[int, int], *, bias: bool) -> Tensor:
        """What each head sees, (B, C, heads, ...), times the kernel: a 1x1 convolution in the kernel's own groups."""
        columns = seen.reshape(seen.shape[0], self.in_channels * self.heads, *grid)
        kernel = self.weight.reshape(self.out_channels, -1, 1, 1)  # (C', C / groups * heads, 1, 1)
        return F.conv2d(columns, kernel, self.bias if bias else None, groups=self.groups)

    def output_grid(self, H: int, W: int) -> tuple[int, int]:
        """(H', W') of the output for an (H, W) input."""
        sides = []
        for axis, size in enumerate((H, W)):
            reach = self.dilation[axis] * (self.kernel_size[axis] - 1)
            sides.append((size + sum(self._pads[axis]) - reach - 1) // self.stride[axis] + 1)
        if min(sides) < 1:
            raise ModelError(
                f"GPSAConv2d: the {H} x {W} input with padding {self.padding} is smaller than the kernel "
                f"{self.kernel_size} at dilation {self.dilation}."
            )
        return sides[0], sides[1]


def refusal(module: nn.Module) -> str:
    """Why `module` cannot be recast; empty if it can.

    >>> refusal(nn.Conv2d(3, 4, 3, padding_mode="reflect"))
    "padding mode 'reflect' is not zero padding; recast supports 'zeros' only"
    >>> refusal(nn.Conv2d(3, 4, 3))
    ''
    """
    if isinstance(module, GPSAConv2d):
        return "it is recast already"
    if type(module) is not nn.Conv2d:
        kind = type(module).__name__
        if isinstance(module, nn.Conv2d):
            return f"{kind} is a subclass of nn.Conv2d with a forward of its own; only plain nn.Conv2d is recast"
        return f"{kind} is not an nn.Conv2d"
    if module.padding_mode != "zeros":
        return f"padding mode {module.padding_mode!r} is not zero padding; recast supports 'zeros' only"
    if max(module.kernel_size) == 1:
        return "a 1x1 convolution has no neighbourhood to leave; only larger kernels are recast"
    if "weight" not in dict(module.named_parameters(recurse=False)):
        return "its weight is no parameter (weight norm, spectral norm or pruning); remove that first"
    return ""

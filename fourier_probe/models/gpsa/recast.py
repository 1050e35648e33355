"""A convolution recast as gated positional self-attention: same function, same kernel parameters, free to leave it.

T-CNN (d'Ascoli et al. 2021, arXiv 2106.05795) recasts a trained convolution as GPSA (ConViT, arXiv 2103.10697). Ours
differs where a narrow value head could not hold a general kernel (our reading, derived):

    conv:  y[o, q] = sum_{h, i} W[o, i, h] x[i, s q + Delta^h] + b,      Delta^h = d (ky, kx) - p,  h = ky Kw + kx
    GPSA:  y[o, q] = sum_{h, i} W[o, i, h] sum_j A^h[q, j] x[i, j] + b
           A^h = (1 - sigmoid(lambda_h)) softmax_j(q_q . k_j / sqrt(D)) + sigmoid(lambda_h) P_y^h (x) P_x^h

One head a tap of the kernel, the input itself as value of every head, the convolution's own `weight` and `bias` objects
as projection. The query of output q sits at pixel s q (at the last pixel where the padding reaches further). The
positional softmax runs over the zero-padded grid and the outside is dropped without renormalising, which is zero
padding as the locality strength grows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourier_probe.errors import ModelError, suggest
from fourier_probe.models.gpsa.attend import DENSE, DENSE_FUSED, attend, in_blocks
from fourier_probe.models.gpsa.maps import apply_positional, axis_offsets, dense_map, local_map

LOCALITY_STRENGTH = 10.0
"""Default alpha, nats a squared pixel: 0.9998 of the attention on the tap, a relative error of 2e-4 (measured)."""

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

    - `attention_centre` (heads, 2), (y, x) in pixels from the query, and `locality_strength` (heads,), nats a squared
      pixel: v_pos in ConViT's own terms, three numbers a head;
    - `gate` (heads,), the logit lambda;
    - `query_weight`, `key_weight` (heads * head_dim, C), no bias (a key bias has zero gradient);
    - buffers `gate_shift` and `locality_shift`, added to the two for annealing (`anneal`).

    Args:
        conv: the convolution; it must be one that `refusal` passes.
        locality_strength: initial alpha of every head.
        gate: initial logit of every head.
        head_dim: width of queries and keys; none takes `default_head_dim`.
        content_stride: side, in pixels, of what the content half looks at.
        content_maps: maps of the content half: one for all taps, or none for one a tap.
        generator: of the initial queries and keys, on the CPU; none takes a fresh one with seed 0.
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
            _pair(conv.kernel_size),
            _pair(conv.stride),
            _pair(conv.dilation),
        )
        self.padding, self.padding_mode = conv.padding, conv.padding_mode
        self.head_dim = head_dim
        self.heads = self.kernel_size[0] * self.kernel_size[1]
        if content_stride < 1:
            raise ModelError(f"recast: content_stride must be at least 1 pixel, got {content_stride}.")
        if content_maps not in (None, 1, self.heads):
            raise ModelError(f"recast: content_maps must be 1, or {self.heads} for one a tap, got {content_maps}.")
        self.content_stride, self.content_maps = content_stride, content_maps or self.heads
        self._pads = _pads(conv)
        self._tables: dict[tuple[object, ...], Tensor] = {}

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
        """The offsets of one axis, kept for the last few grids."""
        dtype = torch.promote_types(self.attention_centre.dtype, torch.float32)
        stride, padding = self.stride[axis], self._pads[axis]
        if torch.compiler.is_compiling():
            return axis_offsets(keys, queries, stride=stride, padding=padding, device=device, dtype=dtype)
        where = (axis, keys, queries, device, dtype)
        if where not in self._tables:
            if len(self._tables) >= 16:
                self._tables.clear()
            self._tables[where] = axis_offsets(
                keys, queries, stride=stride, padding=padding, device=device, dtype=dtype
            )
        return self._tables[where]

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


def recast(
    conv: nn.Conv2d,
    *,
    locality_strength: float = LOCALITY_STRENGTH,
    gate: float = GATE,
    head_dim: int | None = None,
    content_stride: int = 1,
    content_maps: int | None = None,
    generator: torch.Generator | None = None,
) -> GPSAConv2d:
    """The convolution as a GPSA layer of (nearly) the same function; `conv` itself is left as it is.

    The function is the convolution's up to `sigmoid(-gate)` of content attention and a mass of about
    4 exp(-locality_strength) off each tap: exact in float64 at 60 and 60. Small values jump at the switch but learn at
    once; large ones preserve the function, but their gradients fade (ConViT itself starts from 1 and 1).

    Args:
        conv: a plain `nn.Conv2d` with zero padding and a kernel larger than 1x1: any size, stride, dilation, groups.
        locality_strength: initial alpha, nats a squared pixel.
        gate: initial logit lambda; the gate is sigmoid(lambda).
        head_dim: width of queries and keys; none takes `default_head_dim(conv)`.
        content_stride: 2 makes the content half look at means of 2 x 2 pixels: another architecture, cheaper.
        content_maps: 1 makes one content map serve all taps: another architecture, cheaper.
        generator: of the small random queries and keys (both at zero would be a saddle), on the CPU; none takes a
            fresh generator with seed 0, so that a recast is repeatable and touches no global state.

    Raises:
        ModelError: a 1x1 kernel (nothing to move), a subclass (another forward), or another padding mode, by name.

    >>> conv = nn.Conv2d(3, 4, 3, padding=1)
    >>> layer = recast(conv, locality_strength=20.0, gate=12.0)
    >>> layer.weight is conv.weight
    True
    >>> image = torch.linspace(-1, 1, 192).view(1, 3, 8, 8)
    >>> bool(torch.allclose(layer(image), conv(image), atol=1e-4))
    True
    """
    return GPSAConv2d(
        conv,
        locality_strength=locality_strength,
        gate=gate,
        head_dim=head_dim,
        content_stride=content_stride,
        content_maps=content_maps,
        generator=generator,
    )


def recast_(
    model: nn.Module,
    names: Iterable[str],
    *,
    locality_strength: float = LOCALITY_STRENGTH,
    gate: float = GATE,
    head_dim: int | None = None,
    content_stride: int = 1,
    content_maps: int | None = None,
    generator: torch.Generator | None = None,
) -> list[str]:
    """Recast convolutions of any network in place; the options are `recast`'s. All or none.

    Each layer draws its queries and keys from the one generator in the order of `names`. A convolution that the network
    holds under several names is replaced under all of them. Hooks on a replaced module stay with the old one.

    Returns:
        The names, in the order given.

    Raises:
        ModelError: a name that is unknown or no convolution, one given twice, or a convolution that `recast` refuses.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    >>> recast_(model, ["0"]), type(model[0]).__name__
    (['0'], 'GPSAConv2d')
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    replaced: dict[int, GPSAConv2d] = {}
    done: list[str] = []
    for name in names:
        module = modules.get(name)
        if module is None or not name:
            convolutions = [n for n, m in modules.items() if n and isinstance(m, nn.Conv2d)]
            near = suggest(name, convolutions) or f" It has {len(convolutions)} convolutions."
            raise ModelError(f"recast: {type(model).__name__} has no module {name!r} to replace.{near}")
        reason = refusal(module)
        if not reason and id(module) in replaced:
            reason = "this convolution is named twice"
        if reason:
            raise ModelError(f"recast {name}: {reason}.")
        replaced[id(module)] = recast(
            cast("nn.Conv2d", module),  # `refusal` passed it
            locality_strength=locality_strength,
            gate=gate,
            head_dim=head_dim,
            content_stride=content_stride,
            content_maps=content_maps,
            generator=generator,
        )
        done.append(name)
    for name, module in modules.items():
        if id(module) in replaced:
            parent, _, child = name.rpartition(".")
            setattr(modules[parent], child, replaced[id(module)])
    return done


@torch.no_grad()
def logit_change(
    model: nn.Module,
    names: Iterable[str],
    images: Tensor,
    *,
    locality_strength: float = LOCALITY_STRENGTH,
    gate: float = GATE,
    head_dim: int | None = None,
    content_stride: int = 1,
    content_maps: int | None = None,
    generator: torch.Generator | None = None,
) -> float:
    """How much a recast of these layers would change the logits: max |after - before| / max |before|, in eval mode.

    Both are computed on a copy; `model` stays as it is.

    Args:
        model: a network that returns logits.
        names: convolutions to recast, as for `recast_`; the other options are `recast`'s.
        images: what the network takes, normalised and on its device.
        locality_strength: initial alpha, nats a squared pixel.
        gate: initial logit lambda.
        head_dim: width of queries and keys; none takes `default_head_dim`.
        content_stride: of the content half.
        content_maps: of the content half.
        generator: of the initial queries and keys; none takes a fresh one with seed 0.

    Raises:
        ModelError: what `recast_` refuses, an output that is no tensor, logits that are all zero or not finite.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> logit_change(net, ["0"], torch.rand(2, 3, 8, 8), gate=12.0) < 0.01
    True
    >>> type(net[0]).__name__
    'Conv2d'
    """
    double = copy.deepcopy(model).eval()
    before = double(images)
    recast_(
        double,
        names,
        locality_strength=locality_strength,
        gate=gate,
        head_dim=head_dim,
        content_stride=content_stride,
        content_maps=content_maps,
        generator=generator,
    )
    after = double(images)
    if not isinstance(before, Tensor):
        raise ModelError(f"recast: expected logits in a tensor, but {type(model).__name__} returns {type(before)}.")
    scale = float(before.abs().max())
    if not 0 < scale < math.inf:
        raise ModelError(f"recast: the largest logit is {scale}, so no change relative to it exists: check the images.")
    return float((after - before).abs().max()) / scale


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


def default_head_dim(conv: nn.Conv2d) -> int:
    """Width of queries and keys: an eighth of the inputs a kernel mixes, between 4 and 16 (ours).

    A dense layer of 64 channels gains a quarter more parameters, one of 256 an eighth; a depthwise one, whose kernel is
    small, 8 times its own (two (C, 4) projections a tap).
    """
    return max(4, min(16, conv.in_channels // conv.groups // 8))


def folds(conv: nn.Conv2d | GPSAConv2d, queries: int, keys: int) -> bool:
    """Whether the kernel is applied to the values before attention, not to what each head sees (on the CPU).

    The first makes no (B, C, heads, N) tensor, but makes its values again in the backward pass: as fast where the maps
    cost far more than the kernel, and a fraction of the memory (measured: `benchmarks/gpsa.py`).
    """
    wide = max(conv.in_channels, conv.out_channels)
    return conv.groups == 1 and queries * keys <= DENSE and min(queries, keys) >= 4 * wide


def architecture(content_stride: int = 1, content_maps: int | None = None, heads: int = 0) -> str:
    """What tells a recast layer from GPSA, to add to a name; empty where nothing does.

    >>> architecture(), architecture(2, 1)
    ('', ', content_stride=2, content_maps=1')
    """
    stride = f", content_stride={content_stride}" if content_stride > 1 else ""
    return stride + (f", content_maps={content_maps}" if content_maps and content_maps != heads else "")


def multiply_adds(
    conv: nn.Conv2d | GPSAConv2d,
    keys: tuple[int, int],
    *,
    head_dim: int | None = None,
    content_stride: int = 1,
    content_maps: int | None = None,
) -> int:
    """Multiply-adds of one image through the recast layer on an (H, W) key grid, as used on the CPU, softmax free.

    Queries, keys, scores, the content map on the values, the positional half (an axis at a time, or mixed into the
    content map on small grids) and the kernel, on the values or on what each head sees.
    """
    kernel, stride, dilation = _pair(conv.kernel_size), _pair(conv.stride), _pair(conv.dilation)
    pads = _pads(conv)
    H, W = keys
    Ho, Wo = (
        (size + sum(pads[a]) - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a, size in enumerate((H, W))
    )
    heads, C = kernel[0] * kernel[1], conv.in_channels
    if isinstance(conv, GPSAConv2d):
        D, content_stride, content_maps = conv.head_dim, conv.content_stride, conv.content_maps
    else:
        D = default_head_dim(conv) if head_dim is None else head_dim
    queries, N, seen = Ho * Wo, H * W, -(-H // content_stride) * -(-W // content_stride)
    content_maps = content_maps or heads
    width = D + any(size % content_stride for size in (H, W))
    scores = content_maps * (D * C * (queries + seen) + queries * seen * width)
    kernels = heads * (C // conv.groups) * conv.out_channels  # at one place
    apart = heads * C * Ho * W * (H + Wo)  # the positional half, an axis at a time
    if content_maps < heads or content_stride > 1:
        one = queries * (C // conv.groups) * conv.out_channels if content_maps < heads else 0
        return scores + content_maps * queries * seen * C + one + apart + kernels * queries
    if folds(conv, queries, N):
        return scores + heads * queries * N * (conv.out_channels + 1) + kernels * N
    positional = heads * queries * N if queries * N <= DENSE else apart
    return scores + heads * queries * N * C + positional + kernels * queries


def added_parameters(model: nn.Module) -> dict[str, list[str]]:
    """Names of the parameters that recast layers add, by group: `positions`, `gates` and `qk` (keys of `GROUPS`)."""
    names: dict[str, list[str]] = {group: [] for group in GROUPS}
    for prefix, module in model.named_modules():
        if isinstance(module, GPSAConv2d):
            for group, parameters in GROUPS.items():
                names[group] += [f"{prefix}.{name}" if prefix else name for name in parameters]
    return names


def taps(layer: GPSAConv2d) -> Tensor:
    """The kernel's taps, Delta = dilation * (ky, kx) - padding, (heads, 2), pixels; torch's order, ky Kw + kx."""
    Kh, Kw = layer.kernel_size
    y, x = (layer.dilation[a] * torch.arange(layer.kernel_size[a]) - layer._pads[a][0] for a in (0, 1))
    return torch.stack([y.repeat_interleave(Kw), x.repeat(Kh)], dim=1)


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    return sizes[0], sizes[1]


def _pads(conv: nn.Conv2d | GPSAConv2d) -> tuple[tuple[int, int], tuple[int, int]]:
    """Zero padding (before, after) along y and x, in pixels; `same` puts the odd one after, as torch does."""
    if isinstance(conv.padding, str):
        if conv.padding == "valid":
            return (0, 0), (0, 0)
        totals = [d * (k - 1) for d, k in zip(_pair(conv.dilation), _pair(conv.kernel_size), strict=True)]
        (y, x) = totals
        return (y // 2, y - y // 2), (x // 2, x - x // 2)
    y, x = _pair(conv.padding)
    return (y, y), (x, x)

"""EIT (Xia et al. 2022, arXiv 2203.07116): a ViT whose blocks share channels between convolution and attention.

Two ideas: overlapping patches from a convolution followed by max pooling; and "decreasing convolution": of D channels
of block l = 0..L-1 the last a_l go through attention and the first c_l = D - a_l through a 3x3 depthwise convolution,

    a_l = h int((D / h) (l + 1) / L),        a_{L-1} = D,

so that the convolution's share falls linearly to nothing. Its only mixing with the attention half is the MLP. There is
no position embedding unless asked for. Written from a description of the public model, not from its code; the variants
of width 80, 144 and 320 are ours, for comparisons at equal parameters.

Registered with timm: `timm.create_model("eit_small", num_classes=10)`. No pretrained weights exist.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import Mlp, resample_abs_pos_embed, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from fourier_probe.errors import ModelError
from fourier_probe.models.small import CIFAR100_MEAN, CIFAR100_STD

Split = Literal["decreasing", "constant", "attention"]


def attention_channels(width: int, depth: int, heads: int, split: Split = "decreasing") -> list[int]:
    """Channels of each block that go through attention; the rest goes through the convolution.

    Args:
        width: channels D.
        depth: blocks L.
        heads: attention heads h of every block; D must be a multiple.
        split: "decreasing", the paper's; "attention", its twin without convolution; "constant", half and half in every
            block, as LSRA (Wu et al. 2020, arXiv 2004.11886).

    Raises:
        ModelError: no blocks, heads that do not divide the width or have no channel left, or an unknown split.

    >>> [250 - a for a in attention_channels(250, 5, 10)]
    [200, 150, 100, 50, 0]
    """
    if depth < 1:
        raise ModelError(f"EIT: depth={depth} is no number of blocks; choose at least 1.")
    if heads < 1 or width % heads:
        raise ModelError(f"EIT: {heads} heads do not divide width {width}; choose a width that is a multiple of them.")
    head_width = width // heads
    if split == "decreasing":
        channels = [heads * (head_width * (block + 1) // depth) for block in range(depth)]
    elif split == "constant":
        channels = [heads * (head_width // 2)] * depth
    elif split == "attention":
        channels = [width] * depth
    else:
        raise ModelError(f"EIT: split={split!r} is none of decreasing, constant, attention.")
    if 0 in channels:
        raise ModelError(
            f"EIT: width {width} leaves no attention channel per head in block {channels.index(0)} of {depth} with "
            f"{heads} heads; choose fewer heads or blocks, or a larger width."
        )
    return channels


class PatchProjection(nn.Module):
    """Overlapping patches, (B, in_chans, H, W) -> (B, width, h, w): a convolution, then max pooling."""

    def __init__(self, in_chans: int, width: int, *, kernel: int, stride: int, pool: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, width, kernel, stride, padding=0 if kernel == stride else kernel // 2)
        self.pool = nn.MaxPool2d(pool, pool) if pool > 1 else nn.Identity()
        self.step = pool

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of an image of `size` pixels.

        Raises:
            ModelError: the image is smaller than a patch.
        """
        (kernel, _), (stride, _) = self.proj.kernel_size, self.proj.stride
        padding = int(self.proj.padding[0])
        h, w = (max((side + 2 * padding - kernel) // stride + 1, 0) // self.step for side in size)
        if not h or not w:
            raise ModelError(
                f"EIT: images of {size[0]}x{size[1]} leave no patch with kernel {kernel}, stride {stride} and pooling "
                f"{self.step}: take larger images, or a variant for small ones (eit_small)."
            )
        return h, w

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, width, h, w)."""
        self.grid((images.shape[2], images.shape[3]))
        patches: Tensor = self.pool(self.proj(images))
        return patches


class Mixer(nn.Module):
    """Convolution on the first channels, attention on the last, side by side: (B, 1 + N, D) -> (B, 1 + N, D).

    The class token's share of the convolution's channels passes unchanged. `conv` and `attn` are the two branches, to
    be probed apart; the convolution is the identity on no channels, and not called, where the split leaves it none.
    """

    probe_branches = ("conv", "attn")

    def __init__(self, width: int, attention: int, heads: int) -> None:
        super().__init__()
        self.split = width - attention
        conv = self.split
        self.conv = nn.Conv2d(conv, conv, 3, padding=1, groups=conv, bias=False) if conv else nn.Identity()
        self.attn = Attention(attention, num_heads=heads, qkv_bias=True)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (B, 1 + h w, D) with the class token first, and their grid (h, w)."""
        attended: Tensor = self.attn(tokens[..., self.split :])
        if not self.split:
            return attended
        local = tokens[..., : self.split]  # (B, 1 + N, c)
        maps = local[:, 1:].transpose(1, 2).reshape(len(tokens), self.split, *grid)  # (B, c, h, w)
        convolved = torch.cat([local[:, :1], self.conv(maps).flatten(2).transpose(1, 2)], 1)
        return torch.cat([convolved, attended], 2)


class Block(nn.Module):
    """Pre-norm block: mixer, then MLP of ratio 4, each added to the stream."""

    def __init__(self, width: int, attention: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.mixer = Mixer(width, attention, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 1 + h w, D) -> the same."""
        tokens = tokens + self.mixer(self.norm1(tokens), grid)
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class EIT(nn.Module):
    """(B, in_chans, H, W) -> (B, num_classes), any H and W that hold a patch.

    Args:
        img_size: pixels, or (height, width); only the position embedding depends on it.
        width, depth, num_heads: D, L and h; see `attention_channels`.
        kernel, stride, pool: of the patch projection.
        split: how channels are shared, "decreasing", "constant" or "attention".
        use_pos_embed: add a learned position embedding, resampled where the grid is another.
        plain_stem: patches that do not overlap, a convolution of kernel and stride `stride * pool`, no pooling.
        num_classes: width of the head; 0 for the class token.
        in_chans: channels of the images.
        drop_rate: dropout before the head.

    Raises:
        ModelError: no blocks, heads that do not fit the width, an unknown split, or images smaller than a patch.
    """

    num_prefix_tokens = 1

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        width: int = 250,
        depth: int = 5,
        num_heads: int = 10,
        *,
        kernel: int = 16,
        stride: int = 4,
        pool: int = 3,
        split: Split = "decreasing",
        use_pos_embed: bool = False,
        plain_stem: bool = False,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.num_features = self.head_hidden_size = self.embed_dim = width
        size = (img_size, img_size) if isinstance(img_size, int) else (int(img_size[0]), int(img_size[1]))
        if plain_stem:
            kernel, stride, pool = stride * pool, stride * pool, 1
        self.patch_embed = PatchProjection(in_chans, width, kernel=kernel, stride=stride, pool=pool)
        self.grid_size = self.patch_embed.grid(size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        positions = torch.zeros(1, 1 + math.prod(self.grid_size), width)
        self.pos_embed = nn.Parameter(positions) if use_pos_embed else None
        shares = attention_channels(width, depth, num_heads, split)
        self.blocks = nn.ModuleList(Block(width, attention, num_heads) for attention in shares)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        self.feature_info = [
            {"num_chs": width, "reduction": stride * pool, "module": f"blocks.{i}"} for i in range(depth)
        ]
        self.apply(_init)
        for tokens in (self.cls_token, self.pos_embed):
            if tokens is not None:
                trunc_normal_(tokens, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone, beside norms and biases."""
        return {"cls_token", "pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """Which parameters belong to which depth, in the convention of timm, for layer-wise rates."""
        return {
            "stem": r"^cls_token|^pos_embed|^patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def get_classifier(self) -> nn.Module:
        """The head: a linear layer, or the identity when `num_classes` is 0."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh head for `num_classes` classes."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        _init(self.head)

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, 1 + h w, D), class token first."""
        patches = self.patch_embed(images)  # (B, D, h, w)
        grid = (patches.shape[2], patches.shape[3])
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        if self.pos_embed is not None:
            tokens = tokens + resample_abs_pos_embed(
                self.pos_embed, list(grid), list(self.grid_size), num_prefix_tokens=1
            )
        for block in self.blocks:
            tokens = block(tokens, grid)
        out: Tensor = self.norm(tokens)
        return out

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, 1 + N, D) -> (B, num_classes), or the class token (B, D) with `pre_logits`."""
        pooled = F.dropout(tokens[:, 0], self.drop_rate, self.training)
        return pooled if pre_logits else self.head(pooled)

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, num_classes)."""
        return self.forward_head(self.forward_features(images))


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.01)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


_SMALL = {"img_size": 32, "kernel": 3, "stride": 1, "pool": 4}
_VARIANTS: dict[str, dict[str, Any]] = {
    "eit_mini": {"width": 250, "depth": 5, "num_heads": 10},
    "eit_tiny": {"width": 330, "depth": 8, "num_heads": 10},
    "eit_base": {"width": 400, "depth": 10, "num_heads": 16},
    "eit_large": {"width": 464, "depth": 12, "num_heads": 16},
    "eit_small": {"width": 250, "depth": 5, "num_heads": 10, **_SMALL},
    "eit_small_w320": {"width": 320, "depth": 5, "num_heads": 10, **_SMALL},
    "eit_small_w144": {"width": 144, "depth": 5, "num_heads": 6, **_SMALL},
    "eit_small_w80": {"width": 80, "depth": 5, "num_heads": 5, **_SMALL},
}


def _cfg(variant: dict[str, object]) -> dict[str, object]:
    small = "img_size" in variant
    return {
        "url": "",
        "num_classes": 100 if small else 1000,
        "input_size": (3, 32, 32) if small else (3, 224, 224),
        "pool_size": None,
        "crop_pct": 1.0 if small else 0.9,
        "interpolation": "bicubic",
        "mean": CIFAR100_MEAN if small else IMAGENET_DEFAULT_MEAN,
        "std": CIFAR100_STD if small else IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs({name: _cfg(variant) for name, variant in _VARIANTS.items()})


def _eit(variant: str, pretrained: bool, kwargs: dict[str, object]) -> nn.Module:
    model: nn.Module = build_model_with_cfg(EIT, variant, pretrained, **{**_VARIANTS[variant], **kwargs})
    return model


@register_model
def eit_mini(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """3.5M parameters at 1000 classes, 224 pixels."""
    return _eit("eit_mini", pretrained, kwargs)


@register_model
def eit_tiny(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """8.9M parameters at 1000 classes, 224 pixels."""
    return _eit("eit_tiny", pretrained, kwargs)


@register_model
def eit_base(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """16.0M parameters at 1000 classes, 224 pixels."""
    return _eit("eit_base", pretrained, kwargs)


@register_model
def eit_large(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """25.3M parameters at 1000 classes, 224 pixels."""
    return _eit("eit_large", pretrained, kwargs)


@register_model
def eit_small(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """`eit_mini` on 32-pixel images: 3.1M parameters."""
    return _eit("eit_small", pretrained, kwargs)


@register_model
def eit_small_w320(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Width 320, 10 heads (ours): 5.0M parameters, to set beside the `_x4` models for small images."""
    return _eit("eit_small_w320", pretrained, kwargs)


@register_model
def eit_small_w144(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Width 144, 6 heads (ours): about 1M parameters."""
    return _eit("eit_small_w144", pretrained, kwargs)


@register_model
def eit_small_w80(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Width 80, 5 heads (ours): about 0.3M parameters, to set beside `cifar_resnet20` and `cifar_vit_patch4`."""
    return _eit("eit_small_w80", pretrained, kwargs)

"""Networks for 32- and 64-pixel images, registered with timm: `timm.create_model("cifar_resnet20", num_classes=10)`.

- `cifar_resnet*`: He et al. 2015 (arXiv 1512.03385), section 4.2: a 3x3 stem, three stages of n basic blocks with 16,
  32 and 64 channels at full, half and quarter resolution, global average, linear head; 6n + 2 layers. Where we differ:
  the shortcut between stages is a 1x1 convolution with BatchNorm (their option B), not a zero-padded identity
  (option A). `_xK` is K times as wide.
- `cifar_vit_patch4*`: timm's `VisionTransformer` (Dosovitskiy et al. 2020, arXiv 2010.11929) on 4x4 patches: 6 blocks,
  class token, heads of width 32. `_xK` is K times as wide. No dropout of any kind unless asked for. `cifar_vit_patch2*`
  is the same on 2x2 patches, a 16x16 grid.
- `cifar_convit*`: timm's `ConVit` (d'Ascoli et al. 2021, arXiv 2103.10697) as wide and deep: gated positional attention
  in the first 4 of 6 blocks, our `GPSA` in timm's place, so that the grid need not be square; 4 heads, a 2x2 kernel.

Module names are timm's (`conv1`, `layer3.1.conv2`, `fc`; `patch_embed.proj`, `blocks.5.attn`, `head`). The default
normalisation is the mean and standard deviation of CIFAR-100's training pixels. No pretrained weights exist.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from timm.layers import create_classifier
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convit import ConVit
from timm.models.resnet import BasicBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fourier_probe.errors import ModelError
from fourier_probe.models.gpsa.attention import swap_convit_

CIFAR100_MEAN = (0.5071, 0.4865, 0.4409)
CIFAR100_STD = (0.2673, 0.2564, 0.2762)


class CifarResNet(nn.Module):
    """Three-stage residual network for small images, (B, C, H, W) -> (B, classes); any H and W.

    Args:
        blocks: basic blocks a stage; the network has 6 * blocks + 2 layers.
        width: channels of the first stage; the next two have twice and four times as many.
        stem_stride: of the first convolution; 2 for stages at half, quarter and eighth resolution (64-pixel images, or
            less of everything).
        num_classes: width of the head; 0 for pooled features.
        in_chans: channels of the images.
        global_pool: `avg`, `max`, ... as in timm; empty for unpooled features (needs `num_classes=0`).
        drop_rate: dropout before the head.
    """

    def __init__(
        self,
        blocks: int = 3,
        width: int = 16,
        stem_stride: int = 1,
        num_classes: int = 100,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.num_features = self.head_hidden_size = 4 * width

        self.conv1 = nn.Conv2d(in_chans, width, 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU(inplace=True)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool)
        self.feature_info = [
            {"num_chs": width, "reduction": stem_stride, "module": "act1"},
            *({"num_chs": width << i, "reduction": stem_stride << i, "module": f"layer{i + 1}"} for i in range(3)),
        ]
        for module in self.modules():  # as He et al. 2015 (arXiv 1502.01852); BatchNorm starts as the identity
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """Which parameters belong to which depth, in the convention of timm, for layer-wise rates."""
        return {"stem": r"^conv1|^bn1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def get_classifier(self) -> nn.Module:
        """The head: a linear layer, or the identity when `num_classes` is 0."""
        head: nn.Module = self.fc
        return head

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        """A fresh head for `num_classes` classes."""
        self.num_classes = num_classes
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool)

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 * width, h, w), the last stage's output; h = ceil(H / 4) with a stem of stride 1."""
        x = self.act1(self.bn1(self.conv1(images)))  # (B, width, H, W)
        features: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, 4 * width, h, w) -> (B, classes), or the pooled features (B, 4 * width) with `pre_logits`."""
        pooled: Tensor = F.dropout(self.global_pool(features), self.drop_rate, self.training)
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes)."""
        return self.forward_head(self.forward_features(images))


def _stage(inputs: int, outputs: int, blocks: int, *, stride: int) -> nn.Sequential:
    """`blocks` basic blocks; the first one changes width and resolution, its shortcut by a 1x1 projection."""
    project = None
    if stride > 1 or inputs != outputs:
        project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
    first = BasicBlock(inputs, outputs, stride=stride, downsample=project)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))


def _cfg(**kwargs: object) -> dict[str, object]:
    return {
        "url": "",
        "num_classes": 100,
        "input_size": (3, 32, 32),
        "pool_size": (8, 8),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": CIFAR100_MEAN,
        "std": CIFAR100_STD,
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
        **kwargs,
    }


def _vit_cfg() -> dict[str, object]:
    return _cfg(pool_size=None, fixed_input_size=True, first_conv="patch_embed.proj", classifier="head")


default_cfgs = generate_default_cfgs(
    {
        "cifar_resnet8": _cfg(),
        "cifar_resnet20": _cfg(),
        "cifar_resnet20_x2": _cfg(),
        "cifar_resnet20_x4": _cfg(),
        "cifar_vit_patch4": _vit_cfg(),
        "cifar_vit_patch4_x2": _vit_cfg(),
        "cifar_vit_patch4_x4": _vit_cfg(),
        "cifar_vit_patch2": _vit_cfg(),
        "cifar_vit_patch2_x2": _vit_cfg(),
        "cifar_vit_patch2_x4": _vit_cfg(),
        "cifar_convit": _vit_cfg(),
        "cifar_convit_x2": _vit_cfg(),
        "cifar_convit_x4": _vit_cfg(),
    }
)


def _resnet(variant: str, pretrained: bool, blocks: int, width: int, kwargs: dict[str, Any]) -> nn.Module:
    shape = {"blocks": blocks, "width": width}
    features = {"out_indices": (0, 1, 2, 3)}
    model: nn.Module = build_model_with_cfg(
        CifarResNet, variant, pretrained, feature_cfg=features, **{**shape, **kwargs}
    )
    return model


def _vit(variant: str, pretrained: bool, width: int, kwargs: dict[str, Any], patch: int = 4) -> nn.Module:
    shape = {"patch_size": patch, "depth": 6, "embed_dim": width, "num_heads": width // 32}
    features = {"out_indices": kwargs.pop("out_indices", 3), "feature_cls": "getter"}
    model: nn.Module = build_model_with_cfg(
        VisionTransformer, variant, pretrained, feature_cfg=features, **{**shape, **kwargs}
    )
    return model


def _convit(variant: str, pretrained: bool, width: int, kwargs: dict[str, Any]) -> nn.Module:
    heads = 4  # timm's `embed_dim` is that of a head
    asked = kwargs.get("num_heads", heads)
    if asked < 1 or math.isqrt(asked) ** 2 != asked:  # timm's layer would leave heads without a tap
        raise ModelError(f"{variant} needs a square number of heads, one a kernel tap (4, 9, 16), got {asked}.")
    shape = {"img_size": 32, "patch_size": 4, "depth": 6, "embed_dim": width // heads, "num_heads": heads}
    model: nn.Module = build_model_with_cfg(ConVit, variant, pretrained, **{**shape, "local_up_to_layer": 4, **kwargs})
    swap_convit_(model)
    return model


@register_model
def cifar_resnet8(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """One block a stage, 0.08M parameters: for tests and demonstrations."""
    return _resnet("cifar_resnet8", pretrained, 1, 16, kwargs)


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """The smallest network of He et al. 2015, table 6: 0.28M parameters."""
    return _resnet("cifar_resnet20", pretrained, 3, 16, kwargs)


@register_model
def cifar_resnet20_x2(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Twice as wide, 1.1M parameters."""
    return _resnet("cifar_resnet20_x2", pretrained, 3, 32, kwargs)


@register_model
def cifar_resnet20_x4(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Four times as wide, 4.4M parameters."""
    return _resnet("cifar_resnet20_x4", pretrained, 3, 64, kwargs)


@register_model
def cifar_vit_patch4(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Width 64, 2 heads: 0.31M parameters, to set beside `cifar_resnet20`."""
    return _vit("cifar_vit_patch4", pretrained, 64, kwargs)


@register_model
def cifar_vit_patch4_x2(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Width 128, 4 heads: 1.2M parameters, to set beside `cifar_resnet20_x2`."""
    return _vit("cifar_vit_patch4_x2", pretrained, 128, kwargs)


@register_model
def cifar_vit_patch4_x4(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Width 256, 8 heads: 4.8M parameters, to set beside `cifar_resnet20_x4`."""
    return _vit("cifar_vit_patch4_x4", pretrained, 256, kwargs)


@register_model
def cifar_vit_patch2(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """`cifar_vit_patch4` on 2x2 patches, a 16x16 grid: 0.32M parameters."""
    return _vit("cifar_vit_patch2", pretrained, 64, kwargs, patch=2)


@register_model
def cifar_vit_patch2_x2(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Width 128, 4 heads: 1.2M parameters."""
    return _vit("cifar_vit_patch2_x2", pretrained, 128, kwargs, patch=2)


@register_model
def cifar_vit_patch2_x4(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Width 256, 8 heads: 4.8M parameters."""
    return _vit("cifar_vit_patch2_x4", pretrained, 256, kwargs, patch=2)


@register_model
def cifar_convit(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Width 64: 0.31M parameters, to set beside `cifar_vit_patch4`."""
    return _convit("cifar_convit", pretrained, 64, kwargs)


@register_model
def cifar_convit_x2(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Width 128: 1.2M parameters."""
    return _convit("cifar_convit_x2", pretrained, 128, kwargs)


@register_model
def cifar_convit_x4(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Width 256: 4.8M parameters."""
    return _convit("cifar_convit_x4", pretrained, 256, kwargs)

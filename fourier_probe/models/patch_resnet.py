"""A small residual network whose score is a sum over windows of known size; registered with timm. Imports errors only.

Made for the planted task (`data.planted`), ours: a stem of one convolution per cell, residual blocks of two pointwise-
normalised convolutions at the resolution of the cells, a global mean, a linear head. Nothing behind the mean is
nonlinear, so the logits are a mean over places of a function of a window. With r 3x3 convolutions behind the stem the
window is 2r + 1 cells wide: two of them see 5x5 cells, and the bounds of `data.planted.BOUNDS` hold in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from fourier_probe.errors import ModelError


class PatchBlock(nn.Module):
    """x + BN(conv2(ReLU(BN(conv1(x))))), then ReLU; (B, C, H, W) -> (B, C, H, W).

    Args:
        width: channels.
        kernels: sides of the two kernels, odd.
    """

    def __init__(self, width: int, kernels: Sequence[int]) -> None:
        super().__init__()
        first, second = kernels
        self.conv1 = nn.Conv2d(width, width, first, padding=first // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, second, padding=second // 2, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out = F.relu(self.bn1(self.conv1(maps)))
        return F.relu(maps + self.bn2(self.conv2(out)))


class PatchResNet(nn.Module):
    """Patch stem, residual blocks, global mean, linear head: (B, C, H, W) -> (B, classes); any H and W.

    Args:
        depth: residual blocks.
        width: channels.
        kernels: sides of the kernels of one block, for every block, or one pair for each.
        patch_size: pixels, side and stride of the stem.
        num_classes: width of the head; 0 for pooled features.
        in_chans: channels of the images.

    Raises:
        ModelError: kernels that are even, or not one pair for each block.
    """

    def __init__(
        self,
        depth: int = 2,
        width: int = 32,
        kernels: Sequence[int] | Sequence[Sequence[int]] = (3, 1),
        patch_size: int = 4,
        num_classes: int = 2,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        pairs = _pairs(kernels, depth)
        self.num_classes, self.in_chans = num_classes, in_chans
        self.num_features = self.head_hidden_size = width
        self.conv1 = nn.Conv2d(in_chans, width, patch_size, stride=patch_size, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(PatchBlock(width, pair) for pair in pairs))
        self.fc = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        self.feature_info = [
            {"num_chs": width, "reduction": patch_size, "module": f"blocks.{index}"} for index in range(depth)
        ]
        for module in self.modules():  # as He et al. 2015 (arXiv 1502.01852)
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """Which parameters belong to which depth, in the convention of timm, for layer-wise rates."""
        return {"stem": r"^conv1|^bn1", "blocks": r"^blocks\.(\d+)"}

    def get_classifier(self) -> nn.Module:
        """The head: a linear layer, or the identity when `num_classes` is 0."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        """A fresh head for `num_classes` classes."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, H / patch, W / patch)."""
        features: Tensor = self.blocks(F.relu(self.bn1(self.conv1(images))))
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, width, h, w) -> (B, classes), or the mean over places (B, width) with `pre_logits`."""
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes)."""
        return self.forward_head(self.forward_features(images))


def _pairs(kernels: Sequence[int] | Sequence[Sequence[int]], depth: int) -> list[tuple[int, int]]:
    """One pair of kernel sides for each block."""
    several = [[k] if isinstance(k, int) else list(k) for k in kernels]
    pairs = several if all(len(pair) == 2 for pair in several) else [[k for pair in several for k in pair]] * depth
    wrong = len(pairs) != depth or any(len(pair) != 2 or min(pair) < 1 or pair[0] * pair[1] % 2 == 0 for pair in pairs)
    if wrong or depth < 1:
        raise ModelError(
            f"patch_resnet: kernels {kernels!r} for {depth} blocks: expected two odd sides, such as (3, 1), or one "
            "pair for each block, such as ((3, 1), (1, 1))."
        )
    return [(pair[0], pair[1]) for pair in pairs]


default_cfgs = generate_default_cfgs(
    {
        "patch_resnet": {
            "url": "",
            "num_classes": 2,
            "input_size": (3, 32, 32),
            "pool_size": (8, 8),
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.35, 0.35, 0.35),
            "first_conv": "conv1",
            "classifier": "fc",
            "license": "apache-2.0",
        }
    }
)


@register_model
def patch_resnet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Two blocks (3x3, 1x1) of width 32 on 4x4 patches, 24,000 parameters: for the planted task."""
    features = {"out_indices": (0, 1), "feature_cls": "hook"}
    model: nn.Module = build_model_with_cfg(PatchResNet, "patch_resnet", pretrained, feature_cfg=features, **kwargs)
    return model

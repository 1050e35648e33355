"""Attention of networks that nobody here wrote: what is one follows from the softmax or the fused call that runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
from torch import nn

from fourier_probe.errors import PointError
from fourier_probe.probe.attention import attention_layers

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 8,
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def hf(model: str, config: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**options))
    return made.eval()


def torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(64, 8, 2, 2, 32, 64).eval()


def vit_pytorch() -> nn.Module:
    from vit_pytorch import ViT

    torch.manual_seed(0)
    made: nn.Module = ViT(image_size=64, patch_size=8, num_classes=5, dim=32, depth=2, heads=2, mlp_dim=64)
    return made.eval()


class Encoder(nn.Module):
    """torch's own encoder, sequence or batch first."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=batch_first)
        self.patches, self.first = nn.Conv2d(3, 32, 8, 8), batch_first
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens."""
        maps = self.patches(images).flatten(2)
        out: torch.Tensor = self.layers(maps.transpose(1, 2) if self.first else maps.permute(2, 0, 1))
        return out


# ruff: noqa: E501
NETWORKS: list[tuple[str, Callable[[], nn.Module], str]] = [
    ("sdpa", lambda: hf("ViTModel", "ViTConfig", **SMALL), "layers.0.attention"),
    ("eager", lambda: hf("ViTModel", "ViTConfig", attn_implementation="eager", **SMALL), "layers.0.attention"),
    ("beit", lambda: hf("BeitModel", "BeitConfig", **SMALL), "layers.0.attention"),
    ("yolos", lambda: hf("YolosModel", "YolosConfig", **{**SMALL, "image_size": [64, 64]}), "encoder.layer.0.attention.attention"),
    ("torchvision", torchvision_vit, "encoder.layers.encoder_layer_0.self_attention"),
    ("vit-pytorch", vit_pytorch, "transformer.layers.0.0"),
    ("batch-first", lambda: Encoder(batch_first=True).eval(), "layers.layers.0.self_attn"),
    ("sequence-first", lambda: Encoder(batch_first=False).eval(), "layers.layers.0.self_attn"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("build", "first"), [row[1:] for row in NETWORKS], ids=[row[0] for row in NETWORKS])
def test_every_layer_is_found_on_its_own_grid(build: Callable[[], nn.Module], first: str) -> None:
    layers, left_out = attention_layers(build(), [torch.randn(2, 3, 64, 64), torch.randn(1, 3, 64, 64)])
    assert [layer.name for layer in layers] == [first, first.replace("0", "1", 1)] and not left_out
    for layer in layers:
        assert layer.grid == (8, 8) and layer.distance.shape == (2,)
        # Random weights: attention is nearly uniform.
        assert layer.distance == pytest.approx([layer.uniform] * 2, rel=0.2)
        assert layer.response[:, 0] == pytest.approx([1.0] * 2)


def test_the_map_is_that_which_transformers_returns() -> None:
    model, image = hf("ViTModel", "ViTConfig", attn_implementation="eager", **SMALL), torch.randn(2, 3, 64, 64)
    layers, _ = attention_layers(model, [image])
    with torch.no_grad():
        maps = model(image, output_attentions=True).attentions
    y = torch.arange(8.0).repeat_interleave(8) * 8
    x = torch.arange(8.0).repeat(8) * 8
    apart = torch.hypot(y[:, None] - y, x[:, None] - x)
    for layer, attention in zip(layers, maps, strict=True):
        A = attention[:, :, 1:, 1:]
        A = A / A.sum(-1, keepdim=True)
        assert layer.distance == pytest.approx((A * apart).sum(-1).mean((0, 2)).numpy(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "args", "reason"),
    [
        ("edgenext_base", 256, {}, "over channels"),
        ("xcit_small_12_p16_224", 96, {"depth": 2}, "over channels"),
        ("xcit_medium_24_p16_224", 128, {"depth": 2}, "over channels"),
        ("davit_tiny", 96, {}, "over channels|windows of 49|padded"),
    ],
)
def test_attention_over_channels_and_windows_is_left_out(name: str, size: int, args: Any, reason: str) -> None:
    with pytest.raises(PointError, match=reason):
        attention_layers(timm.create_model(name, num_classes=2, **args).eval(), [torch.randn(1, 3, size, size)])


def test_a_padded_window_is_no_prefix() -> None:
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

    torch.manual_seed(0)
    model = SwinTransformer([4, 4], 16, [1, 2], [2, 4], [8, 8], num_classes=2, block=SwinTransformerBlockV2,
                            downsample_layer=PatchMergingV2).eval()  # fmt: skip
    with pytest.raises(PointError, match="8x8 tokens where the map has 7x7: a padded window"):
        attention_layers(model, [torch.randn(1, 3, 56, 56)])


@pytest.mark.slow
def test_torchvisions_swin_v2_has_windows_alone() -> None:
    from torchvision.models import swin_v2_t

    torch.manual_seed(0)
    with pytest.raises(PointError, match="windows of 64 tokens"):
        attention_layers(swin_v2_t(weights=None).eval(), [torch.randn(1, 3, 224, 224)])


def test_windows_and_queries_are_left_out_by_name() -> None:
    swin = hf(
        "SwinModel",
        "SwinConfig",
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 4],
        window_size=8,
    )
    layers, left_out = attention_layers(swin, [torch.randn(1, 3, 64, 64)])
    assert [(layer.name, layer.grid) for layer in layers] == [("encoder.layers.1.blocks.0.attention", (8, 8))]
    assert left_out == {"encoder.layers.0.blocks.0.attention": "it works on 4 windows of 64 tokens per image"}
    assert math.isfinite(layers[0].diversity)

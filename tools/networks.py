"""The networks of tools/compatibility.py, and what their code says of each: counted by hand, never by the tool.

`expected` is the number of steps on maps of the main stream: the stem, every residual addition (or block, where blocks
without a shortcut stand among residual ones) and every subsampling between blocks. `why` says how it was counted.
"""

# ruff: noqa: E501
from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from unusual import UNUSUAL

Ends = tuple[tuple[int, int], ...]
PLAIN: Ends = ((0, 0),)
CLASS: Ends = ((1, 0), (0, 0))


@dataclass(frozen=True)
class Network:
    """A network and what its code says.

    Attributes:
        library, name: what it is. build: makes it, with random weights. size: of the image (H, W).
        expected, why: steps, and how they were counted; 0 where the network must be refused, -1 where nothing is
            a stream and that must be said.
        attention: of these steps, how many are attention over positions; None where it was not counted.
        joined: attention steps that reach a new grid, and so count as subsampling.
        ends: leading and trailing tokens that are no positions; the first that leaves a grid holds.
        channels_last: four-dimensional maps are (B, H, W, C) where both readings are possible.
        sequence_first: tokens are (N, B, C).
        folded: maps may lie in windows or in another order, which own reading does not undo.
        channels: of the image.
    """

    library: str
    name: str
    build: Callable[[], nn.Module]
    size: tuple[int, int]
    expected: int
    why: str
    attention: int | None = None
    joined: int = 0
    ends: Ends = PLAIN
    channels_last: bool = False
    sequence_first: bool = False
    folded: bool = False
    channels: int = 3

    @property
    def path(self) -> str:
        """Library and name."""
        return f"{self.library}/{self.name}"


NETWORKS: list[Network] = []

# One network a line.
# fmt: off


def add(
    library: str,
    name: str,
    build: Callable[[], nn.Module],
    size: int | tuple[int, int],
    expected: int,
    why: str,
    **more: Any,
) -> None:
    """Append a network."""
    NETWORKS.append(
        Network(library, name, build, (size, size) if isinstance(size, int) else size, expected, why, **more)
    )


# --- timm ------------------------------------------------------------------------------------------------------------


def timm(
    name: str,
    size: int | tuple[int, int],
    expected: int,
    why: str,
    *,
    label: str = "",
    options: Any = None,
    **more: Any,
) -> None:
    """A network of timm; `options` for its constructor."""

    def build() -> nn.Module:
        library = importlib.import_module("timm")
        made: nn.Module = library.create_model(name, num_classes=7, **(options or {}))
        return made

    add("timm", label or name, build, size, expected, why, **more)


VIT3 = {"img_size": 64, "depth": 3}
timm("vit_tiny_patch16_224", 64, 7, "stem + 2 x 3", attention=3, ends=CLASS, options=VIT3)
timm("vit_tiny_patch16_224", (64, 96), 7, "stem + 2 x 3", label="vit_tiny_patch16_224 at 64x96", attention=3, ends=CLASS, options={**VIT3, "img_size": (64, 96)})
timm("vit_small_patch14_reg4_dinov2", 112, 7, "stem + 2 x 3", attention=3, ends=((5, 0),), options={"img_size": 112, "depth": 3})
timm("vit_base_patch16_siglip_224", 64, 5, "stem + 2 x 2; the pooling's query is no map", attention=2, options={"img_size": 64, "depth": 2})
timm("deit_tiny_distilled_patch16_224", 64, 7, "stem + 2 x 3", attention=3, ends=((2, 0),), options=VIT3)
timm("deit3_small_patch16_224", 64, 7, "stem + 2 x 3", attention=3, ends=CLASS, options=VIT3)
timm("beit_base_patch16_224", 64, 5, "stem + 2 x 2", attention=2, ends=CLASS, options={"img_size": 64, "depth": 2})
timm("eva02_tiny_patch14_224", 56, 7, "stem + 2 x 3", attention=3, ends=CLASS, options={"img_size": 56, "depth": 3})
timm("vit_small_patch16_18x2_224", 64, 7, "stem + 2 x 3: two attentions in parallel are one addition", attention=3, ends=CLASS, options=VIT3)
timm("vit_pwee_patch16_reg1_gap_256", 64, 4, "stem + 3: attention and MLP in one addition", attention=3, ends=((1, 0),), options=VIT3)
timm("vit_medium_patch16_rope_reg1_gap_256", 64, 5, "stem + 2 x 2", attention=2, ends=((1, 0),), options={"img_size": 64, "depth": 2})
timm("vit_relpos_small_patch16_224", 64, 7, "stem + 2 x 3", attention=3, options=VIT3)
timm("samvit_base_patch16", 128, 5, "stem + 2 x 2", attention=2, channels_last=True, options={"img_size": 128, "depth": 2})
timm("naflexvit_base_patch16_gap", 128, 7, "stem + 2 x 3", attention=3, ends=((4, 0), (0, 0)), options={"depth": 3})
timm("cait_xxs24_224", 64, 7, "stem + 2 x 3; class attention has no map", attention=3, options=VIT3)
timm("xcit_nano_12_p16_224", 64, 10, "stem + 3 x 3; attention is over channels", ends=CLASS, options=VIT3)
timm("convit_tiny", 64, 9, "stem + 2 x 4", attention=4, ends=CLASS, options={"img_size": 64, "depth": 4, "local_up_to_layer": 2})
timm("tnt_s_legacy_patch16_224", 64, 13, "stem + 2 x 3 outer, + 2 x 3 inner of pixels in patches", ends=CLASS, options=VIT3)
timm("crossvit_tiny_240", 240, 31, "stem + 2 x 3 x (1 + 4 blocks of two streams); what joins them changes the class tokens alone", ends=CLASS)
timm("swin_tiny_patch4_window7_224", 112, 14, "stem + 2 x 6 + 1", attention=6, channels_last=True, options={"img_size": 112, "depths": (2, 4), "num_heads": (3, 6)})
timm("swinv2_tiny_window8_256", 128, 10, "stem + 2 x 4 + 1", attention=4, channels_last=True, options={"img_size": 128, "depths": (2, 2), "num_heads": (3, 6)})
timm("swinv2_cr_tiny_ns_224", 112, 10, "stem + 2 x 4 + 1", attention=4, channels_last=True, options={"img_size": 112, "depths": (2, 2), "num_heads": (3, 6)})
timm("swin_tiny_patch4_window7_224", (112, 168), 10, "stem + 2 x 4 + 1", label="swin_tiny at 112x168", attention=4, channels_last=True, options={"img_size": (112, 168), "depths": (2, 2), "num_heads": (3, 6)})
timm("pit_ti_224", 224, 27, "stem + 2 x 12 + 2", attention=12, ends=CLASS)
timm("mixer_s32_224", 224, 17, "stem + 2 x 8", attention=0)
timm("resmlp_12_224", 224, 25, "stem + 2 x 12", attention=0)
timm("gmlp_ti16_224", 224, 31, "stem + 30", attention=0)
timm("convmixer_768_32", 56, 33, "stem + 32: the 1x1 convolution is outside of the addition", attention=0)
timm("convnext_atto", 96, 16, "stem + 12 + 3", attention=0)
timm("convnextv2_atto", 96, 16, "stem + 12 + 3", attention=0)
timm("resnet18", 96, 9, "stem + 8", attention=0)
timm("resnet50", 96, 17, "stem + 16", attention=0)
timm("resnetv2_50", 96, 17, "stem + 16", attention=0)
timm("seresnet18", 96, 9, "stem + 8", attention=0)
timm("resnest14d", 96, 5, "stem + 4", attention=0)
timm("botnet26t_256", 256, 9, "stem + 8; two blocks attend", joined=0)
timm("res2net50_26w_4s", 96, 17, "stem + 16", attention=0)
timm("regnety_002", 96, 14, "stem + 13", attention=0)
timm("efficientnet_b0", 96, 17, "stem + 16 blocks", attention=0)
timm("mobilenetv2_100", 96, 18, "stem + 17 blocks", attention=0)
timm("mobilenetv3_small_100", 96, 13, "stem + 12 blocks", attention=0)
timm("mobilenetv4_conv_small", 96, 18, "stem + 17 blocks", attention=0)
timm("ghostnet_050", 96, 18, "stem + 17 blocks", attention=0)
timm("lcnet_050", 96, 27, "1 + 2 x 13 convolutions: nothing is added", attention=0)
timm("densenet121", 96, 62, "stem + 58 dense layers + 3", attention=0)
timm("vgg11", 96, 13, "8 convolutions + 5 poolings", attention=0)
timm("inception_v3", 128, 12, "stem + 11 mixed blocks", attention=0)
timm("dla34", 96, 13, "stem + 2 + 4 + 4 + 2", attention=0)
timm("hrnet_w18_small", 128, 24, "stem + 1 + 4 + 6 + 8 + 4 blocks; what joins the resolutions is no residual addition", attention=0)
timm("cspresnet50", 96, 17, "stem + 13 blocks + 3", attention=0)
timm("maxvit_pico_rw_256", 256, 56, "stem + 11 x (1 + 2 + 2)", attention=22, channels_last=True)
timm("coatnet_pico_rw_224", 224, 20, "stem + 5 + 2 x 7", joined=2, attention=7)
timm("edgenext_xx_small", 96, 16, "stem + 12 + 3; the attention is inside a branch")
timm("davit_tiny", 112, 52, "stem + 6 x 2 x 4 + 3", channels_last=True)
timm("levit_128s", 224, 21, "stem + 2 x 9 + 2", ends=PLAIN)
timm("coat_lite_tiny", 224, 28, "stem + 8 x (1 position generator + 2) + 3", ends=CLASS)
timm("twins_pcpvt_small", 128, 40, "stem + 2 x 16 + 4 position generators + 3", attention=None)
timm("twins_svt_small", 224, 1 + 2 * 18 + 4 + 3, "stem + 2 x 18 + 4 position generators + 3", attention=None)
timm("pvt_v2_b0", 128, 20, "stem + 2 x 8 + 3", attention=8, channels_last=False)
timm("poolformer_s12", 128, 28, "stem + 2 x 12 + 3", attention=0)
timm("caformer_s18", 128, 40, "stem + 2 x 18 + 3", attention=12)
timm("nest_tiny", 224, 27, "stem + 2 x 12 + 2", attention=12, folded=True)
timm("focalnet_tiny_srf", 128, 28, "stem + 2 x 12 + 3", channels_last=True)
timm("volo_d1_224", 224, 38, "stem + 2 x 18 + 1", channels_last=True, ends=CLASS)
timm("visformer_tiny", 224, 1 + 7 + 2 * 8 + 2, "stem + 7 + 2 x 8 + 2", attention=8)
timm("mobilevit_xxs", 128, 29, "stem + 7 + 2 x (2 + 4 + 3) + 3", folded=True)
timm("mobilevitv2_050", 128, 28, "stem + 6 + 2 x (2 + 4 + 3) + 3", folded=True)
timm("efficientformer_l1", 224, 34, "stem + 2 x 15 + 3", ends=PLAIN)
timm("efficientformerv2_s0", 224, 22, "stem + 14 + 4 + 3", attention=4)
timm("efficientvit_m0", 224, 41, "stem + 6 x 5 + 2 x (2 + 1 + 2)", attention=6 )
timm("efficientvit_b0", 128, 16, "stem + 1 + 2 + 2 + 2 x (1 + 2 x 2)")
timm("repvit_m0_9", 96, 27, "stem + 20 + 3 x 2 in the subsamplings", attention=0)
timm("fastvit_t8", 128, 30, "3 + 2 x 10 + 2 x 3 + 1 re-parametrised layers", attention=0)
timm("gcvit_xxtiny", 224, 1 + 24 + 4 + 4, "stem + 2 x 12 + 4 + 4", attention=12, channels_last=True)
timm("hiera_tiny_224", 224, 25, "stem + 2 x 12", attention=9, folded=True)
timm("mvitv2_tiny", 224, 21, "stem + 2 x 10", joined=3)
timm("hieradet_small", 256, 33, "stem + 2 x 16", joined=3, channels_last=True)
timm("sequencer2d_s", 224, 38, "stem + 2 x 18 + 1", attention=0, channels_last=True)
timm("vitamin_small_224", 224, 36, "stem + 6 + 2 x 14 + 1")
timm("starnet_s1", 96, 19, "stem + 15 + 3", attention=0)
timm("inception_next_tiny", 96, 22, "stem + 18 + 3", attention=0)
timm("rdnet_tiny", 96, 25, "stem + 7 x 3 dense layers + 3", attention=0)
timm("mambaout_femto", 96, 1 + 18 + 3, "stem + 18 + 3", attention=0, channels_last=True)
timm("nextvit_small", 224, 45, "stem + 2 x 16 + 3 x 4")
timm("tiny_vit_5m_224", 224, 26, "stem + 2 + 2 x 10 + 3", attention=10)
timm("swiftformer_xs", 224, 28, "stem + 12 + 4 x 3 + 3")
timm("shvit_s1", 224, 42, "stem + 2 x 2 + 9 x 3 + 2 x (2 + 1 + 2)")
timm("fasternet_t0", 96, 1 + 13 + 3, "stem + 13 + 3", attention=0)
timm("hgnetv2_b0", 96, 9, "stem + 5 blocks + 3", attention=0)
timm("gernet_s", 96, 15, "stem + 14", attention=0)
timm("nfnet_f0", 96, 13, "stem + 12", attention=0)
timm("xception41", 96, 14, "stem + 13", attention=0)
timm("dpn68", 96, 23, "stem + 3 + 4 + 12 + 3", attention=0)
timm("vovnet39a", 96, 10, "stem + 6 + 3", attention=0)


# --- vit-pytorch -----------------------------------------------------------------------------------------------------

SMALL = {"num_classes": 5, "dim": 32, "depth": 3, "heads": 2, "mlp_dim": 64}
PATCHED = {**SMALL, "image_size": 64, "patch_size": 8}
SEVEN = "stem + 2 x 3"


def lucid(
    module: str,
    name: str,
    expected: int,
    why: str,
    *,
    size: int | tuple[int, int] = 64,
    options: Any = None,
    label: str = "",
    **more: Any,
) -> None:
    """A network of vit-pytorch."""

    def build() -> nn.Module:
        made: nn.Module = getattr(importlib.import_module(f"vit_pytorch.{module}"), name)(
            **(PATCHED if options is None else options)
        )
        return made

    add("vit-pytorch", label or f"{module}.{name}", build, size, expected, why, **more)


def without(options: dict[str, Any], *names: str) -> dict[str, Any]:
    """Options but these."""
    return {name: value for name, value in options.items() if name not in names}


lucid("vit", "ViT", 7, SEVEN, attention=3, ends=CLASS)
lucid("vit", "ViT", 7, SEVEN, attention=3, ends=CLASS, label="vit.ViT at 48x80", size=(48, 80), options={**PATCHED, "image_size": (48, 80)})
lucid("simple_vit", "SimpleViT", 7, SEVEN, attention=3)
lucid("simple_flash_attn_vit", "SimpleViT", 7, SEVEN, attention=3)
lucid("simple_vit_with_register_tokens", "SimpleViT", 7, SEVEN + "; 4 registers behind", attention=3, ends=((0, 4),))
lucid("simple_vit_with_qk_norm", "SimpleViT", 7, SEVEN, attention=3)
lucid("simple_vit_with_value_residual", "SimpleViT", 7, SEVEN, attention=3)
lucid("simple_vit_with_relative_proj_pos_bias", "SimpleViT", 7, SEVEN, attention=3)
lucid("simple_vit_with_fft", "SimpleViT", 7, "1 + 2 x 3; the image and its FFT are in one sequence", options={**PATCHED, "freq_patch_size": 8}, ends=((64, 0), (0, 0)))
lucid("simple_vit_with_patch_dropout", "SimpleViT", 7, SEVEN, attention=3)
lucid("simple_vit_with_specialized_cls", "SimpleViT", 7, SEVEN, attention=3, ends=((1, 0),), options={**PATCHED, "specialize_qkv_depth": 1})
lucid("simple_vit_with_sparse_gating", "SimpleViTWithSparseGating", 7, SEVEN + "; 4 registers before", attention=3, ends=((4, 0),))
lucid("simple_vit_with_hyper_connections", "SimpleViT", 7, "stem + 2 x 3 over 2 residual streams", ends=((0, 4), (0, 0)), options={**PATCHED, "num_residual_streams": 2})
lucid("simple_vit_orthog_residual_update", "SimpleViT", 7, SEVEN, attention=3)
lucid("simple_vit_attn_residual", "SimpleViTAttnResidual", -1, "attention over the layers in place of additions: nothing is a stream", ends=PLAIN)
lucid("simple_uvit", "SimpleUViT", 9, "stem + 2 x 4; 4 registers behind", attention=4, ends=((0, 4),), options={**PATCHED, "depth": 4})
lucid("deepvit", "DeepViT", 7, SEVEN, attention=3, ends=CLASS)
lucid("cait", "CaiT", 7, SEVEN + "; class attention has no map", attention=3, options={**PATCHED, "cls_depth": 1})
lucid("t2t", "T2TViT", 10, "stem + 2 + 1 + 2 x 3", ends=CLASS, options={**without(PATCHED, "patch_size"), "t2t_layers": ((7, 4), (3, 2))})
lucid("cvt", "CvT", 11, "stem + 2 x 4 + 2", attention=4, options={"num_classes": 5, "s1_emb_dim": 16, "s1_depth": 1, "s2_emb_dim": 24, "s2_depth": 1, "s2_heads": 2, "s3_emb_dim": 32, "s3_depth": 2, "s3_heads": 2})
lucid("cct", "CCT", 7, SEVEN, attention=3, options={"img_size": 64, "embedding_dim": 32, "num_layers": 3, "num_heads": 2, "mlp_ratio": 2.0, "num_classes": 5})
lucid("cross_vit", "CrossViT", 17, "stem + 2 streams x 2 x 2 x 2; what joins them changes the class tokens alone", ends=CLASS, options={"image_size": 96, "num_classes": 5, "depth": 2, "sm_dim": 32, "sm_patch_size": 8, "sm_enc_depth": 2, "sm_enc_heads": 2, "sm_enc_mlp_dim": 64, "lg_dim": 48, "lg_patch_size": 16, "lg_enc_depth": 2, "lg_enc_heads": 2, "lg_enc_mlp_dim": 64, "cross_attn_depth": 1, "cross_attn_heads": 2}, size=96)
lucid("crossformer", "CrossFormer", 24, "stem + 4 x 5 + 3", attention=None, size=224, options={"num_classes": 5, "dim": (64, 64, 64, 64), "depth": (1, 1, 2, 1), "global_window_size": (8, 4, 2, 1), "local_window_size": 7})
lucid("jet_vit", "JetViT", 7, SEVEN, options={**PATCHED, "dim": 64, "window_size": 4})
lucid("jumbo_vit", "JumboViT", 10, "stem + 2 x 3, and 3 of the wide class token, which has no map", attention=3, ends=((4, 0), (0, 0)), options={**PATCHED, "jumbo_cls_k": 4})
lucid("learnable_memory_vit", "ViT", 7, SEVEN, attention=3, ends=((1, 0),))
lucid("levit", "LeViT", 15, "stem + 2 x 2 x 3 + 2 (the MLP after a shrinking attention)", size=224, options={"image_size": 224, "num_classes": 5, "stages": 3, "dim": (32, 48, 64), "depth": 2, "heads": (2, 3, 4), "mlp_mult": 2})
lucid("look_vit", "LookViT", 11, "stem + 2 x (3 on tokens + 2 on fine tokens)", attention=6, options={"image_size": 64, "num_classes": 5, "dim": 32, "depth": 2, "heads": 2, "patch_size": 16, "highres_patch_size": 8, "cross_attn_heads": 2})
lucid("looped_vit", "LoopedViT", 15, "stem + 2 x (1 + 2 x 2 + 2)", ends=CLASS, options={**without(PATCHED, "depth"), "pre_loop_depth": 1, "num_looped_blocks": 2, "post_loop_depth": 2, "loop_depth": 2})
lucid("max_vit", "MaxViT", 21, "stem + 4 x (1 + 2 + 2)", folded=True, size=224, options={"num_classes": 5, "dim": 16, "depth": (1, 1, 1, 1), "dim_head": 8, "dim_conv_stem": 8, "window_size": 7})
lucid("max_vit_with_registers", "MaxViT", 17, "stem + 4 x (2 + 2): a shrinking convolution adds nothing", ends=((4, 0), (0, 0)), folded=True, size=224, options={"num_classes": 5, "dim": 16, "depth": (1, 1, 1, 1), "dim_head": 8, "dim_conv_stem": 8, "window_size": 7, "num_register_tokens": 4})
lucid("mobile_vit", "MobileViT", 29, "stem + 7 MV2 blocks + 2 x (2 + 4 + 3) + 3 MobileViT blocks", folded=True, size=128, options={"image_size": (128, 128), "dims": [24, 32, 40], "channels": [8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 96], "num_classes": 5})
lucid("nest", "NesT", 13, "stem + 2 x 5 + 2", size=64, folded=True, options={"image_size": 64, "patch_size": 4, "num_classes": 5, "dim": 16, "heads": 2, "num_hierarchies": 3, "block_repeats": (1, 2, 2)})
lucid("normalized_vit", "nViT", 7, "stem + 2 x 3: interpolated, not added", options=PATCHED)
lucid("parallel_vit", "ViT", 7, SEVEN + ": two branches are one addition", attention=3, ends=CLASS)
lucid("pit", "PiT", 9, "stem + 2 x 3 + 2", ends=CLASS, options={**PATCHED, "depth": (1, 1, 1), "patch_size": 7, "image_size": 63}, size=63)
lucid("regionvit", "RegionViT", 19, "stem + 4 x (regions, windows with their region, MLP) + 2 x 3", size=224, options={"dim": (16, 24, 32, 48), "depth": (1, 1, 1, 1), "window_size": 7, "num_classes": 5, "tokenize_local_3_conv": False})
lucid("rvt", "RvT", 7, SEVEN, attention=3, ends=CLASS)
lucid("scalable_vit", "ScalableViT", 24, "stem + 4 x (4 + 1 position generator) + 3", size=256, options={"num_classes": 5, "dim": 16, "heads": (1, 2, 2, 2), "depth": (1, 1, 1, 1), "reduction_factor": (8, 4, 2, 1), "window_size": (64, 32, None, None)})
lucid("sep_vit", "SepViT", 16, "stem + 2 x 4 + 4 + 3", size=224, options={"num_classes": 5, "dim": 16, "dim_head": 8, "heads": (1, 2, 2, 2), "depth": (1, 1, 1, 1), "window_size": 7})
lucid("twins_svt", "TwinsSVT", 36, "stem + 3 x (4 + 4) + (2 + 2, no local attention) + 4 position generators + 3", size=224, options={"num_classes": 5, "s1_emb_dim": 16, "s2_emb_dim": 24, "s3_emb_dim": 32, "s4_emb_dim": 40, "s3_depth": 1, "s4_depth": 1})
lucid("vit_5", "ViT", 7, SEVEN, attention=3, ends=((5, 0), (4, 0), (1, 0)))
lucid("vit_detpool", "ViTDetPool", 7, SEVEN, attention=3, ends=((1, 0),))
lucid("vit_for_small_dataset", "ViT", 7, SEVEN, attention=3, ends=CLASS)
lucid("vit_nd", "ViTND", 7, SEVEN, attention=3, ends=((1, 0),), options={**SMALL, "ndim": 2, "input_shape": 64, "patch_size": 8})
lucid("vit_nd_rotary", "ViTND", 7, SEVEN, attention=3, options={**SMALL, "ndim": 2, "input_shape": 64, "patch_size": 8})
lucid("vit_with_decorr", "ViT", 7, SEVEN, attention=3, ends=CLASS)
lucid("vit_with_keel_post_ln", "ViT", 7, SEVEN, attention=3, ends=CLASS)
lucid("vit_with_patch_dropout", "ViT", 7, SEVEN, attention=3, ends=CLASS)
lucid("vit_with_patch_merger", "ViT", 7, "stem + 2 x 3, the last 4 of merged tokens", options={**PATCHED, "patch_merge_layer": 1})
lucid("xcit", "XCiT", 10, "stem + 3 x 3", ends=PLAIN, options={**PATCHED, "cls_depth": 1})
lucid("mp3", "ViT", 7, SEVEN, attention=3)
lucid("vat", "ViT", 7, SEVEN, attention=3, ends=((2, 0), (1, 0), (0, 0)))
lucid("attn_residual_with_dca_simple_vit", "SimpleViT", 7, "stem + 2 x 3: to a mixture of what was before, then to itself", attention=3)
lucid("ats_vit", "ViT", 5, "stem + 2 + 1 + 1: the other attentions add to a sampled copy", ends=CLASS, options={**PATCHED, "max_tokens_per_depth": (64, 32, 16)})
lucid("na_vit", "NaViT", 0, "takes a list of images")
lucid("vit_1d", "ViT", 0, "one-dimensional", options={**SMALL, "seq_len": 64, "patch_size": 8})
lucid("vit_3d", "ViT", 0, "video", options={**SMALL, "image_size": 64, "image_patch_size": 8, "frames": 4, "frame_patch_size": 2})
lucid("vivit", "ViViT", 0, "video", options={**without(PATCHED, "depth", "patch_size"), "image_patch_size": 8, "frames": 4, "frame_patch_size": 2, "spatial_depth": 2, "temporal_depth": 2})


# --- torchvision -----------------------------------------------------------------------------------------------------


def vision(
    name: str, size: int | tuple[int, int], expected: int, why: str, *, options: Any = None, **more: Any
) -> None:
    """A network of torchvision."""

    def build() -> nn.Module:
        made: nn.Module = importlib.import_module("torchvision.models").get_model(name, weights=None, **(options or {}))
        return made

    add("torchvision", name, build, size, expected, why, **more)


vision("resnet18", 64, 9, "stem + 8", attention=0)
vision("resnext50_32x4d", 64, 17, "stem + 16", attention=0)
vision("alexnet", 128, 8, "5 convolutions + 3 poolings", attention=0)
vision("vgg11_bn", 64, 13, "8 convolutions + 5 poolings", attention=0)
vision("squeezenet1_1", 128, 11, "stem + 8 fire modules + 2", attention=0)
vision("googlenet", 128, 12, "stem + 9 mixed blocks + 2", attention=0, options={"init_weights": False})
vision("densenet121", 64, 62, "stem + 58 dense layers + 3", attention=0)
vision("mobilenet_v2", 64, 18, "stem + 17 blocks", attention=0)
vision("mobilenet_v3_small", 64, 12, "stem + 11 blocks", attention=0)
vision("mnasnet0_5", 64, 17, "stem + 16 blocks", attention=0)
vision("shufflenet_v2_x0_5", 64, 17, "stem + 16 units, joined by channels", attention=0)
vision("efficientnet_b0", 64, 17, "stem + 16 blocks", attention=0)
vision("efficientnet_v2_s", 64, 41, "stem + 40 blocks", attention=0)
vision("regnet_y_400mf", 64, 17, "stem + 16", attention=0)
vision("convnext_tiny", 64, 22, "stem + 18 + 3", attention=0)
vision("vit_b_16", 224, 25, "stem + 2 x 12", attention=12, ends=CLASS)
vision("swin_t", 224, 28, "stem + 2 x 12 + 3", attention=12, channels_last=True)
vision("swin_v2_t", 224, 28, "stem + 2 x 12 + 3", attention=12, channels_last=True)
vision("maxvit_t", 224, 56, "stem + 11 x (1 + 2 + 2)", folded=True)
vision("fcn_resnet50", 96, 17, "stem + 16; the head adds nothing", attention=0, options={"weights_backbone": None})
vision("deeplabv3_mobilenet_v3_large", 96, 16, "stem + 15 blocks", attention=0, options={"weights_backbone": None})
vision("lraspp_mobilenet_v3_large", 96, 17, "stem + 15 blocks + 1 of the head", attention=0, options={"weights_backbone": None})
vision("fasterrcnn_mobilenet_v3_large_fpn", 96, 17, "stem + 15 blocks + the pyramid", options={"weights_backbone": None, "min_size": 96, "max_size": 96})
vision("r3d_18", 64, 0, "video")
vision("raft_small", 128, 0, "takes two images")

# --- transformers ----------------------------------------------------------------------------------------------------

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 8,
}


def hf(
    model: str,
    config: str,
    size: int | tuple[int, int],
    expected: int,
    why: str,
    options: Any = None,
    *,
    label: str = "",
    **more: Any,
) -> None:
    """A network of transformers from a configuration; nothing is downloaded."""

    def build() -> nn.Module:
        library = importlib.import_module("transformers")
        made: nn.Module = getattr(library, model)(getattr(library, config)(**(options or {})))
        return made

    add("transformers", label or model, build, size, expected, why, **more)


def tiny(
    model: str,
    config: str,
    ends: Ends = CLASS,
    expected: int = 7,
    why: str = SEVEN,
    attention: int | None = 3,
    **options: Any,
) -> None:
    """A plain vision transformer of transformers."""
    hf(model, config, 64, expected, why, {**TINY, **options}, attention=attention, ends=ends)


tiny("ViTModel", "ViTConfig")
tiny("ViTForImageClassification", "ViTConfig")
tiny("DeiTModel", "DeiTConfig", ((2, 0),))
tiny("BeitModel", "BeitConfig")
tiny("Data2VecVisionModel", "Data2VecVisionConfig")
tiny("Dinov2Model", "Dinov2Config", mlp_ratio=2)
tiny("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", ((5, 0),), mlp_ratio=2)
tiny("DINOv3ViTModel", "DINOv3ViTConfig", ((5, 0),), num_register_tokens=4)
tiny("SiglipVisionModel", "SiglipVisionConfig", PLAIN)
tiny("CLIPVisionModel", "CLIPVisionConfig")
tiny("ChineseCLIPVisionModel", "ChineseCLIPVisionConfig")
tiny("AltCLIPVisionModel", "AltCLIPVisionConfig")
tiny("CLIPSegVisionModel", "CLIPSegVisionConfig")
tiny("OwlViTVisionModel", "OwlViTVisionConfig")
tiny("BlipVisionModel", "BlipVisionConfig")
tiny("Blip2VisionModel", "Blip2VisionConfig")
tiny("GitVisionModel", "GitVisionConfig")
tiny("FlavaImageModel", "FlavaImageConfig")
tiny("IJepaModel", "IJepaConfig", PLAIN)
tiny("ViTMSNModel", "ViTMSNConfig")
hf("VitDetModel", "VitDetConfig", 64, 7, SEVEN, {**without(TINY, "intermediate_size"), "mlp_ratio": 2, "window_size": 4, "window_block_indices": [0]}, attention=3, folded=True, channels_last=True)
tiny("YolosModel", "YolosConfig", ((1, 10),), image_size=[64, 64], num_detection_tokens=10)
tiny("DPTModel", "DPTConfig")
tiny("ViTMAEModel", "ViTMAEConfig", mask_ratio=0.75)
tiny("Aimv2VisionModel", "Aimv2VisionConfig", PLAIN)
tiny("InternVLVisionModel", "InternVLVisionConfig", image_size=[64, 64], patch_size=[8, 8])
tiny("PixtralVisionModel", "PixtralVisionConfig", PLAIN)
tiny("SegGptModel", "SegGptConfig", expected=0, why="takes a prompt image", attention=None)
hf("VitPoseBackbone", "VitPoseBackboneConfig", 64, 7, SEVEN, {**without(TINY, "intermediate_size"), "image_size": [64, 64], "patch_size": [8, 8], "mlp_ratio": 2}, attention=3)
hf("VJEPA2Model", "VJEPA2Config", 64, 0, "video", {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "crop_size": 64, "patch_size": 8, "pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2})
hf("VivitModel", "VivitConfig", 64, 0, "video", {**TINY, "num_frames": 4, "tubelet_size": [2, 8, 8]})
hf("TimesformerModel", "TimesformerConfig", 64, 0, "video", {**TINY, "num_frames": 4})
hf("SwinModel", "SwinConfig", 64, 10, "stem + 2 x 4 + 1", {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}, attention=4)
hf("Swinv2Model", "Swinv2Config", 64, 10, "stem + 2 x 4 + 1", {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}, attention=4)
hf("DonutSwinModel", "DonutSwinConfig", 64, 10, "stem + 2 x 4 + 1", {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}, attention=4)
hf("Swin2SRModel", "Swin2SRConfig", 64, 12, "stem + 2 x 4 + 2 of the groups + 1 of the whole", {"image_size": 64, "patch_size": 1, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 8})
hf("HieraModel", "HieraConfig", 64, 11, "stem + 2 x 5", {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 2, 2], "num_heads": [1, 2, 4], "num_query_pool": 2}, folded=True)
hf("ConvNextModel", "ConvNextConfig", 96, 9, "stem + 5 + 3", {"depths": [2, 1, 1, 1], "hidden_sizes": [24, 32, 40, 64]}, attention=0)
hf("ConvNextV2Model", "ConvNextV2Config", 96, 9, "stem + 5 + 3", {"depths": [2, 1, 1, 1], "hidden_sizes": [16, 32, 40, 64]}, attention=0)
hf("DINOv3ConvNextModel", "DINOv3ConvNextConfig", 96, 9, "stem + 5 + 3", {"depths": [2, 1, 1, 1], "hidden_sizes": [16, 32, 40, 64]}, attention=0)
hf("ResNetModel", "ResNetConfig", 64, 6, "stem + 5", {"depths": [2, 1, 1, 1], "hidden_sizes": [16, 24, 32, 40], "embedding_size": 8}, attention=0)
hf("BitModel", "BitConfig", 64, 6, "stem + 5", {"depths": [2, 1, 1, 1], "hidden_sizes": [128, 128, 256, 256], "embedding_size": 32}, attention=0)
hf("RegNetModel", "RegNetConfig", 64, 6, "stem + 5", {"depths": [2, 1, 1, 1], "hidden_sizes": [16, 24, 32, 40], "embedding_size": 8, "groups_width": 8}, attention=0)
hf("MobileNetV1Model", "MobileNetV1Config", 64, 27, "1 + 2 x 13 convolutions: nothing is added", {"depth_multiplier": 0.25}, attention=0)
hf("MobileNetV2Model", "MobileNetV2Config", 64, 17, "stem + 16 blocks", {"depth_multiplier": 0.35}, attention=0)
hf("MobileViTModel", "MobileViTConfig", 64, 26, "stem + 7 + 2 x (2 + 4 + 3); what joins a stage is no addition", {"image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 8, 12, 16, 20, 24, 32], "num_attention_heads": 2}, folded=True)
hf("MobileViTV2Model", "MobileViTV2Config", 64, 25, "stem + 6 + 2 x (2 + 4 + 3)", {"image_size": 64, "base_attn_unit_dims": [16, 24, 32]}, folded=True)
hf("PoolFormerModel", "PoolFormerConfig", 64, 12, "stem + 2 x 4 + 3", {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 40]}, attention=0)
hf("PvtModel", "PvtConfig", 64, 12, "stem + 2 x 4 + 3", {"image_size": 64, "depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 40], "num_attention_heads": [1, 2, 2, 4]}, ends=CLASS)
hf("PvtV2Model", "PvtV2Config", 64, 12, "stem + 2 x 4 + 3", {"image_size": 64, "depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 40], "num_attention_heads": [1, 2, 2, 4]})
hf("SegformerModel", "SegformerConfig", 64, 12, "stem + 2 x 4 + 3", {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 40], "num_attention_heads": [1, 2, 2, 4]}, attention=4)
hf("GLPNModel", "GLPNConfig", 64, 12, "stem + 2 x 4 + 3", {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 40], "num_attention_heads": [1, 2, 2, 4]}, attention=4)
hf("CvtModel", "CvtConfig", 64, 15, "stem + 2 x 6 + 2", {"embed_dim": [16, 24, 32], "depth": [1, 2, 3], "num_heads": [1, 2, 2], "patch_sizes": [7, 3, 3], "mlp_ratio": [2.0, 2.0, 2.0]}, ends=CLASS)
hf("LevitModel", "LevitConfig", 224, 17, "stem + 2 x 6 + 2 x (shrinking attention, MLP)", {"image_size": 224, "hidden_sizes": [16, 32, 48], "depths": [2, 2, 2], "num_attention_heads": [2, 2, 2], "key_dim": [8, 8, 8]})
hf("FocalNetModel", "FocalNetConfig", 64, 12, "stem + 2 x 4 + 3", {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1]})
hf("EfficientNetModel", "EfficientNetConfig", 64, 17, "stem + 16 blocks", {"width_coefficient": 0.5, "depth_coefficient": 1.0, "hidden_dim": 640}, attention=0)
hf("HGNetV2Backbone", "HGNetV2Config", 64, 10, "stem + 6 blocks + 3", attention=0)
hf("SwiftFormerModel", "SwiftFormerConfig", 64, 17, "stem + 1 + 4 x 3 + 3", {"image_size": 64, "depths": [2, 1, 1, 1], "embed_dims": [16, 24, 32, 40]})
hf("TextNetModel", "TextNetConfig", 64, 16, "stem + 3 + 4 + 4 + 4 re-parametrised layers", {"image_size": [64, 64]})
hf("SamVisionModel", "SamVisionConfig", 64, 5, "stem + 2 x 2", {"hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 8, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 64}, attention=2, channels_last=True)
hf("PPLCNetBackbone", "PPLCNetConfig", 64, 27, "1 + 2 x 13 convolutions: nothing is added", {"scale": 0.5}, attention=0)
hf("TimmWrapperModel", "TimmWrapperConfig", 64, 9, "stem + 8", {"architecture": "resnet18"}, attention=0)
hf("DetrModel", "DetrConfig", 320, 25, "stem + 16 + 2 x 2 in the encoder + 4 of the decoder on object queries", {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_config": None, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32})
hf("CLIPModel", "CLIPConfig", 224, 0, "takes text too")

# --- segmentation-models-pytorch -------------------------------------------------------------------------------------


def smp(kind: str, encoder: str, expected: int, why: str, *, size: int = 64, part: str = "", **more: Any) -> None:
    """A network of segmentation-models-pytorch, or its encoder."""

    def build() -> nn.Module:
        library = importlib.import_module("segmentation_models_pytorch")
        made: nn.Module = getattr(library, kind)(encoder, encoder_weights=None)
        return made.get_submodule(part) if part else made

    add(
        "segmentation-models-pytorch",
        f"{kind} {encoder}{' ' + part if part else ''}",
        build,
        size,
        expected,
        why,
        **more,
    )


smp("Unet", "resnet18", 9, "stem + 8; the decoder joins by channels", attention=0)
smp("UnetPlusPlus", "resnet18", 9, "stem + 8; the decoder joins by channels", attention=0)
smp("FPN", "resnet18", 12, "stem + 8 + 3 of the pyramid", attention=0)
smp("Linknet", "resnet18", 13, "stem + 8 + 4 of the decoder", attention=0)
smp("PSPNet", "resnet18", 5, "stem + 4: the encoder is cut at a third of its stages", attention=0)
smp("DeepLabV3Plus", "mobilenet_v2", 18, "stem + 17 blocks", attention=0)
smp("Segformer", "mit_b0", 20, "stem + 2 x 8 + 3", attention=8)
smp("Unet", "mit_b0", 20, "stem + 2 x 8 + 3", part="encoder", attention=8)
smp("Unet", "efficientnet-b0", 17, "stem + 16 blocks", attention=0)
smp("Unet", "vgg11", 13, "8 convolutions + 5 poolings", part="encoder", attention=0)
smp("DPT", "tu-vit_tiny_patch16_224.augreg_in21k", 34, "stem + 2 x 12 + 1 + 4 x 2 of the decoder", size=224, ends=CLASS)


# --- of our own ------------------------------------------------------------------------------------------------------

for _case in UNUSUAL:
    add(
        "own",
        _case.name,
        _case.build,
        _case.size,
        _case.points + _case.unread,
        _case.why,
        attention=_case.attention,
        ends=(_case.ends, (0, 0)), folded="columns" in _case.name,
    )


class Encoder(nn.Module):
    """torch's own encoder on patches."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        layer = nn.TransformerEncoderLayer(16, 2, 32, **options)
        self.layers, self.first = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), options["batch_first"]

    def forward(self, images: Tensor) -> Tensor:
        """Tokens."""
        maps = self.patches(images).flatten(2)
        out: Tensor = self.layers(maps.transpose(1, 2) if self.first else maps.permute(2, 0, 1))
        return out


for _first in (True, False):
    for _norm in (True, False):
        add(
            "torch.nn",
            f"TransformerEncoder, {'batch' if _first else 'sequence'} first, norm {'before' if _norm else 'after'}",
            lambda first=_first, norm=_norm: Encoder(batch_first=first, norm_first=norm),
            64,
            7,
            SEVEN,
            attention=3,
            sequence_first=not _first,
        )

# --- open_clip and diffusers -----------------------------------------------------------------------------------------


def clip(name: str, size: int, expected: int, why: str, config: dict[str, Any], **more: Any) -> None:
    """The image half of an open_clip model."""

    def build() -> nn.Module:
        library = importlib.import_module("open_clip.model")
        made: nn.Module = library._build_vision_tower(32, library.CLIPVisionCfg(**config))
        return made

    add("open_clip", name, build, size, expected, why, **more)


clip("ViT", 64, 7, SEVEN, {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 64}, attention=3, ends=CLASS)
clip("ViT, pooled by attention", 64, 7, SEVEN, {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 64, "attentional_pool": True, "attn_pooler_heads": 2}, attention=3, ends=CLASS)
clip("ModifiedResNet", 64, 6, "stem + 5", {"layers": (2, 1, 1, 1), "width": 16, "head_width": 16, "image_size": 64})
clip("timm ViT", 224, 25, "stem + 2 x 12", {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "image_size": 224}, attention=12, ends=CLASS)


class Timed(nn.Module):
    """A diffusion network at one time step, as the error message advises to write it."""

    def __init__(self, model: nn.Module, **given: Any) -> None:
        super().__init__()
        self.model, self.given = model, given

    def forward(self, images: Tensor) -> Any:
        """Whatever the network returns."""
        return self.model(images, torch.zeros(1, dtype=torch.long), **self.given)


def diffusion(
    name: str,
    size: int,
    expected: int,
    why: str,
    config: dict[str, Any],
    *,
    wrap: bool = True,
    given: Any = None,
    channels: int = 3,
    **more: Any,
) -> None:
    """A network of diffusers."""

    def build() -> nn.Module:
        model: nn.Module = getattr(importlib.import_module("diffusers"), name)(**config)
        return Timed(model, **(given or {})) if wrap else model

    add("diffusers", name + ("" if wrap else " (unwrapped)"), build, size, expected, why, channels=channels, **more)


UNET = {
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
}
diffusion("UNet2DModel", 32, 11, "stem + 2 + 1 + 3 in the middle + 2 x 2 on the way up", UNET)
diffusion("UNet2DModel", 32, 0, "needs a time step", UNET, wrap=False)
diffusion("DiTTransformer2DModel", 32, 5, "stem + 2 x 2", {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 3, "out_channels": 3, "num_layers": 2, "sample_size": 32, "patch_size": 4, "norm_num_groups": 4}, given={"class_labels": torch.zeros(2, dtype=torch.long)}, attention=2)
diffusion("AutoencoderKL", 32, 14, "stem + encoder 1 + 1 + 3 and 1 subsampling + decoder 3 + 2 + 2", {"block_out_channels": (8, 16), "norm_num_groups": 4, "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}, wrap=False)
diffusion("VQModel", 32, 11, "stem + encoder 1 + 3 + 1 straight through the code book + decoder 3 + 2", {"block_out_channels": (8,), "norm_num_groups": 4}, wrap=False)

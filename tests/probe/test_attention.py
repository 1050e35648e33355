"""Attention measures against closed forms, a naive loop, and with fused kernels on and off."""

from __future__ import annotations

import math

import numpy as np
import pytest
import timm
import torch
from torch import nn

from fourier_probe.errors import PointError
from fourier_probe.models import create
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.probe.attention import attention_layers
from fourier_probe.probe.attention_maps import map_measures

torch.set_num_threads(1)


def naive(A: np.ndarray, grid: tuple[int, int], step: tuple[float, float]) -> tuple[float, list[complex]]:
    H, W = grid
    places = [(y, x) for y in range(H) for x in range(W)]
    bins = [2 * j / min(H, W) for j in range(min(H, W) // 2 + 1)]
    distance, response = 0.0, [0j] * len(bins)
    for i, (yi, xi) in enumerate(places):
        for j, (yj, xj) in enumerate(places):
            distance += A[i, j] * math.hypot((yj - yi) * step[0], (xj - xi) * step[1]) / len(places)
            for k, f in enumerate(bins):
                response[k] += A[i, j] * np.exp(-1j * math.pi * f * (yj - yi + xj - xi)) / len(places)
    return distance, response


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_measures_equal_a_loop_over_the_definition(grid: tuple[int, int]) -> None:
    n = grid[0] * grid[1]
    A = torch.rand(2, 3, n, n, dtype=torch.float64).softmax(-1)
    distance, response, frequency = map_measures(3 * A, grid, (8.0, 16.0))  # rows are made to sum to one
    for b in range(2):
        for h in range(3):
            expected, wave = naive(A[b, h].numpy(), grid, (8.0, 16.0))
            assert float(distance[b, h]) == pytest.approx(expected)
            assert response[b, h].numpy() == pytest.approx(np.abs(wave))
    assert len(frequency) == response.shape[-1]


def test_closed_forms() -> None:
    n, identity = 64, torch.eye(64)[None, None]
    distance, response, _ = map_measures(identity, (8, 8), (4.0, 4.0))
    assert float(distance) == 0 and torch.allclose(response, torch.ones_like(response))  # passes every frequency
    _, uniform, _ = map_measures(torch.ones(1, 1, n, n), (8, 8), (4.0, 4.0))
    assert uniform[0, 0, 0] == pytest.approx(1.0) and uniform[0, 0, 1:].abs().max() < 1e-12  # a perfect low pass


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224"])
def test_fused_and_written_out_attention_agree(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, depth=2, num_classes=3).eval()
    images = torch.randn(2, 3, 224, 224)
    before = model(images)
    fused, left_out = attention_layers(model, [images])
    assert torch.equal(model(images), before) and not left_out
    assert [layer.name for layer in fused] == ["blocks.0.attn", "blocks.1.attn"]
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            assert module.fused_attn
            module.fused_attn = False
    written, _ = attention_layers(model, [images[:1], images[1:]])
    for ours, theirs in zip(fused, written, strict=True):
        assert ours.distance == pytest.approx(theirs.distance, rel=1e-5)
        assert ours.response == pytest.approx(theirs.response, rel=1e-4, abs=1e-6)
        assert 0 < ours.distance.max() <= ours.uniform * 1.5
        assert ours.gate is None


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False])
def test_the_output_is_the_same_while_maps_are_taken(fused: bool) -> None:
    torch.manual_seed(0)
    vit, size = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=3, img_size=64).eval(), 64
    for module in vit.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    for model in (vit, create("cifar_convit", num_classes=3).eval()):
        images, outputs = torch.randn(2, 3, size, size), []
        with torch.inference_mode():
            before = model(images)
        handle = model.register_forward_hook(lambda _m, _i, out, outputs=outputs: outputs.append(out.clone()))
        attention_layers(model, [images])
        handle.remove()
        assert torch.equal(outputs[-1], before)  # the last forward is the one listened to
        size = 32


def test_gated_layers_give_gates_and_local_heads_see_less_far() -> None:
    torch.manual_seed(0)
    model = create("cifar_convit", num_classes=3)
    layers, _ = attention_layers(model, [torch.randn(2, 3, 32, 32)])
    assert [layer.gate is not None for layer in layers] == [True] * 4 + [False] * 2
    assert layers[0].gate == pytest.approx(np.full(4, 1 / (1 + math.exp(-1))))
    assert layers[0].distance.max() < layers[-1].distance.min()
    theirs = timm.create_model("convit_tiny", depth=1, local_up_to_layer=1, num_classes=3)
    assert attention_layers(theirs, [torch.randn(1, 3, 224, 224)])[0][0].gate is not None


def test_recast_layers_and_eit() -> None:
    torch.manual_seed(0)
    model = create("cifar_resnet8", num_classes=3).eval()
    recast_(model, ["layer3.0.conv2"])
    (layer,), _ = attention_layers(model, [torch.randn(2, 3, 32, 32)])
    assert (layer.name, layer.grid, len(layer.distance)) == ("layer3.0.conv2", (8, 8), 9)
    assert layer.distance.argmin() == 4  # the tap in the middle looks at its own place
    layers, _ = attention_layers(create("eit_small_w80"), [torch.randn(1, 3, 32, 32)])
    assert [layer.name for layer in layers] == [f"blocks.{i}.mixer.attn" for i in range(5)]


@pytest.mark.slow
def test_what_is_left_out_says_why() -> None:
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)
    layers, left_out = attention_layers(swin, [torch.randn(1, 3, 224, 224)])
    assert {layer.grid for layer in layers} == {(7, 7)}
    assert "windows" in left_out["layers.0.blocks.0.attn"]
    with pytest.raises(PointError, match="no layer has self-attention"):
        attention_layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), [torch.randn(1, 3, 8, 8)])

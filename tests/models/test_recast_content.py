"""The two cheaper architectures of a recast layer: coarse content, and one content map for all taps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fourier_probe.errors import ModelError
from fourier_probe.models.gpsa.cost import multiply_adds
from fourier_probe.models.gpsa.layer import GPSAConv2d
from fourier_probe.models.gpsa.recast import logit_change, recast
from fourier_probe.models.gpsa.sizes import architecture

CONTENT = [{"content_stride": 2}, {"content_maps": 1}, {"content_stride": 2, "content_maps": 1}]
LAYERS: list[dict[str, Any]] = [
    {"padding": 1},
    {"padding": 1, "stride": 2, "groups": 2},
    {"padding": 0, "bias": False},
]


def _layer(convolution: dict[str, Any], **options: Any) -> GPSAConv2d:
    torch.manual_seed(1)
    layer = recast(nn.Conv2d(4, 8, 3, **convolution).double(), head_dim=3, **options)
    with torch.no_grad():
        layer.gate.copy_(torch.randn(9))
        layer.locality_strength.copy_(0.2 + torch.rand(9))
        layer.query_weight.mul_(5)
        layer.key_weight.mul_(5)
    return layer


def _naive(layer: GPSAConv2d, maps: Tensor) -> Tensor:
    """A query at a time: softmax over every pixel whose key is its square's, so that squares count by their pixels."""
    H, W = maps.shape[2:]
    Ho, Wo = layer.output_grid(H, W)
    side, kernels = layer.content_stride, layer.weight.flatten(2)  # (C', C / groups, heads)
    coarse = maps.clone()
    for y in range(0, H, side):
        for x in range(0, W, side):
            square = maps[:, :, y : y + side, x : x + side]
            coarse[:, :, y : y + side, x : x + side] = square.mean((2, 3), keepdim=True)
    keys = torch.einsum("mdc,bcyx->bmdyx", layer.key_weight.view(layer.content_maps, -1, 4), coarse).flatten(3)
    out = layer.halves(maps)[1] if layer.bias is None else layer.halves(maps)[1] + layer.bias[:, None, None]
    for oy in range(Ho):
        for ox in range(Wo):
            place = maps[:, :, min(oy * layer.stride[0], H - 1), min(ox * layer.stride[1], W - 1)]
            for head in range(9):
                own = head if layer.content_maps == 9 else 0
                query = place @ layer.query_weight.view(layer.content_maps, -1, 4)[own].t() / math.sqrt(3)
                weights = torch.einsum("bd,bdm->bm", query, keys[:, own]).softmax(-1)
                seen = torch.einsum("bm,bcm->bc", weights, coarse.flatten(2))
                kernel = kernels[:, :, head, None, None] * torch.sigmoid(-layer.gate[head])
                out[:, :, oy, ox] += F.conv2d(seen[..., None, None], kernel, groups=layer.groups)[..., 0, 0]
    return out


@pytest.mark.parametrize("grid", [(6, 4), (5, 7)])
@pytest.mark.parametrize("options", CONTENT, ids=str)
@pytest.mark.parametrize("convolution", LAYERS, ids=str)
@torch.no_grad()
def test_the_function_is_the_formula(
    convolution: dict[str, Any], options: dict[str, Any], grid: tuple[int, int]
) -> None:
    layer = _layer(convolution, **options)
    maps = torch.randn(2, 4, *grid, dtype=torch.double)
    out = layer(maps)
    assert torch.allclose(out, _naive(layer, maps), atol=1e-11)
    content, positional = layer.halves(maps)
    bias = 0 if layer.bias is None else layer.bias[:, None, None]
    assert torch.allclose(content + positional + bias, out, atol=1e-12)
    if layer.groups == 1:
        seen = torch.einsum("bhnm,bcm->bchn", layer.attention(maps), maps.flatten(2))
        applied = torch.einsum("och,bchn->bon", layer.weight.flatten(2), seen).view(out.shape) + bias
        assert torch.allclose(applied, out, atol=1e-12)


@pytest.mark.parametrize("options", CONTENT, ids=str)
def test_gradients(options: dict[str, Any]) -> None:
    layer = recast(nn.Conv2d(2, 2, 2, padding=1).double(), head_dim=1, **({"gate": 0.5} | options))
    parameters = dict(layer.named_parameters())
    maps = torch.randn(2, 2, 2, 3, dtype=torch.double, requires_grad=True)

    def run(maps: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), maps)
        return out

    assert torch.autograd.gradcheck(run, (maps, *(p.detach().requires_grad_() for p in parameters.values())))


@pytest.mark.parametrize("options", [{}, *CONTENT], ids=str)
def test_an_eased_switch_changes_as_little_as_that_of_gpsa(options: dict[str, Any]) -> None:
    """At the gate that easing begins with, 2e-3 relative, as without the options."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten())
    images = torch.randn(4, 3, 9, 8)
    assert logit_change(model, ["2"], images, gate=1.0 + 6.0, **options) < 2e-3


def test_they_cost_a_third_and_a_fourth_and_are_named() -> None:
    conv = nn.Conv2d(16, 16, 3, padding=1)
    whole = multiply_adds(conv, (32, 32))
    assert whole / multiply_adds(conv, (32, 32), content_stride=2) > 2.5
    assert whole / multiply_adds(conv, (32, 32), content_maps=1) > 4
    for options in CONTENT:
        layer = recast(conv, **options)
        assert multiply_adds(layer, (32, 32)) == multiply_adds(conv, (32, 32), **options)
        assert architecture(**options) in repr(layer)
    assert "content" not in repr(recast(conv))
    assert recast(conv, content_maps=1).query_weight.shape == (4, 16)


@pytest.mark.parametrize("options", CONTENT, ids=str)
def test_multiply_adds_are_those_of_the_matrix_products(options: dict[str, Any]) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for grid in ((8, 8), (7, 10)):
        for conv in (nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(8, 8, 5, padding=2, stride=2, groups=8)):
            layer = recast(conv, **options)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                layer(torch.randn(1, 8, *grid))
            assert counter.get_total_flops() == 2 * multiply_adds(layer, grid)


def test_wrong_options_are_refused() -> None:
    conv = nn.Conv2d(2, 2, 3)
    with pytest.raises(ModelError, match="content_stride must be at least 1 pixel, got 0"):
        recast(conv, content_stride=0)
    with pytest.raises(ModelError, match="content_maps must be 1, or 9 for one per tap, got 4"):
        recast(conv, content_maps=4)

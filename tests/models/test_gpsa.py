"""GPSA: the maps against loops over the formula, the block-wise attention, ConViT's module against timm's."""

from __future__ import annotations

import copy
import math

import pytest
import timm
import torch
from torch import Tensor

from fourier_probe.errors import ModelError
from fourier_probe.models.gpsa import attend as gpsa
from fourier_probe.models.gpsa.attend import attend
from fourier_probe.models.gpsa.attention import GPSA, gated, swap_convit_
from fourier_probe.models.gpsa.maps import apply_positional, axis_offsets, dense_map, local_map


def test_axis_offsets() -> None:
    assert axis_offsets(3, 2).tolist() == [[0, 1, 2], [-1, 0, 1]]
    assert axis_offsets(2, 2, stride=2, padding=(1, 2)).tolist() == [[-1, 0, 1, 2, 3], [-3, -2, -1, 0, 1]]


@pytest.mark.parametrize("grid", [(3, 3), (2, 5)])
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((1, 1), (2, 0))])
def test_the_map_is_a_softmax_over_the_padded_grid(
    grid: tuple[int, int], padding: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    """The Kronecker product of two softmaxes against one softmax over all pixels, written as loops."""
    H, W = grid
    (top, bottom), (left, right) = padding
    centre, strength = torch.tensor([[0.3, -1.2], [1.0, 0.0]], dtype=torch.double), torch.tensor([0.7, 2.0]).double()
    rows, columns = (
        local_map(axis_offsets(n, n, padding=p, dtype=torch.double), c, strength, padding=p)
        for n, p, c in zip(grid, padding, centre.t(), strict=True)
    )
    dense = dense_map(rows, columns)
    for h in range(2):
        for i in range(H * W):
            scores = {}
            for y in range(-top, H + bottom):
                for x in range(-left, W + right):
                    dy, dx = y - i // W - float(centre[h, 0]), x - i % W - float(centre[h, 1])
                    scores[y, x] = math.exp(-float(strength[h]) * (dy * dy + dx * dx))
            total = sum(scores.values())
            expected = [scores[y, x] / total for y in range(H) for x in range(W)]
            assert torch.allclose(dense[h, i], torch.tensor(expected, dtype=torch.double), atol=1e-14)
    maps = torch.randn(2, 3, H, W, dtype=torch.double)
    seen = apply_positional(maps, rows, columns)
    assert seen.shape == (2, 3, 2, H, W)
    expected_maps = torch.einsum("hij,bcj->bchi", dense, maps.flatten(2))
    assert torch.allclose(seen.flatten(3), expected_maps, atol=1e-12)


def _problem(shared_gate: bool, positional: bool, dtype: torch.dtype = torch.double) -> list[Tensor | None]:
    torch.manual_seed(0)
    B, heads, D, N, M, C = 3, 2, 2, 4, 5, 3
    tensors: list[Tensor | None] = [
        torch.randn(s, dtype=dtype) for s in ((B, heads, D, N), (B, heads, D, M), (B, C, M))
    ]
    tensors.append(torch.tensor([0.4, -1.0], dtype=dtype) if shared_gate else None)
    tensors.append(torch.rand(heads, N, M, dtype=dtype) if positional else None)
    return [t if t is None else t.requires_grad_() for t in tensors]


def _naive(query: Tensor, key: Tensor, value: Tensor, gate: Tensor | None, positional: Tensor | None) -> Tensor:
    weights = torch.einsum("bhdn,bhdm->bhnm", query, key).softmax(-1)
    if gate is not None:
        g = torch.sigmoid(gate)[:, None, None]
        weights = (1 - g) * weights + (0 if positional is None else g * positional)
    return torch.einsum("bhnm,bcm->bchn", weights, value)


@pytest.mark.slow
@pytest.mark.parametrize(("gate", "positional"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("block", [1, 45, 2**19])  # a query at a time, an image at a time, all at once
def test_attend_in_blocks(gate: bool, positional: bool, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpsa, "BLOCK", block)
    monkeypatch.setattr(gpsa, "IMAGE", block)
    q, k, v, g, p = _problem(gate, positional)
    assert q is not None and k is not None and v is not None
    out = attend(q, k, v, gate=g, positional=p)
    assert torch.allclose(out, _naive(q, k, v, g, p), atol=1e-12)
    assert torch.autograd.gradcheck(lambda *a: attend(a[0], a[1], a[2], gate=a[3], positional=a[4]), (q, k, v, g, p))


@pytest.mark.slow
@pytest.mark.parametrize("image", [1, 2**20])  # part of the queries at a time, or whole images
@pytest.mark.parametrize("block", [1, 45, 2**19])
def test_attend_with_a_kernel(block: int, image: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel on the values, in blocks, against the kernel on what each head sees."""
    monkeypatch.setattr(gpsa, "BLOCK", block)
    monkeypatch.setattr(gpsa, "IMAGE", image)
    q, k, v, g, p = _problem(True, True)
    assert q is not None and k is not None and v is not None
    kernel = torch.randn(2, 4, 3, dtype=torch.double, requires_grad=True)
    expected = torch.einsum("hoc,bchn->bon", kernel, _naive(q, k, v, g, p))
    assert torch.allclose(attend(q, k, v, gate=g, positional=p, kernel=kernel), expected, atol=1e-12)
    run = lambda *a: attend(a[0], a[1], a[2], gate=a[3], positional=a[4], kernel=a[5])  # noqa: E731
    assert torch.autograd.gradcheck(run, (q, k, v, g, p, kernel))
    with pytest.raises(ModelError, match="kernel needs a positional map"):
        attend(q, k, v, gate=g, kernel=kernel)


@pytest.mark.parametrize(("gate", "positional"), [(False, False), (True, False), (True, True)])
def test_the_fused_path_is_the_same(gate: bool, positional: bool) -> None:
    q, k, v, g, p = _problem(gate, positional)
    assert q is not None and k is not None and v is not None
    out = gpsa._attend_fused(q, k, v, g, p)
    assert torch.allclose(out, _naive(q, k, v, g, p), atol=1e-12)


def test_attend_in_half_precision() -> None:
    q, k, v, g, p = _problem(True, True, torch.float32)
    assert q is not None and k is not None and v is not None
    out = attend(q.bfloat16(), k.bfloat16(), v, gate=g, positional=p)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), _naive(q, k, v, g, p), atol=0.05)
    out.float().sum().backward()
    assert g is not None and g.grad is not None and g.grad.isfinite().all()


def test_a_positional_map_needs_a_gate() -> None:
    q, k, v, _, p = _problem(False, True)
    assert q is not None and k is not None and v is not None
    with pytest.raises(ModelError, match="needs a gate"):
        attend(q, k, v, positional=p)


def _shake(model: torch.nn.Module, seed: int = 0) -> None:
    """Random weights of a size at which every part of the attention matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "gating" in name:
                parameter.copy_(noise)
            elif "pos_proj" in name:
                parameter.add_(0.3 * noise)
            elif ".qk." in name:
                parameter.add_(0.2 * noise)


@pytest.fixture(scope="module")
def convit() -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model("convit_tiny", img_size=64, num_classes=7).eval()
    _shake(model)
    return model


def test_outputs_and_gradients_are_timms(convit: torch.nn.Module) -> None:
    ours, theirs = copy.deepcopy(convit), copy.deepcopy(convit)
    names = swap_convit_(ours)
    assert names == [f"blocks.{i}.attn" for i in range(10)]
    assert all(isinstance(ours.get_submodule(name), GPSA) for name in names)
    images = torch.randn(2, 3, 64, 64)
    expected, got = theirs(images), ours(images)
    assert (expected - got).abs().max() < 1e-5
    for out in (expected, got):
        out.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        if name.endswith("pos_proj.bias"):
            assert name not in gradients
            continue
        assert parameter.grad is not None and gradients[name] is not None
        assert torch.allclose(gradients[name], parameter.grad, atol=2e-5, rtol=1e-3), name
    assert (ours.blocks[0].attn.gating_param.grad != 0).all()


def test_a_fresh_module_loads_timms_weights(convit: torch.nn.Module) -> None:
    theirs = convit.blocks[0].attn
    ours = GPSA(theirs.dim, theirs.num_heads)
    ours.load_state_dict(theirs.state_dict())  # strict
    tokens = torch.randn(3, 16, theirs.dim)
    assert torch.allclose(ours(tokens), theirs(tokens), atol=1e-5)
    assert torch.allclose(ours.attention(tokens), theirs.get_attention(tokens), atol=1e-6)


def test_a_grid_of_another_size_than_timm_can_take() -> None:
    torch.manual_seed(0)
    H, W, heads = 2, 8, 4
    module = GPSA(12, heads, grid=(H, W)).double()
    _shake(module)
    module.qk.weight.data.mul_(4)
    tokens = torch.randn(2, H * W, 12, dtype=torch.double)
    q, k = module.qk(tokens).view(2, H * W, 2, heads, 3).permute(2, 0, 3, 1, 4)
    content = (q @ k.transpose(-1, -2) / math.sqrt(3)).softmax(-1)
    y, x = torch.arange(H * W) // W, torch.arange(H * W) % W
    dy, dx = (p[None, :] - p[:, None] for p in (y, x))
    offsets = torch.stack([dx, dy, dx**2 + dy**2], -1).double()  # (N, N, 3), timm's order
    positional = module.pos_proj(offsets).permute(2, 0, 1).softmax(-1)
    g = torch.sigmoid(module.gating_param)[:, None, None]
    weights = (1 - g) * content + g * positional
    values = module.v(tokens).view(2, H * W, heads, 3).transpose(1, 2)
    expected = module.proj((weights @ values).transpose(1, 2).reshape(2, H * W, 12))
    assert torch.allclose(module(tokens), expected, atol=1e-12)
    assert torch.allclose(module.attention(tokens), weights, atol=1e-12)


def test_heads_start_on_the_taps_of_a_kernel_in_torchs_order() -> None:
    module = GPSA(9, 9, locality_strength=20.0, grid=(5, 5))
    torch.nn.init.constant_(module.gating_param, 30.0)
    looked_at = module.attention(torch.randn(1, 25, 9))[0, :, 12].argmax(-1)  # from the pixel in the middle
    expected = [(2 + ky - 1) * 5 + (2 + kx - 1) for ky in range(3) for kx in range(3)]
    assert looked_at.tolist() == expected


@pytest.mark.parametrize(("grid", "tokens"), [(None, 12), ((3, 4), 16)])
def test_a_wrong_number_of_tokens_is_an_error(grid: tuple[int, int] | None, tokens: int) -> None:
    with pytest.raises(ModelError, match="tokens"):
        GPSA(8, 4, grid=grid)(torch.randn(1, tokens, 8))


@pytest.mark.parametrize(("dim", "heads"), [(8, 3), (9, 4), (8, 0)])
def test_heads_must_be_square_and_divide_the_width(dim: int, heads: int) -> None:
    with pytest.raises(ModelError, match="square number of heads"):
        GPSA(dim, heads)


def test_swapping_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ModelError, match="holds no GPSA"):
        swap_convit_(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    model = timm.create_model("convit_tiny", img_size=32, attn_drop_rate=0.1)
    before = model.blocks[0].attn
    with pytest.raises(ModelError, match=r"dropout must be 0, the module has 0\.1"):
        swap_convit_(model)
    assert model.blocks[0].attn is before


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_the_halves_add_up_to_the_output(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = GPSA(24, 4, grid=grid).double()
    tokens = torch.randn(2, grid[0] * grid[1], 24, dtype=torch.double)
    with torch.no_grad():
        layer.gating_param.copy_(torch.linspace(-2, 2, 4))
        content, positional = layer.halves(tokens)
        assert torch.allclose(content + positional + layer.proj.bias, layer(tokens), atol=1e-12)
        # By its definition: the gated positional map alone.
        gate = torch.sigmoid(layer.gating_param)[:, None, None]
        maps = gate * dense_map(*layer._maps(*grid)).double()
        value = layer.v(tokens).view(2, -1, 4, 6).transpose(1, 2)
        expected = (maps @ value).transpose(1, 2).reshape(tokens.shape) @ layer.proj.weight.t()
    assert torch.allclose(positional, expected, atol=1e-12)


def test_gated_knows_timm_s_layer() -> None:
    theirs = timm.create_model("convit_tiny", depth=1, local_up_to_layer=1).eval()
    layer, tokens = theirs.blocks[0].attn, torch.randn(1, 196, 192)
    ours = gated(layer)
    with torch.no_grad():
        content, positional = ours.halves(tokens)
        assert torch.allclose(content + positional + layer.proj.bias, layer(tokens), atol=1e-5)
    assert torch.equal(ours.gates(), torch.sigmoid(layer.gating_param).detach())
    assert gated(ours) is ours
    assert gated(torch.nn.Linear(2, 2)) is None

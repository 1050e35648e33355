"""EIT is what its specification says: counts to the unit, splits, class token, permutations, other sizes."""

from __future__ import annotations

import pytest
import torch

from fourier_probe.errors import ModelError
from fourier_probe.models import create
from fourier_probe.models.eit import EIT, Mixer, attention_channels
from fourier_probe.models.zoo import stats
from fourier_probe.probe.points import find_points

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "classes", "parameters", "twin"),
    [
        ("eit_mini", 1000, 3_512_750, 4_210_250),
        ("eit_tiny", 1000, 8_927_230, 11_074_480),
        ("eit_base", 1000, 15_972_280, 19_961_800),
        ("eit_large", 1000, 25_305_592, 31_898_216),
        ("eit_small", 10, 3_079_010, None),
        ("eit_small", 100, 3_101_600, None),
        ("eit_small_w320", 100, 5_038_120, 6_206_820),
        ("eit_small_w144", 100, 1_036_384, 1_272_484),
        ("eit_small_w80", 100, 325_230, 399_780),
    ],
)
def test_parameters_to_the_unit(name: str, classes: int, parameters: int, twin: int | None) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in create(name, num_classes=classes).parameters()) == parameters
        if twin is not None:
            assert sum(p.numel() for p in create(name, num_classes=classes, split="attention").parameters()) == twin


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "less", "total"),
    [
        ("eit_mini", 1.73, 1.93),
        ("eit_tiny", 3.83, 4.21),
        ("eit_base", 6.51, 7.07),
        ("eit_large", 10.00, 10.77),
    ],
)
def test_multiply_adds_without_and_with_the_attention_products(name: str, less: float, total: float) -> None:
    with torch.device("meta"):
        cost = stats(create(name), 224)
    assert (cost.multiply_adds - cost.attention_products) / 1e9 == pytest.approx(less, abs=0.006)
    assert cost.multiply_adds / 1e9 == pytest.approx(total, abs=0.006)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = create("eit_mini", num_classes=1000).requires_grad_(False)
    kinds: dict[type, list[torch.nn.Module]] = {
        kind: [module for module in model.modules() if isinstance(module, kind)]
        for kind in (torch.nn.Linear, torch.nn.Conv2d, torch.nn.LayerNorm)
    }
    assert [len(modules) for modules in kinds.values()] == [5 * 4 + 1, 1 + 4, 2 * 5 + 1]
    for linear in kinds[torch.nn.Linear]:
        assert float(linear.weight.std()) == pytest.approx(0.01, rel=0.05)
        assert float(linear.weight.abs().max()) > 0.03  # cut off at 2, not at two standard deviations
    for conv in kinds[torch.nn.Conv2d]:  # torch's fan-out of a depthwise convolution counts all its channels
        fan_out = conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1]
        assert float(conv.weight.std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.12)
    for norm in kinds[torch.nn.LayerNorm]:
        assert bool((norm.weight == 1).all()) and norm.eps == 1e-6
    biases = [value for name, value in model.named_parameters() if name.endswith("bias")]
    assert all(bool((bias == 0).all()) for bias in biases) and model.patch_embed.proj.bias is not None
    assert float(model.cls_token.std()) == pytest.approx(0.02, rel=0.2)  # of 250 values
    positions = create("eit_small", use_pos_embed=True).requires_grad_(False).pos_embed
    assert float(positions.std()) == pytest.approx(0.02, rel=0.05)
    model.reset_classifier(10)
    assert float(model.head.weight.detach().std()) == pytest.approx(0.01, rel=0.06)


@pytest.mark.parametrize(
    ("width", "depth", "heads", "convolution"),
    [
        (250, 5, 10, [200, 150, 100, 50, 0]),
        (330, 8, 10, [290, 250, 210, 170, 130, 90, 50, 0]),
        (400, 10, 16, [368, 320, 288, 240, 208, 160, 128, 80, 48, 0]),
        (464, 12, 16, [432, 400, 352, 320, 272, 240, 208, 160, 128, 80, 48, 0]),
    ],
)
def test_convolution_channels_decrease(width: int, depth: int, heads: int, convolution: list[int]) -> None:
    assert [width - a for a in attention_channels(width, depth, heads)] == convolution
    assert attention_channels(width, depth, heads, "attention") == [width] * depth
    assert len(set(attention_channels(width, depth, heads, "constant"))) == 1


def test_tokens_at_224_pixels_and_at_others() -> None:
    model = create("eit_mini", num_classes=3).eval()
    assert model.forward_features(torch.zeros(1, 3, 224, 224)).shape == (1, 362, 250)
    assert model(torch.zeros(2, 3, 96, 160)).shape == (2, 3)
    small = create("eit_small_w80", num_classes=3, in_chans=1, img_size=(32, 24)).eval()
    assert small.grid_size == (8, 6)
    assert small(torch.zeros(2, 1, 30, 50)).shape == (2, 3)


def test_class_token_passes_the_convolution_half_unchanged() -> None:
    mixer, tokens = Mixer(20, 8, 2), torch.randn(3, 1 + 12, 20)
    out = mixer(tokens, (3, 4))
    assert torch.equal(out[:, 0, :12], tokens[:, 0, :12])
    maps = mixer.conv(tokens[:, 1:, :12].transpose(1, 2).reshape(3, 12, 3, 4))
    assert torch.allclose(out[:, 1:, :12], maps.flatten(2).transpose(1, 2))
    assert torch.allclose(out[..., 12:], mixer.attn(tokens[..., 12:]))


@pytest.mark.parametrize(("split", "blind"), [("attention", True), ("decreasing", False)])
def test_only_the_convolution_sees_the_order_of_the_tokens(split: str, blind: bool) -> None:
    torch.manual_seed(0)
    model = create("eit_small_w80", num_classes=7, split=split).double().eval()
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    patches = model.patch_embed
    tokens = patches(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    shuffled = tokens.flatten(2)[..., torch.randperm(64)].view_as(tokens)
    logits = []
    for given in (tokens, shuffled):
        handle = patches.register_forward_hook(lambda _m, _i, _o, given=given: given)
        logits.append(model(torch.zeros(2, 3, 32, 32, dtype=torch.float64)))
        handle.remove()
    change = float((logits[0] - logits[1]).detach().abs().max())
    assert change < 1e-10 if blind else change > 1e-5


def test_ablations() -> None:
    positioned = create("eit_small_w80", num_classes=3, use_pos_embed=True).eval()
    assert positioned.pos_embed.shape == (1, 65, 80)
    for size in ((32, 32), (32, 48), (20, 64)):
        assert positioned(torch.zeros(1, 3, *size)).shape == (1, 3)
    plain = create("eit_small_w80", plain_stem=True)
    assert plain.patch_embed.proj.kernel_size == plain.patch_embed.proj.stride == (4, 4)
    assert plain.grid_size == (8, 8)
    assert create("eit_small_w80", num_classes=0)(torch.zeros(1, 3, 32, 32)).shape == (1, 80)


def test_points_follow_the_stream_and_the_branches_can_be_named() -> None:
    model, image = create("eit_small_w80").eval(), torch.randn(1, 3, 32, 32)
    points = find_points(model, image)
    stream = [point for point in points if point.kind in ("stem", "residual")]
    assert len(stream) == 1 + 2 * 5
    assert {point.layout.grid for point in stream} == {(8, 8)}
    assert [point.op for point in stream[1:3]] == ["attention", "mlp"]
    branches = find_points(model, image, select=["blocks.0.mixer.conv", "blocks.0.mixer.attn"])
    assert [point.layout.channels for point in branches] == [64, 15] or {p.layout.channels for p in branches} == {
        65,
        15,
    }
    assert {point.layout.grid for point in branches} == {(8, 8)}


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ModelError, match="do not divide"):
        EIT(width=81, num_heads=5)
    for depth in (0, -1):
        with pytest.raises(ModelError, match=rf"depth={depth} is no number of blocks"):
            EIT(depth=depth)
    with pytest.raises(ModelError, match="depth=0"):
        create("eit_small_w80", depth=0, split="attention")
    with pytest.raises(ModelError, match="no patch"):
        EIT(img_size=4)
    with pytest.raises(ModelError, match="none of decreasing"):
        EIT(split="half")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no attention channel"):
        attention_channels(20, 5, 10)

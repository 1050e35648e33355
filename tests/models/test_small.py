from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from fourier_probe.models import create, names
from fourier_probe.models.gpsa.attention import GPSA
from fourier_probe.probe.points import find_points

VITS = names("cifar_vit_patch4*")


def batch_norm(channels: int) -> int:
    return 2 * channels


def resnet_parameters(blocks: int, width: int, classes: int) -> int:
    """He et al. 2015, section 4.2, counted by hand; a 1x1 projection and BatchNorm lead into stages 2 and 3."""
    total = 3 * width * 9 + batch_norm(width)
    inputs = width
    for outputs in (width, 2 * width, 4 * width):
        total += inputs * outputs * 9 + (2 * blocks - 1) * outputs * outputs * 9 + 2 * blocks * batch_norm(outputs)
        total += inputs * outputs + batch_norm(outputs) if inputs != outputs else 0
        inputs = outputs
    return total + (inputs + 1) * classes


@pytest.mark.parametrize(
    ("name", "blocks", "width"),
    [
        ("cifar_resnet8", 1, 16),
        ("cifar_resnet20", 3, 16),
        ("cifar_resnet20_x2", 3, 32),
        ("cifar_resnet20_x4", 3, 64),
    ],
)
def test_resnet_has_the_parameters_of_its_recipe(name: str, blocks: int, width: int) -> None:
    model = create(name, num_classes=10)
    assert sum(each.numel() for each in model.parameters()) == resnet_parameters(blocks, width, 10)


def test_resnet20_is_the_papers_but_for_the_projections() -> None:
    """Table 6 of He et al. 2015 gives 0.27M for ResNet-20 with identity shortcuts."""
    projections = 16 * 32 + batch_norm(32) + 32 * 64 + batch_norm(64)
    assert resnet_parameters(3, 16, 10) - projections == 269_722


@pytest.mark.parametrize(("name", "width"), list(zip(VITS, (64, 128, 256), strict=True)))
def test_vit_has_the_parameters_of_its_recipe(name: str, width: int) -> None:
    block = 4 * width * width + 4 * width + 8 * width * width + 5 * width + 4 * width  # attention, MLP, two norms
    total = 6 * block + (3 * 16 + 1) * width + 65 * width + width + 2 * width + (width + 1) * 10
    assert sum(each.numel() for each in create(name, num_classes=10).parameters()) == total


def test_names_of_modules_are_timms() -> None:
    ours = dict(create("cifar_resnet20").named_modules())
    theirs = dict(timm.create_model("resnet18").named_modules())
    convolutions = [name for name, module in ours.items() if type(module) is nn.Conv2d]
    assert {"conv1", "layer1.0.conv1", "layer3.1.conv2", "layer3.2.conv2", "layer2.0.downsample.0"} <= set(convolutions)
    assert {"bn1", "act1", "layer1", "layer2", "layer3", "global_pool", "fc"} <= set(ours)
    assert {name for name in ours if name.startswith("layer2.1")} == {
        name for name in theirs if name.startswith("layer2.1")
    }
    three = [ours[name] for name in convolutions if "downsample" not in name]
    assert len(three) == 19
    assert all(each.kernel_size == (3, 3) and each.padding == (1, 1) and each.padding_mode == "zeros" for each in three)


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_vit_patch4"])
@pytest.mark.parametrize("size", [(32, 32), (32, 48), (28, 28), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_oblong_images(name: str, size: tuple[int, int], channels: int) -> None:
    size_arg = {"img_size": size} if "vit" in name else {}
    model = timm.create_model(name, num_classes=10, in_chans=channels, **size_arg).eval()
    assert model(torch.zeros(2, channels, *size)).shape == (2, 10)


def test_resnet_takes_odd_sizes() -> None:
    model = create("cifar_resnet8", num_classes=10).eval()
    assert model.forward_features(torch.zeros(2, 3, 29, 35)).shape == (2, 64, 8, 9)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_vit_patch4"])
def test_timms_model_interface(name: str) -> None:
    model = create(name)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert model.num_classes == 100 and model(images).shape == (2, 100)
    features = model.forward_features(images)  # type: ignore[operator]
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)  # type: ignore[operator]
    headless = copy.deepcopy(model)
    headless.reset_classifier(0)  # type: ignore[operator]
    assert headless(images).shape == (2, model.num_features)
    headless.reset_classifier(7)  # type: ignore[operator]
    assert headless.get_classifier().out_features == 7  # type: ignore[operator]
    assert create(name, num_classes=0)(images).shape == (2, model.num_features)


def test_features_only() -> None:
    model = timm.create_model("cifar_resnet8", features_only=True)
    shapes = [tuple(each.shape[1:]) for each in model(torch.zeros(1, 3, 32, 32))]
    assert shapes == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_a_strided_stem_halves_every_grid_and_adds_no_parameter() -> None:
    model = timm.create_model("cifar_resnet20", stem_stride=2, features_only=True)
    maps = model(torch.zeros(1, 3, 32, 32))
    assert [tuple(each.shape[-2:]) for each in maps] == [(16, 16), (16, 16), (8, 8), (4, 4)]
    assert model.feature_info.reduction() == [2, 2, 4, 8]
    plain, strided = timm.create_model("cifar_resnet20"), timm.create_model("cifar_resnet20", stem_stride=2)
    assert {n: p.shape for n, p in plain.named_parameters()} == {n: p.shape for n, p in strided.named_parameters()}


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_vit_patch4"])
def test_nothing_is_dropped_by_default(name: str) -> None:
    model = create(name)
    rates = [each.p for each in model.modules() if isinstance(each, nn.Dropout)]
    assert not any(rates) and not any(getattr(each, "drop_prob", 0) for each in model.modules())


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_vit_patch4"])
def test_gradient_reaches_every_parameter(name: str) -> None:
    model = create(name, num_classes=10)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model(images).square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in model.parameters())


def test_vit_on_smaller_patches_has_a_finer_grid() -> None:
    model = create("cifar_vit_patch2", num_classes=10)
    assert model.patch_embed.grid_size == (16, 16)  # type: ignore[union-attr]
    change = 64 * (3 * 16 - 3 * 4) - 64 * (16 * 16 - 8 * 8)  # patches of 12 numbers for 48, 256 positions for 64
    assert parameters("cifar_vit_patch4") - parameters("cifar_vit_patch2") == change


def parameters(name: str) -> int:
    return sum(each.numel() for each in create(name, num_classes=10).parameters())


def test_convit_is_gated_early_and_free_late_on_any_grid() -> None:
    for size in ((32, 32), (16, 40)):
        model = create("cifar_convit", num_classes=10, img_size=size).eval()
        assert [type(block.attn) is GPSA for block in model.blocks] == [True] * 4 + [False] * 2  # type: ignore[union-attr]
        images = torch.randn(2, 3, *size)
        assert model(images).shape == (2, 10)
        points = find_points(model, images[:1])
        assert len([point for point in points if point.kind != "branch"]) == 1 + 2 * 6
        assert {point.layout.grid for point in points} == {(size[0] // 4, size[1] // 4)}
    assert 0.29e6 < parameters("cifar_convit") < 0.33e6
    state = create("cifar_convit").state_dict()
    assert create("cifar_convit").load_state_dict(state).missing_keys == []


def test_convit_gives_timms_outputs_on_its_weights() -> None:
    shape = {"img_size": 32, "patch_size": 4, "depth": 6, "embed_dim": 16, "num_heads": 4, "local_up_to_layer": 4}
    theirs = timm.models.convit.ConVit(num_classes=10, **shape).eval()
    ours = create("cifar_convit", num_classes=10).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(ours(images), theirs(images), atol=1e-5)

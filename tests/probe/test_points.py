"""Where each architecture is listened to: counts, operations, grids, prefixes, and that the stream is the stream."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from fourier_probe.errors import PointError
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.grid import Layout, infer_layout
from fourier_probe.probe.points import Point, find_points


@dataclass
class Case:
    """What is expected of one model at one image size."""

    name: str
    points: int
    ops: dict[str, int]
    grids: list[tuple[int, int]]  # in order, without repeats
    stem: tuple[str, int]  # layout kind and channels of the first point
    last: str
    size: tuple[int, int] = (224, 224)
    prefixes: set[int] = field(default_factory=lambda: {0})
    args: dict[str, Any] = field(default_factory=dict)


def square(*sides: int) -> list[tuple[int, int]]:
    return [(side, side) for side in sides]


# ruff: noqa: E501
CASES = [
    Case("resnet18", 9, {"embed": 1, "conv": 5, "downsample": 3}, square(16, 8, 4, 2), ("nchw", 64), "layer4.1", (64, 64)),
    Case("resnet50", 17, {"embed": 1, "conv": 13, "downsample": 3}, square(16, 8, 4, 2), ("nchw", 64), "layer4.2", (64, 64)),
    Case(
        "resnext50_32x4d", 17, {"embed": 1, "conv": 13, "downsample": 3},
        [(16, 24), (8, 12), (4, 6), (2, 3)], ("nchw", 64), "layer4.2", (64, 96),
    ),
    Case(
        "convnext_tiny", 22, {"embed": 1, "conv": 18, "downsample": 3},
        [(16, 24), (8, 12), (4, 6), (2, 3)], ("nchw", 96), "stages.3.blocks.2", (64, 96),
    ),
    Case(
        "efficientnet_b0", 17, {"embed": 1, "conv": 12, "downsample": 4},
        square(32, 16, 8, 4, 2), ("nchw", 32), "blocks.6.0", (64, 64),
    ),
    Case("vgg16", 18, {"embed": 1, "conv": 12, "downsample": 5}, square(64, 32, 16, 8, 4, 2), ("nchw", 64), "features.30", (64, 64)),
    Case(
        "densenet121", 62, {"embed": 1, "conv": 58, "downsample": 3},
        square(16, 8, 4, 2), ("nchw", 64), "features.denseblock4", (64, 64),
    ),
    Case(
        "mobilenetv3_small_100", 13, {"embed": 1, "conv": 7, "downsample": 4, "mlp": 1},
        square(32, 16, 8, 4, 2), ("nchw", 16), "blocks.5.0", (64, 64),
    ),
    Case(
        "vit_tiny_patch16_224", 25, {"embed": 1, "attention": 12, "mlp": 12},
        [(4, 6)], ("tokens", 192), "blocks.11", (64, 96), {1}, {"img_size": (64, 96)},
    ),
    Case(
        "deit_tiny_distilled_patch16_224", 25, {"embed": 1, "attention": 12, "mlp": 12},
        square(4), ("tokens", 192), "blocks.11", (64, 64), {2}, {"img_size": 64},
    ),
    Case(
        "vit_small_patch14_reg4_dinov2", 25, {"embed": 1, "attention": 12, "mlp": 12},
        square(4), ("tokens", 384), "blocks.11", (56, 56), {5}, {"img_size": 56},
    ),
    Case(
        "convit_tiny", 25, {"embed": 1, "attention": 12, "mlp": 12},
        square(4), ("tokens", 192), "blocks.11", (64, 64), {0, 1}, {"img_size": 64},
    ),
    Case(
        "swin_tiny_patch4_window7_224", 28, {"embed": 1, "attention": 12, "mlp": 12, "downsample": 3},
        [(56, 84), (28, 42), (14, 21), (7, 11)], ("nhwc", 96), "layers.3.blocks.1", (224, 336), {0}, {"img_size": (224, 336)},
    ),
    Case(
        "pit_ti_224", 27, {"embed": 1, "attention": 12, "mlp": 12, "downsample": 2},
        square(27, 14, 7), ("tokens", 64), "transformers.2.blocks.3", (224, 224), {1},
    ),
    Case(
        "cait_xxs24_224", 49, {"embed": 1, "attention": 24, "mlp": 24},
        square(4), ("tokens", 192), "blocks.23", (64, 64), {0}, {"img_size": 64},
    ),
    Case(
        "xcit_nano_12_p16_224", 37, {"embed": 1, "attention": 12, "conv": 12, "mlp": 12},
        [(4, 6)], ("tokens", 128), "blocks.11", (64, 96),
    ),
    Case(
        "coatnet_0_rw_224", 24, {"embed": 1, "attention": 7, "conv": 3, "mlp": 9, "downsample": 4},
        square(112, 56, 28, 14, 7), ("nchw", 64), "stages.3.blocks.1",
    ),
    Case("mixer_s32_224", 17, {"embed": 1, "mlp": 16}, square(7), ("tokens", 512), "blocks.7"),
    Case(
        "mobilevit_s", 11, {"embed": 1, "attention": 3, "conv": 3, "downsample": 4},
        square(32, 16, 8, 4, 2), ("nchw", 16), "stages.4.1", (64, 64),
    ),
    Case(
        "poolformer_s12", 28, {"embed": 1, "conv": 12, "mlp": 12, "downsample": 3},
        [(16, 24), (8, 12), (4, 6), (2, 3)], ("nchw", 64), "stages.3.blocks.1", (64, 96),
    ),
]  # fmt: skip


def made(name: str, **args: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, **args)
    return model.eval()


def heard(model: nn.Module, points: list[Point], images: Tensor) -> dict[str, Tensor]:
    maps: dict[str, Tensor] = {}
    with (
        torch.no_grad(),
        Capture(model, points, lambda point, features: maps.update({point.name: features.clone()})) as capture,
    ):
        model(images)
        capture.check()
    return maps


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_points_of_a_model(case: Case) -> None:
    with torch.device("meta"):  # shapes are all that counts here
        points = find_points(timm.create_model(case.name, **case.args), torch.zeros(1, 3, *case.size))
    assert len(points) == case.points
    assert Counter(point.op for point in points) == case.ops
    grids = [point.layout.grid for point in points]
    assert [grid for i, grid in enumerate(grids) if not i or grid != grids[i - 1]] == case.grids
    assert (points[0].layout.kind, points[0].layout.channels) == case.stem
    assert points[-1].name == case.last
    assert {point.layout.prefix for point in points} == case.prefixes
    assert points[0].kind == "stem"
    assert {point.kind for point in points[1:]} == {"residual"}
    assert [point.depth for point in points] == [i / (len(points) - 1) for i in range(len(points))]
    assert len({point.name for point in points}) == len(points)


RESIDUAL = [
    ("vit_tiny_patch16_224", {"img_size": 64}, 64),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 56}, 56),
    ("deit_tiny_distilled_patch16_224", {"img_size": 64}, 64),
    ("convit_tiny", {"img_size": 64}, 64),
    ("swin_tiny_patch4_window7_224", {}, 224),
    ("mixer_s32_224", {}, 224),
    ("poolformer_s12", {}, 64),
    ("coatnet_0_rw_224", {}, 224),
    ("pit_ti_224", {}, 224),
]


@pytest.mark.parametrize(("name", "args", "size"), RESIDUAL, ids=[name for name, *_ in RESIDUAL])
def test_the_stream_changes_by_what_the_branch_adds(name: str, args: dict[str, Any], size: int) -> None:
    """stream after an MLP - stream before = output of the MLP branch, exactly, in every block."""
    model = made(name, **args)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    points = find_points(model, images)
    stream = heard(model, points, images)
    branches: dict[str, Tensor] = {}
    last = {"mixer_s32_224": "mlp_channels", "poolformer_s12": "layer_scale2", "coatnet_0_rw_224": "mlp"}.get(
        name, "mlp"
    )
    if name.startswith("vit_small"):
        last = "ls2"
    handles = [
        module.register_forward_hook(lambda _m, _i, out, key=key: branches.__setitem__(key, out.clone()))
        for key, module in model.named_modules()
        if key.endswith(f".{last}")
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    checked = 0
    for before, after in itertools.pairwise(points):
        branch = branches.get(f"{after.name}.{last}")
        if branch is None or before.layout.grid != after.layout.grid or "+" not in before.name:
            continue
        if branch.ndim == 3:
            branch = Layout("tokens", after.layout.grid, after.layout.channels, after.layout.prefix)(branch)
        elif branch.shape != stream[after.name].shape:
            branch = branch.permute(0, 3, 1, 2)
        difference = stream[after.name] - stream[before.name]
        assert torch.allclose(difference, branch, atol=1e-5), after.name
        checked += 1
    assert checked >= 6


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_tiny", "efficientnet_b0", "xcit_nano_12_p16_224", "mobilevit_s"]
)
def test_features_are_among_those_of_forward_intermediates(name: str) -> None:
    model = made(name)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    ours = heard(model, find_points(model, images), images)
    with torch.no_grad():
        theirs = model.forward_intermediates(images, intermediates_only=True)
    matched = sum(any(a.shape == b.shape and torch.allclose(a, b, atol=1e-5) for a in ours.values()) for b in theirs)
    assert matched >= len(theirs) - 1  # timm's first is before the stem's pooling


def test_dense_layers_are_read_from_the_concatenation() -> None:
    model = made("densenet121")
    images = torch.rand(1, 3, 64, 64)
    maps = heard(model, find_points(model, images), images)
    block = [maps[f"features.denseblock1.denselayer{i}"] for i in range(1, 6)]
    assert [m.shape[1] for m in block] == [96, 128, 160, 192, 224]
    assert torch.equal(block[3][:, :96], block[0])
    assert torch.equal(maps["features.denseblock1"][:, :224], block[4])


def test_the_convit_class_token_joins_late() -> None:
    with torch.device("meta"):
        points = find_points(timm.create_model("convit_tiny"), torch.zeros(1, 3, 224, 224))
    prefix = {point.name: point.layout.prefix for point in points}
    assert (prefix["blocks.9"], prefix["blocks.10+attn"], prefix["blocks.11"]) == (0, 1, 1)


# --- any module ---


class Residual(nn.Module):
    """A user's own block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Body plus shortcut."""
        return x + self.body(x)


def test_a_network_of_ones_own() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Residual(8), nn.MaxPool2d(2), Residual(8), Residual(8))
    points = find_points(model, torch.zeros(1, 3, 10, 14))
    assert [(p.name, p.op, p.layout.grid) for p in points] == [
        ("stem", "embed", (10, 14)),
        ("1", "conv", (10, 14)),
        ("2", "downsample", (5, 7)),
        ("3", "conv", (5, 7)),
        ("4", "conv", (5, 7)),
    ]


def test_nothing_is_left_on_the_model_and_modes_and_random_state_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    model[2].eval()
    image = torch.rand(1, 3, 8, 8)
    state, mean = torch.get_rng_state(), model[1].running_mean.clone()
    find_points(model, image)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model[1].running_mean, mean)
    assert [module.training for module in model] == [True, True, False]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_select_takes_modules_and_points_by_glob_in_order() -> None:
    model = made("vit_tiny_patch16_224", img_size=32)
    image = torch.zeros(1, 3, 32, 32)
    points = find_points(model, image, select=["blocks.1.attn", "blocks.0*attn", "stem", "blocks.0"])
    assert [(p.name, p.kind, p.op) for p in points] == [
        ("stem", "stem", "embed"),
        ("blocks.0.attn", "branch", "attention"),
        ("blocks.0+attn", "residual", "attention"),
        ("blocks.0", "residual", "mlp"),
        ("blocks.1.attn", "branch", "attention"),
    ]
    assert points[-1].depth == points[-2].depth


@pytest.mark.parametrize(
    ("glob", "message"),
    [
        ("bocks.0", r"matches no probe point and no module. Did you mean blocks.0"),
        ("nothing*", "matches no probe point and no module"),
        ("head", r"point head: its output of shape \(2, 1000\) for two images cannot be laid out"),
        ("blocks.0.attn.attn_drop", "never called|cannot be laid out"),
    ],
)
def test_bad_names(glob: str, message: str) -> None:
    model = made("vit_tiny_patch16_224", img_size=32)
    with pytest.raises(PointError, match=message):
        find_points(model, torch.zeros(1, 3, 32, 32), select=[glob])


def test_a_model_without_maps_says_what_to_do() -> None:
    with pytest.raises(PointError, match=r"no probe point was found in Sequential.*--points"):
        find_points(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5)), torch.zeros(1, 3, 8, 8))


# --- layouts ---


@pytest.mark.parametrize(
    ("shape", "known", "evidence", "expected"),
    [
        ((2, 197, 192), [(224, 224), (14, 14)], None, Layout("tokens", (14, 14), 192, 1)),
        ((2, 16, 8), [(2, 8)], None, Layout("tokens", (2, 8), 8)),  # never 4 x 4
        ((2, 16, 8), [(2, 8), (4, 4)], None, Layout("tokens", (4, 4), 8)),  # the latest that fits
        ((2, 17, 8), [(4, 4), (3, 5)], None, Layout("tokens", (4, 4), 8, 1)),  # the fewest prefix tokens
        ((2, 100, 8), [(4, 4)], None, None),
        ((2, 1, 8), [(14, 14)], None, None),  # the class token alone
        ((2, 7, 7, 96), [(7, 7)], None, Layout("nhwc", (7, 7), 96)),
        ((2, 96, 7, 9), [(7, 9)], None, Layout("nchw", (7, 9), 96)),
        ((2, 7, 7, 7), [(7, 7)], None, None),  # evidence for both
        ((2, 7, 7, 7), [(7, 7)], "nhwc", Layout("nhwc", (7, 7), 7)),
        ((2, 3, 197, 197), [(14, 14)], None, None),  # an attention map is no feature map
        ((2, 10), [(14, 14)], None, None),
    ],
)
def test_layout_from_evidence(shape: Any, known: Any, evidence: Any, expected: Layout | None) -> None:
    assert infer_layout(shape, known, evidence=evidence) == expected


def test_layouts_put_positions_in_their_place() -> None:
    maps = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    tokens = torch.cat([torch.full((2, 2, 3), -1.0), maps.flatten(2).transpose(1, 2)], dim=1)
    assert torch.equal(Layout("tokens", (4, 5), 3, 2)(tokens), maps)
    assert torch.equal(Layout("nhwc", (4, 5), 3)(maps.permute(0, 2, 3, 1)), maps)
    assert Layout("nchw", (4, 5), 3)(maps) is maps
    assert Layout("tokens", (4, 5), 3, 2)(tokens).data_ptr() == tokens[:, 2:].data_ptr()  # a view
    with pytest.raises(
        PointError, match=r"here gave features of shape \(2, 3, 4, 6\), expected \(B, 3, 4, 5\) \(nchw\)"
    ):
        Layout("nchw", (4, 5), 3)(torch.zeros(2, 3, 4, 6), name="here")

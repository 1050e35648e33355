"""Where each architecture is listened to: counts, operations, grids, prefixes, and that the stream is the stream."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from fourier_probe.errors import ModelError, PointError
from fourier_probe.models.gpsa import attend
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.points import Point, find_points
from fourier_probe.trace.grid import Layout


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
        "mobilevit_s", 29, {"embed": 1, "attention": 9, "mlp": 9, "conv": 6, "downsample": 4},
        square(32, 16, 8, 4, 2), ("nchw", 16), "stages.4.1", (64, 64),
    ),
    Case(
        "poolformer_s12", 28, {"embed": 1, "conv": 12, "mlp": 12, "downsample": 3},
        [(16, 24), (8, 12), (4, 6), (2, 3)], ("nchw", 64), "stages.3.blocks.1", (64, 96),
    ),
    # Blocks that stand inside blocks, lack a shortcut, hold convolutions with a shortcut of their own, or pool aside.
    Case(
        "davit_tiny", 52, {"embed": 1, "attention": 12, "mlp": 12, "conv": 24, "downsample": 3},
        square(16, 8, 4, 2), ("nchw", 96), "stages.3.blocks.0.1", (64, 64),
    ),
    Case(
        "efficientvit_b0", 16, {"embed": 1, "attention": 4, "conv": 7, "downsample": 4},
        square(32, 16, 8, 4, 2), ("nchw", 8), "stages.3.blocks.2.local_module", (64, 64),
    ),
    Case("dla34", 13, {"embed": 1, "conv": 8, "downsample": 4}, square(32, 16, 8, 4, 2), ("nchw", 32), "level5.tree2", (64, 64)),
    Case(
        "gcvit_xxtiny", 33, {"embed": 1, "attention": 12, "mlp": 12, "conv": 4, "downsample": 4},
        square(112, 56, 28, 14, 7), ("nchw", 64), "stages.3.blocks.1",
    ),
    Case(
        "levit_128s", 21, {"embed": 1, "attention": 9, "mlp": 9, "downsample": 2},
        square(14, 7, 4), ("tokens", 128), "stages.2.blocks.3",
    ),
    Case(
        "cpubone_nano", 14, {"embed": 1, "attention": 3, "mlp": 3, "conv": 3, "downsample": 4},
        square(32, 16, 8, 4, 2), ("nchw", 12), "stages.3.2.total.1", (64, 64),
    ),
    Case(  # two streams side by side
        "crossvit_tiny_240", 31, {"embed": 1, "attention": 14, "mlp": 15, "downsample": 1},
        square(20, 14, 20, 14, 20, 14), ("tokens", 96), "blocks.2.blocks.1.3", (240, 240), {1},
    ),
    # Tokens in blocks, in unfolded patches, in mask units: put back where they lie.
    Case(
        "nest_tiny", 27, {"embed": 1, "attention": 12, "mlp": 12, "downsample": 2},
        square(56, 28, 14), ("folded", 96), "levels.2.transformer_encoder.7",
    ),
    Case(
        "mobilevitv2_050", 28, {"embed": 1, "attention": 9, "mlp": 12, "conv": 2, "downsample": 4},
        square(32, 16, 8, 4, 2), ("nchw", 16), "stages.4.1", (64, 64),
    ),
    Case(
        "hiera_tiny_224", 25, {"embed": 1, "attention": 9, "mlp": 12, "downsample": 3},
        square(56, 28, 14, 7), ("folded", 96), "blocks.11",
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


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_points_of_a_model(case: Case) -> None:
    with torch.device("meta"):  # shapes are all that counts here
        points = find_points(timm.create_model(case.name, **case.args), torch.zeros(1, 3, *case.size))
    points = [point for point in points if point.kind != "branch"]
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_change_in_the_image_is_found_where_it_was_made(case: Case) -> None:
    """The independent check of every layout: what changes at a point when a part of the image does lies at that part.

    A transposed grid, a sequence in another order, or a prefix of the wrong length moves it.
    """
    model = made(case.name, **case.args)
    H, W = case.size
    images = torch.rand(1, 3, H, W, generator=torch.Generator().manual_seed(2)).repeat(2, 1, 1, 1)
    images[1, :, H // 8 : 3 * H // 8, 5 * W // 8 : 7 * W // 8] += 1.0  # in the upper right quarter
    points = find_points(model, images, branches=False)  # content attention has no place
    points = [p for p in points if p.layout.grid == points[0].layout.grid or min(p.layout.grid) >= 8]
    for point, maps in zip(points, heard(model, points, images).values(), strict=True):
        change = (maps[1] - maps[0]).square().sum(dim=0)
        h, w = change.shape
        share = change[: (h + 1) // 2, w // 2 :].sum() / change.sum()
        assert share > 0.4, (point.name, share)  # 0.25 by chance; a random network forgets places with depth


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
        ("head*", r"matches 2 modules, and none of them has a map of its own"),
    ],
)
def test_bad_names(glob: str, message: str) -> None:
    model = made("vit_tiny_patch16_224", img_size=32)
    with pytest.raises(PointError, match=message):
        find_points(model, torch.zeros(1, 3, 32, 32), select=[glob])


def test_a_glob_leaves_out_modules_that_change_nothing_and_a_name_does_not() -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.Identity(), nn.Dropout(0.5), nn.Dropout2d(0.5), nn.ReLU()]
    model, image = nn.Sequential(*layers), torch.zeros(1, 3, 8, 8)
    assert [point.name for point in find_points(model, image, select=["*"])] == ["0", "4"]
    assert [point.name for point in find_points(model, image, select=["1", "3", "4"])] == ["1", "3", "4"]
    with pytest.raises(PointError, match="matches 3 modules, and none of them has a map of its own"):
        find_points(model, image, select=["[123]"])


def test_a_glob_leaves_out_modules_without_a_map() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    points = find_points(model, torch.zeros(1, 3, 8, 8), select=["*"])
    assert [point.name for point in points][:2] == ["0", "1"] and "4" not in {point.name for point in points}


def test_a_model_without_maps_says_what_to_do() -> None:
    with pytest.raises(PointError, match=r"no probe point was found in Sequential.*--points"):
        find_points(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5)), torch.zeros(1, 3, 8, 8))


class Tokens(nn.Module):
    """A transformer put together from torch's own parts, with a class token."""

    def __init__(self, blocks: nn.Module) -> None:
        super().__init__()
        self.patches, self.blocks, self.head = nn.Conv2d(3, 16, 4, 4), blocks, nn.Linear(16, 5)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))

    def forward(self, images: Tensor) -> Tensor:
        """Images to class scores."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = self.blocks(torch.cat([self.token.expand(len(tokens), -1, -1), tokens], dim=1))
        scores: Tensor = self.head(tokens[:, 0])
        return scores


@pytest.mark.parametrize("norm_first", [True, False])
def test_torch_s_own_transformer_before_and_after_the_norm(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
    model = Tokens(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    points = find_points(model, torch.zeros(1, 3, 16, 24))
    assert [(p.name, p.op) for p in points] == [
        ("stem", "embed"),
        ("blocks.layers.0+attn", "attention"),
        ("blocks.layers.0", "mlp"),
        ("blocks.layers.1+attn", "attention"),
        ("blocks.layers.1", "mlp"),
    ]
    assert {(p.layout.grid, p.layout.prefix) for p in points} == {((4, 6), 1)}


class Parallel(nn.Module):
    """Attention and MLP beside each other: no stream between them."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        """Both at once."""
        return x + self.attn(x, x, x)[0] + self.mlp(x)


def test_a_parallel_block_is_one_step() -> None:
    points = find_points(Tokens(nn.Sequential(Parallel(), Parallel())), torch.zeros(1, 3, 16, 16))
    assert [(p.name, p.op) for p in points] == [("stem", "embed"), ("blocks.0", "attention"), ("blocks.1", "attention")]


class Reparametrised(nn.Module):
    """Parallel branches of one convolution, and a gate that passes the sum on: no residual addition between them."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.drop = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Sum of three branches."""
        out: Tensor = self.drop(self.wide(x) + self.narrow(x)) + self.norm(x)
        return out.relu()


def test_attention_in_a_block_s_own_forward_is_attention() -> None:
    with torch.device("meta"):
        points = find_points(timm.create_model("vit_base_patch16_xp_224", img_size=32), torch.zeros(1, 3, 32, 32))
    assert Counter(p.op for p in points) == {"embed": 1, "attention": 12}


@pytest.mark.slow
def test_sums_of_branches_are_no_stream() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), *[Reparametrised() for _ in range(3)])
    assert [p.name for p in find_points(model, torch.zeros(1, 3, 8, 8))] == ["stem", "1", "2", "3"]


class Mixed(nn.Module):
    """A layer without layers that mixes two maps of its own, as a gated convolution does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 4, 1, 1))
        self.kernel_size = (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Both halves."""
        return nn.functional.conv2d(x, self.weight) + nn.functional.conv2d(x, self.weight.relu())


def test_a_sum_inside_a_layer_makes_no_block_of_it() -> None:
    def plain(layer: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), layer, nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU())

    image = torch.zeros(1, 3, 8, 10)
    of_mixed, of_plain = find_points(plain(Mixed()), image), find_points(plain(nn.Conv2d(4, 4, 1)), image)
    assert [(p.name, p.layout) for p in of_mixed] == [(p.name, p.layout) for p in of_plain]
    assert [p.name for p in of_mixed] == ["1", "3", "5"]


class Wrapped(nn.Module):
    """A model inside another, giving a dictionary."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Scores by name."""
        return {"scores": self.inner(images)}


def test_a_wrapped_model_gives_the_same_points_under_longer_names() -> None:
    with torch.device("meta"):
        model, image = timm.create_model("resnet18"), torch.zeros(1, 3, 64, 64)
        bare, wrapped = find_points(model, image), find_points(Wrapped(model), image)
    assert [p.name.replace("inner.", "") for p in wrapped] == [p.name for p in bare]
    assert [(p.op, p.depth, p.layout) for p in wrapped] == [(p.op, p.depth, p.layout) for p in bare]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vgg11", "densenet121"])
def test_a_recast_model_gives_the_same_points(name: str) -> None:
    model, image = made(name), torch.zeros(1, 3, 64, 64)
    before = find_points(model, image)
    wide = [
        key for key, module in model.named_modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]
    recast_(model, wide[2:6])

    def place(points: list[Point]) -> list[Point]:
        return [replace(point, op="any") for point in points if point.kind != "branch"]

    assert place(find_points(model, image, branches=False)) == place(before)
    after = find_points(model, image)
    assert place(after) == place(before)
    assert [p.name for p in after if p.kind == "branch"] == [
        f"{name}+{half}" for name in wide[2:6] for half in ("content", "positional")
    ]


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_a_block_is_attention_once_all_its_spatial_convolutions_are_recast(name: str) -> None:
    model, image = made(name), torch.zeros(1, 3, 64, 64)
    block = {"resnet18": "layer1.1", "convnext_atto": "stages.1.blocks.1"}[name]
    inside = [f"{block}.conv1", f"{block}.conv2"] if name == "resnet18" else [f"{block}.conv_dw"]
    before = find_points(model, image, branches=False)
    for recast, layer in enumerate(inside, 1):
        recast_(model, [layer])
        after = find_points(model, image, branches=False)
        op = "attention" if recast == len(inside) else "conv"
        assert after == [replace(point, op=op) if point.name == block else point for point in before]


def test_a_recast_convolution_keeps_the_name_of_its_point() -> None:
    """`+conv` of before the switch is `+conv` after it, or no point could be followed through a training."""

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.mix = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
            self.norm2, self.fc = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.mix(self.norm1(x))
            return x + self.fc(self.norm2(x))

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Mixing(), Mixing())
    recast_(model, ["1.mix"])
    found = [(p.name, p.op) for p in find_points(model, torch.zeros(1, 3, 8, 8), branches=False)][1:]
    assert found == [("1+conv", "attention"), ("1", "mlp"), ("2+conv", "conv"), ("2", "mlp")]


def test_the_branches_of_eit_are_points() -> None:
    """Convolution on the first channels, attention on the last, of every block; the last block has no convolution."""
    model, image = timm.create_model("eit_small_w80"), torch.zeros(1, 3, 32, 48)
    points = find_points(model, image)
    branches = [(p.name, p.op, p.layout.grid, p.layout.channels) for p in points if p.kind == "branch"]
    assert branches[:2] == [
        ("blocks.0.mixer.attn", "attention", (8, 12), 15),
        ("blocks.0.mixer.conv", "conv", (8, 12), 65),
    ]
    assert [(name, channels) for name, _, _, channels in branches[-1:]] == [("blocks.4.mixer.attn", 80)]
    assert len(branches) == 9
    stream = [p for p in points if p.kind != "branch"]
    assert stream == find_points(model, image, branches=False)
    assert [p.name for p in stream[:3]] == ["stem", "blocks.0+attn", "blocks.0"]
    order = [p.name for p in points]
    assert order.index("blocks.0.mixer.attn") < order.index("blocks.0.mixer.conv") < order.index("blocks.0+attn")


@pytest.mark.parametrize("name", ["cifar_convit", "convit_tiny"])
def test_the_halves_of_gated_attention_are_points(name: str) -> None:
    """Ours and timm's; only the first blocks are gated."""
    size = 32 if name == "cifar_convit" else 224
    model = timm.create_model(name, depth=3, local_up_to_layer=2)
    points = [p for p in find_points(model, torch.zeros(1, 3, size, size)) if p.kind == "branch"]
    expected = [f"blocks.{i}.attn+{half}" for i in (0, 1) for half in ("content", "positional")]
    assert [(p.name, p.part) for p in points] == [(n, n.partition("+")[2]) for n in expected]
    chosen = find_points(model, torch.zeros(1, 3, size, size), select=["blocks.1.attn+*"])
    assert [p.name for p in chosen] == expected[2:]


def test_a_map_of_as_many_channels_as_rows_is_followed_from_the_image() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
    )
    assert [p.name for p in find_points(model, torch.zeros(1, 3, 8, 8))] == ["1", "3"]


class Shared(nn.Module):
    """One layer called twice, under two names, beside one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.layer = nn.Conv2d(4, 4, 3, padding=1)
        self.alias = self.layer
        self.unused = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores."""
        maps = self.alias(self.layer(self.first(images)))
        scores: Tensor = self.head(maps.mean(dim=(2, 3)))
        return scores


def test_shared_modules_have_one_point_a_call_and_aliases_no_second() -> None:
    model, image = Shared(), torch.zeros(1, 3, 6, 8)
    assert [(p.name, p.call) for p in find_points(model, image)] == [("first", 0), ("layer", 0), ("layer#2", 1)]
    chosen = find_points(model, image, select=["layer", "alias", "layer#2", "l*"])
    assert [(p.name, p.module, p.call) for p in chosen] == [("layer", "layer", 0), ("layer#2", "layer", 1)]
    assert [p.module for p in find_points(model, image, select=["alias"])] == ["layer", "layer"]
    wrapped = nn.Sequential(Shared(), nn.Identity())  # off the stream, each call by its own name too
    assert [p.name for p in find_points(wrapped, image, select=["*layer#2"])] == ["0.layer#2"]


def test_what_is_never_called_or_has_no_place_is_named() -> None:
    model, image = Shared(), torch.zeros(1, 3, 6, 8)
    with pytest.raises(PointError, match="module 'unused' is never called in the forward of Shared"):
        find_points(model, image, select=["unused"])
    with pytest.raises(PointError, match=r"point head: its output of shape \(2, 2\)"):
        find_points(model, image, select=["head"])
    names = {point.name for point in find_points(model, image, select=["*"])}
    assert names and not names & {"head", "unused"}


def test_a_stream_without_a_grid_is_an_error_with_its_shape() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.block = nn.Linear(3, 16), Parallel()

        def forward(self, images: Tensor) -> Tensor:
            """Only every third position is kept: no grid."""
            tokens: Tensor = self.block(self.embed(images.flatten(2).transpose(1, 2)[:, ::3]))
            return tokens

    with pytest.raises(PointError, match=r"The stream in 'block' has shape \(2, 22, 16\).*--points GLOB"):
        find_points(Shuffled(), torch.zeros(1, 3, 8, 8))


def test_a_forward_that_raises_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Linear(7, 2)).train()
    state = torch.get_rng_state()
    with pytest.raises(ModelError, match=r"3 x 8 x 8: RuntimeError: .*shapes cannot be multiplied.*Wrapper"):
        find_points(model, torch.zeros(1, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_maps_of_one_position_are_points_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), Residual(4), nn.Conv2d(4, 4, 2, 2), Residual(4))
    assert [p.layout.grid for p in find_points(model, torch.zeros(1, 3, 8, 8))] == [(2, 2), (2, 2), (1, 1), (1, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("size", [12, 16, 20])
@pytest.mark.parametrize("width", [4, 6, 8])
def test_halves_of_recast_layers_are_read_whatever_numbers_coincide(
    size: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU a layer works in blocks whose memory is used again; its halves are those of any other device."""
    model = timm.create_model("cifar_resnet8", width=width).eval()
    names = [name for name, module in model.named_modules() if getattr(module, "kernel_size", 0) == (3, 3)][1:]
    recast_(model, names)
    found = find_points(model, torch.zeros(1, 3, size, size))
    halves = [point.name for point in found if point.part]
    assert halves == [f"{name}+{part}" for name in names for part in ("content", "positional")]
    monkeypatch.setattr(attend, "in_blocks", lambda device: False)
    assert find_points(model, torch.zeros(1, 3, size, size)) == found

"""Networks that nobody here wrote: every step read where it lies, or named as unread (small ones, random weights)."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fourier_probe.probe.capture import Capture
from fourier_probe.probe.points import Point, Survey
from fourier_probe.probe.survey import survey
from fourier_probe.trace import layouts
from fourier_probe.trace.calling import run

transformers = pytest.importorskip("transformers")
pytest.importorskip("vit_pytorch")
smp = pytest.importorskip("segmentation_models_pytorch")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 8,
}
VIT = {"image_size": 64, "patch_size": 8, "num_classes": 5, "dim": 32, "depth": 3, "heads": 2, "mlp_dim": 64}

pytestmark = pytest.mark.slow  # networks of other libraries


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def hf(model: str, config: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**options))
    return made.eval()


def vp(module: str, name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = getattr(importlib.import_module(f"vit_pytorch.{module}"), name)(**options)
    return made.eval()


class Tokens(nn.Module):
    """A convolution that cuts patches, blocks, and a head."""

    def __init__(self, blocks: nn.Module, *, first: bool = False) -> None:
        super().__init__()
        self.patches, self.blocks, self.head, self.first = nn.Conv2d(3, 16, 8, 8), blocks, nn.Linear(16, 5), first

    def forward(self, images: Tensor) -> Tensor:
        """Scores; the sequence comes first where asked."""
        maps = self.patches(images).flatten(2)
        tokens = self.blocks(maps.permute(2, 0, 1) if self.first else maps.transpose(1, 2))
        scores: Tensor = self.head(tokens.mean(0 if self.first else 1))
        return scores


class Block(nn.Module):
    """Attention and MLP before their norms, returning what `wrap` makes of the tokens."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.norm1, self.norm2, self.wrap = nn.LayerNorm(16), nn.LayerNorm(16), wrap
        self.one = nn.MultiheadAttention(16, 2, batch_first=True)
        self.two = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Any:
        """Tokens, wrapped."""
        normal = self.norm1(x)
        x = x + self.one(normal, normal, normal, need_weights=False)[0]
        return self.wrap(x + self.two(self.norm2(x)))


@dataclass
class Result:
    """What a block in the style of transformers returns."""

    hidden: Tensor
    extra: Tensor | None = None


class Unwrapping(nn.Sequential):
    """Blocks that return a `Result`."""

    def forward(self, x: Tensor) -> Tensor:
        """Tokens."""
        for block in self:
            x = block(x).hidden
        return x


class Inline(nn.Module):
    """A transformer in one forward: the root makes every addition itself."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.norm1 = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        self.norm2 = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        self.mix = nn.ModuleList(nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(3))
        self.feed = nn.ModuleList(nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(3))
        self.norm = nn.LayerNorm(16)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised tokens, averaged."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        for norm1, mix, norm2, feed in zip(self.norm1, self.mix, self.norm2, self.feed, strict=True):
            normal = norm1(x)
            x = x + mix(normal, normal, normal)[0]
            x = x + feed(norm2(x))
        out: Tensor = self.norm(x).mean(1)
        return out


def encoder(*, batch_first: bool) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first)
    return Tokens(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), first=not batch_first).eval()


def fx_resnet18() -> nn.Module:
    from torch.fx import symbolic_trace
    from torchvision.models import resnet18

    torch.manual_seed(0)
    made: nn.Module = symbolic_trace(resnet18().eval())
    return made


def extracted_vit() -> nn.Module:
    from torchvision.models import VisionTransformer
    from torchvision.models.feature_extraction import create_feature_extractor

    torch.manual_seed(0)
    vit = VisionTransformer(64, 8, 3, 2, 32, 64).eval()
    made: nn.Module = create_feature_extractor(vit, {"encoder.ln": "tokens"})
    return made


def detr() -> nn.Module:
    backbone = transformers.ResNetConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[16, 24, 32, 40], embedding_size=8, out_features=["stage4"]
    )
    widths = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in (("ffn_dim", 32),)}
    return hf(
        "DetrModel",
        "DetrConfig",
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=100,
        **widths,
    )


@dataclass
class Case:
    """What the network's code says: points, counted by hand; operations; grids; steps that cannot be read."""

    name: str
    build: Callable[[], nn.Module]
    points: int
    ops: dict[str, int]
    unread: int = 0
    reason: str = ""
    size: int = 64
    ends: tuple[int, int] = (0, 0)
    kinds: set[str] = field(default_factory=lambda: {"tokens"})
    places: bool = True  # local enough for the patch oracle at every point


THREE = {"embed": 1, "attention": 3, "mlp": 3}
# ruff: noqa: E501
CASES = [
    Case("swin", lambda: hf("SwinModel", "SwinConfig", image_size=64, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4), 10, {"embed": 1, "attention": 4, "mlp": 4, "downsample": 1}),
    Case("swinv2", lambda: hf("Swinv2Model", "Swinv2Config", image_size=64, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4), 10, {"embed": 1, "attention": 4, "mlp": 4, "downsample": 1}),
    Case("vit", lambda: hf("ViTModel", "ViTConfig", **SMALL), 7, THREE, ends=(1, 0)),
    Case("yolos", lambda: hf("YolosModel", "YolosConfig", **{**SMALL, "image_size": [64, 64]}, num_detection_tokens=10), 7, THREE, ends=(1, 10)),
    Case("yolos-100", lambda: hf("YolosModel", "YolosConfig", **{**SMALL, "image_size": [64, 64]}, num_detection_tokens=100), 7, THREE, ends=(1, 100)),
    Case("dpt", lambda: hf("DPTModel", "DPTConfig", **SMALL), 7, THREE, ends=(1, 0)),
    Case("mae-shuffled", lambda: hf("ViTMAEModel", "ViTMAEConfig", mask_ratio=0.0, **SMALL), 1, {"embed": 1}, 6, "gathered, dropped", kinds={"nchw"}),
    Case("mae-dropped", lambda: hf("ViTMAEModel", "ViTMAEConfig", mask_ratio=0.75, **SMALL), 1, {"embed": 1}, 6, "gathered, dropped", kinds={"nchw"}),
    Case("hiera", lambda: hf("HieraModel", "HieraConfig", image_size=[64, 64], embed_dim=16, depths=[1, 2, 2], num_heads=[1, 2, 4], num_query_pool=2), 11, {"embed": 1, "attention": 3, "mlp": 5, "downsample": 2}, kinds={"tokens", "folded"}),
    Case("mobilevitv2", lambda: hf("MobileViTV2Model", "MobileViTV2Config", image_size=64), 25, {"embed": 1, "attention": 9, "mlp": 9, "conv": 2, "downsample": 4}, kinds={"nchw", "folded"}, places=False),
    Case("convnext", lambda: hf("ConvNextModel", "ConvNextConfig", depths=[2, 1, 1, 1], hidden_sizes=[24, 32, 40, 64]), 9, {"embed": 1, "conv": 5, "downsample": 3}, size=96, kinds={"nchw"}),
    Case("detr", detr, 9, {"embed": 1, "attention": 2, "mlp": 2, "conv": 1, "downsample": 3}, 4, "none of its axes runs over positions", size=320, kinds={"nchw", "tokens"}, places=False),
    Case("sequence-first", lambda: encoder(batch_first=False), 7, THREE),
    Case("batch-first", lambda: encoder(batch_first=True), 7, THREE),
    Case("dataclass", lambda: Tokens(Unwrapping(*[Block(Result) for _ in range(3)])).eval(), 7, THREE),
    Case("inline", lambda: Inline().eval(), 7, THREE),
    Case("fx-resnet18", fx_resnet18, 9, {"embed": 1, "conv": 5, "downsample": 3}, kinds={"nchw"}),
    Case("extracted-vit", extracted_vit, 7, THREE, ends=(1, 0)),
    Case("vit-pytorch ViT", lambda: vp("vit", "ViT", **VIT), 7, THREE, ends=(1, 0)),
    Case("vit-pytorch SimpleViT", lambda: vp("simple_vit", "SimpleViT", **VIT), 7, THREE, places=False),
    Case("vit-pytorch DeepViT", lambda: vp("deepvit", "DeepViT", **VIT), 7, THREE, ends=(1, 0), places=False),
    Case("vit-pytorch CaiT", lambda: vp("cait", "CaiT", cls_depth=1, **VIT), 7, THREE),
    Case("vit-pytorch T2T", lambda: vp("t2t", "T2TViT", t2t_layers=((7, 4), (3, 2)), **{k: v for k, v in VIT.items() if k != "patch_size"}), 10, {"embed": 1, "attention": 4, "mlp": 4, "downsample": 1}, ends=(1, 0)),
    Case("vit-pytorch CvT", lambda: vp("cvt", "CvT", num_classes=5, s1_emb_dim=16, s1_depth=1, s2_emb_dim=24, s2_depth=1, s2_heads=2, s3_emb_dim=32, s3_depth=2, s3_heads=2), 11, {"embed": 1, "attention": 4, "mlp": 4, "downsample": 2}, kinds={"nchw"}),
    Case("smp MiT", lambda: smp.Unet("mit_b0", encoder_weights=None).encoder.eval(), 20, {"embed": 1, "attention": 8, "conv": 8, "downsample": 3}, kinds={"nchw", "tokens"}),
]  # fmt: skip


def photograph(size: int) -> Tensor:
    """Noise with large and small scales, which is no constant anywhere."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, 3, 8, 8, generator=generator)
    return nn.functional.interpolate(coarse, size=size) + 0.5 * torch.randn(1, 3, size, size, generator=generator)


@pytest.fixture(scope="module")
def surveyed() -> dict[str, tuple[nn.Module, Survey]]:
    return {}


def surveyed_case(case: Case, memory: dict[str, tuple[nn.Module, Survey]]) -> tuple[nn.Module, Survey]:
    if case.name not in memory:
        model = case.build()
        memory[case.name] = (model, survey(model, photograph(case.size)))
    return memory[case.name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_step_is_read_or_named(case: Case, surveyed: dict[str, tuple[nn.Module, Survey]]) -> None:
    _, found = surveyed_case(case, surveyed)
    ops: dict[str, int] = {}
    for point in found.points:
        ops[point.op] = ops.get(point.op, 0) + 1
    assert (len(found.points), ops) == (case.points, case.ops)
    assert {point.layout.kind for point in found.points} <= case.kinds
    last = found.points[-1].layout
    assert (last.prefix, last.suffix) == case.ends
    coverage = found.coverage
    assert (coverage.steps, coverage.read, len(coverage.unread)) == (
        case.points + case.unread,
        case.points,
        case.unread,
    )
    assert all(case.reason in step.reason for step in coverage.unread)
    assert set(coverage.evidence.values()) == {"axes"}
    assert coverage.self_check is not None and not coverage.self_check.misplaced
    if not case.unread:
        assert [point.depth for point in found.points] == [i / (case.points - 1) for i in range(case.points)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_change_lies_where_it_was_made(case: Case, surveyed: dict[str, tuple[nn.Module, Survey]]) -> None:
    """Own images and own measure, other than the self-check's: the share of the change in the changed quarter."""
    model, found = surveyed_case(case, surveyed)
    image = photograph(case.size)
    changed = image.clone()
    side = case.size
    changed[:, :, side // 8 : 3 * side // 8, 5 * side // 8 : 7 * side // 8] += 1.0
    points = [point for point in found.points if min(point.layout.grid) >= 8]
    points = points if case.places else points[:1]
    before, after = heard(model, points, image), heard(model, points, changed)
    assert before
    for name, maps in before.items():
        change = (after[name] - maps).square().sum(0)
        h, w = change.shape
        share = float(change[: (h + 1) // 2, w // 2 :].sum() / change.sum())
        assert share > 0.4, (name, share)  # 0.25 by chance


def heard(model: nn.Module, points: list[Point], image: Tensor) -> dict[str, Tensor]:
    maps: dict[str, Tensor] = {}
    torch.manual_seed(0)
    with (
        torch.no_grad(),
        Capture(model, points, lambda point, features: maps.update({point.name: features[0].double()})) as capture,
    ):
        run(model, image)
        capture.check()
    return maps


@pytest.mark.parametrize("name", ["vit", "yolos", "swin"])
def test_the_maps_are_the_hidden_states_that_transformers_gives(
    name: str, surveyed: dict[str, tuple[nn.Module, Survey]]
) -> None:
    case = next(case for case in CASES if case.name == name)
    model, found = surveyed_case(case, surveyed)
    image = photograph(case.size)
    with torch.no_grad():
        output = model(image, output_hidden_states=True)
    states = output.reshaped_hidden_states if name == "swin" else output.hidden_states
    maps = heard(model, found.points, image)
    blocks = [maps[point.name] for point in found.points if "+" not in point.name]
    for state in states[1:-1] if name == "swin" else states[:-1]:
        theirs = state[0].double() if name == "swin" else state[0, 1:65].T.reshape(32, 8, 8).double()
        assert any(m.shape == theirs.shape and torch.allclose(m, theirs, atol=1e-6) for m in blocks)


def test_hiera_is_put_in_the_order_that_transformers_gives(surveyed: dict[str, tuple[nn.Module, Survey]]) -> None:
    case = next(case for case in CASES if case.name == "hiera")
    model, found = surveyed_case(case, surveyed)
    image = photograph(64)
    with torch.no_grad():
        state = model(image, output_hidden_states=True).reshaped_hidden_states[0]  # (B, H, W, C), before the blocks
    stem = heard(model, found.points[:1], image)["stem"]
    assert torch.allclose(stem, state[0].permute(2, 0, 1).double(), atol=1e-6)


DROPPED = [
    ("hiera", ["folded", "in_blocks"]),
    ("yolos", ["followed", "in_blocks"]),
    ("mobilevitv2", ["folded", "in_blocks"]),
    ("mae-shuffled", ["gathered"]),
    ("vit-pytorch CvT", ["followed", "folded", "in_blocks"]),
]


@pytest.mark.parametrize(("name", "rules"), DROPPED, ids=[name for name, _ in DROPPED])
def test_the_check_of_places_finds_what_the_rules_would_have_read_wrongly(
    name: str, rules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = next(case for case in CASES if case.name == name)
    left = [rule for rule in layouts.LAYOUT_RULES if rule.__name__ not in rules]
    assert len(left) == len(layouts.LAYOUT_RULES) - len(rules)
    if name == "vit-pytorch CvT":  # its LayerNorm normalises channels first

        def by_name(forward: layouts.Forward, features: layouts.Features) -> layouts.Layout | None:
            around = layouts.Features(features.shape, features.axes, features.when, "nhwc")
            return layouts.infer_layout(around.shape, [], evidence=around.around)

        left = [*left[:-2], by_name]
    monkeypatch.setattr(layouts, "LAYOUT_RULES", left)
    found = survey(case.build(), photograph(case.size))
    assert found.coverage.self_check is not None
    assert found.coverage.self_check.misplaced, found.coverage.text()
    assert any("may be laid out wrongly" in text for text in found.coverage.warnings())


def test_the_check_of_places_tolerates_global_mixing() -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.mix = nn.Conv2d(3, 16, 8, 8), nn.Linear(64, 64)
            self.norm = nn.LayerNorm(16)

        def forward(self, images: Tensor) -> Tensor:
            x = self.patches(images).flatten(2).transpose(1, 2)
            out: Tensor = self.norm(x + 50 * self.mix(x.transpose(1, 2)).transpose(1, 2))
            return out

    torch.manual_seed(0)
    found = survey(Mixing(), photograph(64))
    assert found.coverage.self_check is not None and not found.coverage.self_check.misplaced
    off = survey(Mixing(), photograph(64), self_check=False)
    assert off.coverage.self_check is None and off.points == found.points

"""The same numbers for any batch size, what is left out, what is refused, and the reference on real models."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import timm
import torch
from torch import Tensor, nn

from fourier_probe.data import batches, choose, open_data
from fourier_probe.errors import DataError, PointError
from fourier_probe.models import zoo
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.fast import relative_log_amplitude
from fourier_probe.probe.measuring import Listen
from fourier_probe.results.analysis import analyze
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime.messages import listening


def net(*, out: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, out),
    )


def pictures(n: int = 41, size: tuple[int, int] = (12, 12)) -> Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(1))


def same(first: Spectra, second: Spectra, tolerance: float = 1e-6) -> None:
    assert [point.name for point in first.points] == [point.name for point in second.points]
    for a, b in zip(first.points, second.points, strict=True):
        for name in ("log_amplitude", "delta", "stderr", "log_density", "log_density_stderr"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), abs=tolerance, nan_ok=True), (a.name, name)
        assert a.scalars == pytest.approx(b.scalars, rel=1e-5, abs=tolerance, nan_ok=True)
    assert first.images.digest == second.images.digest
    assert first.top1 == second.top1


@pytest.mark.parametrize("size", [1, 7, 20, 41])
def test_batch_size_changes_nothing(size: int) -> None:
    images, labels = pictures().double(), torch.arange(41) % 10  # in float32 the convolution itself depends on it
    whole = analyze(net().double(), [(images, labels)])
    same(analyze(net().double(), zip(images.split(size), labels.split(size), strict=True)), whole, 1e-9)
    assert whole.top1 is not None
    assert whole.images.n == 41


def test_top1_counts_and_is_left_out_without_labels_or_classes() -> None:
    images = pictures(20)
    model = net().eval()
    right = model(images).argmax(1)
    assert analyze(model, [(images, right)]).top1 == 1.0
    assert analyze(model, [(images, (right + 1) % 10)]).top1 == 0.0
    assert analyze(model, [images]).top1 is None
    with pytest.warns(UserWarning, match="top-1 is left out: the model returns no scores of classes"):
        assert analyze(model[:4], [(images, right)]).top1 is None  # the output is a map, not classes


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    analyze(model, [pictures(8)])
    assert model.training and all(module.training for module in model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_any_iterable_is_read_once_and_in_constant_memory() -> None:
    seen = []

    def stream() -> Any:
        for i in range(5):
            seen.append(i)
            yield pictures(4)

    assert analyze(net(), stream()).images.n == 20
    assert seen == [0, 1, 2, 3, 4]


def test_bundled_images_through_our_own_model() -> None:
    torch.manual_seed(0)
    model = zoo.create("cifar_resnet8", num_classes=10, in_chans=1)
    result = analyze(model, batches(choose(open_data("bundled"), limit=50), zoo.input_spec(model), batch_size=25))
    assert result.images.n == 50
    assert result.top1 is not None
    assert result.points[0].grid == (32, 32)
    assert all(np.isfinite(point.stderr).all() for point in result.points)


def test_labels_in_a_column_are_the_same_labels_and_others_are_refused() -> None:
    images, labels = pictures(20), torch.arange(20) % 10
    flat, column = analyze(net(), [(images, labels)]), analyze(net(), [(images, labels[:, None])])
    assert flat.top1 == column.top1
    with pytest.raises(
        DataError, match=r"labels of batch 0 are torch.float32 \(20, 10\): expected class indices, \(20,\)"
    ):
        analyze(net(), [(images, torch.eye(10)[labels])])


def test_top1_is_left_out_for_other_classes_and_for_outputs_that_are_no_numbers() -> None:
    images, labels = pictures(20), torch.arange(20) % 10
    assert analyze(net(), [(images, labels)], classes=10).top1 is not None
    with pytest.warns(UserWarning, match="the labels are of 10 classes and the model has 1000"):
        assert analyze(net(out=1000), [(images, labels)], classes=10).top1 is None
    broken = net()
    with torch.no_grad():
        broken[-1].weight.fill_(math.nan)
    with pytest.warns(UserWarning, match="scores are not finite"):
        assert analyze(broken, [(images, labels)]).top1 is None


def test_a_model_that_works_in_place_or_in_half_precision() -> None:
    images = pictures(20)
    before = images.clone()
    inplace = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3, padding=1))
    assert len(analyze(inplace, [images - 0.5 + 0.5]).points) >= 1
    analyze(inplace, [images])
    assert torch.equal(images, before)
    half = analyze(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).to(torch.bfloat16), [images])
    assert np.isfinite(half.points[0].delta).all()


def test_chosen_points_are_all_drawn_and_a_result_without_points_is_an_error(tmp_path: Path) -> None:
    chosen = analyze(net(), [pictures(20)], listen=Listen(points=["0", "1"]))
    assert [point.name for point in chosen.stream] == ["0", "1"]
    assert Spectra.load(chosen.save(tmp_path / "chosen")).selected
    with pytest.raises(PointError, match=r"every probe point was left out: .*not finite in 20 of 20"):
        analyze(net(), [pictures(20) * math.inf])


# --- what is refused, left out, or has no frequencies (faults 7, 18, 20, 21) ---


def test_zero_images_are_an_error() -> None:
    for nothing in ([], [torch.zeros(0, 3, 8, 8)]):
        with pytest.raises(DataError, match="no images to analyze"):
            analyze(net(), nothing)


def test_one_image_and_a_last_batch_of_one_work() -> None:
    single = analyze(net(), [pictures(1)])
    assert single.images.n == 1
    assert all(np.isnan(point.stderr).all() for point in single.points)
    assert analyze(net(), pictures(21).split(20)).images.n == 21


@pytest.mark.parametrize("batch", [torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "image", None])
def test_what_is_no_batch_is_refused(batch: Any) -> None:
    with pytest.raises(DataError, match=r"expected batches of normalised images.*in batch 0"):
        analyze(net(), [batch])


def test_labels_outside_the_classes_leave_out_top1_and_say_why() -> None:
    remarks: list[str] = []
    stream = [(pictures(20), torch.arange(20) % 10), (pictures(2), torch.tensor([0, 98]))]
    with listening(remarks.append):
        result = analyze(net(), stream)
    assert result.top1 is None and result.images.n == 22
    assert remarks == ["top-1 is left out: the largest label is 98 and the model has 10 classes, 0 to 9."]
    with pytest.warns(UserWarning, match="the smallest label is -1"):
        assert analyze(net(), [(pictures(2), torch.tensor([0, -1]))]).top1 is None


@pytest.mark.parametrize("wrap", [
    lambda x: {"loss": x.sum(), "logits": x}, lambda x: (x.sum(), x), lambda x: [{"out": x}], lambda x: Output(None, x),
])  # fmt: skip
def test_logits_are_found_in_what_the_model_returns(wrap: Any) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, x: Tensor) -> Any:
            """Logits among other things."""
            return wrap(self.inner(x))

    model, images = Wrapped().eval(), pictures(20)
    assert analyze(model, [(images, model.inner(images).argmax(1))]).top1 == 1.0


@dataclasses.dataclass
class Output:
    hidden: Tensor | None
    logits: Tensor


def test_features_are_no_scores() -> None:
    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, x: Tensor) -> Any:
            """Pooled features alone."""
            return {"pooler_output": self.inner(x)}

    headless = net()
    headless.num_classes = 0  # type: ignore[assignment]
    for model in (Backbone(), headless):
        with pytest.warns(UserWarning, match="no scores of classes"):
            assert analyze(model, [(pictures(4), torch.zeros(4, dtype=torch.int64))]).top1 is None


def test_a_point_with_non_finite_features_is_named_and_left_out() -> None:
    class Poison(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            """One image of infinity."""
            return torch.cat([x[:1] * math.inf, x[1:]]) if len(x) > 3 else x

    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), Poison())
    result = analyze(model, [pictures(20)], listen=Listen(points=["0", "2"]))
    assert [point.name for point in result.points] == ["0"]
    assert result.excluded[0].name == "2"
    assert "not finite in 1 of 20 images" in result.excluded[0].reason
    assert result.to_json()["excluded"] == [{"name": "2", "reason": result.excluded[0].reason}]


def test_non_square_odd_and_single_position_maps() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    result = analyze(model, [pictures(20, (9, 14))], listen=Listen(points=["0", "1", "2"]))
    assert [point.grid for point in result.points] == [(9, 14), (4, 7), (1, 1)]
    assert len(result.points[0].frequency) == 5
    single = result.points[2]
    assert single.frequency.tolist() == [0.0]
    assert single.highest == 0.0
    assert single.hfd_share_white is None
    assert result.to_json()["points"][2]["hfd_share"] is None


def test_a_point_that_splits_images_is_refused() -> None:
    class Windows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            """Two images from one."""
            return torch.cat(x.chunk(2, dim=3))

    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Windows(), nn.Conv2d(4, 4, 3, padding=1))
    with pytest.raises(PointError, match=r"point 2: its output of shape \(4, 4, 12, 6\) for two images cannot be"):
        analyze(model, [pictures(20)], listen=Listen(points=["2"]))


# --- the published steps on real models ---


def spoil(model: nn.Module) -> None:
    """Make channel 0 of the stream dead and channel 1 constant wherever the last writer is one of these."""
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith(("attn.proj", "mlp.fc2", "patch_embed.proj")):
                module.weight[:2] = 0
                module.bias[:2] = torch.tensor([0.0, 0.7]).to(module.bias)
            if name == "patch_embed.norm" and isinstance(module, nn.LayerNorm):  # swin
                module.weight[:2] = 0
                module.bias[:2] = torch.tensor([0.0, 0.7])
            if name.endswith(("bn2", "downsample.1")) or name == "bn1":
                module.weight[:2] = 0
                module.bias[:2] = torch.tensor([-1.0, 0.7])
        for name in ("pos_embed",):
            if isinstance(getattr(model, name, None), nn.Parameter):
                getattr(model, name)[..., :2] = 0


def maps_by_hand(name: str, feature: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """(B, C, H, W) by what each family is known to give, without our grid code."""
    if name.startswith("resnet"):
        return feature.double().numpy()
    if feature.ndim == 4:  # swin: channels last
        return feature.permute(0, 3, 1, 2).double().numpy()
    tokens = feature[:, -grid[0] * grid[1] :]  # the class token comes first
    return tokens.transpose(1, 2).reshape(len(feature), -1, *grid).double().numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 224),
        ("vit_tiny_patch16_224", 224),
        ("swin_tiny_patch4_window7_224", 224),
        ("convit_tiny", 224),
    ],
)
def test_the_published_numbers_come_out_on_real_activations(name: str, size: int) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    spoil(model)
    data = batches(choose(open_data("bundled"), limit=4), zoo.input_spec(model), batch_size=4)
    images = next(iter(data)).images
    result = analyze(model, [images], listen=Listen(branches=False), definition=Definition(axis="paper"))

    heard: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    from fourier_probe.probe.points import find_points

    handles = []
    for point in find_points(model, images[:1], branches=False):
        if point.side == "output":
            hook = modules[point.module].register_forward_hook(
                lambda _m, _i, out, key=point.name: heard.__setitem__(key, out.clone())
            )
        else:
            hook = modules[point.module].register_forward_pre_hook(
                lambda _m, i, key=point.name: heard.__setitem__(key, i[0].clone())
            )
        handles.append(hook)
    with torch.inference_mode():
        model(images)
    for handle in handles:
        handle.remove()

    constant = 0
    for point in result.points:
        maps = maps_by_hand(name, heard[point.name], point.grid)
        assert maps.shape[1] == point.channels
        frequency, delta = reference.published_delta(maps)
        assert point.frequency == pytest.approx(frequency), point.name
        assert point.delta == pytest.approx(delta, abs=1e-5), point.name
        constant += int((maps.std(axis=(2, 3)) == 0).all(0).sum())
    assert constant > 0, "no constant or dead channel among the activations"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_features_are_those_of_forward_intermediates(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        theirs = model.forward_intermediates(images, intermediates_only=True)
    diagonal = Definition(metrics="diagonal")
    ours = analyze(model, [images], definition=diagonal)
    expected = [reference.log_amplitude(feature.numpy()) for feature in theirs]
    found = [point.log_amplitude for point in ours.points]
    for wanted in expected[1:] if name == "resnet18" else expected:  # resnet's first is before the pooling
        assert any(len(wanted) == len(a) and np.abs(wanted - a).max() < 1e-5 for a in found)


def test_the_halves_of_a_recast_layer_and_its_gates_are_in_the_result(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1))
    recast_(model, ["2"], gate=1.0)
    images = torch.randn(40, 3, 8, 8)
    result = analyze(model, [images[:16], images[16:]])
    assert [p.name for p in result.points] == ["1", "2+content", "2+positional", "2"]
    assert [p.kind for p in result.points] == ["stem", "branch", "branch", "residual"]
    assert [p.name for p in result.stream] == ["1", "2"]
    with torch.no_grad():
        content, positional = model[2].halves(model[1](model[0](images)))
    for name, maps in (("2+content", content), ("2+positional", positional)):
        point = result[name]
        _, delta = relative_log_amplitude(maps)
        np.testing.assert_allclose(point.delta, delta.numpy(), atol=1e-4)
        assert point.gate == pytest.approx([1 / (1 + math.exp(-1.0))] * 9)
    assert result["2"].gate is None
    loaded = Spectra.load(result.save(tmp_path))
    assert loaded["2+content"].gate == result["2+content"].gate
    assert [p.name for p in analyze(model, [images], listen=Listen(branches=False)).points] == ["1", "2"]


def test_of_a_compiled_model_the_model_inside_is_analyzed() -> None:
    model, images = net(), [pictures()]
    calls = []
    compiled = torch.compile(model, backend=lambda graph, _: calls.append(graph) or graph.forward)
    same(analyze(compiled, images), analyze(model, images), 0)
    assert [point.name for point in analyze(compiled, images).points] == [p.name for p in analyze(model, images).points]
    assert not calls  # nothing was compiled for it

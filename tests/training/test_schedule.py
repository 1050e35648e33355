"""Schedules: the formula and its controls; which layers of a network they are over."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import fourier_probe.models  # noqa: F401  # registers the small networks
from fourier_probe.errors import TrainingError
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.training import rules
from fourier_probe.training.layers import ConvLayer, convertible_layers, survey_layers
from fourier_probe.training.plan import _epoch
from fourier_probe.training.rules import CUSTOM, SCHEDULES, ScheduleRequest
from fourier_probe.training.schedule import PRSSchedule, stages_by_name

KINDS = [name for name in SCHEDULES.names() if name != CUSTOM]


def build(name: str, layers: Any, **more: Any) -> PRSSchedule:
    return rules.build(name, ScheduleRequest(layers, **more))


LAYERS = [f"layer{stage}.{block}.conv{conv}" for stage in (1, 2) for block in (0, 1) for conv in (1, 2)]


def test_the_example_of_the_formula() -> None:
    schedule = PRSSchedule.linear(LAYERS, early=150, late=50)
    assert list(schedule) == LAYERS
    assert list(schedule.values()) == [150, 136, 121, 107, 93, 79, 64, 50]
    assert (schedule.first, schedule.last, schedule.kind) == (50, 150, "linear")


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
@pytest.mark.parametrize(("early", "late"), [(150, 50), (9, 9), (3, 0)])
def test_linear_is_the_nearest_integer_ties_up(count: int, early: int, late: int) -> None:
    layers = [str(i) for i in range(count)]
    got = list(PRSSchedule.linear(layers, early, late).values())
    for place, epoch in enumerate(got, start=1):
        exact = Fraction(late) if count == 1 else late + Fraction((early - late) * (count - place), count - 1)
        assert Fraction(-1, 2) < epoch - exact <= Fraction(1, 2)
    assert got == sorted(got, reverse=True)
    assert list(PRSSchedule.reverse(layers, early, late).values()) == got[::-1]


def test_one_layer_converts_late() -> None:
    assert dict(PRSSchedule.linear(["only"], early=150, late=50)) == {"only": 50}


def test_due_and_converted() -> None:
    schedule = PRSSchedule({"a": 3, "b": 1, "c": 3})
    assert [schedule.due(epoch) for epoch in range(5)] == [(), ("b",), (), ("a", "c"), ()]
    assert [schedule.converted(epoch) for epoch in (0, 2, 3)] == [(), ("b",), ("a", "b", "c")]
    assert sorted(name for epoch in range(5) for name in schedule.due(epoch)) == ["a", "b", "c"]


def test_controls_use_linears_epochs() -> None:
    linear = PRSSchedule.linear(LAYERS, 150, 50)
    orders = {
        "reverse": PRSSchedule.reverse(LAYERS, 150, 50),
        "random": PRSSchedule.random(LAYERS, 150, 50, seed=3),
        "stage-end": PRSSchedule.stage_end(LAYERS, 150, 50),
    }
    for kind, schedule in orders.items():
        assert schedule.kind == kind and list(schedule) == LAYERS
        assert Counter(schedule.values()) == Counter(linear.values())
        assert schedule.mean() == linear.mean()
        assert dict(schedule) != dict(linear)


def test_random_is_seeded_and_leaves_the_global_state() -> None:
    state = torch.get_rng_state()
    draws = [PRSSchedule.random(LAYERS, 150, 50, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(torch.get_rng_state(), state)
    assert draws[0] == draws[1]
    assert len({tuple(draw.values()) for draw in draws}) == 4


def test_constant_at_linears_mean_plain_and_weighted() -> None:
    layers = ["a", "b", "c"]
    linear = PRSSchedule.linear(layers, 20, 10)
    assert linear.mean() == 15
    weights = {"a": 1, "b": 1, "c": 6}
    assert linear.mean(weights) == (20 + 15 + 60) / 8
    assert dict(build("constant", layers, early=20, late=10)) == dict.fromkeys(layers, 15)
    assert dict(build("constant", layers, early=20, late=10, weights=weights)) == dict.fromkeys(layers, 12)
    assert dict(build("constant", ["a", "b"], early=3, late=2)) == {"a": 3, "b": 3}  # 2.5, ties up
    assert dict(build("constant", layers, at=0)) == dict.fromkeys(layers, 0)


def test_stages_step_together_late_ones_first() -> None:
    layers = ["layer1.0", "layer1.1", "layer2.0", "layer3.0", "layer3.1"]
    assert list(PRSSchedule.stage(layers, 90, 30).values()) == [90, 90, 60, 30, 30]
    named = {name: ("front" if "1.0" in name else "back") for name in layers}
    assert list(PRSSchedule.stage(layers, 90, 30, stages=named).values()) == [90, 30, 30, 30, 30]


def test_the_ends_of_stages_go_first() -> None:
    layers = ["s1.a", "s1.b", "s1.c", "s2.a", "s2.b"]
    schedule = PRSSchedule.stage_end(layers, 50, 10)
    assert sorted(layers, key=schedule.__getitem__) == ["s2.b", "s1.c", "s2.a", "s1.b", "s1.a"]


def test_stages_by_name() -> None:
    names = [
        "layer1.0.conv1",
        "blocks.2.0.conv_dw",
        "stages.3.blocks.1.conv_dw",
        "s3.b2.conv",
        "net.layer4.1.conv2",
        "c",
    ]
    assert list(stages_by_name(names).values()) == ["layer1", "blocks.2", "stages.3", "s3", "net.layer4", "c"]


def test_soft_ramps_after_the_switch() -> None:
    schedule = PRSSchedule.soft(["a", "b"], early=8, late=4, ramp=4)
    assert dict(schedule) == {"a": 8, "b": 4} and dict(schedule.ends) == {"a": 12, "b": 8}
    assert [schedule.progress("b", epoch) for epoch in (0, 4, 5, 6.5, 8, 20)] == [0, 0, 0.25, 0.625, 1, 1]
    hard = PRSSchedule.linear(["a", "b"], early=8, late=4)
    assert [hard.progress("b", epoch) for epoch in (3, 3.99, 4, 5)] == [0, 0, 1, 1]
    assert dict(PRSSchedule.soft(["a", "b"], 8, 4).ends) == {"a": 12, "b": 8}
    assert dict(PRSSchedule.soft(["a", "b"], 8, 4, epochs=10).ends) == {"a": 10, "b": 8}


def test_a_ramp_is_a_length_and_may_reach_beyond_the_end() -> None:
    assert dict(PRSSchedule.soft(["a", "b"], 2, 1, ramp=30, epochs=3).ends) == {"a": 3, "b": 3}
    assert dict(PRSSchedule.soft(["a", "b"], 6, 0, ramp="50%", epochs=10).ends) == {"a": 10, "b": 5}
    assert dict(build("soft", ["a"], early=0, late=0, ramp="100%", epochs=4).ends) == {"a": 4}
    with pytest.raises(TrainingError, match="the ramp is -2 epochs long; expected 0 or more"):
        PRSSchedule.soft(["a", "b"], 2, 1, ramp=-2, epochs=3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_epochs_fit_the_shortest_trainings(kind: str) -> None:
    for epochs in (1, 2, 3):
        schedule = build(kind, LAYERS, epochs=epochs)
        assert all(epoch < epochs for epoch in schedule.values())
    assert list(PRSSchedule.linear(["a", "b"], early=0.97, late="1%", epochs=10).values()) == [9, 0]
    with pytest.raises(TrainingError, match="early is epoch 10; expected 0 to 9"):
        PRSSchedule.linear(["a", "b"], early="100%", late=0, epochs=10)


@pytest.mark.parametrize(
    ("early", "late", "expected"),
    [
        (0.5, 1 / 6, [150, 50]),
        ("50%", "25 %", [150, 75]),
        (150.0, 0, [150, 0]),
        (0.15, 0.005, [45, 2]),  # 1.5 goes up
        (2.5, 1.0, [3, 1]),  # 1.0 is an epoch, not the whole training
        ("120", "0.25", [120, 75]),
    ],
)
def test_epochs_and_fractions(early: Any, late: Any, expected: list[int]) -> None:
    assert list(PRSSchedule.linear(["a", "b"], early, late, epochs=300).values()) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_schedules_by_name_and_back_from_json(kind: str) -> None:
    schedule = build(kind, LAYERS, early=0.5, late=0.2, epochs=40, seed=5)
    assert schedule.kind == kind
    assert len(schedule) == (0 if kind == "none" else len(LAYERS))
    record = json.loads(json.dumps(schedule.to_dict()))
    again = PRSSchedule(**record)
    assert again == schedule and list(again) == list(schedule) and again.ends == schedule.ends
    assert pickle.loads(pickle.dumps(schedule)) == schedule  # noqa: S301
    assert kind in repr(schedule)
    if kind not in ("none", "constant"):
        assert (schedule.first, schedule.last) == (8, 20)
    if kind == "none":
        assert schedule.first is schedule.last is None and schedule.due(0) == ()


def test_a_schedule_cannot_be_changed() -> None:
    epochs = {"a": 1}
    schedule = PRSSchedule(epochs)
    epochs["a"] = 2
    assert schedule["a"] == 1
    with pytest.raises(TypeError):
        schedule["a"] = 2  # type: ignore[index]
    with pytest.raises(TypeError):
        schedule.ends["a"] = 2  # type: ignore[index]
    with pytest.raises(AttributeError):
        schedule.other = 1  # type: ignore[attr-defined]
    assert schedule == {"a": 1} and schedule != PRSSchedule({"a": 1}, ends={"a": 2})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: PRSSchedule.linear(LAYERS, 50, 150), r"early \(50\) must not be before late \(150\).*reverse"),
        (lambda: build("lineer", LAYERS), r"unknown schedule 'lineer'.*Did you mean linear\?"),
        (lambda: build("stage_end", LAYERS), r"Did you mean stage-end"),
        (lambda: build("linear", [], early=2, late=1), "no layers to convert"),
        (lambda: build("linear", "abc", early=2, late=1), "the string 'abc'"),
        (lambda: build("linear", ["a", "a"], early=2, late=1), "'a' is listed twice"),
        (lambda: build("linear", LAYERS), "early is a fraction, 0.5; say how many `epochs`"),
        (lambda: build("linear", LAYERS, early=300, late=0, epochs=300), "early is epoch 300; expected 0 to 299"),
        (lambda: build("linear", LAYERS, early=3, late=-1), "late is epoch -1; expected 0 or later"),
        (lambda: build("linear", LAYERS, early="soon", late=1), "'soon'"),
        (lambda: build("linear", LAYERS, early=float("nan"), late=1), "nan"),
        (lambda: PRSSchedule.linear(["a"], 3, 1).mean({}), "no weight for layer 'a'"),
        (lambda: PRSSchedule.linear(["a"], 3, 1).mean({"a": 0}), "not all zero"),
        (lambda: PRSSchedule.none().mean(), "nothing converts"),
        (lambda: PRSSchedule.stage(["a"], 3, 1, stages={}), "'a' has no stage"),
        (lambda: PRSSchedule({"a": 1.5}), "a whole epoch, 0 or later, got 1.5"),  # type: ignore[dict-item]
        (lambda: PRSSchedule({"a": 3}, ends={"a": 2}), "'a' would end at epoch 2, before its start, 3"),
        (lambda: PRSSchedule({"a": 3}, ends={"b": 4}), "'b', which is not scheduled"),
    ],
)
def test_bad_schedules_say_so(call: Any, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        call()


def _names(layers: list[ConvLayer]) -> list[str]:
    return [layer.name for layer in layers]


def _reasons(model: nn.Module, size: int, **options: Any) -> dict[str, str]:
    layers = survey_layers(model, torch.zeros(1, 3, size, size), **options)
    return {layer.name: layer.skipped for layer in layers}


def test_a_small_resnet_converts_where_the_key_grid_is_small() -> None:
    model = timm.create_model("cifar_resnet20")
    layers = convertible_layers(model, torch.zeros(1, 3, 32, 32))
    inner = [f"layer{s}.{b}.conv{c}" for s in (2, 3) for b in (0, 1, 2) for c in (1, 2)]
    assert _names(layers) == inner[1:]  # layer2.0.conv1 looks at 32 x 32
    strided = layers[5]
    assert (strided.name, strided.keys, strided.queries) == ("layer3.0.conv1", (16, 16), (8, 8))
    assert (strided.channels, strided.heads, strided.stage) == ((32, 64), 9, "layer3")
    assert strided.parameters == 9 * 32 * 64 and strided.multiply_adds == 64 * strided.parameters
    assert strided.multiply_adds_recast > strided.multiply_adds
    everything = convertible_layers(model, torch.zeros(1, 3, 32, 32), max_grid=None)
    assert len(everything) == 18 and everything[0].name == "layer1.0.conv1"
    reasons = _reasons(model, 32)
    assert reasons["conv1"] == "the stem"
    assert "32 x 32, is over the limit" in reasons["layer2.0.conv1"]
    assert "1x1" in reasons["layer2.0.downsample.0"]
    before = {name: parameter.numel() for name, parameter in model.named_parameters()}
    recast_(model, _names(layers))
    added = sum(p.numel() for n, p in model.named_parameters() if n not in before)
    assert sum(layer.added for layer in layers) == added


@pytest.mark.parametrize(
    ("name", "size", "expected", "first", "last", "stem"),
    [
        ("resnet18", 64, 16, "layer1.0.conv1", "layer4.1.conv2", "conv1"),
        ("resnet50", 64, 16, "layer1.0.conv2", "layer4.2.conv2", "conv1"),
        ("resnext50_32x4d", 64, 16, "layer1.0.conv2", "layer4.2.conv2", "conv1"),
        ("mobilenetv3_small_100", 64, 10, "blocks.1.0.conv_dw", "blocks.4.2.conv_dw", "conv_stem"),
        ("efficientnet_b0", 64, 14, "blocks.1.1.conv_dw", "blocks.6.0.conv_dw", "conv_stem"),
        ("vgg16", 64, 9, "features.10", "features.28", "features.0"),
        ("convnext_atto", 64, 12, "stages.0.blocks.0.conv_dw", "stages.3.blocks.1.conv_dw", "stem.0"),
    ],
)
def test_layers_of_timms_networks(name: str, size: int, expected: int, first: str, last: str, stem: str) -> None:
    model = timm.create_model(name, num_classes=2)
    layers = convertible_layers(model, torch.zeros(1, 3, size, size))
    assert (len(layers), layers[0].name, layers[-1].name) == (expected, first, last)
    assert all(layer.heads > 1 and max(layer.keys) <= 16 for layer in layers)
    assert 1 < len({layer.stage for layer in layers}) < len(layers)
    reasons = _reasons(model, size)
    assert reasons[stem] == "the stem"
    if name == "vgg16":
        assert "fully connected" in reasons["pre_logits.fc1"]
    if name == "convnext_atto":
        assert "downsampling" in reasons["stages.1.downsample.1"]


def test_a_stem_of_several_convolutions_stays_and_blocks_without_shortcut_convert() -> None:
    reasons = _reasons(timm.create_model("resnet18d", num_classes=2), 64, max_grid=None)
    assert [name for name, reason in reasons.items() if reason == "the stem"] == ["conv1.0", "conv1.3", "conv1.6"]
    assert reasons["layer1.0.conv1"] == ""
    model = timm.create_model("efficientnet_b0", num_classes=2)
    reasons = _reasons(model, 64, max_grid=None)
    assert reasons["conv_stem"] == "the stem"
    assert reasons["blocks.0.0.conv_dw"] == ""  # of another class than those that add, at their place


def test_subclasses_are_listed_with_their_reason() -> None:
    reasons = _reasons(timm.create_model("tf_efficientnet_b0", num_classes=2), 64)
    assert "Conv2dSame is a subclass" in reasons["blocks.5.0.conv_dw"]
    assert reasons["blocks.5.1.conv_dw"] == ""


def test_patterns_replace_the_default_choice() -> None:
    model = timm.create_model("cifar_resnet8")
    image = torch.zeros(1, 3, 32, 32)
    assert _names(convertible_layers(model, image, convert=["layer1.*", "conv1"])) == [
        "conv1",
        "layer1.0.conv1",
        "layer1.0.conv2",
    ]
    with pytest.raises(TrainingError, match=r"'layer3.0.conv' matches no convolution\. Did you mean layer3\.0\.conv"):
        convertible_layers(model, image, convert=["layer3.0.conv"])
    with pytest.raises(TrainingError, match="cannot convert: a 1x1"):
        convertible_layers(model, image, convert=["*downsample.0"])
    with pytest.raises(TrainingError, match="at least 1 pixel"):
        survey_layers(model, image, max_grid=0)
    with pytest.raises(TrainingError, match=r"no convolution to convert.*over the limit"):
        convertible_layers(model, image, max_grid=4)
    with pytest.raises(TrainingError, match="runs no convolution"):
        convertible_layers(nn.Flatten(), image)


def test_layers_come_in_the_order_they_run() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Conv2d(3, 3, 3, padding=1)
            self.a = nn.Conv2d(3, 3, 3, padding=1)
            self.stem = nn.Conv2d(3, 3, 3, padding=1)
            self.unused = nn.Conv2d(3, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return x + self.b(self.a(x))

    assert _names(convertible_layers(Backwards(), torch.zeros(1, 3, 8, 6))) == ["a", "b"]


def test_a_survey_leaves_the_model_as_it_was() -> None:
    model = timm.create_model("cifar_resnet8", drop_rate=0.5).train()
    model.layer1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    convertible_layers(model, torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("early", "late"),
    [(0.5, 0.50001), (5.1, 5.4), ("50%", 5.2), (0.51, "52%"), (4, 4.4), (Fraction(5), Fraction(51, 10))],
)
@pytest.mark.parametrize("kind", ["linear", "reverse", "constant", "random", "stage", "stage-end", "soft"])
def test_early_before_late_is_refused_before_rounding(kind: str, early: Any, late: Any) -> None:
    """Both round to one epoch; in which order they were meant cannot be known."""
    with pytest.raises(TrainingError, match=r"early \(.*\) must not be before late \(.*\)"):
        build(kind, LAYERS, early=early, late=late, epochs=10)
    build(kind, LAYERS, early=late, late=early, epochs=10)


@pytest.mark.parametrize(("scale", "early", "late"), [(1.0, 3.2, 3.4), (1.5, 2.0, 2.2), (7 / 3, 1.0, 1.05)])
def test_epochs_of_a_longer_run_are_compared_before_rounding(scale: float, early: float, late: float) -> None:
    first, last = _epoch(early, scale), _epoch(late, scale)
    assert round(first) == round(last)
    with pytest.raises(TrainingError, match="must not be before late"):
        PRSSchedule.linear(LAYERS, first, last, epochs=20)
    assert _epoch(0.5, scale) == 0.5 and _epoch(6.0, scale) == round(6 * scale)

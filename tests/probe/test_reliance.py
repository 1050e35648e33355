"""Reliance: known answers on networks whose halves do a known part of the work."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import nn

from fourier_probe.errors import DataError
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.probe.reliance import (
    ALL,
    _others,
    departures,
    estimate_norms_,
    exchanged,
    gated_layers,
    reliance,
    without,
)


def _network(gate: float) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    recast_(model, ["0", "3"], locality_strength=20.0, gate=gate)
    return model


def test_a_layer_that_is_all_positional_relies_on_that_half_only() -> None:
    model = _network(gate=30.0).double().eval()
    images = torch.randn(40, 3, 8, 8, dtype=torch.float64) + 6 * torch.randn(40, 3, 1, 1, dtype=torch.float64)
    labels = model(images).argmax(1)  # it is right everywhere
    rows = reliance(model, images, labels, training=images)
    assert [(row.layer, row.half, row.test) for row in rows[:4]] == [
        ("0", "content", "exchanged"), ("0", "content", "off"),
        ("0", "positional", "exchanged"), ("0", "positional", "off"),
    ]  # fmt: skip
    assert {row.layer for row in rows} == {"0", "3", ALL}
    for row in rows:
        if row.half == "content" and row.test == "exchanged":
            assert (row.top1, row.top1_change) == (1.0, 0.0)
            assert abs(row.loss_change) < 1e-9
        if row.half == "positional" and row.test == "exchanged" and row.layer == ALL:
            assert row.top1 < 1 and row.loss_change > 0 and row.top1_stderr > 0
    assert all(hook is None for module in model.modules() for hook in module._forward_hooks)


def test_an_exchange_keeps_the_marginals_of_each_half() -> None:
    model = _network(gate=0.0).eval()
    layer, images = model[0], torch.randn(12, 3, 8, 8)
    content, positional = layer.halves(images)
    with exchanged(model, ["0"], "content"):
        mixed = layer(images)
    taken = mixed - positional - layer.bias[:, None, None]  # the content that each image was given
    distance = torch.cdist(taken.flatten(1), content.flatten(1))
    source = distance.argmin(1)
    assert sorted(source.tolist()) == list(range(12)) and (source != torch.arange(12)).all()
    assert distance.amin(1).max() < 1e-4


@pytest.mark.parametrize("count", [2, 3, 17])
def test_nothing_stays_in_its_place(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        other = _others(count, generator)
        assert sorted(other.tolist()) == list(range(count)) and (other != torch.arange(count)).all()


def test_a_shut_gate_leaves_one_half_and_norms_are_estimated_again() -> None:
    model = _network(gate=1.0).eval()
    images = torch.randn(30, 3, 8, 8)
    lesioned = without(model, ["0"], "content")
    assert torch.allclose(lesioned[0].gates(), torch.ones(9)) and not torch.allclose(model[0].gates(), torch.ones(9))
    estimate_norms_(lesioned, images.split(10))
    maps = lesioned[0](images)
    assert torch.allclose(lesioned[1].running_mean, maps.mean((0, 2, 3)), atol=1e-5)
    assert lesioned[1].momentum == 0.1 and not lesioned.training
    reference = torch.stack([part.var((0, 2, 3)) for part in maps.split(10)]).mean(0)
    assert torch.allclose(lesioned[1].running_var, reference, rtol=1e-4)


def test_convit_is_examined_too_and_its_weights_are_left() -> None:
    torch.manual_seed(0)
    model = timm.create_model("convit_tiny", embed_dim=9, num_heads=4, depth=2, local_up_to_layer=1, img_size=32,
                              patch_size=8, num_classes=3).eval()  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert gated_layers(model) == ["blocks.0.attn"]
    rows = reliance(model, torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2] * 2))
    assert len(rows) == 8 and all(math.isnan(row.top1_stderr) for row in rows)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bad_input_is_said() -> None:
    model = _network(gate=1.0)
    with pytest.raises(DataError, match="at least two images"):
        reliance(model, torch.randn(1, 3, 8, 8), torch.tensor([0]))
    with pytest.raises(DataError, match="BatchNorm"):
        reliance(model, torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.long))
    assert reliance(nn.Flatten(), torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)) == []


def test_departures_say_what_is_left_of_the_convolution() -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=10, zero_init_last=False).eval()
    images = torch.randn(2, 3, 64, 64)
    names = ["layer1.0.conv1", "layer2.0.conv1", "layer4.1.conv2"]
    recast_(model, names, locality_strength=20.0, gate=12.0)
    records = departures(model, images)
    assert [record.name for record in records] == names
    assert all(record.content is not None and record.content < 1e-4 for record in records)
    assert all(record.displacement == 0 and record.locality == 20.0 for record in records)
    assert all(record.tap is not None and record.tap > 0.9999 for record in records)
    with torch.no_grad():
        for name in names:
            model.get_submodule(name).locality_strength.fill_(1.0)  # type: ignore[union-attr, operator]
            model.get_submodule(name).gate.fill_(0.0)  # type: ignore[union-attr, operator]
    spread = departures(model, images)
    # (sum of exp(-d^2) over the integers)^-2 = 0.318 of the mass is on the tap at strength 1, a half of it gated.
    assert spread[0].tap == pytest.approx(0.318 / 2, abs=2e-3)
    assert departures(model)[0].content is None
    assert not any(module._forward_pre_hooks for module in model.modules())

"""The shipped checkpoint that solved the planted task: known answers on trained weights, nothing trained here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fourier_probe as fp
from fourier_probe.data import batches, choose, open_data
from fourier_probe.probe.reliance import estimate_norms_, gated_layers, without
from fourier_probe.targets import Target

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "planted"


@pytest.fixture(scope="module")
def target() -> Target:
    return fp.open_target(SHIPPED)


def test_it_solves_the_task_as_no_sum_over_windows_can(target: Target) -> None:
    result = fp.validate(target, "planted", images=500, batch_size=100)
    assert result.top1.low is not None and result.top1.low > 0.95
    assert result.conflict is not None and result.conflict.top1.value > 0.95
    assert result.bound is not None and result.bound.top1 is None


def test_without_content_it_falls_to_what_a_convolution_can(target: Target) -> None:
    model = target.model
    assert model is not None
    training = choose(open_data("planted", "train", limit=1000), limit=1000)
    lesioned = without(model, gated_layers(model), "content")
    estimate_norms_(lesioned, (batch.images for batch in batches(training, target.input, batch_size=250)))
    result = fp.validate(lesioned, "planted", images=500, batch_size=100, mean=target.input.mean, std=target.input.std)
    assert result.top1.value <= 0.875
    assert torch.equal(next(model.parameters()), next(lesioned.parameters()))  # the halves alone were touched


def test_the_content_halves_hold_more_high_frequency(target: Target) -> None:
    shares = {p.name: p.scalars["hfd_share"] for p in fp.analyze(target, "planted", images=100).points if "+" in p.name}
    layers = {name.rpartition("+")[0] for name in shares}
    assert len(layers) == 2
    for layer in layers:
        assert shares[f"{layer}+content"] - shares[f"{layer}+positional"] > 0.2


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 200_000

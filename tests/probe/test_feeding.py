"""A batch goes in by parts on a CPU, unless that changes what the network answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fourier_probe.probe import feeding
from fourier_probe.probe.feeding import PIXELS, pixels_at_a_time
from fourier_probe.probe.points import find_points
from fourier_probe.results import analysis
from fourier_probe.results.analysis import analyze


def convolutions(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *layers, nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())


class Mixing(nn.Module):
    """Adds the mean over the batch: what each image gets depends on the others."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(0, keepdim=True)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def chosen(model: nn.Module, images: Tensor) -> int | None:
    return pixels_at_a_time(model, images, find_points(model, images[:1]))


def test_a_network_that_keeps_images_apart_runs_in_parts() -> None:
    assert chosen(convolutions(nn.BatchNorm2d(8)), torch.rand(4, 3, 16, 16)) == PIXELS


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(8, track_running_stats=False), Mixing(), Noisy()])
def test_a_network_that_would_answer_otherwise_gets_batches_as_they_come(layer: nn.Module) -> None:
    model, images = convolutions(layer), torch.rand(4, 3, 16, 16)
    state = torch.get_rng_state()
    assert chosen(model, images) is None
    assert torch.equal(torch.get_rng_state(), state)


def test_one_image_says_nothing_of_batches() -> None:
    assert chosen(convolutions(), torch.rand(1, 3, 16, 16)) is None


def test_an_answer_that_is_not_a_number_is_never_the_same() -> None:
    model = convolutions()
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    assert chosen(model, torch.rand(2, 3, 16, 16)) is None


def test_batches_in_parts_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(convolutions(nn.BatchNorm2d(8)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    images = torch.rand(50, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 3
    given = [(images[i : i + 20], labels[i : i + 20]) for i in (0, 20, 40)]
    sizes: list[int] = []
    steps: list[int] = []
    model.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(feeding, "PIXELS", 8 * 16 * 16)
    ours = analyze(model, given, progress=steps.append)
    assert sizes[-8:] == [8, 8, 4, 8, 8, 4, 8, 2]
    assert steps == [20, 20, 10]  # progress, and Ctrl-C between them, by the caller's batches still
    monkeypatch.setattr(analysis, "pixels_at_a_time", lambda *_: None)
    plain = analyze(model, given)
    assert (ours.images, ours.top1) == (plain.images, plain.top1)
    for one, other in zip(ours.points, plain.points, strict=True):
        np.testing.assert_allclose(one.delta, other.delta, atol=1e-6)
        np.testing.assert_allclose(one.stderr, other.stderr, atol=1e-6)
        for name, value in one.scalars.items():
            np.testing.assert_allclose(value, other.scalars[name], rtol=1e-5, atol=1e-6)


def test_batch_statistics_see_the_whole_batch() -> None:
    model = convolutions(nn.BatchNorm2d(8, track_running_stats=False))
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    analyze(model, [torch.rand(32, 3, 224, 224)], self_check=False)
    assert sizes[-1] == 32

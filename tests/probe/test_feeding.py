"""A batch goes in by parts on a CPU, unless that changes what the network answers."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from fourier_probe.probe import feeding as ways
from fourier_probe.probe import measuring
from fourier_probe.probe.feeding import PIXELS, Feeding, feeding
from fourier_probe.probe.measuring import Listen
from fourier_probe.probe.points import find_points
from fourier_probe.results.analysis import analyze
from fourier_probe.results.spectra import Spectra


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


def chosen(model: nn.Module, images: Tensor) -> Feeding:
    return feeding(model, images, find_points(model, images[:1]))


def test_a_network_that_keeps_images_apart_runs_in_parts() -> None:
    assert chosen(convolutions(nn.BatchNorm2d(8)), torch.rand(4, 3, 16, 16)) == Feeding(PIXELS, channels_last=True)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(8, track_running_stats=False), Mixing(), Noisy()])
def test_a_network_that_would_answer_otherwise_gets_batches_as_they_come(layer: nn.Module) -> None:
    model, images = convolutions(layer), torch.rand(4, 3, 16, 16)
    state = torch.get_rng_state()
    assert chosen(model, images).pixels is None
    assert torch.equal(torch.get_rng_state(), state)


def test_one_image_says_nothing_of_batches() -> None:
    assert chosen(convolutions(), torch.rand(1, 3, 16, 16)).pixels is None


def test_an_answer_that_is_not_a_number_is_never_the_same() -> None:
    model = convolutions()
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    assert chosen(model, torch.rand(2, 3, 16, 16)) == Feeding()


def test_batches_in_parts_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(convolutions(nn.BatchNorm2d(8)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    images = torch.rand(50, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 3
    given = [(images[i : i + 20], labels[i : i + 20]) for i in (0, 20, 40)]
    sizes: list[int] = []
    steps: list[int] = []
    model.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(ways, "PIXELS", 8 * 16 * 16)
    ours = analyze(model, given, progress=steps.append)
    assert sizes[-8:] == [8, 8, 4, 8, 8, 4, 8, 2]
    assert steps == [20, 20, 10]  # progress, and Ctrl-C between them, by the caller's batches still
    monkeypatch.setattr(measuring, "feeding", lambda *_, **__: Feeding(channels_last=True))
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
    analyze(model, [torch.rand(32, 3, 224, 224)], listen=Listen(self_check=False))
    assert sizes[-1] == 32


# --- the memory layout -----------------------------------------------------------------------------------------------


class Viewing(nn.Module):
    """Takes it that maps lie channel after channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1).view(x.shape) * 2


class Layouts(nn.Module):
    """What layout each forward was given."""

    def __init__(self) -> None:
        super().__init__()
        self.last: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.last.append(x.is_contiguous(memory_format=torch.channels_last))
        return x.clone()


@pytest.mark.parametrize("layer", [Viewing(), Noisy()])
def test_a_network_that_fails_or_answers_otherwise_channels_last_is_left_as_it_lies(layer: nn.Module) -> None:
    model, images = convolutions(layer), torch.rand(4, 3, 16, 16)
    assert not chosen(model, images).channels_last
    assert analyze(model, [images]).images.layout is None


def test_tokens_and_float64_are_left_as_they_lie() -> None:
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=48)
    assert not chosen(vit, torch.rand(2, 3, 32, 32)).channels_last
    assert not chosen(convolutions().double(), torch.rand(2, 3, 16, 16).double()).channels_last


@pytest.mark.parametrize(("asked", "last"), [(None, True), (True, True), (False, False)])
def test_a_convolutional_network_runs_channels_last_unless_told_otherwise(asked: bool | None, last: bool) -> None:
    layouts = Layouts()
    model = convolutions(layouts)
    result = analyze(model, [torch.rand(3, 3, 16, 16)], channels_last=asked)
    assert layouts.last[-1] is last
    assert result.images.layout == ("channels_last" if last else None)


def test_the_weights_are_afterwards_those_of_before_also_when_it_raises() -> None:
    model = convolutions()
    before = [(p, p.data_ptr(), p.stride()) for p in model.parameters()]
    analyze(model, [torch.rand(3, 3, 16, 16)])
    with pytest.raises(ZeroDivisionError), Feeding(channels_last=True).weights(model):
        assert model[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr, operator]
        raise ZeroDivisionError
    assert before == [(p, p.data_ptr(), p.stride()) for p in model.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar_resnet8", "mobilenetv3_small_050", "convnext_atto", "densenet121"])
def test_it_lies_no_farther_from_float64(name: str) -> None:
    """Of every bin but Nyquist, 1e-5 in float32 from the same network in float64, or as near as the other layout."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    images = [torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))]
    points = find_points(model, images[0][:1])
    ours, plain = (analyze(model, images, listen=Listen(points=points), channels_last=last) for last in (True, False))
    exact = analyze(model.double(), [images[0].double()], listen=Listen(points=points))

    def far(result: Spectra) -> float:
        pairs = zip(result.points, exact.points, strict=True)
        return max(float(np.abs(one.delta - other.delta)[: other.usable].max()) for one, other in pairs)

    assert far(ours) < max(1e-5, 2 * far(plain))

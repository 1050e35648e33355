"""A GPU without one: forwards, statistics, attention, augmentation and loss on a fake `cuda` of torch's.

Fake tensors have a device and a shape and no values: a tensor made on the wrong device fails here as it would there.
Not covered: the backward pass, AMP, and zero-dimensional CPU tensors, which torch lets mix with any device.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import timm
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

import fourier_probe as fp
import fourier_probe.models
from fourier_probe.data import InputSpec, random_crop, random_erase, random_flip
from fourier_probe.data.augment import Share
from fourier_probe.models.gpsa import maps as gpsa_maps
from fourier_probe.models.gpsa.recast import recast
from fourier_probe.probe import fast, transforms
from fourier_probe.probe.attention_maps import map_measures
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.fast import image_statistics
from fourier_probe.probe.points import Point, find_points
from fourier_probe.probe.sums import Sums
from fourier_probe.training import TrainConfig
from fourier_probe.training.inputs import Step
from fourier_probe.training.optim import loss_of
from fourier_probe.training.steps import prepare

SIDE = 32
MODELS: dict[str, dict[str, object]] = {
    "cifar_resnet8": {"width": 4},
    "patch_resnet": {"width": 8},
    "vit_tiny_patch16_224": {"img_size": SIDE, "depth": 1, "embed_dim": 48},
    "convit_tiny": {"img_size": SIDE, "depth": 2, "local_up_to_layer": 1},
    "eit_mini": {"img_size": SIDE, "depth": 1},
}


def _on_gpu(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """What `.to("cuda")` gives; that swaps tensors, which fake ones do not allow."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(mode.from_tensor(parameter).detach().to("cuda")))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, mode.from_tensor(buffer).to("cuda"))
    return module


def _forget() -> None:
    for module in (transforms, fast):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


@pytest.fixture(autouse=True)
def _constants(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Weights that are worked out with the host's numbers are real ones, then moved; caches forget what is fake."""
    real = transforms.bin_weights.__wrapped__

    def bin_weights(grid: tuple[int, int], device: torch.device, window: str = "none") -> tuple[Tensor, ...]:
        with unset_fake_temporarily():
            values = [value.tolist() for value in real(grid, torch.device("cpu"), window)]
        return tuple(torch.tensor(value, device=device) for value in values)

    monkeypatch.setattr(transforms, "bin_weights", bin_weights)
    if hasattr(fast, "bin_weights"):
        monkeypatch.setattr(fast, "bin_weights", bin_weights)
    _forget()
    yield
    _forget()


@pytest.fixture
def fake() -> Iterator[FakeTensorMode]:
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        yield mode


def _statistics(model: nn.Module, points: list[Point], images: Tensor) -> dict[str, Sums]:
    group = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    sums = {point.name: Sums(20) for point in points}
    with torch.no_grad(), Capture(model, points, lambda point, features: sums[point.name].update(
        image_statistics(features, Definition()), group
    )) as capture:  # fmt: skip
        model(images)
        capture.check()
    return sums


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_forwards_hooks_and_statistics(name: str) -> None:
    points = find_points(timm.create_model(name, **MODELS[name]).eval(), torch.zeros(1, 3, SIDE, SIDE))
    model = timm.create_model(name, **MODELS[name]).eval()
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        _on_gpu(model, mode)
        sums = _statistics(model, points, torch.randn(2, 3, SIDE, SIDE, device="cuda"))
        assert {each.rows.device.type for each in sums.values() if each.rows is not None} == {"cuda"}
        assert all(each.rows is not None for each in sums.values())


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"content_stride": 2}, {"content_maps": 1}], ids=str)
@pytest.mark.parametrize("grid", [(6, 5), (16, 15)])
def test_attention_of_recast_layers(fake: FakeTensorMode, options: dict[str, int], grid: tuple[int, int]) -> None:
    layer = recast(nn.Conv2d(4, 8, 3, padding=1), **options)
    _on_gpu(layer, fake)
    maps = torch.randn(2, 4, *grid, device="cuda")
    assert layer(maps).device.type == "cuda"
    assert {half.device.type for half in layer.halves(maps)} == {"cuda"}
    distance, response, _ = map_measures(layer.attention(maps), grid, (1.0, 1.0))
    assert (distance.device.type, response.device.type) == ("cuda", "cuda")


def test_augmentation_and_loss(fake: FakeTensorMode) -> None:
    model = _on_gpu(timm.create_model("cifar_resnet8", width=4, num_classes=4), fake).train()
    config = TrainConfig(reprob=0.5, smoothing=0.1)
    images = torch.zeros(4, 3, SIDE, SIDE, dtype=torch.uint8, device="cuda")
    generator = torch.Generator().manual_seed(0)
    moved = random_flip(random_crop(images, 2, generator), generator)
    share = Share(4, torch.arange(4, device="cuda"))
    step = Step(moved, torch.zeros(4, dtype=torch.int64, device="cuda"), generator, share)
    spec = InputSpec(channels=3, size=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.5,) * 3)
    inputs, targets = prepare(step, config, spec, None)
    loss = loss_of(model(inputs), targets, config)
    assert (inputs.device.type, loss.device.type) == ("cuda", "cuda")
    assert random_erase(inputs, generator, 0.5).device.type == "cuda"


def test_a_tensor_on_the_wrong_device_fails(fake: FakeTensorMode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is what the tests above are worth."""
    layer = recast(nn.Conv2d(4, 8, 3, padding=1))
    _on_gpu(layer, fake)
    right = gpsa_maps.axis_offsets

    def wrong(keys: int, queries: int, *, device: torch.device | None = None, **more: object) -> Tensor:
        return right(keys, queries, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("fourier_probe.models.gpsa.layer.axis_offsets", wrong)
    with pytest.raises(RuntimeError, match="device"):
        layer(torch.randn(2, 4, 6, 6, device="cuda"))
    assert fp.recast is recast

"""`points` and `analyze` see the same network in whatever mode it is run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import fourier_probe as fp

pytestmark = pytest.mark.slow  # networks of timm in each mode

Mode = tuple[Callable[[], AbstractContextManager[object]], Callable[[nn.Module], nn.Module], Callable[[Tensor], Tensor]]


def _same(value: nn.Module) -> nn.Module:
    return value


def _last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _compiled(model: nn.Module) -> nn.Module:
    compiled: nn.Module = torch.compile(model, backend="eager")  # type: ignore[assignment]
    return compiled


MODES: dict[str, Mode] = {
    "inference mode": (torch.inference_mode, _same, lambda images: images),
    "no gradients": (torch.no_grad, _same, lambda images: images),
    "autocast": (lambda: torch.autocast("cpu", torch.bfloat16), _same, lambda images: images),
    "channels last": (nullcontext, lambda model: model.to(memory_format=torch.channels_last), _last),  # type: ignore[call-overload]
    "compiled": (nullcontext, _compiled, lambda images: images),
    "training mode": (nullcontext, lambda model: model.train(), lambda images: images),
}
MODELS = {
    "resnet10t": {},
    "vit_tiny_patch16_224": {"img_size": 64, "depth": 2},
    "swin_tiny_patch4_window7_224": {"img_size": 112, "depths": (1, 1, 1, 1), "embed_dim": 24},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_points_and_analysis_agree_in_every_mode(name: str, mode: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **MODELS[name]).eval()  # type: ignore[arg-type]
    side = MODELS[name].get("img_size", 64)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))  # type: ignore[call-overload]
    expected = fp.analyze(model, [images])
    entered, changed, laid = MODES[mode]
    model, images = changed(model), laid(images)
    with entered():
        points = fp.find_points(model, images[:1])
        found = fp.analyze(model, [images])
    assert [point.name for point in points] == [p.name for p in found.points] == [p.name for p in expected.points]
    assert [p.grid for p in found.points] == [p.grid for p in expected.points]
    assert found.coverage is not None and expected.coverage is not None
    assert (found.coverage.read, found.coverage.steps) == (expected.coverage.read, expected.coverage.steps)
    tolerance = 0.2 if mode == "autocast" else 1e-4
    for one, other in zip(found.points, expected.points, strict=True):
        np.testing.assert_allclose(one.delta[: one.usable], other.delta[: other.usable], atol=tolerance)

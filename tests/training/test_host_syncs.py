"""What makes the host wait for an accelerator, counted on the CPU, where the same operations run."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import fourier_probe.models  # noqa: F401
from fourier_probe.data import InputSpec
from fourier_probe.data.augment import Share
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.fast import image_statistics
from fourier_probe.probe.groups import group_of
from fourier_probe.probe.points import find_points
from fourier_probe.probe.sums import Sums
from fourier_probe.results.analysis import analyze
from fourier_probe.training import TrainConfig
from fourier_probe.training.inputs import Step
from fourier_probe.training.optim import make_optimizer
from fourier_probe.training.steps import prepare, train_step

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique")


class Waits(TorchDispatchMode):
    """Counts operations whose result the host must read."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        if name.startswith(WAITS):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("more", [{}, {"clip_grad": 1.0, "reprob": 0.5}, {"sam_rho": 0.05}], ids=str)
def test_a_training_step_never_waits_unless_it_looks(more: dict[str, float]) -> None:
    """`check=False` is how a GPU trains: it looks every 20 steps."""
    model = timm.create_model("cifar_resnet8", width=4, num_classes=4).train()
    recast_(model, [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and "2.conv" in name][:1])
    config = TrainConfig(**more)
    optimizer, scaler = make_optimizer(model, config), torch.amp.GradScaler("cpu", enabled=False)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (4, 3, 16, 16), dtype=torch.uint8)
    step = Step(images, torch.arange(4), generator, Share(4, torch.arange(4)))
    spec = InputSpec(channels=3, size=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    for check in (False, True):
        with Waits() as waits:
            inputs, targets = prepare(step, config, spec, None)
            train_step(model, inputs, targets, optimizer, scaler, config, check=check)
        assert dict(waits.counts) == ({"_local_scalar_dense": 1} if check else {})


def test_a_whole_analysis_waits_no_more_often_for_more_batches() -> None:
    """Labels, groups and top-1 included: what is read is read before the first batch and after the last."""
    model = timm.create_model("cifar_resnet8", width=4, num_classes=4).eval()
    counts = []
    for count in (2, 5):
        batches = [(torch.randn(4, 3, 16, 16), torch.arange(4)) for _ in range(count)]
        with Waits() as waits:
            result = analyze(model, batches)
        counts.append(dict(waits.counts))
        assert result.top1 is not None
    assert counts[0] == counts[1]


def test_an_analyzed_batch_never_waits() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=48).eval()
    images = torch.randn(4, 3, 32, 32)
    points = find_points(model, images[:1])
    sums = {point.name: Sums(20) for point in points}
    group = torch.from_numpy(group_of(np.arange(4), 4, 20))

    def reduce(point: Any, features: torch.Tensor) -> None:
        sums[point.name].update(image_statistics(features, Definition()), group)

    with torch.inference_mode(), Capture(model, points, reduce) as capture, Waits() as waits:
        model(images)
        capture.check()
    assert dict(waits.counts) == {}

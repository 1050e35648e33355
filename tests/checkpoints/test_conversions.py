"""A network that was recast in training comes back from its checkpoint as it was, and is probed at the same points."""

from __future__ import annotations

from pathlib import Path

import torch

from fourier_probe import checkpoints
from fourier_probe.models import zoo
from fourier_probe.models.gpsa.layer import GPSAConv2d
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.probe.points import find_points


def test_conversions_are_replayed_and_weights_are_exact(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = zoo.create("cifar_resnet8", num_classes=10, in_chans=1).eval()
    image = torch.randn(2, 1, 32, 32)
    names = [point.name for point in find_points(model, image)]
    layers, options = ["layer3.0.conv1", "layer3.0.conv2"], {"locality_strength": 5.0, "gate": 2.0, "head_dim": 6}
    recast_(model, layers, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        wanted = model(image)
    checkpoints.save(
        tmp_path / "run.pt",
        {
            "state_dict": model.state_dict(),
            "arch": "cifar_resnet8",
            "model_args": {"num_classes": 10, "in_chans": 1},
            "conversions": [{"layer": layer, "epoch": i, "options": options} for i, layer in enumerate(layers)],
        },
    )
    read = checkpoints.read(tmp_path / "run.pt")
    again = checkpoints.build(read)
    assert [name for name, module in again.named_modules() if isinstance(module, GPSAConv2d)] == layers
    with torch.no_grad():
        assert torch.equal(again(image), wanted)
    assert [point.name for point in find_points(again, image, branches=False)] == names
    fresh = checkpoints.build(read, untrained=True)
    assert [name for name, module in fresh.named_modules() if isinstance(module, GPSAConv2d)] == layers
    with torch.no_grad():
        assert not torch.allclose(fresh(image), wanted)

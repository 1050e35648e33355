"""A sum over windows is told from what mixes far cells, with any weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fourier_probe.errors import ModelError
from fourier_probe.models import create
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.probe.window import second_difference, top1_bound


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_convolution_is_a_sum_over_windows_and_bounded(seed: int) -> None:
    torch.manual_seed(seed)
    model = create("patch_resnet")
    for module in model.modules():  # trained statistics are not the initial ones
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)  # type: ignore[arg-type]
    assert second_difference(model) < 1e-11
    bounds = {variant: top1_bound(model, variant) for variant in ("mixed", "far", "local")}
    assert {variant: bound.top1 for variant, bound in bounds.items()} == {"mixed": 0.875, "far": 0.75, "local": None}
    assert str(bounds["mixed"]).startswith("bound 87.5 %")
    assert str(bounds["local"]).startswith("no bound")


class _Behind(nn.Module):
    """Something nonlinear behind the global mean."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = create("patch_resnet", num_classes=0), nn.Linear(32, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(images)))  # type: ignore[no-any-return]


def test_what_mixes_far_cells_has_no_bound() -> None:
    torch.manual_seed(0)
    attention = create("patch_resnet")
    recast_(attention, ["blocks.0.conv1"], locality_strength=1.0, gate=1.0)
    wide = create("patch_resnet", kernels=(3, 3))
    for model in (attention, wide, _Behind()):
        bound = top1_bound(model, "mixed")
        assert bound.top1 is None
        assert bound.second_difference > 1e-6
        assert str(bound).startswith("no bound")


def test_a_network_for_other_images_is_refused() -> None:
    with pytest.raises(ModelError, match="3 x 32 x 32"):
        second_difference(create("patch_resnet", in_chans=1))

"""The network of the planted task: its window, its arguments."""

from __future__ import annotations

import pytest
import torch

from fourier_probe.errors import ModelError
from fourier_probe.models import create


@pytest.mark.parametrize(("kernels", "side"), [((3, 1), 5), (((3, 1), (1, 1)), 3), ((1, 1), 1), ((3, 3), 9)])
def test_the_window_is_as_wide_as_its_kernels(kernels: object, side: int) -> None:
    torch.manual_seed(0)
    model = create("patch_resnet", kernels=kernels).double().eval()
    image = torch.zeros(1, 3, 48, 48, dtype=torch.float64)
    before = model.forward_features(image)  # type: ignore[operator]
    image[0, :, 24:28, 24:28] = 1.0  # one cell
    changed = ((model.forward_features(image) - before).abs().amax((0, 1)) > 0).nonzero()  # type: ignore[operator]
    assert (changed.amax(0) - changed.amin(0) + 1).tolist() == [side, side]


def test_arguments() -> None:
    assert create("patch_resnet", num_classes=0)(torch.zeros(2, 3, 32, 32)).shape == (2, 32)
    assert len(create("patch_resnet", depth=3, width=8).blocks) == 3  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="two odd sides"):
        create("patch_resnet", kernels=(2, 1))
    with pytest.raises(ModelError, match="one pair for each"):
        create("patch_resnet", kernels=((3, 1), (3, 1), (1, 1)))

"""What a model's own forward raises: the exception by name, and what to do about it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fourier_probe.errors import ModelError, PointError, ProbeError
from fourier_probe.probe.points import find_points
from fourier_probe.probe.survey import survey

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Odd(nn.Module):
    """A convolution, and a forward of its own."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.net = nn.Conv2d(channels, 4, 3, padding=1)


class Two(Odd):
    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.net(image) * mask
        return out


class Keys(Odd):
    def forward(self, batch: Any) -> Tensor:
        return self.net({"image": 1}["pixels"])  # type: ignore[no-any-return]


class Asserts(Odd):
    def forward(self, images: Tensor) -> Tensor:
        raise AssertionError


class Video(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv3d(3, 4, 3, padding=1)  # type: ignore[assignment]

    def forward(self, clip: Tensor) -> Tensor:
        _, _, _, _, _ = clip.shape
        out: Tensor = self.net(clip).mean((2, 3, 4))
        return out


class Exits(Odd):
    def forward(self, images: Tensor) -> Tensor:
        raise StopIteration("done")


class Fixed(Odd):
    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != 224:
            raise ValueError("wrong input")
        out: Tensor = self.net(images)
        return out


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Two(), r"TypeError: .*missing 1.* takes \(image, mask\), not images alone.*self.model\(images, mask=\.\.\.\)"),
        (Keys(), r"Keys fails on an image of 3 x 16 x 16: KeyError: 'pixels'.*a dictionary as"),
        (Asserts(), r"AssertionError: no message\. No other size was found"),
        (Video(), r"ValueError: not enough values.*It takes video \(five dimensions\).*images\[:, :, None\]"),
        (Exits(), r"StopIteration: done"),
        (Odd(1), r"NotImplementedError"),
        (nn.Sequential(nn.Conv2d(1, 4, 3)), r"RuntimeError: .*to have 1 channels, but got 3 channels"),
        (Fixed(), r"ValueError: wrong input\. It takes images of 224 x 224: .*--img-size 224x224"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)  # fmt: skip
def test_the_exception_is_named_and_what_to_do(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        find_points(model, IMAGES)
    assert ("--img-size" in str(error.value)) == isinstance(model, Fixed)


class Returns(Odd):
    """Returns what it is told to."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, images: Tensor) -> Any:
        maps = self.net(images)
        return {"none": None, "tuple": (maps, 3), "dict": {"out": maps}, "nested": [{"a": (maps,)}], "number": 1.5}[
            self.kind
        ]


@pytest.mark.parametrize("kind", ["none", "tuple", "dict", "nested", "number"])
def test_whatever_a_forward_returns_its_layers_are_read(kind: str) -> None:
    found = survey(Returns(kind), IMAGES)
    assert [point.name for point in found.points] == ["net"] and not found.coverage.unread


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_scripted_module_is_refused_and_says_what_to_give() -> None:
    model = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), IMAGES)
    with pytest.raises((ModelError, PointError), match=r"scripted.*give the module"):
        find_points(model, IMAGES)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_graph_module_and_a_scripted_part_are_no_obstacle() -> None:
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()))
    assert [point.name for point in find_points(graph, IMAGES)] == ["1"]
    part = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), torch.jit.trace(nn.ReLU(), torch.rand(1)), nn.Conv2d(4, 4, 1))
    assert [point.name for point in find_points(part, IMAGES)][-1] == "2"


def test_every_error_is_one_of_ours() -> None:
    for model in (nn.Sequential(), nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), nn.Linear(16, 4)):
        try:
            find_points(model, IMAGES)
        except ProbeError as error:
            assert type(model).__name__ in str(error)

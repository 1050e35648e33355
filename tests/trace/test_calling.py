"""What a model's own forward raises: the exception by name, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fourier_probe import analyze, validate
from fourier_probe.errors import ModelError, PointError, ProbeError
from fourier_probe.probe.points import find_points
from fourier_probe.probe.survey import survey
from fourier_probe.runtime.messages import ProbeNote

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


class Leaves(Odd):
    def forward(self, images: Tensor) -> Tensor:
        sys.exit(3)


class Aborts(Odd):
    def forward(self, images: Tensor) -> Tensor:
        raise BaseException("odd")


class UntoldError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Says(Odd):
    """Raises what it is told to."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        raise self.error


class Needs(Odd):
    """Takes images in one form alone."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, images: Any) -> Tensor:
        fits = {
            "96": lambda: images.shape[-1] == 96,
            "one": lambda: images.ndim == 4 and len(images) == 1,
            "no batch": lambda: images.ndim == 3,
            "channels last": lambda: images.shape[-1] == 3,
            "list": lambda: isinstance(images, list),
            "bytes": lambda: images.dtype == torch.uint8,
        }[self.form]()
        if not fits:
            raise ValueError("no")
        if self.form == "channels last":
            images = images.permute(0, 3, 1, 2)
        out: Tensor = self.net(torch.stack(images) if self.form == "list" else images.float())
        return out


class Differentiates(Odd):
    """Computes a gradient on its way."""

    def forward(self, images: Tensor) -> Tensor:
        images = images.requires_grad_(True)
        (slope,) = torch.autograd.grad(self.net(images).sum(), images)
        out: Tensor = self.net(images + slope)
        return out


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
        (Leaves(), r"Leaves fails .*: it calls sys\.exit\(3\)\. No other size"),
        (Aborts(), r"BaseException: odd"),
        (Says(UntoldError()), r"UntoldError"),
        (Says(ValueError("\n\nfirst.\nsecond")), r"ValueError: first\. No other size .*\(in evaluation"),
        (Says(ValueError("\x1b[31mred")), r"ValueError: \\x1b\[31mred\."),
        (Says(RuntimeError("DefaultCPUAllocator: can't allocate memory")), r"memory\. Memory runs out: .*--batch-size"),
        (Needs("one"), r"It takes one image, and not 2 at once"),
        (Needs("no batch"), r"It takes one image \(C, H, W\), and no batch"),
        (Needs("channels last"), r"return self\.model\(images\.permute\(0, 2, 3, 1\)\)"),
        (Needs("list"), r"return self\.model\(list\(images\)\)"),
        (Needs("bytes"), r"return self\.model\(\(images \* 255\)\.byte\(\)\)"),
        (nn.Conv2d(3, 4, 3).half(), r"It takes them as torch\.float16"),
        (Differentiates(), r"under torch\.inference_mode\(False\) and torch\.enable_grad\(\)"),
        (Odd(1), r"NotImplementedError"),
        (nn.Sequential(nn.Conv2d(1, 4, 3)), r"RuntimeError: .*to have 1 channels, but got 3 channels"),
        (Needs("96"), r"ValueError: no\. It takes images of 96 x 96: .*--img-size 96x96"),
        (Fixed(), r"ValueError: wrong input\. It takes images of 224 x 224: .*--img-size 224x224"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)  # fmt: skip
def test_the_exception_is_named_and_what_to_do(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        find_points(model, IMAGES)
    assert ("--img-size" in str(error.value)) == (" It takes images of " in message or "Memory" in message)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory"), KeyboardInterrupt()]
)
def test_memory_and_signals_are_no_fault_of_the_model(error: BaseException) -> None:
    with pytest.raises(type(error)):
        find_points(Says(error), IMAGES)


class ByName(Odd):
    def forward(self, *, picture: Tensor, mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.net(picture)
        return out


class PixelValues(Odd):
    def forward(self, *, pixel_values: Tensor) -> Tensor:
        out: Tensor = self.net(pixel_values)
        return out


@pytest.mark.parametrize("model", [ByName(), PixelValues()])
def test_images_are_given_by_the_name_that_a_forward_asks_for(model: nn.Module) -> None:
    assert [point.name for point in find_points(model, IMAGES)] == ["net"]


class Counting(Odd):
    """Runs so many times."""

    def __init__(self, runs: int) -> None:
        super().__init__()
        self.runs = runs

    def forward(self, images: Tensor) -> Tensor:
        self.runs -= 1
        if self.runs < 0:
            raise RuntimeError("worn out")
        out: Tensor = self.net(images)
        return out


def test_the_check_of_places_does_not_end_an_analysis() -> None:
    with pytest.warns(ProbeNote, match=r"layout is not tested: Counting fails when it is run again \(worn out\)"):
        assert survey(Counting(1), IMAGES).coverage.self_check is None


def test_a_later_forward_is_told_as_the_first(tmp_path: Path) -> None:
    with pytest.warns(ProbeNote), pytest.raises(ModelError, match=r"Counting fails on an image .*: worn out"):
        analyze(Counting(1), IMAGES)
    with pytest.raises(ModelError, match=r"Two fails .* takes \(image, mask\)"):
        validate(Two(), [(IMAGES, torch.zeros(2, dtype=torch.int64))])


def test_a_forward_may_compute_gradients_of_its_own() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Differentiates()

        def forward(self, images: Tensor) -> Tensor:
            with torch.inference_mode(False), torch.enable_grad():
                out: Tensor = self.model(images.clone())
            return out

    assert len(analyze(Wrapper(), IMAGES).points) > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU()), r"weights without a size \(0\.weight, of a lazy layer"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, device="meta")), r"weights without values \(0\.weight, on the meta"),
    ],
    ids=["lazy", "meta"],
)
def test_weights_without_values_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        analyze(make(), IMAGES)


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

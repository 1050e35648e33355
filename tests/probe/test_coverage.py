"""How much of a forward was read: in results, in every mode, as a note and as an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fourier_probe.errors import ModelError, PointError
from fourier_probe.probe.measuring import Listen
from fourier_probe.probe.points import find_points
from fourier_probe.probe.survey import survey
from fourier_probe.results.analysis import analyze
from fourier_probe.runtime.messages import listening


class Block(nn.Module):
    """A residual MLP on tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        """Input plus MLP."""
        out: Tensor = x + self.mlp(self.norm(x))
        return out


class Dropping(nn.Module):
    """Two blocks on all tokens, then two on those that an index keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.first = nn.ModuleList(Block() for _ in range(2))
        self.second = nn.ModuleList(Block() for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        """The mean of the tokens that are left."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        for block in self.first:
            x = block(x)
        x = x[:, torch.arange(0, x.shape[1], 2)]
        for block in self.second:
            x = block(x)
        return x.mean(1)


IMAGES = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def test_steps_that_are_not_read_count_in_the_depth_and_are_named() -> None:
    notes: list[str] = []
    with listening(notes.append):
        result = analyze(Dropping(), [IMAGES])
    assert [(point.name, point.depth) for point in result.points] == [("stem", 0), ("first.0", 0.25), ("first.1", 0.5)]
    coverage = result.coverage
    assert coverage is not None and (coverage.steps, coverage.read) == (5, 3)
    assert [step.name for step in coverage.unread] == ["second.0", "second.1"]
    assert coverage.evidence == dict.fromkeys(["stem", "first.0", "first.1"], "axes")
    assert coverage.text() == "3 of 5 steps read; layout tested at 1 point"
    assert any("2 of 5 steps are not read (second.0, second.1): its positions were gathered" in text for text in notes)
    with pytest.raises(PointError, match=r"2 of 5 steps are not read.*Without --strict"):
        analyze(Dropping(), [IMAGES], listen=Listen(strict=True))
    assert (
        analyze(Dropping(), [IMAGES], listen=Listen(points=["first.*"])).coverage is None
    )  # what was asked for is not the whole


def test_the_check_of_places_can_be_switched_off_and_costs_six_forwards() -> None:
    model, calls = Dropping(), []
    model.patches.register_forward_hook(lambda _m, inputs, _o: calls.append(len(inputs[0])))
    survey(model, IMAGES)
    assert calls == [2, 1, 1, 1, 1, 1, 1]
    calls.clear()
    assert survey(model, IMAGES, self_check=False).coverage.self_check is None
    assert calls == [2]


def modes() -> list[tuple[str, Callable[[nn.Module, Tensor], list[Any]]]]:
    def plain(model: nn.Module, images: Tensor) -> list[Any]:
        return find_points(model, images)

    def inference(model: nn.Module, images: Tensor) -> list[Any]:
        with torch.inference_mode():
            return find_points(model, images.clone())

    def autocast(model: nn.Module, images: Tensor) -> list[Any]:
        with torch.autocast("cpu", torch.bfloat16):
            return find_points(model, images)

    def channels_last(model: nn.Module, images: Tensor) -> list[Any]:
        return find_points(model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last))

    def compiled(model: nn.Module, images: Tensor) -> list[Any]:
        return find_points(torch.compile(model), images)  # type: ignore[arg-type]

    return [(mode.__name__, mode) for mode in (plain, inference, autocast, channels_last, compiled)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "vit"])
def test_points_and_analyze_agree_in_every_mode(name: str) -> None:
    from torchvision.models import VisionTransformer, shufflenet_v2_x0_5

    torch.manual_seed(0)
    model = (shufflenet_v2_x0_5() if name != "vit" else VisionTransformer(32, 8, 2, 2, 16, 32)).eval()
    images = torch.rand(2, 3, 32, 32)
    expected = find_points(model, images)
    assert len(expected) == (17 if name != "vit" else 5)
    for mode, find in modes():
        assert find(model, images) == expected, mode
    names = [point.name for point in expected]
    plain = analyze(model, [images], listen=Listen(self_check=False))
    last = model.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        inference = analyze(model, [images.clone()], listen=Listen(self_check=False))
    with torch.autocast("cpu", torch.bfloat16):
        autocast = analyze(model, [images], listen=Listen(self_check=False))
    runs = [
        inference,
        autocast,
        analyze(model, [images], amp=torch.bfloat16, listen=Listen(self_check=False)),
        analyze(last, [images.to(memory_format=torch.channels_last)], listen=Listen(self_check=False)),
        analyze(torch.compile(model), [images], listen=Listen(self_check=False)),
    ]
    for run in [plain, *runs]:
        assert [point.name for point in run.points] == names
        assert [point.grid for point in run.points] == [point.layout.grid for point in expected]
    for run in (runs[0], runs[3], runs[4]):
        assert run.points[-1].delta == pytest.approx(plain.points[-1].delta, abs=1e-4)


class Other(nn.Module):
    """A forward with another signature."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.net = kind, nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())

    def forward(self, sample: Any) -> Tensor:
        """Maps."""
        out: Tensor = self.net(sample["image"] if self.kind == "dict" else torch.stack(sample.pop()))
        return out


class Timed(Other):
    """With a time step."""

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:  # type: ignore[override]
        """Maps."""
        out: Tensor = self.net(sample) * timestep
        return out


class Text(Other):
    """Images second, under the name that transformers gives them."""

    def forward(self, input_ids: Tensor | None = None, pixel_values: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Maps."""
        out: Tensor = self.net(pixel_values)
        return out


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Other("dict"), r"Other fails on an image of 3 x 24 x 24: \w+: .*self.model\(\{'key': images\}\)"),
        (Other("list"), r"AttributeError: 'Tensor' object has no attribute 'pop'.*self.model\(list\(images\)\)"),
        (Timed("time"), r"TypeError.*takes \(sample, timestep\), not images alone.*self.model\(images, timestep=...\)"),
    ],
)
def test_a_forward_with_another_signature_is_told_the_wrapper(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        find_points(model, IMAGES)
    assert "--img-size" not in str(error.value)


def test_pixel_values_is_found() -> None:
    assert [point.name for point in analyze(Text("text"), [IMAGES]).points] == ["net.1"]


def test_the_size_is_blamed_only_where_another_one_works() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image_size, self.net, self.head = 16, nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 256, 2)

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.head(self.net(images).flatten(1))
            return out

    with pytest.raises(ModelError, match=r"It takes images of 16 x 16: .*--img-size 16x16"):
        find_points(Fixed(), IMAGES)


@pytest.mark.filterwarnings("ignore")
def test_an_attention_that_compiles_itself_is_one_operation() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    class Flexible(Block):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = nn.Sequential(nn.Linear(8, 24))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.mlp(self.norm(x)).view(*x.shape[:2], 3, 1, 8).permute(2, 0, 3, 1, 4)
            out: Tensor = x + flex_attention(q, k, v).squeeze(1)  # type: ignore[union-attr]
            return out

    model = Dropping()
    model.first = nn.ModuleList(Flexible() for _ in range(2))
    model.second = nn.ModuleList()
    found = survey(model, torch.rand(1, 3, 64, 64), self_check=False)
    assert [(point.name, point.op) for point in found.points] == [
        ("stem", "embed"),
        ("first.0", "attention"),
        ("first.1", "attention"),
    ]

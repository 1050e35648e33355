"""Sums that no module takes in or returns are read at the addition itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourier_probe.errors import PointError
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.lesions import removable_steps
from fourier_probe.probe.points import Point, find_points, locate

End = Callable[["Written", Tensor], Tensor]


class Written(nn.Module):
    """Two residual convolutions in the root's own forward, pooled in a way of one's own; keeps its last sum."""

    def __init__(self, add: str = "plus", end: str = "mean") -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        self.add, self.end = add, end
        self.last = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in (self.a, self.b):
            branch = layer(x).relu()
            if self.add == "plus":
                x = x + branch
            elif self.add == "onto":
                x += branch
            elif self.add == "minus":
                x = x - branch
            else:
                x = torch.lerp(x, branch, 0.25)
        self.last = x.clone()
        if self.end == "mean":
            return self.head(x.mean((2, 3)))
        if self.end == "pool":
            return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return self.head(x.relu_().flatten(2).amax(2))


class Tokens(nn.Module):
    """A transformer written by hand, without a last norm; batch or sequence first."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.places = nn.Parameter(torch.zeros(1, 65, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=batch_first)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 5)
        self.last = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        x = x if self.batch_first else x.transpose(0, 1)
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.mlp(self.norm2(x))
        tokens = x if self.batch_first else x.transpose(0, 1)
        self.last = tokens[:, 1:].transpose(1, 2).unflatten(2, (8, 8))
        return self.head(tokens[:, 0])


def _heard(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    points = find_points(model, images)
    found: dict[str, Tensor] = {}

    def reduce(point: Point, maps: Tensor) -> None:
        found[point.name] = maps.clone() + torch.zeros_like(maps) + 0  # additions of its own, which must not count

    with torch.inference_mode(), Capture(model, points, reduce) as capture:
        model(images)
        capture.check()
    return found


@pytest.mark.parametrize("add", ["plus", "onto", "minus", "lerp"])
@pytest.mark.parametrize("end", ["mean", "pool", "in place"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_last_sum_of_a_forward_written_by_hand(add: str, end: str, count: int) -> None:
    """Whatever pools it, in place or not, for one image and for more."""
    torch.manual_seed(0)
    model, images = Written(add, end), torch.randn(count, 3, 32, 32)
    surveyed = locate(model, images)
    assert [point.name for point in surveyed.points] == ["stem", "a+conv", "b+conv"]
    assert surveyed.coverage.text() == "3 of 3 steps read"
    maps = _heard(model, images)["b+conv"]
    assert torch.equal(maps, model.last)
    assert [point.depth for point in surveyed.points] == [0, 0.5, 1]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_tokens_of_which_the_head_takes_one(batch_first: bool, count: int) -> None:
    torch.manual_seed(0)
    model, images = Tokens(batch_first=batch_first), torch.randn(count, 3, 32, 32)
    surveyed = locate(model, images)
    assert [(point.name, point.op) for point in surveyed.points][-2:] == [
        ("attention+attn", "attention"), ("mlp+mlp", "mlp"),
    ]  # fmt: skip
    assert not surveyed.coverage.unread
    assert torch.equal(_heard(model, images)["mlp+mlp"], model.last)


def test_steps_read_at_an_addition_can_be_taken_out() -> None:
    steps, left = removable_steps(Tokens(), torch.randn(1, 3, 32, 32))
    assert [step.name for step in steps] == ["attention+attn", "mlp+mlp"]
    assert not left


def test_a_forward_that_adds_another_number_of_times_is_refused() -> None:
    """Which addition the point was is not known any more: an error, and the hooks are gone."""

    class Changing(Written):
        def forward(self, x: Tensor) -> Tensor:
            extra = len(x) > 2
            x = self.stem(x)
            if extra:
                x = x + 1
            x = x + self.a(x).relu()
            x = x + self.b(x).relu()
            return self.head(x.mean((2, 3)))

    model = Changing()
    points = find_points(model, torch.randn(1, 3, 32, 32))
    with pytest.raises(PointError, match=r"makes 3 additions of this shape in this forward and made 2"):
        with Capture(model, points, lambda point, maps: None):
            model(torch.randn(4, 3, 32, 32))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.slow
def test_beside_an_operation_that_takes_functions() -> None:
    """flex_attention is one, and the last sum of the forward is read at the addition all the same."""
    flex = pytest.importorskip("torch.nn.attention.flex_attention").flex_attention

    class Flexible(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2).transpose(1, 2)
            q = self.norm1(x).unflatten(2, (1, 16)).transpose(1, 2)
            x = x + flex(q, q, q).transpose(1, 2).flatten(2)
            x = x + self.mlp(self.norm2(x))
            self.last = x.transpose(1, 2).unflatten(2, (8, 8))
            return self.head(x.mean(1))

    model, images = Flexible(), torch.randn(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # uncompiled, it says that it is slow
        found = _heard(model, images)
    assert torch.equal(found["mlp+mlp"], model.last)

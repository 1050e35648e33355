"""Hooks listen, count, and leave no trace, whatever happens (faults 22 and 23)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fourier_probe.errors import PointError
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.points import Point, find_points

IMAGE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Twice(nn.Module):
    """One convolution used twice, and one branch that only training takes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv2d(4, 4, 1)
        self.use_last = True

    def forward(self, x: Tensor) -> Tensor:
        """Stem, shared, dropout, shared again in place, and extra if asked."""
        x = self.shared(self.stem(x))
        x = self.shared(self.drop(x).relu_())
        return self.last(x) if self.use_last else x


@pytest.fixture
def model() -> Iterator[Twice]:
    torch.manual_seed(0)
    made = Twice().train()
    made.drop.eval()  # a mixed state, to be restored as it was
    yield made
    for module in made.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert made.training and not made.drop.training


def listen(model: nn.Module, points: list[Point]) -> dict[str, Tensor]:
    heard: dict[str, Tensor] = {}
    with (
        torch.no_grad(),
        Capture(model, points, lambda point, maps: heard.update({point.name: maps.clone()})) as capture,
    ):
        model(IMAGE)
        capture.check()
    return heard


def test_each_call_of_a_shared_module_is_a_point_of_its_own(model: Twice) -> None:
    points = find_points(model, IMAGE, select=["shared"])
    assert len(points) == 2
    assert len({point.name for point in points}) == 2
    assert [point.call for point in points] == [0, 1]
    heard = listen(model, points)
    with torch.no_grad():
        first = model.shared(model.stem(IMAGE))
        second = model.shared(first.relu())
    assert torch.equal(heard[points[0].name], first)
    assert torch.equal(heard[points[1].name], second)


def test_in_place_operations_after_the_hook_do_not_reach_what_it_saw(model: Twice) -> None:
    points = find_points(model, IMAGE, select=["shared"])
    assert (listen(model, points)[points[0].name] < 0).any()


def test_the_model_runs_in_eval_mode_inside_and_random_state_survives(model: Twice) -> None:
    points = find_points(model, IMAGE, select=["stem"])
    state, modes = torch.get_rng_state(), []
    others = random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002

    def reduce(_point: Point, _maps: Tensor) -> None:
        modes.append(any(module.training for module in model.modules()))
        torch.rand(3)
        random.random()  # noqa: S311
        np.random.rand()  # noqa: NPY002

    with Capture(model, points, reduce):
        model(IMAGE)
    assert modes == [False]
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == others[0]
    assert (np.random.get_state()[1] == others[1]).all()  # type: ignore[index] # noqa: NPY002


@pytest.mark.parametrize("where", ["forward", "reduce", "body"])
def test_an_exception_leaves_no_trace(model: Twice, where: str) -> None:
    points = find_points(model, IMAGE, select=["stem"])
    state = torch.get_rng_state()

    def reduce(_point: Point, _maps: Tensor) -> None:
        if where == "reduce":
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match=r"broken|expected input"), Capture(model, points, reduce):
        torch.rand(1)
        model(IMAGE if where != "forward" else torch.rand(1, 5, 8, 8))
        raise RuntimeError("broken")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_point_that_is_never_called_is_an_error(model: Twice) -> None:
    points = find_points(model, IMAGE, select=["stem", "last"])
    model.use_last = False
    with pytest.raises(PointError, match=r"1 of 2 probe points were never called.*last"):
        listen(model, points)


def test_a_point_of_another_model_is_an_error(model: Twice) -> None:
    points = find_points(model, IMAGE, select=["shared"])
    with pytest.raises(PointError, match="no module 'shared'"):
        listen(nn.Conv2d(3, 4, 3), points)


def test_an_unknown_name_suggests_near_ones(model: Twice) -> None:
    with pytest.raises(PointError, match=r"shard.*shared"):
        find_points(model, IMAGE, select=["shard"])

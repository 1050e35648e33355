"""Block rules that users add: they come first, are checked, and the tracer's own go on where they do not know."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fourier_probe as fp
from fourier_probe.errors import PointError
from fourier_probe.trace.blocks import BLOCKS


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Pair(nn.Sequential):
    """Two blocks, which a rule may call one."""


@pytest.fixture(autouse=True)
def _rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BLOCKS, "_entries", {})


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Pair(Block(), Block()), Pair(Block(), Block()))


def names() -> list[str]:
    return [point.name for point in fp.find_points(network(), torch.rand(1, 3, 8, 8))]


def test_a_rule_comes_before_the_tracers_own_and_what_is_inside_is_no_step() -> None:
    assert names() == ["stem", "1.0", "1.1", "2.0", "2.1"]
    seen = []

    @fp.register_blocks("pairs")
    def pairs(request: fp.BlockRequest) -> list[str]:
        seen.append(request.adds)
        return [path for path, module in request.called.items() if isinstance(module, Pair)]

    assert names() == ["stem", "1", "2"]
    assert seen[0] == {"1.0", "1.1", "2.0", "2.1"}
    spectra = fp.analyze(network(), [torch.rand(20, 3, 8, 8)], images=None)
    assert spectra.coverage is not None and not spectra.coverage.unread
    pairs.__doc__ = "changed"
    fp.register_blocks("never")(lambda request: None)
    assert names() == ["stem", "1", "2"]


def test_a_rule_that_does_not_know_leaves_the_network_to_the_others() -> None:
    fp.register_blocks("never")(lambda request: None)
    assert names() == ["stem", "1.0", "1.1", "2.0", "2.1"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (["1.O"], r"'odd' names '1.O', which this forward does not call. Did you mean 1"),
        ("1", "gave '1': expected a list of paths"),
        ([1], r"gave \[1\]: expected a list"),
    ],
)
def test_what_a_rule_gives_is_checked(answer: object, message: str) -> None:
    fp.register_blocks("odd")(lambda request: answer)  # type: ignore[arg-type, return-value]
    with pytest.raises(PointError, match=message):
        names()


def test_a_rule_that_fails_is_named() -> None:
    fp.register_blocks("odd")(lambda request: [str(1 / 0)])
    with pytest.raises(PointError, match="block rule 'odd' fails: ZeroDivisionError"):
        names()


class Scrambled(nn.Module):
    """What it gives has no place on the image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sort(1).values[:, :35].reshape(-1, 5, 7)


def test_blocks_without_maps_are_refused_with_the_reason() -> None:
    fp.register_blocks("odd")(lambda request: ["0"])
    with pytest.raises(PointError, match=r"'odd': no block has maps that can be laid out \(its positions"):
        fp.find_points(nn.Sequential(Scrambled(), nn.Linear(7, 7)), torch.rand(1, 3, 8, 8))

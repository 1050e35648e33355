"""Networks as researchers write them: every step read where it lies, or named (tests/unusual.py, of_the_field.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from of_the_field import OF_THE_FIELD  # type: ignore[import-not-found]
from unusual import UNUSUAL, Tokens, Unusual  # type: ignore[import-not-found]

from fourier_probe.probe.capture import Capture
from fourier_probe.probe.survey import survey


def image(size: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, 3, 8, 8, generator=generator)
    return nn.functional.interpolate(coarse, size=size) + 0.5 * torch.randn(1, 3, *size, generator=generator)


@pytest.mark.parametrize("case", [*UNUSUAL, *OF_THE_FIELD], ids=lambda case: case.name)
def test_every_step_is_read_or_named(case: Unusual) -> None:
    torch.manual_seed(0)
    model = case.build().eval()
    found = survey(model, image(case.size))
    points, coverage = found.points, found.coverage
    names = [point.name for point in points]
    assert (len(points), len(coverage.unread)) == (case.points, case.unread), (names, coverage.unread)
    assert sum(point.op == "attention" for point in points) == case.attention, names
    assert all(case.reason in step.reason for step in coverage.unread)
    assert (points[-1].layout.prefix, points[-1].layout.suffix) == case.ends
    assert set(coverage.evidence.values()) == {"axes"}
    assert coverage.self_check is not None and not coverage.self_check.misplaced


def test_the_last_point_is_the_stream_and_not_its_norm() -> None:
    torch.manual_seed(0)
    model = Tokens().eval()
    with torch.no_grad():
        model.norm.weight.mul_(100)
    maps: dict[str, torch.Tensor] = {}
    points = survey(model, image((64, 64)), self_check=False).points
    with torch.no_grad(), Capture(model, points, lambda point, got: maps.update({point.name: got.clone()})):
        model(image((64, 64)))
    last = maps[points[-1].name]
    assert last.std() < 5 and points[-1].name == "layers.2.1.mlp+mlp"

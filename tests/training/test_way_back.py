"""docs/training.md, "The way back": its lines are run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import fourier_probe as fp
from fourier_probe import checkpoints
from fourier_probe.training import train

from .tiny import tiny

SECTION = (Path(__file__).parents[2] / "docs" / "training.md").read_text().partition("## The way back\n")[2]


@pytest.fixture(scope="module")
def converted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("back")
    train(tiny(data, schedule="constant", at_epoch=0, epochs=1, content_maps=1, model_ema=True), folder / "runs" / "x")
    return folder


def _snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", SECTION.partition("\n## ")[0], re.DOTALL)


def test_the_lines_give_the_trained_network(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(converted)
    names: dict[str, object] = {}
    exec(_snippets()[0], names)  # noqa: S102
    model = names["model"]
    assert isinstance(model, torch.nn.Module)
    ours = fp.open_target("runs/x", use_ema=False).model
    images = torch.randn(2, 1, 12, 12)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), ours.eval()(images))


def test_what_is_left_over_tells_that_layers_were_converted(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(converted)
    names: dict[str, object] = {}
    exec(_snippets()[1], names)  # noqa: S102
    file = checkpoints.read(converted / "runs" / "x" / "last.pt")
    assert names["converted"] == [conversion.layer for conversion in file.conversions] != []

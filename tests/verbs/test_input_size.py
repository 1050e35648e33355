"""What a target says of its input, or does not: factories, files, sizes no image can have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner

from fourier_probe import cli
from fourier_probe.checkpoints import save

FACTORY = """
from torch import nn
def make(num_classes=10):
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(FACTORY)
    scope: dict[str, Any] = {}
    exec(FACTORY, scope)  # noqa: S102 - our own text
    torch.save(scope["make"]().state_dict(), "net.pt")
    images = np.random.default_rng(0).integers(0, 256, (20, 24, 20, 3), dtype=np.uint8)
    np.savez("small.npz", test_images=images, test_labels=np.arange(20) % 10)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.group, [*arguments, "--model", "net.py:make"])


def test_a_network_of_unknown_size_takes_that_of_the_arrays() -> None:
    for verb in ("analyze", "heatmap", "compare"):
        targets = ["net.pt"] * (1 + (verb == "compare"))
        bands = ["--bands", "2"] if verb == "heatmap" else []
        result = run(verb, *targets, "--data", "small.npz", "--out", verb, *bands)
        assert result.exit_code == 0, result.output
        assert "does not say for which size of images it was made: that of the images is used" in result.output
        assert "--img-size names another" in result.output
    assert json.loads(Path("analyze/spectra.json").read_text())["images"]["size"] == [24, 20]
    assert json.loads(Path("heatmap/heatmap.json").read_text())["images"]["size"] == [24, 20]
    asked = run("analyze", "net.pt", "--data", "small.npz", "--img-size", "16", "--out", "asked")
    assert "does not say" not in asked.output
    assert json.loads(Path("asked/spectra.json").read_text())["images"]["size"] == [16, 16]
    assert "224x224 is assumed. --img-size" in run("points", "net.pt").output


def test_an_architecture_of_timm_says_its_size() -> None:
    done = CliRunner().invoke(cli.group, ["analyze", "timm:cifar_resnet8", "--data", "small.npz", "--out", "x"])
    assert done.exit_code == 0 and "does not say" not in done.output
    assert json.loads(Path("x/spectra.json").read_text())["images"]["size"] == [32, 32]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"size": "x"}, "config.input.size"),
        ({"size": [32]}, "config.input.size"),
        ({"size": [200_000, 200_000]}, "config.input.size"),
        ({"size": [0, 0]}, "config.input.size"),
        ({"size": [-1, 3]}, "config.input.size"),
        ({"mean": "x"}, "config.input.mean"),
        ({"mean": [None]}, "config.input.mean"),
        ({"mean": [0.5, 0.5]}, "expected 1, or one for each of the 3"),
        ({"std": [0.0]}, "every std above 0"),
        ({"mean": [float("nan")]}, "finite numbers"),
        ("x", "config.input"),
    ],
)
def test_what_a_file_says_of_its_input_is_checked(value: Any, message: str) -> None:
    state = timm.create_model("cifar_resnet8").state_dict()
    config = {"data": "bundled", "input": value}
    save(Path("x.pt"), {"state_dict": state, "arch": "cifar_resnet8", "model_args": {}, "config": config})
    result = CliRunner().invoke(cli.group, ["analyze", "x.pt", "--images", "2", "--out", "x"])
    assert result.exit_code == 1 and message in result.output, result.output
    assert isinstance(result.exception, SystemExit)

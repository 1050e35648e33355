"""--json of the verbs that print a table otherwise: one value of JSON on stdout, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fourier_probe.cli import group


def printed(*words: str) -> object:
    done = CliRunner().invoke(group, list(words))
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_figures_are_listed_as_json() -> None:
    listed = printed("figures", "--list", "--json")
    assert isinstance(listed, list) and {"name", "shows"} == set(listed[0])


def test_heatmaps_are_printed_as_their_file(tmp_path: Path) -> None:
    words = ("heatmap", "timm:cifar_resnet8", "--images", "4", "--bands", "2", "--points", "layer3*")
    words += ("--out", str(tmp_path / "one"), "--json")
    assert printed(*words) == json.loads((tmp_path / "one" / "heatmap.json").read_text())


LOUD = """
import torch
print("imported")
class Loud(torch.nn.Module):
    def __init__(self):
        super().__init__()
        print("built")
        self.net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 10))
    def forward(self, images):
        print("run")
        return self.net(images)
def make():
    return Loud()
"""
WORDS = {
    "points": [], "validate": [], "analyze": ["--points", "net.*"], "heatmap": ["--bands", "2"],
    "train": ["--steps", "1", "--train-images", "16", "--batch-size", "8", "--no-test"],
}  # fmt: skip


@pytest.mark.parametrize("verb", WORDS)
def test_a_network_that_prints_spoils_no_json(verb: str, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    target = f"{tmp_path / 'loud.py'}:make"
    sizes = ["--img-size", "32", *([] if verb in ("train", "points") else ["--images", "20"])]
    words = [verb, *(["--model", target] if verb == "train" else [target]), *sizes, *WORDS[verb], "--json"]
    done = CliRunner().invoke(group, words if verb == "points" else [*words, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    json.loads(done.stdout)
    assert "built" in done.stderr and "run" in done.stderr

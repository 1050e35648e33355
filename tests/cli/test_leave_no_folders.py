"""A command that fails leaves no folder behind, and one that was there stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fourier_probe.cli import group

FAILING = {
    "analyze": ["analyze", "nowhere.pt", "--out", "OUT"],
    "analyze, by default": ["analyze", "timm:no_such_model"],
    "analyze, late": ["analyze", "timm:cifar_resnet8", "--points", "nothing*", "--images", "2", "--out", "OUT"],
    "compare": ["compare", "nowhere.pt", "elsewhere.pt", "--out", "OUT"],
    "compare by epoch": ["compare", "run", "--by", "epoch", "--out", "OUT"],
    "heatmap": ["heatmap", "nowhere.pt", "--out", "OUT"],
    "figures": ["figures", "schedule-table", "--runs", "empty", "--out", "OUT"],
    "figures, unknown": ["figures", "no-such-figure", "--out", "OUT"],
    "report": ["report", "nowhere.json", "--out", "OUT/page.html"],
    "schedule": ["schedule", "--data", "nowhere.npz", "--out", "OUT"],
    "schedule, by default": ["schedule", "--model", "no_such_model"],
    "train": ["train", "--data", "nowhere.npz", "--out", "OUT"],
    "train, late": ["train", "--model", "cifar_resnet8", "--model-arg", "num_classes=2", "--out", "OUT"],
    "train, by default": ["train", "--data", "nowhere.npz"],
    "sweep": ["sweep", "bad.toml", "--out", "OUT"],
    "demo": ["demo", "--images", "bundled", "--data-scale", "0", "--out", "OUT"],
    "points": ["points", "nowhere.pt"],
    "models": ["models", "no_such_model*"],
}


@pytest.mark.parametrize("name", FAILING)
def test_a_failing_command_leaves_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({}))
    (tmp_path / "bad.toml").write_text("[shared]\nno_such_option = 1\n")
    before = sorted(tmp_path.rglob("*"))
    for there in (False, True):
        if there:
            (tmp_path / "deep" / "out").mkdir(parents=True)
            before = sorted(tmp_path.rglob("*"))
        result = CliRunner().invoke(group, [part.replace("OUT", "deep/out") for part in FAILING[name]])
        assert result.exit_code in (1, 2), result.output
        assert not result.exception or isinstance(result.exception, SystemExit), result.exception
        assert sorted(tmp_path.rglob("*")) == before


PLACES = [part for part in FAILING.values() if any("OUT" in word for word in part)]


@pytest.mark.parametrize("command", PLACES, ids=lambda parts: parts[0])
def test_a_place_that_cannot_be_written_is_named_before_any_work(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('[shared]\nmodel = "cifar_resnet8"\n')
    (tmp_path / "run" / "spectra").mkdir(parents=True)
    (tmp_path / "file").write_text("mine")
    if command[0] == "figures":
        command = ["figures", "schedule-table", "--out", "OUT"]
    names = {"OUT": "file/out", "nowhere.pt": "timm:cifar_resnet8", "elsewhere.pt": "timm:cifar_resnet8"}
    result = CliRunner().invoke(group, [names.get(part, part.replace("OUT", "file/out")) for part in command])
    assert result.exit_code == 1, result.output
    assert "cannot write into" in result.stderr
    assert (tmp_path / "file").read_text() == "mine"

"""Ctrl-C in every verb: one word, exit code 130, and "run the same command again" where that goes on, nowhere else."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner

from fourier_probe.cli import COMMANDS, group

NET = "timm:cifar_resnet8"
CALLS = {
    "analyze": ("verbs.analyze.analyze_target", [NET]),
    "points": ("verbs.points.list_points", [NET]),
    "models": ("verbs.models.describe_models", ["cifar_resnet8"]),
    "compare": ("verbs.compare.compare_opened", [NET, NET]),
    "report": ("verbs.report.report", ["plan.toml"]),
    "figures": ("verbs.figures.figures", []),
    "train": ("verbs.train.train", []),  # what --resume does its own note says, after the state is saved
    "validate": ("verbs.validate.validate_target", [NET]),
    "sweep": ("studies.sweep", ["plan.toml"]),
    "schedule": ("training.preview.lay_out", []),
    "heatmap": ("verbs.heatmap.heatmap", [NET, "--out", "map"]),
    "demo": ("verbs.demo.demo", []),
}
AGAIN = ": run the same command again to go on"


@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("kept", [False, True])
def test_what_is_said_of_going_on_holds(verb: str, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    name, words = CALLS[verb]
    module, _, function = f"fourier_probe.{name}".rpartition(".")

    def interrupted(*_: object, **__: object) -> NoReturn:
        if kept:  # what a heat map leaves
            Path("map").mkdir()
            Path("map/partial.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module(module), function, interrupted)
    Path("plan.toml").write_text('[axes]\nmodel = ["cifar_resnet8"]\n')
    done = CliRunner().invoke(group, [verb, *words])
    goes_on = verb == "sweep" or (verb == "heatmap" and kept)
    assert done.exit_code == 130, (done.output, done.exception)
    assert done.stderr.splitlines()[-1] == "interrupted" + AGAIN * goes_on

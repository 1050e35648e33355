"""docs/security.md, row by row: strings of a file that would run, fetch or make something."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from fourier_probe import cli
from fourier_probe.models import zoo

FETCHING: dict[str, Any] = {
    "checkpoint_path": "other.pth",
    "pretrained": True,
    "pretrained_cfg": {"url": "http://127.0.0.1:9/x.pth"},
    "pretrained_cfg_overlay": {"file": "other.pth"},
    "cache_dir": "cache",
}
ELSEWHERE = {"output": "made", "log_dir": "made", "resume": "evil.py", "initial_checkpoint": "other.pth"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("import pathlib\npathlib.Path('ran').touch()\ndef make(**_): ...\n")


def points(name: str, **values: Any) -> Result:
    state = zoo.create("cifar_resnet8").state_dict()
    torch.save({"state_dict": state, "arch": "cifar_resnet8", **values}, name)
    before = {path.name for path in Path().iterdir()}
    result = CliRunner().invoke(cli.group, ["points", name])
    assert {path.name for path in Path().iterdir()} == before
    assert isinstance(result.exception, SystemExit | None)
    return result


@pytest.mark.parametrize("name", ["evil.py:make", "hf-hub:timm/resnet18", "local-dir:/tmp", "os.system"])
def test_code_and_other_places_are_no_architecture(name: str) -> None:
    result = points("x.pt", arch=name)
    assert result.exit_code == 1 and "pass --model" in result.output


@pytest.mark.parametrize(
    "values",
    [
        {"model_args": FETCHING},
        {"args": {"model_kwargs": FETCHING, **ELSEWHERE}},
        {"plugins": ["evil.py"], "config": {"plugin": ["evil.py"], "transform": "evil.make"}},
        {"config": {"input": {"size": "x"}}},
    ],
)
def test_what_would_fetch_or_make_is_dropped(values: Mapping[str, Any]) -> None:
    assert points("x.pt", **values).exit_code == 0


def test_the_config_of_a_hub_is_a_file_too() -> None:
    state = zoo.create("cifar_resnet8").state_dict()
    torch.save(state, "pytorch_model.bin")
    for name, code in (("evil.py:make", 1), ("cifar_resnet8", 0)):
        Path("config.json").write_text(json.dumps({"architecture": name, "model_args": FETCHING}))
        result = CliRunner().invoke(cli.group, ["points", "pytorch_model.bin"])
        assert result.exit_code == code, result.output
    assert not Path("ran").exists()

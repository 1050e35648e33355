"""Coarse content attention and one content map, from the option to the file and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import fourier_probe as fp
from fourier_probe import checkpoints
from fourier_probe.errors import TrainingError
from fourier_probe.models.gpsa.layer import GPSAConv2d
from fourier_probe.training import TrainConfig, train
from fourier_probe.training.naming import run_name
from fourier_probe.training.preview import lay_out

from .tiny import tiny

CONTENT = {"content_stride": 2, "content_maps": 1}


class Notes(fp.training.Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def test_a_run_with_cheaper_content_is_read_and_begun_from(data: Path, tmp_path: Path) -> None:
    config = tiny(data, schedule="constant", at_epoch=0, epochs=1, **CONTENT)
    train(config, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert {name: record[name] for name in CONTENT} == CONTENT
    file = checkpoints.read(tmp_path / "run" / "last.pt")
    assert all(conversion.options.content_stride == 2 for conversion in file.conversions)
    model = fp.open_target(str(tmp_path / "run")).model
    layers = [module for module in model.modules() if isinstance(module, GPSAConv2d)]
    assert layers and all((layer.content_stride, layer.content_maps) == (2, 1) for layer in layers)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in file.state.items())
    # A further run begins from it, and its own file says the same of these layers.
    on = tiny(data, initial_checkpoint=str(tmp_path / "run"), schedule="none", epochs=1)
    train(on, tmp_path / "on")
    again = [m for m in fp.open_target(str(tmp_path / "on")).model.modules() if isinstance(m, GPSAConv2d)]
    assert len(again) == len(layers) and all((m.content_stride, m.content_maps) == (2, 1) for m in again)


def test_a_run_goes_on_as_the_same_architecture(data: Path, tmp_path: Path) -> None:
    more = {"schedule": "constant", "at_epoch": 0, "epochs": 2, "checkpoint_at": (1,)}
    train(tiny(data, **more, **CONTENT), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"content_stride=2 \(now \(default\)\)"):
        train(tiny(data, **more), tmp_path / "fork", fork=f"{tmp_path / 'run'}@1")


def test_the_plan_counts_what_they_cost_and_names_them(data: Path) -> None:
    plain, coarse = (lay_out(tiny(data, schedule="linear", **more)) for more in ({}, CONTENT))
    assert coarse.after.multiply_adds < plain.after.multiply_adds
    assert coarse.after.parameters < plain.after.parameters
    assert "content_stride=2, content_maps=1" in repr(coarse) and "content" not in repr(plain)
    assert run_name(TrainConfig(schedule="linear", **CONTENT)) == "cifar_resnet20-stride2-1map-linear"
    assert run_name(TrainConfig(**CONTENT)) == "cifar_resnet20"


@pytest.mark.parametrize(
    ("option", "words"), [({"content_stride": 0}, "content-stride is 0"), ({"content_maps": 3}, "one for all")]
)
def test_wrong_options(option: dict[str, int], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        TrainConfig(**option)


def test_the_first_lines_say_what_is_not_converted(data: Path, tmp_path: Path) -> None:
    notes = Notes()
    config = tiny(data, schedule="constant", at_epoch=0, epochs=1, max_key_grid=6)
    train(config, tmp_path / "run", progress=notes)
    said = next(text for text in notes.said if "--max-key-grid" in text)
    plan = lay_out(config)
    assert said == plan.unconverted
    assert plan.over_limit[0].layer in said and "M multiply-adds per image" in said
    extra = sum(layer.multiply_adds_recast - layer.multiply_adds for layer in plan.over_limit if max(layer.keys) == 12)
    assert f"+{extra / 1e6:.1f} M" in said
    assert lay_out(tiny(data, schedule="linear", max_key_grid=64)).unconverted == ""

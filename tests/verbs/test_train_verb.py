"""What the command line trains and lays out, a line of Python does too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn

import fourier_probe as fp
from fourier_probe.errors import ModelError, TrainingError

TINY = {"model": "cifar_resnet8", "model_args": {"width": 4}, "data_scale": 0.02, "epochs": 2, "device": "cpu"}


def test_train_returns_the_run_and_resumes_it(tmp_path: Path) -> None:
    run = fp.train(**TINY, schedule="constant", at_epoch=1, convert=("layer3*",), out=tmp_path / "run")
    assert run.path == tmp_path / "run" and run.config.schedule == "constant"
    assert run.result is not None and len(run.metrics) == 2 and len(run.conversions) == 2
    again = fp.train(out=run.path, resume=True)
    assert again.result == run.result
    with pytest.raises(TrainingError, match="Did you mean epochs"):
        fp.train(epoch=3, out=tmp_path / "other")


def test_a_whole_config_can_be_given_and_changed(tmp_path: Path) -> None:
    config = fp.TrainConfig.of(TINY)
    run = fp.train(config, epochs=1, out=tmp_path / "run")
    assert run.config.epochs == 1 and run.config.model_args == {"width": 4}


def test_preview_of_a_name_and_of_a_network() -> None:
    plan = fp.preview("cifar_resnet8", epochs=10)
    torch.manual_seed(0)
    same = fp.preview(fp.create("cifar_resnet8", in_chans=1, num_classes=10), epochs=10, img_size=32)
    assert same.switches == plan.switches and same.layers == plan.layers and same.model == "CifarResNet"
    assert list(plan.to_frame()["layer"]) == [layer.layer for layer in plan.layers]
    assert "\n" not in repr(plan) and "<table" in plan._repr_html_()
    figure = plan.plot()
    plt.close(figure)
    with pytest.raises(TrainingError, match="no convolution to convert"):
        fp.preview(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), img_size=32)


def test_models_are_listed() -> None:
    assert "patch_resnet" in fp.list_models()
    with pytest.raises(ModelError, match="no model matches"):
        fp.list_models("nothing_*")


def test_a_plan_says_what_stays_a_convolution_and_what_it_would_cost() -> None:
    plan = fp.preview("cifar_resnet20")
    assert {layer.keys for layer in plan.layers} == {(8, 8)}
    assert {layer.keys for layer in plan.over_limit} == {(16, 16), (32, 32)}
    assert all(layer.epoch is None for layer in plan.over_limit)
    assert not fp.preview("cifar_resnet20", max_key_grid=32).over_limit

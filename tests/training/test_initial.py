"""Runs that begin from the weights in a file: which files, what is kept of them, and that they go on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from fourier_probe import checkpoints
from fourier_probe.errors import CheckpointError, ProbeError, TrainingError
from fourier_probe.runtime.messages import listening
from fourier_probe.training import TrainConfig, train
from fourier_probe.training.initial import Initial
from fourier_probe.training.naming import content_name, run_name
from fourier_probe.training.plan import make_model
from fourier_probe.training.record import read_record
from fourier_probe.training.splits import open_splits
from fourier_probe.verbs.train import train as train_verb

from .tiny import At, assert_same_run, last, log, make_data, stop_at, terminate, tiny

TCNN = {"schedule": "constant", "at_epoch": 0, "anneal_epochs": 0.0, "model_ema": True}


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained convolutional network."""
    return train(tiny(data, epochs=2), tmp_path_factory.mktemp("initial") / "base")


@pytest.fixture(scope="module")
def recast(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T-CNN's protocol: that network, recast as a whole, trained on."""
    return train(begun(data, base, **TCNN), tmp_path_factory.mktemp("initial") / "recast")


def begun(data: Path, file: Path, **more: Any) -> TrainConfig:
    """A tiny run whose architecture the file says."""
    config = {name: value for name, value in tiny(data).to_json().items() if name not in ("model", "model_args")}
    return TrainConfig.of({**config, "initial_checkpoint": str(file), "epochs": 3, **more})


def test_a_trained_network_is_recast_and_its_weights_mean_and_std_are_kept(
    base: Path, recast: Path, data: Path
) -> None:
    config = begun(data, base)
    assert config.model == "cifar_resnet8"
    model, arguments, spec = make_model(config, open_splits(config))
    trained = checkpoints.read(base / "last.pt").state
    assert arguments["width"] == 4
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    record = read_record(recast)
    assert record.initial is not None and record.input is not None
    assert record.initial.sha256 == checkpoints.read(base / "last.pt").sha256
    assert (record.input.mean, record.input.std) == (spec.mean, spec.std) == (record.initial.mean, record.initial.std)
    first = log(recast, "conversions.csv")
    assert [row["epoch"] for row in first] == ["0"] * 6
    assert float(first[0]["loss_before"]) < float(log(base)[0]["train_loss"])  # it is trained already
    assert all(abs(float(row["ratio"]) - 1) < 0.02 for row in first)


def test_mean_and_std_may_be_given(base: Path, data: Path) -> None:
    config = begun(data, base, mean=(0.5,), std=(0.25,))
    assert make_model(config, open_splits(config))[2].mean == (0.5,)
    with pytest.raises(TrainingError, match="--std has 2 numbers: expected 1, or one for each of the 1 channels"):
        make_model(begun(data, base, std=(0.2, 0.2)), open_splits(config))


@pytest.mark.slow
@pytest.mark.parametrize("when", [(0, 1), (1, None)])
def test_it_resumes_exactly_without_the_file(
    when: tuple[int, int | None], base: Path, recast: Path, data: Path, tmp_path: Path
) -> None:
    stop_at(begun(data, base, **TCNN), tmp_path / "run", when)
    base.rename(tmp_path / "moved")
    try:
        train_verb(out=tmp_path / "run", resume=True, data=str(data))
    finally:
        (tmp_path / "moved").rename(base)
    assert_same_run(recast, tmp_path / "run")


@pytest.mark.slow
def test_a_run_from_a_recast_network_carries_its_conversions_on(recast: Path, data: Path, tmp_path: Path) -> None:
    config = begun(data, recast, opt="adamw", lr=1e-3, model_ema=True)
    run = train(config, tmp_path / "run")
    assert log(run)[0]["converted"] == "6"
    assert log(run, "conversions.csv") == []
    model = checkpoints.build(checkpoints.read(run / "last.pt"))
    assert sum(type(module).__name__ == "GPSAConv2d" for module in model.modules()) == 6
    groups = {group["name"]: group for group in last(run)["optimizer"]["param_groups"]}
    assert len(groups["gates"]["params"]) == 6  # under their own rate, without weight decay
    stop_at(config, tmp_path / "stopped", (1, 1))
    train(config, tmp_path / "stopped", resume=True)
    assert_same_run(run, tmp_path / "stopped")


@pytest.mark.slow
def test_a_forked_run_shares_the_file(base: Path, data: Path, tmp_path: Path) -> None:
    later = {**TCNN, "at_epoch": 2}
    train(begun(data, base, **later, checkpoint_at=(1,)), tmp_path / "a")
    train(begun(data, base, **{**TCNN, "at_epoch": 1}), tmp_path / "whole")
    train(begun(data, base, **{**TCNN, "at_epoch": 1}), tmp_path / "forked", fork=f"{tmp_path / 'a'}@1")
    assert_same_run(tmp_path / "whole", tmp_path / "forked")
    other = train(tiny(data, epochs=1), tmp_path / "other")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "base").mkdir()
    (tmp_path / "x" / "base" / "last.pt").write_bytes((other / "last.pt").read_bytes())
    with pytest.raises(TrainingError, match="holds something else now"):
        train(begun(data, tmp_path / "x" / "base", **TCNN), tmp_path / "no", fork=f"{tmp_path / 'a'}@1")


def test_another_head_is_new_and_said(base: Path, tmp_path: Path) -> None:
    three = make_data(tmp_path / "three.npz", classes=3)
    said = At((9, 9), terminate)
    run = train(begun(three, base, epochs=1), tmp_path / "run", progress=said)
    initial = read_record(run).initial
    assert initial is not None
    assert initial.head == "fc is new: fc.weight is (4, 16) in the file and (3, 16) in the network"
    assert any(initial.head in note for note in said.notes)
    config = begun(three, base)
    model, _, _ = make_model(config, open_splits(config))
    trained = checkpoints.read(base / "last.pt").state
    assert [name for name, value in model.state_dict().items() if name.startswith("fc") != (
        value.shape != trained[name].shape or not torch.equal(value, trained[name]))] == []  # fmt: skip


def test_plain_weights_of_timm_and_of_safetensors_begin_a_run(data: Path, tmp_path: Path) -> None:
    net = timm.create_model("cifar_resnet8", num_classes=10, in_chans=3, width=4)
    torch.save({"state_dict": net.state_dict(), "arch": "cifar_resnet8"}, tmp_path / "a.pth")
    save_file(net.state_dict(), tmp_path / "b.safetensors")
    for name, more in (
        ("a.pth", {}),
        ("b.safetensors", {"model": "cifar_resnet8"}),
        ("b.safetensors=cifar_resnet8", {}),
    ):
        config = begun(data, tmp_path / name, model_args={"width": 4}, **more)
        model, _, spec = make_model(config, open_splits(config))
        assert torch.equal(model.state_dict()["conv1.weight"], net.state_dict()["conv1.weight"])
        assert (spec.channels, len(model.state_dict()["fc.weight"])) == (3, 4)  # grey images, as three equal channels


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"model": "cifar_resnet20"},
            "says that it is cifar_resnet8, and --model is cifar_resnet20: leave --model out",
        ),
        ({"model_args": {"width": 8}}, r"conv1.weight is \(4, 1, 3, 3\), expected \(8, 1, 3, 3\).*--model-arg"),
        ({"initial_args": {"prefx": "a"}}, "--initial-arg prefx: expected one of .* Did you mean prefix"),
        ({"initial_args": {"head": "fcc"}}, "--initial-arg head=fcc: cifar_resnet8 has no such module. .*fc"),
        ({"pretrained": True}, "both give the first weights"),
        ({"initial_checkpoint": "", "initial_args": {"key": "a"}, "model": "cifar_resnet8"}, "which is not given"),
        ({"initial_checkpoint": "timm:resnet18"}, "names no file: .*--model resnet18 --pretrained"),
        ({"initial_checkpoint": "nowhere.pt"}, "there is no file or folder nowhere.pt"),
        ({"initial_checkpoint": "."}, "is a folder without last.pt"),
    ],
)
def test_what_cannot_begin_a_run_is_refused_by_name(base: Path, data: Path, more: dict[str, Any], message: str) -> None:
    with listening(lambda note: None), pytest.raises(ProbeError, match=message):
        config = begun(data, base, **more)
        make_model(config, open_splits(config))


def test_a_file_that_is_no_network_of_this_kind(base: Path, data: Path, tmp_path: Path) -> None:
    state = checkpoints.read(base / "last.pt").state
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "cut.pt")
    with pytest.raises(CheckpointError, match=r"1 missing \(layer1.0.conv1.weight\)"):
        Initial.open(begun(data, tmp_path / "cut.pt", model="cifar_resnet8", model_args={"width": 4}))
    torch.save({**state, "layer1.0.conv1.weight": torch.full((4, 4, 3, 3), torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(CheckpointError, match="values that are NaN"):
        Initial.open(begun(data, tmp_path / "nan.pt", model="cifar_resnet8", model_args={"width": 4}))


def test_a_run_that_was_killed_before_its_first_state_names_the_file_again(
    base: Path, data: Path, tmp_path: Path
) -> None:
    stop_at(begun(data, base), tmp_path / "run", (0, 1))
    (tmp_path / "run" / "last.pt").unlink()
    with pytest.raises(TrainingError, match="not opened because a file says so: pass --initial-checkpoint"):
        train_verb(out=tmp_path / "run", resume=True)
    train_verb(out=tmp_path / "run", resume=True, initial_checkpoint=str(base))
    assert last(tmp_path / "run")["finished"]


def test_names_of_runs_tell_the_files_apart(base: Path, data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    (copy / "last.pt").write_bytes((base / "last.pt").read_bytes())
    assert run_name(begun(data, base)) == "cifar_resnet8-tiny-from-base"
    names = [content_name(begun(data, each)).rpartition("-")[2] for each in (base, copy / "last.pt", copy)]
    assert names[0] == names[1] == names[2]
    (copy / "last.pt").write_bytes((train(tiny(data, epochs=1), tmp_path / "b") / "last.pt").read_bytes())
    assert content_name(begun(data, copy)).rpartition("-")[2] != names[0]

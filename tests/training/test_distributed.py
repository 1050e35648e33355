"""Two processes train what one does: the same global batch, across a conversion."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fourier_probe import checkpoints
from fourier_probe.errors import TrainingError
from fourier_probe.training import TrainConfig, inputs, train
from fourier_probe.training.exactness import differences

from .tiny import last, log, stop_at, tiny

# A network without BatchNorm, whose statistics would be those of each half of the batch.
NET = """
import torch
from torch import nn
class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
    def forward(self, x):
        return x + torch.relu(self.conv(x))
class Net(nn.Module):
    def __init__(self, num_classes, in_chans):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 6, 3, padding=1, stride=2)
        self.blocks = nn.Sequential(Block(6), Block(6))
        self.fc = nn.Linear(6, num_classes)
    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))
"""

RANK = """
import json, sys
import torch
torch.set_num_threads(1)
from fourier_probe.training import TrainConfig, train
rank, world, meeting, config, out = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
torch.distributed.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=world)
try:
    train(TrainConfig.from_json(json.loads(config)), out, resume=len(sys.argv) > 6)
finally:
    torch.distributed.destroy_process_group()
"""


def config_of(data: Path, tmp_path: Path) -> TrainConfig:
    (tmp_path / "net.py").write_text(NET)
    return tiny(
        data,
        model=f"{tmp_path / 'net.py'}:Net",
        model_args={},
        model_dtype="float64",
        crop_padding=0,
        hflip=0.0,
        epochs=3,
        schedule="linear",
        early_epoch=2,
        late_epoch=1,
        model_ema=True,
        opt="adamw",
        lr=1e-2,
        clip_grad=1.0,
        probe_every=3,
        probe_images=8,
    )


def together(config: TrainConfig, out: Path, tmp_path: Path, world: int = 2) -> None:
    """Run every rank in a process of its own, meeting in a file, with a hard time limit."""
    arguments = [str(world), str(tmp_path / "meeting"), json.dumps(config.to_json()), str(out)]
    finished([[sys.executable, "-W", "error", "-c", RANK, str(rank), *arguments] for rank in range(world)])


def finished(commands: list[list[str]]) -> None:
    """Run all at once, with a hard time limit; each must end well."""
    ranks = [subprocess.Popen(command, stderr=subprocess.PIPE) for command in commands]
    try:
        said = [process.communicate(timeout=120)[1].decode() for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert [process.returncode for process in ranks] == [0] * len(ranks), "\n".join(said)[-3000:]


def test_two_processes_equal_one_across_a_conversion(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path)
    train(config, tmp_path / "one")
    together(config, tmp_path / "two", tmp_path)
    one, two = last(tmp_path / "one"), last(tmp_path / "two")
    assert two["environment"]["world"] == 2
    assert [row["layer"] for row in two["conversions"]] == ["blocks.1.conv", "blocks.0.conv"]
    for name in ("state_dict", "state_dict_ema"):
        assert list(one[name]) == list(two[name])
        for key, value in one[name].items():
            torch.testing.assert_close(two[name][key], value, rtol=1e-5, atol=1e-9, msg=key)
    for first, second in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        for key, value in first.items():
            assert second[key] == value or abs(float(second[key]) - float(value)) < 1e-5 * abs(float(value)), key
    spectra = [json.loads((tmp_path / name / "spectra" / "epoch-003.json").read_text()) for name in ("one", "two")]
    assert spectra[0]["images"]["digest"] == spectra[1]["images"]["digest"]
    assert len(two["rng"]) == 2


PAPER = {
    "grad_accum_steps": 2, "bce_loss": True, "clip_mode": "value", "clip_grad": 0.05, "aug_repeats": 2, "mixup": 0.5,
    "mixup_off_epoch": 2.0, "log_interval": 2, "hflip": 0.5, "crop_padding": 1, "model_ema": False, "probe_every": 0,
}  # fmt: skip


@pytest.mark.slow
def test_two_processes_equal_one_with_the_options_of_a_paper(data: Path, tmp_path: Path) -> None:
    config = replace(config_of(data, tmp_path), **PAPER)
    train(config, tmp_path / "one")
    together(config, tmp_path / "two", tmp_path)
    one, two = last(tmp_path / "one"), last(tmp_path / "two")
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][key], value, rtol=1e-5, atol=1e-9, msg=key)
    rows = [log(tmp_path / name, "steps.csv") for name in ("one", "two")]
    assert [row["step"] for row in rows[0]] == ["2", "3", "4", "6", "8"]  # layers switch at steps 3 and 6
    for first, second in zip(*rows, strict=True):
        assert (first["images"], first["lr"]) == (second["images"], second["lr"])
        assert float(first["loss"]) == pytest.approx(float(second["loss"]), rel=1e-5)


@pytest.mark.slow
def test_sharpness_in_two_processes_repeats_exactly_and_is_said_to_differ(data: Path, tmp_path: Path) -> None:
    config = replace(config_of(data, tmp_path), sam_rho=0.05, probe_every=0)
    together(config, tmp_path / "whole", tmp_path)
    together(config, tmp_path / "twice", tmp_path)
    states = [last(tmp_path / name)["state_dict"] for name in ("whole", "twice")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    (said,) = differences(nn.Linear(1, 1), config, 2)
    assert "--sam-rho climbs by the gradient of each process" in said


CASES = {
    "8 pairs by 3, batch statistics": (3, {"mixup": 0.8, "cutmix": 1.0, "sync_bn": True}),
    "47 images by 2, fewer than a batch": (2, {"batch_size": 500, "val_split": 17 / 64, "epochs": 3, "sync_bn": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_any_number_of_processes_draws_the_augmentation_of_one(data: Path, tmp_path: Path, case: str) -> None:
    world, more = CASES[case]
    drawn = {"crop_padding": 2, "hflip": 0.5, "reprob": 0.5, "epochs": 1, "schedule": "none", "probe_every": 0, **more}
    config = replace(config_of(data, tmp_path), **drawn)
    if config.sync_bn:
        (tmp_path / "net.py").write_text(
            NET.replace("self.conv(x))", "self.norm(self.conv(x)))").replace(
                "        self.conv =", "        self.norm = nn.BatchNorm2d(width)\n        self.conv ="
            )
        )
    train(config, tmp_path / "one")
    together(config, tmp_path / "more", tmp_path, world)
    one, other = last(tmp_path / "one"), last(tmp_path / "more")
    assert other["environment"]["world"] == world
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(other["state_dict"][key], value, rtol=1e-9, atol=1e-10, msg=key)
    losses = [float(log(tmp_path / name)[0]["train_loss"]) for name in ("one", "more")]
    assert abs(losses[0] - losses[1]) < 1e-9


HALVES = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
from fourier_probe.training import Progress, TrainConfig, train
rank, meeting, config, out = int(sys.argv[1]), *sys.argv[2:]
config = TrainConfig.from_json(json.loads(config))
class Stopped(Progress):
    def step(self, tick):
        if (tick.epoch, tick.step) == (1, 1):
            os.kill(os.getpid(), signal.SIGTERM)
torch.distributed.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=2)
train(config, out + "/whole")
try:
    train(config, out + "/halves", progress=Stopped())
except SystemExit as end:
    assert end.code == 143
else:
    raise AssertionError("the run was not stopped")
train(config, out + "/halves", resume=True)
torch.distributed.destroy_process_group()
"""


def test_a_run_of_two_processes_resumes_in_the_middle_of_an_epoch(data: Path, tmp_path: Path) -> None:
    config = replace(config_of(data, tmp_path), probe_every=0, mixup=0.5, hflip=0.5, drop=0.1, batch_size=6)
    arguments = [str(tmp_path / "meeting"), json.dumps(config.to_json()), str(tmp_path)]
    finished([[sys.executable, "-c", HALVES, str(rank), *arguments] for rank in range(2)])
    whole, halves = log(tmp_path / "whole"), log(tmp_path / "halves")
    assert len(whole) == 3
    assert halves == whole  # digit by digit; the first rank's sums were counted twice
    assert log(tmp_path / "halves", "conversions.csv") == log(tmp_path / "whole", "conversions.csv")


def test_sums_of_fewer_processes_are_gone_on_from_by_the_first(data: Path, tmp_path: Path) -> None:
    """Also those of files that hold one row, (3,): they have been added up already."""
    stop_at(replace(config_of(data, tmp_path), probe_every=0), tmp_path / "run", (1, 2))
    payload = last(tmp_path / "run")
    assert payload["sums"].shape == (1, 3)
    assert payload["sums"][0, 2] == 32
    checkpoints.save(tmp_path / "run" / "last.pt", {**payload, "sums": payload["sums"][0]})
    train(replace(config_of(data, tmp_path), probe_every=0), tmp_path / "run", resume=True)
    train(replace(config_of(data, tmp_path), probe_every=0), tmp_path / "whole")
    assert log(tmp_path / "run") == log(tmp_path / "whole")


def test_shares_are_the_batch() -> None:
    for batch, world in ((16, 1), (16, 3), (10, 4), (6, 3)):
        for pairs in (False, True):
            shares = [inputs.share_of(batch, rank, world, pairs=pairs).index.tolist() for rank in range(world)]
            assert sorted(itertools.chain(*shares)) == list(range(batch))
            if pairs:  # a share mixed with itself backwards is the batch mixed with itself backwards
                for share in shares:
                    assert [low + high for low, high in zip(share, share[::-1], strict=True)] == [batch - 1] * len(
                        share
                    )


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert inputs.batch_of(TrainConfig(batch_size=7), 100, 3) == 7
    assert inputs.batch_of(TrainConfig(batch_size=500), 45, 2) == 45
    assert inputs.batch_of(TrainConfig(batch_size=500, mixup=0.5), 45, 3) == 44
    with pytest.raises(TrainingError, match="2 images cannot be shared by 3 processes: each takes at least 1"):
        inputs.batch_of(TrainConfig(batch_size=2), 100, 3)
    with pytest.raises(TrainingError, match=r"in pairs, as mixup needs: each takes at least 2\. Start at most 2"):
        inputs.batch_of(TrainConfig(batch_size=4, cutmix=1.0), 100, 3)
    with pytest.raises(TrainingError, match="--batch-size is 7: mixup and cutmix pair images"):
        inputs.batch_of(TrainConfig(batch_size=7, mixup=0.5), 100)
    with pytest.raises(TrainingError, match=r"--sync-bn .* --compile"):
        TrainConfig(sync_bn=True, compile=True)


def test_one_value_a_channel_is_an_error_of_ours(data: Path, tmp_path: Path) -> None:
    text = NET.replace("self.blocks(self.stem(x)).mean((2, 3))", "self.norm(self.stem(x).mean((2, 3)))")
    (tmp_path / "net.py").write_text(
        text.replace("        self.fc", "        self.norm = nn.BatchNorm1d(6)\n        self.fc")
    )
    config = tiny(data, model=f"{tmp_path / 'net.py'}:Net", model_args={}, schedule="none", batch_size=1, epochs=1)
    with pytest.raises(TrainingError, match=r"BatchNorm has one value per channel .* larger --batch-size"):
        train(config, tmp_path / "run")


def test_a_split_of_fewer_images_than_processes(data: Path) -> None:
    from fourier_probe.data import InputSpec, open_data

    images = open_data(str(data), "test").take(torch.arange(1).numpy())
    split = inputs.Evaluation(images, InputSpec(1, (12, 12), (0.5,), (0.5,)), torch.device("cpu"), 0, 4, hold=True)
    assert [len(list(split.batches(rank, 2))) for rank in range(2)] == [1, 0]  # no batch of no images: its loss is NaN
    assert split.steps(2) == 1


def test_what_is_not_the_same_on_more_processes_is_said() -> None:
    net = nn.Sequential(nn.Dropout(0.0), nn.Dropout(0.1), nn.BatchNorm2d(3))
    assert differences(net, TrainConfig(), 1) == []
    assert differences(nn.Sequential(nn.Dropout(0.0)), TrainConfig(), 2) == []
    dropped, norms = differences(net, TrainConfig(), 2)
    assert dropped.startswith("1 draws at random in training, each process its own numbers")
    assert "--sync-bn" in norms
    assert differences(net, TrainConfig(sync_bn=True), 2) == [dropped]

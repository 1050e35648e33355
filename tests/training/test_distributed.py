"""Two processes train what one does: the same global batch, across a conversion."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fourier_probe.training import TrainConfig, train

from .tiny import last, log, tiny

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
    ranks = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", RANK, str(rank), *arguments], stderr=subprocess.PIPE)
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=120)[1].decode() for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert [process.returncode for process in ranks] == [0] * world, "\n".join(said)[-3000:]


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


@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "sync-bn"])
def test_two_processes_draw_the_augmentation_of_one(data: Path, tmp_path: Path, normalised: bool) -> None:
    drawn = {"crop_padding": 2, "hflip": 0.5, "reprob": 0.5, "mixup": 0.8, "cutmix": 1.0, "sync_bn": normalised}
    config = replace(config_of(data, tmp_path), epochs=1, schedule="none", probe_every=0, **drawn)
    if normalised:
        (tmp_path / "net.py").write_text(
            NET.replace("self.conv(x))", "self.norm(self.conv(x)))").replace(
                "        self.conv =", "        self.norm = nn.BatchNorm2d(width)\n        self.conv ="
            )
        )
    train(config, tmp_path / "one")
    together(config, tmp_path / "two", tmp_path)
    one, two = last(tmp_path / "one"), last(tmp_path / "two")
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][key], value, rtol=1e-9, atol=1e-10, msg=key)
    losses = [float(log(tmp_path / name)[0]["train_loss"]) for name in ("one", "two")]
    assert abs(losses[0] - losses[1]) < 1e-9

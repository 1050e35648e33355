"""Runs that are counted in steps, the images they train on, and the planted task in the trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fourier_probe import checkpoints
from fourier_probe.data.subset import nested
from fourier_probe.errors import DataError, TrainingError
from fourier_probe.training import PRSSchedule, TrainConfig, train
from fourier_probe.training.optim import make_scheduler
from fourier_probe.training.plan import Plan
from fourier_probe.training.runs import Run
from fourier_probe.training.splits import open_splits

from .tiny import assert_same_run, log, stop_at, tiny

STEPS = {"steps": 12, "val_every": 4, "schedule": "constant", "at_step": 8, "anneal_steps": 2, "warmup_steps": 2}


def test_a_run_in_steps_validates_and_switches_where_it_is_told(data: Path, tmp_path: Path) -> None:
    run = train(tiny(data, **STEPS, checkpoint_at_step=(4,)), tmp_path / "run")  # a pass is three steps
    assert [row["step"] for row in log(run)] == ["4", "8", "12"]
    assert [row["converted"] for row in log(run)] == ["0", "0", "6"]
    assert [path.name for path in sorted(run.glob("epoch-*.pt"))] == ["epoch-001.pt", "epoch-002.pt"]
    assert checkpoints.read(run / "epoch-001.pt").epoch == 1


def test_what_is_learned_does_not_depend_on_the_rounds(data: Path, tmp_path: Path) -> None:
    runs = [train(tiny(data, **{**STEPS, "val_every": n}), tmp_path / str(n)) for n in (2, 4)]
    a, b = (checkpoints.read(run / "last.pt").state for run in runs)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_in_steps_resumes_exactly_inside_a_round(data: Path, tmp_path: Path) -> None:
    config = tiny(data, **STEPS)
    train(config, tmp_path / "a")
    stop_at(config, tmp_path / "b", (2, 2))  # the third round, after the switch, in the middle of a pass
    train(config, tmp_path / "b", resume=True)
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"val_every": 5}, r"--val-every 5 does not divide the 12 steps .* 4, 6"),
        ({"at_step": 9}, r"--at-step 9: layers can switch every 4 steps here, at 8 or 12"),
        ({"at_step": -1, "at_epoch": 1}, r"--at-epoch 1 is step 3, and layers can switch every 4"),
        ({"checkpoint_at_step": (3,)}, "--checkpoint-at-step 3: states are kept every 4"),
        ({"iso_steps": True}, "--steps fixes the number of steps"),
        ({"train_images": 20, "data_scale": 0.5}, "give one of them"),
        ({"sched": "wsd", "cooldown_steps": 11}, "2 steps of warm-up and 11 of decay do not fit into 12"),
    ],
)
def test_what_does_not_fit_is_refused(data: Path, tmp_path: Path, more: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        train(tiny(data, **{**STEPS, **more}), tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_without_a_length_a_round_is_about_a_twentieth() -> None:
    config = TrainConfig.of({"steps": 3000})
    plan = Plan.of(config, nn.Linear(1, 1), None, images=100, available=100, batch=32)  # type: ignore[arg-type]
    assert (plan.epochs, plan.steps, plan.unit) == (20, 150, "round")


def test_warmup_stable_decay_is_a_function_of_the_step() -> None:
    def curve(total: int) -> list[float]:
        config = TrainConfig.of({"lr": 1.0, "steps": total, "sched": "wsd", "warmup_steps": 4, "cooldown_steps": 5,
                                 "warmup_lr": 0.0, "batch_size": 128})  # fmt: skip
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = make_scheduler(optimizer, config, Plan(total // 2, 2, PRSSchedule.none(), (), 1.0, "round"))
        rates = []
        for step in range(total):
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step_update(step + 1)
        return rates

    short, long = curve(20), curve(40)
    np.testing.assert_allclose(short[:5], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(short[-6:], [1, 1, 0.8, 0.6, 0.4, 0.2])
    assert short[:16] == long[:16]


def test_a_number_of_training_images_is_exact_nested_and_balanced() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    parts = {n: nested(labels, n, seed=5) for n in (1, 7, 10, 33, 100)}
    assert all(len(part) == n for n, part in parts.items())
    assert set(parts[7]) < set(parts[10]) < set(parts[33])
    assert np.bincount(labels[parts[10]]).tolist() == [5, 3, 2]
    with pytest.raises(DataError, match="101 training images"):
        nested(labels, 101, seed=0)


def test_train_images_leave_the_validation_split_alone(data: Path) -> None:
    splits = [open_splits(tiny(data, train_images=n)) for n in (8, 40)]
    assert [len(split.train) for split in splits] == [8, 40]
    assert splits[0].val is not None and splits[1].val is not None
    assert (splits[0].val.pixels == splits[1].val.pixels).all()  # type: ignore[union-attr]


def test_the_planted_task_is_trained_as_it_is_drawn(tmp_path: Path) -> None:
    config = TrainConfig.of({"data": "planted:far", "train_images": 40, "steps": 4, "val_every": 2, "device": "cpu"})
    assert config.model == "patch_resnet" and config.hflip == config.crop_padding == config.smoothing == 0
    splits = open_splits(config)
    assert (len(splits.train), len(splits.val or ()), splits.test and splits.test.split) == (40, 2000, "test")
    for name, value in (("hflip", 0.5), ("crop_padding", 4), ("smoothing", 0.1), ("mixup", 0.2), ("aa", "rand-m9")):
        with pytest.raises(TrainingError, match=f"--{name.replace('_', '-')} .* planted"):
            TrainConfig.of({"data": "planted", name: value})


def test_images_whose_cue_lies_are_reported_apart(tmp_path: Path) -> None:
    config = TrainConfig.of({"data": "planted", "train_images": 32, "steps": 2, "val_every": 2, "device": "cpu"})
    row = log(train(config, tmp_path / "run"))[-1]
    assert 0 <= float(row["test_conflict_acc"]) <= 1
    assert row["test_conflict_acc"] != row["test_acc"]


def test_the_recipe_of_the_planted_task_counts_in_steps_unless_told_otherwise() -> None:
    config = TrainConfig.of({"data": "planted", "schedule": "linear"})
    assert (config.recipe, config.opt, config.lr, config.batch_size, config.sched) == (
        "planted", "adamw", 2e-3, 32, "wsd",
    )  # fmt: skip
    assert (config.steps, config.warmup_steps) == (2400, 240)
    assert config.early_epoch > config.late_epoch and 1 - config.early_epoch >= 0.5  # time to learn after the last
    in_epochs = TrainConfig.of({"data": "planted:far", "epochs": 3})
    assert (in_epochs.steps, in_epochs.warmup_steps, in_epochs.epochs, in_epochs.warmup_epochs) == (0, 0, 3, 0.75)
    assert TrainConfig.of({"data": "planted", "steps": 50}).warmup_steps == 5
    assert TrainConfig.of({"data": "planted", "warmup_epochs": 2.0}).warmup_steps == 0
    assert TrainConfig.of({"data": "planted", "recipe": "cnn-small"}).opt == "sgd"
    assert TrainConfig.of({"data": "planted", "iso_steps": True}).steps == 0


@pytest.mark.parametrize(("options", "bound"), [({}, 0.875), ({"schedule": "constant", "at_epoch": 0}, None)])
def test_a_run_on_the_planted_task_says_its_bound(options: dict[str, Any], bound: float | None, tmp_path: Path) -> None:
    small = {"data": "planted", "train_images": 32, "steps": 2, "val_every": 1, "device": "cpu", **options}
    folder = train(TrainConfig.of(small), tmp_path / "run")
    result = Run.read(folder).result
    assert result is not None and result.bound is not None
    assert (result.bound.variant, result.bound.top1) == ("mixed", bound)
    record = json.loads((folder / "config.json").read_text())
    written = record.pop("result")
    assert written["bound"]["second_difference"] == result.bound.second_difference
    (folder / "config.json").write_text(json.dumps(record))  # killed between the two files
    train(TrainConfig.of(small), folder, resume=True)
    assert json.loads((folder / "config.json").read_text())["result"] == written


def test_the_bound_is_not_known_of_images_of_another_size(tmp_path: Path) -> None:
    small = {"data": "planted", "img_size": 16, "train_images": 32, "steps": 2, "val_every": 2, "device": "cpu"}
    result = Run.read(train(TrainConfig.of(small), tmp_path / "run")).result
    assert result is not None and result.bound is None

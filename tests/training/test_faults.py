"""Real faults, injected: what was good before is good after, and the message says what to do."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fourier_probe import checkpoints
from fourier_probe.errors import DataError, ModelError, OutputError, TrainingError
from fourier_probe.training import train
from fourier_probe.training.folder import RunFolder

from .tiny import At, assert_same_run, last, log, make_data, stop_at, tiny

# --- 7: classes and labels, before the first step ---


def test_a_model_of_other_classes_is_refused_before_the_first_step(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 2 classes, but the data has 4"):
        train(tiny(data, model_args={"width": 4, "num_classes": 2}), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_test_label_out_of_range_is_found_before_training(tmp_path: Path) -> None:
    path = make_data(tmp_path / "d.npz")
    arrays = dict(np.load(path))
    arrays["test_labels"] = arrays["test_labels"] + 1
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="largest label is 4, but the model has 4 classes"):
        train(tiny(path), tmp_path / "run")


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    path = make_data(tmp_path / "d.npz")
    arrays = {key: value for key, value in np.load(path).items() if "labels" not in key}
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="has no labels in its train split"):
        train(tiny(path), tmp_path / "run")


# --- 13: an exception while serialising ---


def test_an_exception_while_serialising_keeps_the_old_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, run = torch.save, tmp_path / "run"

    def failing(value: Any, file: Any) -> None:
        if value["epoch"] == 2:
            file.write(b"the beginning of a file")
            raise MemoryError("no memory left")
        save(value, file)

    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(MemoryError):
        train(tiny(data), run)
    monkeypatch.undo()
    assert last(run)["epoch"] == 1
    assert len(log(run)) == 1
    assert not [file for file in run.iterdir() if file.name.startswith(".fourier-probe-")]
    train(tiny(data), run, resume=True)
    train(tiny(data), tmp_path / "whole")
    assert_same_run(tmp_path / "whole", run)


# --- 14: the disk is full ---


def test_a_full_disk_names_path_and_bytes_and_keeps_the_old_file(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    try:
        with pytest.raises(OutputError, match=r"cannot write \d+ bytes to .*\.pt: .*EFBIG.*what was there before"):
            train(tiny(data), run, progress=At((0, None), fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert last(run)["epoch"] == 1
    train(tiny(data), run, resume=True)
    assert last(run)["finished"]


# --- 16: two runs, same output ---


def test_an_existing_run_is_refused_unless_asked(whole: Path, data: Path) -> None:
    with pytest.raises(OutputError, match="already holds a run: pass --resume to continue it, --force to overwrite"):
        train(tiny(data), whole)


def test_two_runs_at_the_same_time(data: Path, tmp_path: Path) -> None:
    with RunFolder.claim(tmp_path / "run"):
        for how in ("force", "resume"):
            with pytest.raises(OutputError, match="another process is training into"):
                train(tiny(data), tmp_path / "run", **{how: True})
    assert list((tmp_path / "run").iterdir()) == []  # the lock went with its holder


def test_force_leaves_nothing_of_the_old_run(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny(data, checkpoint_every=1, epochs=2, probe_every=1, probe_images=8), run)
    assert (run / "epoch-002.pt").exists()
    train(tiny(data, val_split=0.0, epochs=1), run, force=True)
    assert {file.name for file in run.iterdir()} == {
        ".lock", "config.json", "metrics.csv", "steps.csv", "conversions.csv", "last.pt",
    }  # fmt: skip


def test_a_run_that_cannot_begin_overwrites_nothing(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stop_at(tiny(data), run, (1, 1))
    before = (run / "last.pt").read_bytes()
    with pytest.raises(ModelError):
        train(tiny(data, model_args={"width": 4, "num_classes": 2}), run, force=True)
    assert (run / "last.pt").read_bytes() == before


def test_the_output_is_a_file(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OutputError, match="choose another place with --out"):
        train(tiny(data), tmp_path / "run")


def test_resume_and_force_exclude_each_other(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="choose one"):
        train(tiny(data), tmp_path / "run", resume=True, force=True)


# --- 17: NaN ---


def test_a_nan_loss_stops_at_that_step(data: Path, tmp_path: Path) -> None:
    config = tiny(data, lr=1e38, warmup_epochs=0.0, sched="constant")
    with pytest.raises(TrainingError, match=r"at step 1 \(epoch 0, step 1\) at learning rate 1e\+38.*no epoch was fin"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_the_last_good_checkpoint_survives_a_nan(data: Path, tmp_path: Path) -> None:
    # timm's multistep raises the rate for the last step of epoch 1; the validation after it finds the weights ruined.
    more = {"sched": "multistep", "decay_milestones": (2,), "decay_rate": 1e38, "lr": 0.01, "warmup_epochs": 0.0}
    with pytest.raises(TrainingError, match=r"epoch 1, step 2\) at learning rate 1e\+36.*state after 1 epochs"):
        train(tiny(data, **more), tmp_path / "run")
    assert last(tmp_path / "run")["epoch"] == 1
    assert len(log(tmp_path / "run")) == 1
    for name in ("last.pt", "best.pt"):
        state = checkpoints.read(tmp_path / "run" / name).state
        assert all(torch.isfinite(value).all() for value in state.values())


BAD_GRADIENT = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(144, 4)
        self.zero = nn.Parameter(torch.zeros(4))
    def forward(self, x):
        return self.fc(x.flatten(1)) + torch.sqrt(self.zero ** 2)
def net(num_classes, in_chans):
    return Net()
"""


def test_a_nan_gradient_of_a_finite_loss_stops_before_the_update(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(BAD_GRADIENT)
    with pytest.raises(TrainingError, match=r"the loss or its gradient became NaN or infinite at step 0"):
        train(tiny(data, model=f"{file}:net", model_args={}, clip_grad=1.0), tmp_path / "run")

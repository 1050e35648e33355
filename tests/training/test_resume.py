"""Stopping and going on: as if nothing had happened (faults 9 to 12)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fourier_probe import checkpoints
from fourier_probe.errors import CheckpointError, TrainingError
from fourier_probe.io import atomic
from fourier_probe.papers.captions import hardware
from fourier_probe.training import Progress, train, trainer
from fourier_probe.training.record import read_record
from fourier_probe.training.runs import Run

from .conftest import RICH
from .tiny import At, assert_same_run, last, log, make_photos, stop_at, terminate, tiny

# Layers convert at the start of epochs 1, 2 and 3; there are three steps an epoch.
STOPS = {
    "before any conversion": (0, 2),
    "at the end of an epoch, before a conversion": (0, None),
    "in the last step before one": (0, 3),
    "right after one": (1, 1),
    "between two": (1, 3),
    "after the last": (3, 2),
    "in the last step": (3, 3),
}


@pytest.mark.parametrize("when", STOPS.values(), ids=STOPS)
def test_a_resumed_run_equals_the_uninterrupted_one(
    when: tuple[int, int | None], data: Path, whole: Path, tmp_path: Path
) -> None:
    config = tiny(data, **RICH)
    stop_at(config, tmp_path / "run", when)
    stopped, (epoch, step) = last(tmp_path / "run"), when
    assert (stopped["epoch"], stopped["step"]) == ((epoch + 1, 0) if step is None else when)
    assert stopped["finished"] is False
    train(config, tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_with_adamw_multistep_and_half_precision(data: Path, tmp_path: Path) -> None:
    more = {"schedule": "reverse", "opt": "adamw", "lr": 1e-3, "sched": "multistep", "decay_milestones": (2,)}
    config = tiny(data, **more, amp="bf16", clip_grad=1.0, weight_decay=0.05)
    train(config, tmp_path / "a")
    stop_at(config, tmp_path / "b", (2, 1))
    train(config, tmp_path / "b", resume=True)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_with_an_optimizer_that_takes_norms(data: Path, tmp_path: Path) -> None:
    """A norm added up in another order of memory, or off another alignment, ends in other digits."""
    config = tiny(data, opt="lamb", model_args={"width": 12}, schedule="constant", at_epoch=1, epochs=2)
    train(config, tmp_path / "a")
    stop_at(config, tmp_path / "b", (0, 2))
    train(config, tmp_path / "b", resume=True)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_the_optimizer_state_lies_in_memory_as_it_did(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the strides of its parameter, and where torch would allocate it."""
    config = tiny(data, opt="adamw", model_args={"width": 12}, epochs=1, schedule="none")
    stop_at(config, tmp_path / "run", (0, 2))
    step, moments = trainer.train_step, []

    def look(*args: Any, **more: Any) -> Any:
        moments.extend(
            (p, each) for p, state in args[3].state.items() for each in state.values() if each.ndim == p.ndim
        )
        return step(*args, **more)

    monkeypatch.setattr(trainer, "train_step", look)
    train(config, tmp_path / "run", resume=True)
    assert moments and all(each.stride() == p.stride() and each.data_ptr() % 64 == 0 for p, each in moments)


def test_through_the_loader_also_in_the_middle_of_an_epoch(data: Path, tmp_path: Path) -> None:
    config = tiny(data, aa="rand-m5-n1", schedule="constant", at_epoch=1, epochs=2)
    train(config, tmp_path / "a")
    stop_at(config, tmp_path / "b", (1, 2))
    train(config, tmp_path / "b", resume=True)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_a_second_stop_and_a_second_resume(data: Path, whole: Path, tmp_path: Path) -> None:
    config = tiny(data, **RICH)
    stop_at(config, tmp_path / "run", (0, 1))
    with pytest.raises(SystemExit):
        train(config, tmp_path / "run", resume=True, progress=At((2, 1), terminate))
    train(config, tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_sigterm_during_a_save_waits_for_it(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, sync, sent = tiny(data, **RICH), os.fsync, []

    def interrupted_sync(handle: int) -> None:
        if (tmp_path / "run" / "last.pt").exists() and not sent:  # the second save, half-way
            sent.append(handle)
            os.kill(os.getpid(), signal.SIGTERM)
        sync(handle)

    monkeypatch.setattr(os, "fsync", interrupted_sync)
    with pytest.raises(SystemExit) as end:
        train(config, tmp_path / "run")
    assert end.value.code == 143
    assert sent
    monkeypatch.undo()
    checkpoints.read(tmp_path / "run" / "last.pt")
    train(config, tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_the_seconds_of_an_epoch_include_those_before_a_stop(data: Path, tmp_path: Path) -> None:
    """Stopped after the last step: all that is left of the epoch is its validation."""
    stop_at(tiny(data), tmp_path / "run", (1, 3))
    before = last(tmp_path / "run")["seconds"]
    train(tiny(data), tmp_path / "run", resume=True)
    assert before > 0
    assert float(log(tmp_path / "run", times=True)[1]["seconds"]) == pytest.approx(before, rel=1e-6)


def test_sigint_saves_and_becomes_keyboard_interrupt(data: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny(data), tmp_path / "run", progress=At((1, 2), lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert (last(tmp_path / "run")["epoch"], last(tmp_path / "run")["step"]) == (1, 2)


def test_handlers_and_generators_are_put_back(data: Path, tmp_path: Path) -> None:
    import random

    import numpy as np
    import torch

    before = signal.getsignal(signal.SIGTERM), torch.get_rng_state(), random.getstate()
    numpy = np.random.get_state(legacy=True)  # noqa: NPY002
    train(tiny(data, epochs=1, mixup=0.5), tmp_path / "run")
    assert signal.getsignal(signal.SIGTERM) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]
    assert np.array_equal(np.random.get_state(legacy=True)[1], numpy[1])  # noqa: NPY002


KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from fourier_probe.training import TrainConfig, train
import json
replace, seen = Path.replace, []
def deadly(self, target):
    if Path(target).name == "last.pt":
        seen.append(target)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = deadly
train(TrainConfig.from_json(json.loads(sys.argv[1])), sys.argv[2])
"""


def test_sigkill_during_a_save_leaves_the_previous_checkpoint(data: Path, whole: Path, tmp_path: Path) -> None:
    import json

    config, run = tiny(data, **RICH), tmp_path / "run"
    argument = json.dumps(config.to_json())
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, argument, str(run)], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert last(run)["epoch"] == 1  # of the two that were trained
    assert list(run.glob(f"{atomic._TEMPORARY}*"))
    train(config, run, resume=True)
    assert not list(run.glob(f"{atomic._TEMPORARY}*"))
    assert_same_run(whole, run)


def test_other_threads_are_warned_of(data: Path, tmp_path: Path) -> None:
    stop_at(tiny(data), tmp_path / "run", (1, 1))
    command = ["-m", "fourier_probe", "train", "--resume", "--threads", "2", "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, *command], timeout=120, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "resumed under other conditions (threads 1 -> 2): not promised to repeat bit by bit" in said
    assert last(tmp_path / "run")["finished"]
    record = read_record(tmp_path / "run")
    (again,) = record.resumed or ()
    assert (again.epoch, again.step, record.environment.threads, again.environment.threads) == (1, 1, 1, 2)
    assert hardware([Run.read(tmp_path / "run")]).endswith("1 thread then cpu, 2 threads")


@pytest.mark.parametrize("key", ["torch", "world"])
def test_another_torch_or_world_is_warned_of(key: str, data: Path, tmp_path: Path) -> None:
    stop_at(tiny(data), tmp_path / "run", (1, 1))
    payload = last(tmp_path / "run")
    payload["environment"][key] = {"torch": "2.10.0", "world": 2}[key]
    checkpoints.save(tmp_path / "run" / "last.pt", payload)
    with pytest.warns(UserWarning, match=f"{key} .* not promised"):
        train(tiny(data), tmp_path / "run", resume=True)


def test_a_finished_run_is_left_alone(whole: Path, data: Path) -> None:
    before = (whole / "last.pt").read_bytes()
    listener = At((0, 0), terminate)
    train(tiny(data, **RICH), whole, resume=True, progress=listener)
    assert (whole / "last.pt").read_bytes() == before
    assert "finished" in listener.notes[-1]


def test_nothing_to_resume_starts_from_the_beginning(data: Path, tmp_path: Path) -> None:
    train(tiny(data, epochs=1), tmp_path / "run", resume=True)
    assert len(log(tmp_path / "run")) == 1


def test_another_config_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    stop_at(tiny(data), tmp_path / "run", (1, 1))
    with pytest.raises(TrainingError, match=r"--lr 0.0125 \(now 0.5\).*--force starts over"):
        train(tiny(data, lr=0.5), tmp_path / "run", resume=True)


def test_other_images_are_refused(data: Path, tmp_path: Path) -> None:
    import shutil

    from .tiny import make_data

    moved = tmp_path / "d.npz"
    shutil.copy(data, moved)
    stop_at(tiny(moved), tmp_path / "run", (1, 1))
    make_data(moved, train=80)
    with pytest.raises(TrainingError, match="other images or labels"):
        train(tiny(moved), tmp_path / "run", resume=True)


def test_a_flipped_bit_is_refused_and_the_file_kept(data: Path, tmp_path: Path) -> None:
    stop_at(tiny(data), tmp_path / "run", (1, 1))
    path = tmp_path / "run" / "last.pt"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="damaged"):
        train(tiny(data), tmp_path / "run", resume=True)
    assert path.read_bytes() == damaged


def test_sigterm_through_the_command_exits_143(data: Path, tmp_path: Path) -> None:
    import time

    arguments = ["train", "--model", "cifar_resnet8", "--data", str(data), "--epochs", "5000", "--threads", "1"]
    command = [sys.executable, "-m", "fourier_probe", *arguments, "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        for _ in range(600):
            if (tmp_path / "run" / "last.pt").exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said = " ".join(process.communicate(timeout=60)[1].decode().split())
    finally:
        process.kill()
    assert process.returncode == 143
    assert "--resume goes on" in said
    assert last(tmp_path / "run")["finished"] is False


def test_a_signal_to_the_whole_group_spares_the_workers_until_the_run_is_saved(tmp_path: Path) -> None:
    import os
    import time

    photos = make_photos(tmp_path / "photos")
    arguments = ["train", "--model", "cifar_resnet8", "--model-arg", "width=4", "--img-size", "16", "--threads", "1"]
    arguments += ["--data", str(photos), "-b", "4", "--workers", "1", "--epochs", "5000"]
    command = [sys.executable, "-m", "fourier_probe", *arguments, "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        for _ in range(600):
            if (tmp_path / "run" / "last.pt").exists():
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        said = " ".join(process.communicate(timeout=60)[1].decode().split())
    finally:
        process.kill()
    assert process.returncode == 143, said
    assert "--resume goes on" in said


def test_silent_progress_is_the_default() -> None:
    Progress().note("nothing")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer", {"state": {}, "param_groups": [3]}),
        ("rng", [{}]),
        ("rng", "x"),
        ("sums", "x"),
        ("rows", None),
        ("conversions", None),
        ("environment", None),
        ("scaler", {"scale": "x"}),
    ],
)
def test_a_state_that_is_none(data: Path, whole: Path, tmp_path: Path, field: str, value: object) -> None:
    """Fields of another kind: an error that names the file, never a traceback."""
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / "last.pt"
    checkpoints.save(path, {**last(tmp_path / "run"), field: value})
    try:
        train(tiny(data, **RICH), tmp_path / "run", resume=True)
    except (CheckpointError, TrainingError) as error:
        assert str(path) in str(error)
    else:
        assert field == "scaler"  # not looked at on a CPU

"""Schedules of a user's own: as an object, layer by layer, and by a registered name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fourier_probe as fp
from fourier_probe.errors import TrainingError
from fourier_probe.training import PRSSchedule
from fourier_probe.training.rules import SCHEDULES, ScheduleRequest

from .tiny import assert_same_run, log, stop_at, tiny

LAYERS = {"layer3.0.conv1": 1, "layer3.0.conv2": 3}


def test_a_schedule_object_trains_resumes_and_forks(data: Path, tmp_path: Path) -> None:
    config = tiny(data, schedule=PRSSchedule(LAYERS))
    assert (config.schedule, config.switches) == ("custom", LAYERS)
    whole = fp.train(config, out=tmp_path / "a")
    assert [row["converted"] for row in log(whole.path)] == ["0", "1", "1", "2"]
    stop_at(config, tmp_path / "b", (2, 1))
    assert fp.train(out=tmp_path / "b", resume=True).config.switches == LAYERS
    assert_same_run(whole.path, tmp_path / "b")
    other = tiny(data, schedule=PRSSchedule({"layer3.0.conv2": 2}))
    forked = fp.train(other, out=tmp_path / "c", fork=f"{whole.path}@1")
    assert [row["converted"] for row in log(forked.path)] == ["0", "0", "1", "1"]


def test_layers_that_cannot_convert_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"layer3\.0\.conv3"):
        fp.train(tiny(data, schedule=PRSSchedule({"layer3.0.conv3": 2})), out=tmp_path / "a")
    with pytest.raises(TrainingError, match="--switch belongs to --schedule custom"):
        tiny(data, schedule="linear", switches=LAYERS)
    with pytest.raises(TrainingError, match="needs its switches"):
        fp.train(tiny(data, schedule="custom"), out=tmp_path / "a")


@pytest.fixture
def _mine() -> Iterator[None]:
    @fp.register_schedule("last-only")
    def last_only(request: ScheduleRequest) -> PRSSchedule:
        """The last layer alone."""
        return PRSSchedule({request.layers[-1]: int(request.arguments.get("epoch", 0))}, kind="last-only")

    yield
    SCHEDULES._entries.pop("last-only")


@pytest.mark.usefixtures("_mine")
def test_a_registered_schedule_is_one_of_the_others(data: Path, tmp_path: Path) -> None:
    run = fp.train(tiny(data, schedule="last-only", schedule_args={"epoch": 2}), out=tmp_path / "a")
    assert [row["converted"] for row in log(run.path)] == ["0", "0", "1", "1"]
    assert fp.preview("cifar_resnet8", schedule="last-only").schedule == "last-only"
    with pytest.raises(TrainingError, match="converts a layer at epoch 9"):
        fp.train(tiny(data, schedule="last-only", schedule_args={"epoch": 9}), out=tmp_path / "b")


def test_on_the_command_line_with_a_plugin_file(data: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import fourier_probe as fp\n"
        "@fp.register_schedule('last-only')\n"
        "def last_only(request):\n"
        "    'The last layer alone.'\n"
        "    return fp.PRSSchedule({request.layers[-1]: 1}, kind='last-only')\n"
    )
    command = [sys.executable, "-m", "fourier_probe", "train", "--plugin", str(plugin), "--schedule", "last-only",
               "--model", "cifar_resnet8", "--model-arg", "width=4", "--data", str(data), "--epochs", "2", "-b", "16",
               "--device", "cpu", "--out", "run"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path("run/conversions.csv").read_text().splitlines()[1].startswith("layer3.0.conv2,1,")
    without = subprocess.run([*command[:4], *command[6:-1], "other"], capture_output=True, text=True, check=False)
    assert without.returncode == 2 and "last-only" in without.stderr and "--plugin" in without.stderr

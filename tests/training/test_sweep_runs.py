"""A study that runs: forks, skips, failures, kills; here mostly without processes, which `test_sweep_launch` has."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from fourier_probe.errors import OutputError, ProbeError, TrainingError
from fourier_probe.io.locks import held
from fourier_probe.studies import SweepPlan, Task, local, sweep
from fourier_probe.studies.forks import plan_forks, ready
from fourier_probe.studies.job import run_job
from fourier_probe.studies.run import failures, prepare
from fourier_probe.studies.tasks import LOG, log_header
from fourier_probe.training import TrainConfig, train
from fourier_probe.training.runs import Run

from .tiny import assert_same_run, log, stop_at, tiny


class Inside:
    """Stands in for a child: the same job, in this process."""

    ran: list[str]

    def __init__(self, folder: Path, *, threads: int = 0, gpu: str | None = None) -> None:
        Inside.ran.append(folder.name)
        self._code = 0
        try:
            run_job(folder, threads=1)
        except ProbeError as error:
            (folder / LOG).write_text(f"{log_header()}something before\nerror: {error}\n")
            self._code = 1

    def poll(self) -> int | None:
        return self._code

    def terminate(self) -> None:
        raise AssertionError

    kill = terminate


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    Inside.ran = []
    monkeypatch.setattr(local, "Child", Inside)
    monkeypatch.setattr(local, "LOOK", 0.0)
    return Inside.ran


def study(data: Path, axes: dict[str, Any], **more: Any) -> SweepPlan:
    shared = {name: value for name, value in tiny(data).to_json().items() if name not in ("recipe", *axes)}
    return SweepPlan.of({"shared": shared, "axes": axes, **more})


FAMILY: dict[str, Any] = {"schedule": ["linear", {"schedule": "constant", "at_epoch": 2}, "none"]}


def by_schedule(plan: SweepPlan, out: Path) -> dict[str, Path]:
    return {entry.config.schedule: out / entry.name for entry in plan.entries}


def test_a_family_is_forked_and_equals_its_runs_from_the_start(data: Path, tmp_path: Path, inside: list[str]) -> None:
    plan, out = study(data, FAMILY), tmp_path / "out"
    rows = sweep(plan, out)
    runs = by_schedule(plan, out)
    assert inside == [runs[name].name for name in ("none", "linear", "constant")]  # the base first
    assert [row["state"] for row in rows] == ["finished"] * 3
    assert [row["fork"] for row in rows] == [f"{runs['none'].name}@1", f"{runs['none'].name}@2", None]
    for entry in plan.entries:
        train(Run.read(out / entry.name).config, tmp_path / entry.name)
        assert_same_run(tmp_path / entry.name, out / entry.name)
    assert not list(runs["none"].glob("epoch-*.pt"))  # kept for the forks only
    assert log(out, "results.csv")[0]["name"] == runs["linear"].name
    inside.clear()
    assert [row["state"] for row in sweep(plan, out)] == ["finished"] * 3
    assert inside == []  # nothing is left to do


def test_shipped_runs_are_skipped_and_their_forks_start_over(data: Path, tmp_path: Path, inside: list[str]) -> None:
    plan, out = study(data, FAMILY, analyze={"images": 8, "attention": True}), tmp_path / "out"
    runs = by_schedule(plan, out)
    first = study(data, {"schedule": ["none"]})
    sweep(first, out)
    for file in (*runs["none"].glob("*.pt"), runs["none"] / "job.json"):
        file.unlink()
    inside.clear()
    rows = {row["schedule"]: row for row in sweep(plan, out)}
    # The base is gone, so `constant` (first switch at 2) is the base of `linear` (at 1).
    assert inside == [runs["constant"].name, runs["linear"].name]
    assert rows["none"]["state"] == "finished"
    assert rows["none"]["test_acc"] == Run.read(runs["none"]).result.test_acc  # type: ignore[union-attr]
    assert rows["linear"]["fork"] == f"{runs['constant'].name}@1"
    spectra = Run.read(runs["linear"]).spectra
    assert spectra is not None
    assert spectra.images.n == 8
    assert spectra.target.source == f"{runs['linear'].name}/last.pt"
    assert spectra.attention
    assert Run.read(runs["none"]).spectra is None


def test_a_failed_run_marks_its_row_and_the_others_go_on(data: Path, tmp_path: Path, inside: list[str]) -> None:
    axes = {"schedule": [{"schedule": "linear", "convert": ["nothing*"]}, "none", {"schedule": "none", "lr": 1e9}]}
    plan, out = study(data, {**axes}), tmp_path / "out"
    rows = sweep(plan, out)
    assert [row["state"] for row in rows] == ["failed", "finished", "failed"]
    assert "nothing*" in rows[0]["error"]
    assert "became NaN" in rows[2]["error"]
    assert [name for name, _ in failures(rows)] == [rows[0]["name"], rows[2]["name"]]
    assert [row["state"] for row in log(out, "results.csv")] == ["failed", "finished", "failed"]
    inside.clear()
    sweep(plan, out)
    assert inside == [rows[0]["name"], rows[2]["name"]]  # tried again


def test_a_base_that_failed_leaves_its_forks_to_themselves(
    data: Path, tmp_path: Path, inside: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out = study(data, FAMILY), tmp_path / "out"
    runs = by_schedule(plan, out)
    (out / runs["none"]).mkdir(parents=True)
    monkeypatch.setattr(Task, "write_job", _without(runs["none"].name, Task.write_job))
    rows = {row["schedule"]: row for row in sweep(plan, out)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "linear": "finished",
        "constant": "finished",
        "none": "failed",
    }
    assert rows["linear"]["fork"] is None
    assert rows["linear"]["epochs_trained"] == 4


def _without(name: str, write: Any) -> Any:
    def write_job(task: Task) -> None:
        if task.name == name:
            raise OutputError("no space")
        write(task)

    return write_job


def test_an_interrupted_run_goes_on(data: Path, tmp_path: Path, inside: list[str]) -> None:
    moved = shutil.copy(data, tmp_path / data.name)  # the same set in another place
    plan, out = study(Path(moved), {"schedule": ["linear"]}), tmp_path / "out"
    run = out / plan.entries[0].name
    stop_at(tiny(data, schedule="linear"), run, (2, 1))
    assert prepare(plan, out)[0].standing == "resume"
    assert sweep(plan, out)[0]["state"] == "finished"
    train(tiny(data, schedule="linear"), tmp_path / "whole")
    assert log(tmp_path / "whole") == log(run)


def test_a_run_killed_between_its_last_two_files_gets_its_result(data: Path, tmp_path: Path, inside: list[str]) -> None:
    plan, out = study(data, {"schedule": ["none"]}), tmp_path / "out"
    before = sweep(plan, out)
    config = out / plan.entries[0].name / "config.json"
    record = json.loads(config.read_text())
    config.write_text(json.dumps({**record, "result": None}))
    assert sweep(plan, out) == before
    assert json.loads(config.read_text()) == record


def test_a_folder_of_another_run_is_left_alone(data: Path, tmp_path: Path, inside: list[str]) -> None:
    plan, out = study(data, {"seed": [0, 1]}), tmp_path / "out"
    one, other = (out / entry.name for entry in plan.entries)
    sweep(study(data, {"seed": [0]}), out)
    shutil.copytree(one, other)
    rows = sweep(plan, out)
    assert [row["state"] for row in rows] == ["finished", "failed"]
    assert "holds a run of another seed: choose" in rows[1]["error"]


def test_two_sweeps_in_one_folder(data: Path, tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(OutputError, match="another sweep is at work in"):
        sweep(study(data, {}), tmp_path)


def test_an_unusable_folder_is_refused_before_any_work(data: Path, tmp_path: Path, inside: list[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write into"):
        sweep(study(data, {}), tmp_path / "file")
    with pytest.raises(TrainingError, match="launcher is 'cloud'"):
        sweep(study(data, {}), tmp_path / "out", launcher="cloud")
    assert inside == []


def test_a_fork_waits_for_the_state_and_its_spectra(tmp_path: Path) -> None:
    plan = SweepPlan.of({"shared": {"probe_every": 2}, "axes": {"schedule": ["none", "linear"]}})
    base, task = (Task(entry, tmp_path / entry.name) for entry in plan.entries)
    (base.folder / "spectra").mkdir(parents=True)
    task.fork = (base, 4)
    assert not ready(task)
    base.state_after(4).touch()
    assert not ready(task)
    (base.folder / "spectra" / "epoch-004.json").touch()
    assert ready(task)
    task.fork = (base, 5)
    assert not ready(task)
    base.state_after(5).touch()
    assert ready(task)
    task.fork = (base, 6)
    base.state = "failed"
    assert ready(task)


FIRST = {"none": math.inf, "linear": 2, "constant": 5, "reverse": 2, "random": 0, "stage": 5}


def forks(found: dict[str, str], kept: dict[str, int], done: int, tmp_path: Path) -> dict[str, str]:
    """What forks from what, in a family of runs as they were found."""
    plan = SweepPlan.of({"axes": {"schedule": list(found)}})
    tasks = [Task(entry, tmp_path / entry.name) for entry in plan.entries]
    for task, (schedule, state) in zip(tasks, found.items(), strict=True):
        task.folder.mkdir()
        task.standing = state
        if schedule in kept:
            task.state_after(kept[schedule]).touch()
        if state == "resume":
            (task.folder / "metrics.csv").write_text("epoch\n" + "\n".join(map(str, range(done))) + "\n")

    def first(config: TrainConfig) -> float:
        if config.schedule == "soft":
            raise TrainingError("nothing to convert")
        return FIRST[config.schedule]

    plan_forks(tasks, first)
    return {
        task.entry.config.schedule: f"{task.fork[0].entry.config.schedule}@{task.fork[1]}"
        for task in tasks
        if task.fork is not None
    } | {task.entry.config.schedule + " keeps": str(task.keep) for task in tasks if task.keep}


NEW = dict.fromkeys(("linear", "none", "constant", "random", "soft", "stage"), "new")


@pytest.mark.parametrize(
    ("found", "kept", "done", "expected"),
    [
        (NEW, {}, 0, {"linear": "none@2", "constant": "none@5", "stage": "none@5", "none keeps": "(2, 5)"}),
        ({**NEW, "none": "finished"}, {}, 0, {"linear": "constant@2", "stage": "constant@5", "constant keeps": "(2,)"}),
        ({**NEW, "none": "finished"}, {"none": 2}, 0, {"linear": "none@2", "stage": "constant@5"}),
        ({**NEW, "none": "resume"}, {}, 3, {"constant": "none@5", "stage": "none@5", "none keeps": "(5,)"}),
        (
            {"none": "finished", "linear": "new", "constant": "resume"},
            {},
            1,
            {"linear": "constant@2", "constant keeps": "(2,)"},
        ),
        ({"linear": "new", "reverse": "new"}, {}, 0, {"reverse": "linear@2"}),
        ({"linear": "new", "random": "new"}, {}, 0, {}),
    ],
    ids=["new", "base shipped", "base kept", "base half done", "a fork half done", "equal", "from epoch 0"],
)
def test_who_forks_from_whom(
    found: dict[str, str], kept: dict[str, int], done: int, expected: dict[str, str], tmp_path: Path
) -> None:
    assert forks(found, kept, done, tmp_path) == expected


FACTORY = """
from torch import nn

def make(num_classes=4, in_chans=1, width=4):
    return nn.Sequential(
        nn.Conv2d(in_chans, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes),
    )
"""


def test_a_study_of_a_factory_is_analyzed_too(data: Path, tmp_path: Path, inside: list[str]) -> None:
    """The plan is the user's word: what it names is made, though a checkpoint alone may not ask for it."""
    (tmp_path / "net.py").write_text(FACTORY)
    shared = {"data": str(data), "epochs": 1, "batch_size": 16, "workers": 0, "device": "cpu", "val_split": 0.25}
    values = {
        "shared": {**shared, "crop_padding": 1, "model_args": {"width": 3}},
        "axes": {"model": ["net.py:make"]},
        "analyze": {"images": 8},
    }
    (tmp_path / "plan.json").write_text(json.dumps(values))
    plan, out = SweepPlan.read(tmp_path / "plan.json"), tmp_path / "out"  # net.py lies beside the plan
    assert [(row["state"], row["error"]) for row in sweep(plan, out)] == [("finished", None)]
    run = Run.read(out / plan.entries[0].name)
    spectra = run.spectra
    assert spectra is not None and spectra.images.n == 8
    assert run.record.model_args == {"num_classes": 4, "in_chans": 1, "width": 3}
    assert {point.channels for point in spectra.points} == {3}

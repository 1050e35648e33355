"""`sweep` as a user meets it; the children run in this process."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from fourier_probe import cli
from fourier_probe.errors import ProbeError
from fourier_probe.studies import SweepPlan, Task, local
from fourier_probe.studies.drawn import progress_table
from fourier_probe.studies.job import run_job
from fourier_probe.studies.tasks import LOG, log_header


class Inside:
    """Stands in for a child process."""

    def __init__(self, folder: Path, **_: Any) -> None:
        self._code = 0
        try:
            run_job(folder, threads=1)
        except ProbeError as error:
            (folder / LOG).write_text(f"{log_header()}error: {error}\n")
            self._code = 1

    def poll(self) -> int:
        return self._code


@pytest.fixture(autouse=True)
def _inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "Child", Inside)
    monkeypatch.setattr(local, "LOOK", 0.0)


SHARED = {
    "model": "cifar_resnet8", "model_args": {"width": 4}, "data": "d.npz", "epochs": 2, "batch_size": 8, "workers": 0,
    "device": "cpu", "threads": 1, "early_epoch": 1, "late_epoch": 1,
}  # fmt: skip


def write(axes: dict[str, Any], **more: Any) -> None:
    """plan.json and d.npz in the current folder, which is the test's."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 24), ("test", 8)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, 12, 12), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 2
    np.savez("d.npz", **arrays)
    Path("plan.json").write_text(json.dumps({"shared": SHARED, "axes": axes, **more}))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.group, ["sweep", "plan.json", *arguments])


def test_a_study_and_the_same_again() -> None:
    write({"schedule": ["none", "linear"]}, analyze={"images": 4})
    first = run("--jobs", "2")
    assert first.exit_code == 0, first.output
    assert "2 runs, 0 of them finished already" in first.stderr
    assert "started, from cifar_resnet8-d-" in first.stderr
    assert "written to runs/plan: results.csv and 2 run folders" in first.stdout
    again = run("--json")
    assert again.exit_code == 0
    assert "2 of them finished already" in again.stderr
    rows = json.loads(again.stdout)
    assert [row["state"] for row in rows] == ["finished", "finished"]
    assert rows[1]["fork"] == f"{rows[0]['name']}@1"
    assert rows[0]["multiply_adds"] < rows[1]["mean_multiply_adds"] < rows[1]["multiply_adds"]
    assert all(Path(row["path"], "spectra.json").exists() for row in rows)


def test_a_run_that_fails_ends_in_exit_1() -> None:
    write({"convert": [["nothing*"], ["layer3*"]]}, set=[{"when": {"seed": 0}, "schedule": "linear"}])
    result = run()
    assert result.exit_code == 1
    assert "failed: cifar_resnet8-d-linear-" in result.stderr
    assert "nothing*" in result.stderr
    assert "error: 1 of 2 runs failed; the same command tries them again." in result.stderr
    assert "finished" in result.stdout


def test_a_dry_run_measures_and_writes_nothing() -> None:
    write({"schedule": ["none", "linear", "constant"], "data_scale": [1.0]}, analyze={"images": 4})
    Path("runs/plan/half-done").mkdir(parents=True)  # what another sweep left
    Path("runs/plan/half-done/log.txt").write_text("epoch 1")
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    result = run("--dry-run", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["epochs"], row["steps"], row["state"]) for row in rows] == [(2, 4, "new")] * 3
    assert [row["fork"] and row["fork"].rpartition("@")[2] for row in rows] == [None, "1", "1"]
    assert [row["steps_left"] for row in rows] == [4, 2, 2]
    assert all(row["seconds"] > 0 for row in rows)
    shown = run("--dry-run", "--jobs", "2")
    assert "8 steps are left, about 0" in shown.stdout
    assert "nothing written" in shown.stdout
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before


def test_a_dry_run_says_what_would_fail() -> None:
    write({"schedule": ["none", "linear"]}, set=[{"when": {"schedule": "linear"}, "convert": ["nothing*"]}])
    result = run("--dry-run")
    assert result.exit_code == 0
    assert "would fail" in result.stderr
    assert "nothing*" in result.stderr


@pytest.mark.parametrize(
    ("axes", "message"),
    [({"modle": ["a"]}, "Did you mean model"), ({"seed": []}, "seed is empty"), ({"lr": [0]}, "--lr is 0.0")],
)
def test_a_bad_plan_writes_nothing(axes: dict[str, Any], message: str) -> None:
    write(axes)
    before = sorted(Path().rglob("*"))
    result = run()
    assert result.exit_code == 1
    assert message in result.stderr
    assert sorted(Path().rglob("*")) == before


def test_slurm_arguments_need_slurm() -> None:
    write({})
    assert run("--slurm-arg", "timeout_min=3").exit_code == 2
    missing = CliRunner().invoke(cli.group, ["sweep", "nowhere.toml"])
    assert missing.exit_code == 2


def test_the_live_table_shows_what_matters() -> None:
    write({"seed": list(range(30))})
    tasks = [Task(entry, Path("out") / entry.name) for entry in SweepPlan.read("plan.json").entries]
    tasks[3].state, tasks[3].error = "failed", "no [b]such[/b] layer"
    tasks[5].state = "finished"
    tasks[9].state, tasks[9]._since = "running", time.monotonic() - 65
    tasks[9].folder.mkdir(parents=True)
    (tasks[9].folder / "metrics.csv").write_text("epoch,val_acc\n0,0.25\n")
    record = {"config": tasks[9].entry.config.to_json(), "plan": {"epochs": 7}}  # 7 by --iso-steps
    (tasks[9].folder / "config.json").write_text(json.dumps(record))
    console = Console(width=160, record=True, file=Path("screen").open("w"))
    console.print(progress_table(tasks, space=6))
    text = console.export_text()
    console.file.close()
    assert "1 running, 1 failed, 27 waiting, 1 finished" in text
    lines = text.splitlines()
    assert any("failed: no [b]such[/b] layer" in line for line in lines)
    (running,) = [line for line in lines if tasks[9].name in line]
    assert running.split()[-5:] == ["running", "epoch", "1/7", "25.0", "1:05"]
    assert len([line for line in lines if "cifar_resnet8" in line]) == 6

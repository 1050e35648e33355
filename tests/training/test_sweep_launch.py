"""Studies in real processes: killed and completed, on this machine and through submitit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fourier_probe.errors import TrainingError
from fourier_probe.io.locks import BusyError, held
from fourier_probe.studies import SweepPlan, Task, Watch, local, sweep
from fourier_probe.studies.cluster import make_executor
from fourier_probe.training import train
from fourier_probe.training.runs import Run

from .test_sweep_runs import Inside, study
from .tiny import assert_same_run, tiny

LIMIT = 60.0  # seconds for anything


class Until(Watch):
    """Sends this process a signal once a run has logged more epochs than there were."""

    def __init__(self, run: Path, number: int) -> None:
        self.run, self.number, self.before = run, number, epochs(run)

    def tick(self, tasks: Sequence[Task]) -> None:
        if self.before is not None and epochs(self.run) > self.before:
            self.before = None
            os.kill(os.getpid(), self.number)


def epochs(run: Path) -> int:
    try:
        return len((run / "metrics.csv").read_text().splitlines()) - 1
    except OSError:
        return 0


def wait(what: Any) -> None:
    until = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def free(run: Path) -> bool:
    try:
        with held(run):
            return True
    except BusyError:
        return False


def test_a_study_killed_twice_is_completed_by_running_it_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL to the sweep: its child saves and leaves. SIGTERM: passed on. Then as if nothing had happened."""
    shared = {**tiny(data).to_json(), "epochs": 40, "threads": 1}
    values = {"shared": shared, "axes": {"seed": [5]}}
    (tmp_path / "plan.json").write_text(json.dumps(values))
    plan, out = SweepPlan.of(values), tmp_path / "out"
    run = out / plan.entries[0].name
    command = [sys.executable, "-m", "fourier_probe", "sweep", "plan.json", "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        wait(lambda: epochs(run) > 0)
        process.send_signal(signal.SIGKILL)
    wait(lambda: free(run))
    assert Run.read(run).result is None
    killed = epochs(run)

    monkeypatch.setattr(local, "LOOK", 0.02)
    with pytest.raises(SystemExit) as end:
        sweep(plan, out, watch=Until(run, signal.SIGTERM))
    assert end.value.code == 143
    assert killed < epochs(run) < 40
    assert "interrupted" in (out / "results.csv").read_text()

    Inside.ran = []
    monkeypatch.setattr(local, "Child", Inside)
    assert sweep(plan, out)[0]["state"] == "finished"
    train(Run.read(run).config, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", run)


def test_submitit_on_this_machine(data: Path, tmp_path: Path) -> None:
    """submitit's own local executor: real processes; one run is good, one is not."""
    pytest.importorskip("submitit")
    axes = {"schedule": [{"schedule": "linear", "convert": ["nothing*"]}, "none"]}
    plan = study(data, axes, analyze={"images": 4})
    rows = sweep(plan, tmp_path / "out", jobs=2, launcher="slurm", slurm={"cluster": "local"})
    assert [row["state"] for row in rows] == ["failed", "finished"]
    assert "nothing*" in rows[0]["error"]
    assert Run.read(Path(rows[1]["path"])).spectra is not None


STAND_IN = {
    "srun": "",
    "sbatch": 'n=$(ls "$0".* 2>/dev/null | wc -l); touch "$0.$n"; echo "Submitted batch job $((10 + n))"',
    "sacct": "echo 'JobID|State|NodeList'; for n in 0 1 2; do echo \"10_$n|RUNNING|a\"; done; echo '11|PENDING|a'",
}


def test_slurm_gets_an_array_of_bases_and_forks_that_wait(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for Slurm's commands, which start nothing: what is submitted, once."""
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    for name, text in STAND_IN.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    plan, out = study(data, {"schedule": ["none", "linear"], "seed": [0, 1, 2]}), tmp_path / "out"
    plan = SweepPlan(plan.name, plan.entries[:4], plan.axes)  # three bases, one fork

    class Leave(Watch):
        notes: list[str]

        def begin(self, tasks: Sequence[Task]) -> None:
            self.notes = []

        def tick(self, tasks: Sequence[Task]) -> None:
            assert [task.state for task in tasks] == ["running"] * 4
            os.kill(os.getpid(), signal.SIGTERM)

        def note(self, text: str) -> None:
            self.notes.append(text)

    for _ in range(2):  # the second call finds the jobs of the first
        watch = Leave()
        with pytest.raises(SystemExit):
            sweep(plan, out, jobs=2, launcher="slurm", slurm={"slurm_partition": "gpu", "timeout_min": 7}, watch=watch)
        assert watch.notes == ["4 jobs go on without this command; the same command waits for them again."]
    scripts = {path.read_text() for path in (out / "submitit").glob("*.sh")}  # a copy for each run
    assert len(scripts) == 2
    bases, forks = sorted(scripts, key=lambda text: "--dependency" in text)
    assert "#SBATCH --array=0-2%2" in bases
    assert "#SBATCH --partition=gpu" in bases
    assert "#SBATCH --time=7" in bases
    assert "#SBATCH --dependency=afterany:10\n" in forks
    job = json.loads((out / plan.entries[3].name / "job.json").read_text())
    assert job["fork"] == {"run": plan.entries[0].name, "epoch": 1}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "submitit: .*srun"),
        ({"cluster": "cloud"}, "submitit: .*cloud"),
        ({"cluster": "local", "timeout": 3}, "submitit: .*'timeout' need to be prefixed .*--slurm-arg"),
    ],
)
def test_wrong_parameters(parameters: dict[str, Any], message: str, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with pytest.raises(TrainingError, match=message):
        make_executor(tmp_path / "out", parameters)


def test_without_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(TrainingError, match=r"pip install 'fourier-probe\[slurm\]'"):
        make_executor(tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


def test_gpus_are_dealt_out_where_there_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert local.visible_gpus() == ["3", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert local.visible_gpus() == []


def test_what_killed_a_run_is_said(data: Path, tmp_path: Path) -> None:
    task = Task(study(data, {}).entries[0], tmp_path / "run")
    task.started()
    task.ended(-signal.SIGKILL)
    assert (task.state, task.error) == ("failed", "killed by signal 9 (out of memory?)")

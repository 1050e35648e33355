"""steps.csv: what a row is of, that it is whole after every kind of end, and the figures made of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fourier_probe.errors import OutputError, TrainingError
from fourier_probe.io import atomic
from fourier_probe.papers.registered import draw_figure
from fourier_probe.training import train
from fourier_probe.training.record import read_steps
from fourier_probe.training.runs import Run

from .tiny import assert_same_run, log, stop_at, tiny

SWITCH = {"schedule": "constant", "sched": "wsd", "cooldown_steps": 9, "epochs": 6}


@pytest.fixture(scope="module")
def arms(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs that differ in the epoch of their switch."""
    folder = tmp_path_factory.mktemp("arms")
    return [train(tiny(data, **SWITCH, at_epoch=at), folder / f"at-{at}") for at in (1, 3)]


def test_rows_are_means_over_their_steps(arms: list[Path]) -> None:
    rows = Run.read(arms[0]).steps
    assert [row.step for row in rows] == [2, 3, 4, 6, 8, 10, 12, 14, 16, 18]  # every two, and where layers switch
    assert [row.images for row in rows] == [32, 16, 16, *[32] * 7]
    assert [row.converted for row in rows] == [0, 0, *[6] * 8]
    epoch = log(arms[0])[0]
    mean = sum(row.loss * row.images for row in rows[:2]) / 48
    assert mean == pytest.approx(float(epoch["train_loss"]), rel=1e-6)


def test_arms_that_switch_at_different_times_share_one_rate_to_the_last_digit(arms: list[Path]) -> None:
    curves = [{row["step"]: row["lr"] for row in log(arm, "steps.csv")} for arm in arms]
    shared = curves[0].keys() & curves[1].keys()
    assert len(shared) >= 9
    assert [curves[0][step] for step in shared] == [curves[1][step] for step in shared]
    assert len(set(curves[0].values())) > 3  # it is no constant


@pytest.mark.parametrize("when", [(0, 1), (0, None), (2, 2)])
def test_a_resumed_run_has_no_row_twice(
    when: tuple[int, int | None], arms: list[Path], data: Path, tmp_path: Path
) -> None:
    config = tiny(data, **SWITCH, at_epoch=1)
    stop_at(config, tmp_path / "run", when)
    train(config, tmp_path / "run", resume=True)
    assert_same_run(arms[0], tmp_path / "run")


def test_a_forked_run_has_the_rows_of_its_beginning(arms: list[Path], data: Path, tmp_path: Path) -> None:
    for at in (1, 3):
        config = tiny(data, **SWITCH, at_epoch=at)
        train(config, tmp_path / f"fork-{at}", fork=f"{arms[0]}@1")
        assert_same_run(arms[0] if at == 1 else arms[1], tmp_path / f"fork-{at}")


def test_no_file_without_an_interval(data: Path, tmp_path: Path) -> None:
    run = train(tiny(data, epochs=1, log_interval=0), tmp_path / "run")
    assert not (run / "steps.csv").exists()
    with pytest.raises(TrainingError, match=r"has no steps\.csv, which --log-interval writes"):
        Run.read(run).plot()


def test_a_full_disk_while_it_is_written_keeps_what_was_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run, write = tiny(data), tmp_path / "run", atomic.write_bytes

    def full(path: Path | str, values: bytes) -> None:
        if Path(path).name == "steps.csv" and values.count(b"\n") > 3:
            raise OutputError(f"cannot write {len(values)} bytes to {path}: No space left on device.")
        write(path, values)

    monkeypatch.setattr(atomic, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        train(config, run)
    monkeypatch.undo()
    assert len(read_steps(run)) == 1
    train(config, run, resume=True)
    train(config, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", run)


KILLED = """
import os, sys
from pathlib import Path
from fourier_probe.io import atomic
from tests.training.tiny import tiny
from fourier_probe.training import train
replace, count = os.replace, 0
def dying(source, target, **more):
    global count
    if str(target).endswith("steps.csv"):
        count += 1
        if count == 3 and sys.argv[3] == "before":
            os.kill(os.getpid(), 9)
        replace(source, target, **more)
        if count == 3:
            os.kill(os.getpid(), 9)
        return
    replace(source, target, **more)
os.replace = dying
train(tiny(Path(sys.argv[1])), sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_kill_9_while_it_is_written(when: str, data: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    run = tmp_path / "run"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(data), str(run), when],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
    train(tiny(data), run, resume=True)
    train(tiny(data), tmp_path / "whole")
    assert_same_run(tmp_path / "whole", run)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-3], "the last line has no end: the file was cut there.* Or remove it: the run goes on"),
        (lambda text: text.replace("\n4,", "\n1,"), r"line 3: step 1 follows step 2: it is damaged"),
        (lambda text: text.replace("\n2,", "\nmany,"), "line 2: step is 'many': expected a whole number"),
    ],
)
def test_a_damaged_file_is_said_and_the_run_can_go_on(damage: Any, message: str, data: Path, tmp_path: Path) -> None:
    config, run = tiny(data), tmp_path / "run"
    stop_at(config, run, (1, None))
    file = run / "steps.csv"
    file.write_text(damage(file.read_text()))
    with pytest.raises(TrainingError, match=message):
        train(config, run, resume=True)
    file.unlink()
    train(config, run, resume=True)
    assert [row.step for row in read_steps(run)] == [8, 10, 12]


def test_the_figures_draw_the_rows(arms: list[Path]) -> None:
    run = Run.read(arms[1])
    whole = run.plot().axes[0]
    assert len(whole.lines[0].get_xdata()) == len(run.steps)
    assert [line.get_xdata()[0] for line in whole.lines[1:]] == [9]
    near = run.plot("switches").axes[1]
    assert 0 in list(near.lines[0].get_xdata())
    exhibit = draw_figure("loss-at-switches", [Run.read(arm) for arm in arms])
    assert {(row["run"], row["switch"]) for row in exhibit.rows} == {("at-1", 3), ("at-3", 9)}
    assert len(exhibit.more["conversions"]) == 12
    assert "changed by at most" in exhibit.caption
    with pytest.raises(TrainingError, match="no drawing 'gates': expected loss or switches"):
        run.plot("gates")


def test_a_step_costs_about_nothing_more(tmp_path: Path) -> None:
    """10,000 rows are written in well under a second, as each epoch's end does."""
    from fourier_probe.training.folder import RunFolder
    from fourier_probe.training.record import StepRow

    rows = [StepRow(step=n, lr=0.1, loss=1 / (n + 1), acc=0.5, images=128) for n in range(10_000)]
    start = time.process_time()
    RunFolder(tmp_path).write_steps(rows)
    assert time.process_time() - start < 3
    assert read_steps(tmp_path)[-1].step == 9_999


def test_a_run_of_an_older_version_has_no_such_rows_and_goes_on(data: Path, tmp_path: Path) -> None:
    config, run = tiny(data), tmp_path / "run"
    stop_at(config, run, (1, None))
    (run / "steps.csv").unlink()
    train(config, run, resume=True)
    assert [row["epoch"] for row in log(run)] == ["0", "1", "2", "3"]

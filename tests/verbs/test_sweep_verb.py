"""A study in one line of Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fourier_probe as fp
from fourier_probe.errors import TrainingError


def _plan(folder: Path, lr: str) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 32), ("test", 8)):
        arrays[f"{split}_labels"] = np.arange(count) % 2
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, 12, 12), dtype=np.uint8)
    np.savez(folder / "tiny.npz", **arrays)
    plan = folder / "tiny.toml"
    plan.write_text(
        f'[shared]\nmodel = "cifar_resnet8"\nmodel_args = {{width = 4}}\ndata = "tiny.npz"\nepochs = 1\n'
        f'batch_size = 8\ndevice = "cpu"\nlr = {lr}\n[axes]\nseed = [0, 1]\n'
    )
    return plan


def test_a_study_gives_its_runs_and_does_nothing_twice(tmp_path: Path) -> None:
    plan = _plan(tmp_path, "0.1")
    runs = fp.sweep(plan, out=tmp_path / "runs")
    assert [run.config.seed for run in runs] == [0, 1] and all(run.result is not None for run in runs)
    before = {run.path: (run.path / "last.pt").stat().st_mtime_ns for run in runs}
    again = fp.sweep(str(plan), out=tmp_path / "runs")
    assert {run.path: (run.path / "last.pt").stat().st_mtime_ns for run in again} == before


def test_a_run_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="2 of 2 runs failed"):
        fp.sweep(_plan(tmp_path, "1e30"), out=tmp_path / "runs")

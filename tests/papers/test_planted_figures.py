"""Figures of the planted study from run folders whose outcomes are known."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import msgspec
import pytest

from fourier_probe.errors import ResultError
from fourier_probe.papers.planted import planted_reliance, planted_scales, planted_steps
from fourier_probe.papers.prs import schedules_figure
from fourier_probe.papers.trials import AFTER, Trial, trials
from fourier_probe.results.intervals import bootstrap, holm, sign_flip
from fourier_probe.training.runs import Run, read_runs
from fourier_probe.verbs.train import train

SWITCHES = {"none": [], "linear": [1200, 600], "constant": [900, 900], "attention": [0, 0]}
SOLVED_AT = {"none": None, "linear": 1500, "constant": 1000, "attention": 400}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two short runs, copied for every arm, and their logs written as if they had been long and had solved the task."""
    folder = tmp_path_factory.mktemp("planted")
    short = {"model": "patch_resnet", "data": "planted", "train_images": 64, "steps": 4, "val_every": 2, "threads": 1}
    short |= {"warmup_steps": 1, "cooldown_steps": 1, "batch_size": 32}
    train(out=folder / "none", schedule="none", **short)
    train(out=folder / "linear", schedule="linear", late_step=0, early_step=2, **short)
    for arm, seed, images in product(SWITCHES, range(5), (100, 1000)):
        base = folder / ("none" if arm == "none" else "linear")
        _long(base, folder / f"{arm}-{seed}-{images}", arm, seed, images)
    for base in ("none", "linear"):
        shutil.rmtree(folder / base)
    return read_runs(folder)


def _long(base: Path, target: Path, arm: str, seed: int, images: int) -> None:
    target.mkdir()
    solved_at = SOLVED_AT[arm]
    record = json.loads((base / "config.json").read_text())
    record["config"] |= {"seed": seed, "train_images": images, "steps": 2700, "val_every": 100}
    record["config"]["schedule"] = "constant" if arm in ("constant", "attention") else arm
    if arm == "attention":
        record["config"]["recast_args"] = {"locality_strength": 1.0, "gate": 1.0}
    layers = record["plan"]["schedule"]["epochs"]
    record["plan"] |= {"epochs": 27, "steps": 100}
    record["plan"]["schedule"]["epochs"] = {name: step // 100 for name, step in zip(layers, SWITCHES[arm], strict=True)}
    top1 = 0.8 if solved_at is None or images == 100 else 1.0
    record["result"] |= {"test_acc": top1 - 0.01 * seed, "epochs": 27}
    (target / "config.json").write_text(json.dumps(record))
    header, row, *_ = (base / "metrics.csv").read_text().splitlines()
    names, values = header.split(","), row.split(",")
    lines = [header]
    for epoch in range(27):
        step = 100 * (epoch + 1)
        accuracy = 0.97 if solved_at is not None and step >= solved_at + 100 * seed else 0.8
        known = dict(zip(names, values, strict=True)) | {"epoch": epoch, "step": step, "val_acc": accuracy}
        lines.append(",".join(str(known[name]) for name in names))
    (target / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_a_trial_is_counted_from_its_last_switch(runs: list[Run]) -> None:
    of = {(t.arm, t.seed, t.images): t for t in map(Trial.of, runs)}
    assert len(of) == len(runs) == 40
    linear, never = of["linear", 1, 1000], of["none", 0, 1000]
    assert (linear.switched, linear.solved_at, linear.wait) == ((600, 1200), 1600, 400)
    assert (never.solved, never.wait, never.switched) == (False, AFTER, (0, 0))
    assert of["attention", 2, 100].wait == 600
    assert of["constant", 0, 1000].wait == 100


def test_a_run_that_was_recast_otherwise_is_in_no_arm_of_the_plan(runs: list[Run], tmp_path: Path) -> None:
    for arm, how in (("attention", {}), ("constant", {"gate": -1.0})):
        run = next(trial.run for trial in map(Trial.of, runs) if trial.arm == arm)
        record = json.loads((run.path / "config.json").read_text())
        record["config"]["recast_args"] = how
        shutil.copytree(run.path, tmp_path / arm)
        (tmp_path / arm / "config.json").write_text(json.dumps(record))
    assert [Trial.of(run).arm for run in read_runs(tmp_path)] == [
        "constant 0, recast with its defaults",
        "constant, recast with gate -1.0",
    ]


def test_schedules_are_drawn_of_a_network_that_saw_other_images(runs: list[Run], tmp_path: Path) -> None:
    """However many planted runs there are."""
    run = next(trial.run for trial in map(Trial.of, runs) if trial.arm == "linear")
    record = json.loads((run.path / "config.json").read_text())
    record["config"]["data"] = "bundled"
    shutil.copytree(run.path, tmp_path / "bundled")
    (tmp_path / "bundled" / "config.json").write_text(json.dumps(record))
    assert "bundled" in schedules_figure([*runs, *read_runs(tmp_path)]).caption
    assert "planted" in schedules_figure(runs).caption


def test_primary_contrasts_are_paired_and_corrected(runs: list[Run]) -> None:
    exhibit = planted_steps(runs)
    by = {row["contrast"]: row for row in exhibit.more["contrasts"]}
    assert list(by) == ["linear - constant", "linear - none"]
    assert by["linear - constant"]["mean"] == 200  # 300 to 700 minus 100 to 500
    assert by["linear - none"]["mean"] == 1
    assert by["linear - none"]["p"] == by["linear - constant"]["p"] == 2 / 2**5
    assert by["linear - none"]["p_holm"] == 4 / 2**5
    assert {row["arm"]: row["solved"] for row in exhibit.rows}["none"] == 0
    assert "our reading" in exhibit.caption


def test_runs_of_another_design_are_left_out(runs: list[Run]) -> None:
    other = replace(runs[0], record=msgspec.structs.replace(runs[0].record, config=replace(runs[0].config, lr=0.5)))
    assert len(trials([*runs, other])) == 40


def test_the_scale_from_which_attention_is_ahead(runs: list[Run]) -> None:
    exhibit = planted_scales(runs)
    crossing = {"variant": "mixed", "attention_ahead_from": 1000, "scales": 2, "unresolved": ""}
    assert exhibit.more["crossover"] == [crossing]
    few = planted_scales([run for run in runs if run.config.seed < 3 or run.config.train_images == 1000])
    assert few.more["crossover"] == [crossing | {"scales": 1, "unresolved": "100"}]
    assert "fewer than 5 seeds at 100" in few.caption and "Seeds a cell: 3 to 5" in few.caption
    hole = planted_scales([run for run in runs if run.config.seed < 3 or run.config.train_images == 100])
    assert hole.more["crossover"] == [crossing | {"attention_ahead_from": None, "scales": 1, "unresolved": "1000"}]
    none = planted_scales([run for run in runs if run.config.seed < 3])
    assert "mixed: not resolved (fewer than 5 seeds at 100, 1000)" in none.caption
    row = next(row for row in exhibit.rows if row["arm"] == "attention" and row["images"] == 1000)
    assert row["minus_none_p"] == 2 / 2**5 and row["minus_none_half"] == 0


def test_two_runs_of_one_cell_are_refused(runs: list[Run], tmp_path: Path) -> None:
    shutil.copytree(runs[0].path, tmp_path / "again")
    with pytest.raises(ResultError, match="move one away"):
        planted_scales([*runs, *read_runs(tmp_path)])


def test_runs_that_are_missing_are_named(runs: list[Run]) -> None:
    with pytest.raises(ResultError, match="attention = true"):
        planted_reliance(runs)
    with pytest.raises(ResultError, match="--data planted"):
        trials([])


def test_the_tests_agree_with_scipy() -> None:
    from scipy.stats import permutation_test

    values = [120.0, -40.0, 300.0, 80.0, 10.0, -5.0]
    found = permutation_test((values,), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=10**5)
    assert sign_flip(values) == pytest.approx(found.pvalue, abs=1e-12)
    assert sign_flip([0.0] * 10) == 1
    assert sign_flip([1.0] * 10) == 2 / 2**10
    assert holm([0.2, 0.01, 0.04]) == pytest.approx([0.2, 0.03, 0.08])
    low, high = bootstrap([1.0] * 5)
    assert low == high == 1

"""The papers' figures from small real runs: numbers against hand calculation, captions, what is missing, bytes."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from fourier_probe.cli import group
from fourier_probe.papers import FIGURES, eit, eit_features, gates, prs, scales
from fourier_probe.papers.exhibit import MissingRunsError
from fourier_probe.papers.interpolation import interpolation
from fourier_probe.papers.selection import schedule_name
from fourier_probe.results.intervals import Interval, over_seeds
from fourier_probe.results.reliance import DepartureRecord, LesionRecord, RelianceRecord
from fourier_probe.training import TrainConfig, train
from fourier_probe.training.runs import Run, read_runs

Make = Callable[..., None]
RESNET = {"model": "cifar_resnet8", "model_args": {"width": 4}, "recipe": "cnn-small"}
VIT = {"model": "cifar_vit_patch4", "model_args": {"depth": 2, "embed_dim": 32, "num_heads": 2}}
EIT = {"model": "eit_small_w80", "model_args": {"depth": 2}}
SHARED = {"epochs": 2, "batch_size": 16, "val_split": 0.25, "workers": 0, "device": "cpu", "crop_padding": 1}
PROBE = {"probe_every": 1, "probe_images": 4, "convert": ["layer3*", "layer2*"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A real run of each kind, analyzed."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 64), ("test", 24)):
        labels = np.arange(count) % 4
        arrays[f"{split}_labels"] = labels
        noise = rng.integers(0, 60, (count, 16, 16, 3))
        arrays[f"{split}_images"] = (noise + 45 * labels[:, None, None, None]).astype(np.uint8)
    np.savez(root / "squares.npz", **arrays)
    kinds = {
        "none": {**RESNET, **PROBE},
        "linear": {**RESNET, **PROBE, "schedule": "linear", "early_epoch": 1, "late_epoch": 0},
        "start": {**RESNET, **PROBE, "schedule": "constant", "at_epoch": 0, "recast_args": {"locality_strength": 1.0}},
        "middle": {**RESNET, **PROBE, "schedule": "constant", "at_epoch": 1},
        "vit": VIT,
        "eit": EIT,
        "twin": {**EIT, "model_args": {"depth": 2, "split": "attention"}},
    }
    found = {}
    for name, given in kinds.items():
        found[name] = root / name
        train(TrainConfig.of({**SHARED, **given, "data": str(root / "squares.npz")}), root / name)
        more = [] if "model_args" in given and given["model"] == "cifar_resnet8" else ["--attention"]
        result = CliRunner().invoke(
            group, ["analyze", str(root / name), "--images", "24", "--out", str(root / name), *more]
        )
        assert result.exit_code == 0, result.output
        (root / name / "last.pt").unlink()
    return found


@pytest.fixture
def make(trained: dict[str, Path], tmp_path: Path) -> Make:
    """Copy a real run as if it had been made with another seed, scale or accuracy."""

    def one(kind: str, accuracy: float = 0.5, *, seed: int = 0, scale: float = 1.0) -> None:
        folder = tmp_path / "runs" / f"{kind}-{scale}-{seed}"
        shutil.copytree(trained[kind], folder)
        record = json.loads((folder / "config.json").read_text())
        record["config"] |= {"seed": seed, "data_scale": scale}
        record["result"]["test_acc"] = accuracy
        (folder / "config.json").write_text(json.dumps(record))
        result = json.loads((folder / "spectra.json").read_text())
        result["target"]["seed"] = seed
        (folder / "spectra.json").write_text(json.dumps(result))

    return one


@pytest.fixture
def study(make: Make, tmp_path: Path) -> Path:
    """Every kind of run that the figures need, two seeds each."""
    for seed in (0, 1):
        for scale, accuracies in ((0.1, (0.3, 0.2, 0.4)), (1.0, (0.5, 0.6, 0.7))):
            for kind, accuracy in zip(("none", "vit", "eit"), accuracies, strict=True):
                make(kind, accuracy + 0.01 * seed, seed=seed, scale=scale)
        make("linear", 0.52 + 0.02 * seed, seed=seed)
        make("start", 0.45, seed=seed)
        make("middle", 0.50 + 0.01 * seed, seed=seed)
        make("twin", 0.66, seed=seed)
    return tmp_path / "runs"


def figures(*arguments: str) -> Any:
    return CliRunner().invoke(group, ["figures", *arguments])


def test_every_figure_is_drawn_from_the_runs(study: Path, tmp_path: Path) -> None:
    result = figures("--runs", str(study), "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert all(line.startswith("note: planted-") for line in result.stderr.splitlines() if "left out" in line)
    drawn = [name for name in FIGURES if not name.startswith("planted-")]  # tests/papers/test_planted_figures.py
    for name in drawn:
        for suffix in (".pdf", ".png", ".csv", ".txt"):
            assert (tmp_path / "out" / f"{name}{suffix}").stat().st_size > 40, name
        text = (tmp_path / "out" / f"{name}.txt").read_text()
        if name != "eit-table":  # whose variants are not among these runs
            assert "Hardware: cpu, 1 thread" in text, name
            assert "n = " in text, name
    assert {p.stem for p in (tmp_path / "out").glob("*.tex")} == {"schedule-table", "eit-table", "eit-ablation"}
    again = figures("--runs", str(study), "--out", str(tmp_path / "again"))
    assert again.exit_code == 0
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    assert "already" in figures("eit-table", "--runs", str(study), "--out", str(tmp_path / "out")).stderr


def test_the_crossover_is_where_the_lines_meet(study: Path) -> None:
    exhibit = scales.accuracy_by_scale(read_runs(study))
    cells = {(row["model"], row["data_scale"]): row for row in exhibit.rows}
    vit = next(name for name, _ in cells if name.startswith("cifar_vit"))
    assert cells[vit, 0.1]["test_acc"] == pytest.approx(0.205)
    assert cells[vit, 0.1]["half"] == pytest.approx(over_seeds([0.2, 0.21])[1])
    crossings = {row["model"]: row for row in exhibit.more["crossover"]}
    # From 0.1 behind to 0.1 ahead: half way in ln(scale).
    assert float(crossings[vit]["at"]) == pytest.approx(math.sqrt(0.1), rel=1e-3)
    assert crossings[vit]["resolved"] == crossings[vit]["at"]  # both differences are the same in both seeds
    ahead = next(name for name in crossings if name.startswith("eit"))
    assert crossings[ahead]["crossover"].startswith("ahead from the smallest on (< 10 %)")


def test_a_crossover_that_is_not_reached_is_censored_and_several_are_all_said(make: Make, tmp_path: Path) -> None:
    for scale, cnn, vit in ((0.1, 0.3, 0.2), (0.3, 0.3, 0.4), (0.5, 0.5, 0.4), (1.0, 0.5, 0.6)):
        make("none", cnn, scale=scale)
        make("vit", vit, scale=scale)
        make("eit", cnn - 0.1, scale=scale)
    exhibit = scales.accuracy_by_scale(read_runs(tmp_path / "runs"))
    said = {row["model"].split()[0]: row["crossover"] for row in exhibit.more["crossover"]}
    assert said["cifar_vit_patch4"] == ", ".join(
        f"{turn} % (unresolved)" for turn in ("ahead from 17.3", "behind from 38.7", "ahead from 70.7")
    )
    assert said["eit_small_w80"] == "censored, not up to 100 % (unresolved)"
    assert "One seed" in exhibit.caption


def test_a_model_that_is_overtaken_again_is_not_said_to_stay_ahead(make: Make, tmp_path: Path) -> None:
    for scale, cnn, vit in ((0.1, 0.3, 0.4), (0.4, 0.5, 0.4), (1.0, 0.6, 0.5)):
        make("none", cnn, scale=scale)
        make("vit", vit, scale=scale)
    exhibit = scales.accuracy_by_scale(read_runs(tmp_path / "runs"))
    (row,) = exhibit.more["crossover"]
    assert row["crossover"] == "ahead at 10 % (unresolved), behind from 20 % (unresolved)"
    assert (row["falls"], row["resolved"]) == ("0.2", "")


def test_schedules_are_compared_where_most_of_them_are(make: Make, tmp_path: Path) -> None:
    """A study with all controls at 10 % and only the main arm on all of the data keeps its primary contrast."""
    for seed in (0, 1):
        for kind, accuracy in (("none", 0.3), ("linear", 0.35), ("middle", 0.32), ("start", 0.2)):
            make(kind, accuracy, seed=seed, scale=0.1)
        make("none", 0.6, seed=seed)
        make("linear", 0.7, seed=seed)
    runs = read_runs(tmp_path / "runs")
    rows = {row["schedule"]: row for row in prs.schedule_table(runs).rows}
    assert rows["linear"]["test_acc"] == pytest.approx(0.35)
    assert rows["linear"]["minus_control"] == pytest.approx(0.03)
    assert {row["schedule"] for row in gates.gates_by_depth(runs).rows} >= {"linear", "constant at 1"}
    assert len({row["schedule"] for row in gates.training_trajectory(runs).rows}) == 4


def test_the_same_data_in_another_folder_is_the_same_and_other_data_is_named(
    study: Path, make: Make, tmp_path: Path
) -> None:
    before = prs.schedule_table(read_runs(study)).rows

    def move(pattern: str, place: Callable[[Path], str]) -> None:
        for path in study.glob(f"{pattern}/config.json"):
            record = json.loads(path.read_text())
            record["config"]["data"] = place(Path(record["config"]["data"]))
            path.write_text(json.dumps(record))

    move("*-1", lambda data: f"/elsewhere/{data.name}")
    assert prs.schedule_table(read_runs(study)).rows == before
    move("eit-*", lambda data: "circles.npz")
    said = figures("schedule-table", "--runs", str(study), "--out", str(tmp_path / "out"))
    assert said.exit_code == 0
    assert "4 runs on circles.npz are left out: the figures are of 16 on squares.npz" in said.stderr


def test_ends_that_are_too_close_leave_the_coordinate_undefined(study: Path) -> None:
    defined = interpolation(read_runs(study))
    assert all(row["t"] == row["t"] for row in defined.rows)
    for name in ("spectra.json", "spectra.npz"):  # of one seed the ends change places: their means are the same
        one, two = (study / f"{kind}-1.0-1" / name for kind in ("none", "start"))
        kept = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(kept)
    exhibit = interpolation(read_runs(study))
    assert all(math.isnan(row["t"]) and math.isnan(row["distance"]) for row in exhibit.rows)
    assert "the coordinate is undefined" in exhibit.caption


def test_the_primary_contrast_is_paired_by_seed(study: Path) -> None:
    exhibit = prs.schedule_table(read_runs(study))
    rows = {row["schedule"]: row for row in exhibit.rows}
    assert rows["linear"]["minus_control"] == pytest.approx(0.025)  # 0.02 and 0.03
    assert rows["linear"]["minus_control_half"] == pytest.approx(over_seeds([0.02, 0.03])[1])
    assert rows["linear"]["minus_none"] == pytest.approx(0.025)
    assert rows["constant, same mean"]["role"] == "same-mean control"
    assert rows["linear"]["gmacs_per_image"] > rows["none"]["gmacs_per_image"]
    assert "2 pairs" in exhibit.caption
    assert "our reading" in exhibit.caption


def test_reliance_stands_beside_the_gates_where_runs_hold_it(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = Interval(-0.25, -0.3, -0.2)
    lesion = LesionRecord(layer="layer3.0.conv2", half="content", test="exchanged", top1=0.5, loss=1.0,
                          top1_change=change, loss_change=change)  # fmt: skip
    left = DepartureRecord(layer="layer3.0.conv2", gate=0.7, gate_least=0.6, gate_most=0.8, displacement=0, locality=1)
    record = RelianceRecord(images=20, top1=0.75, lesions=[lesion], departures=[left])
    monkeypatch.setattr(Run, "reliance", lambda run: record)
    exhibit = gates.gates_by_depth(read_runs(study))
    assert {(row["gate"], row["top1_change"], row["low"]) for row in exhibit.more["reliance"]} == {(0.7, -0.25, -0.3)}
    assert "the last panel and in the table beside it" in exhibit.caption
    panel = exhibit.figure.axes[4]  # behind those of three schedules and of all of them
    assert panel.get_ylabel() == "Top-1 lost without content (points)"
    assert [list(line.get_ydata()) for line in panel.get_lines() if line.get_marker() not in ("None", "|", "_")] == [
        [25.0]
    ] * 3


def test_gates_are_counted_from_each_layer_s_own_switch(study: Path) -> None:
    exhibit = gates.gates_by_depth(read_runs(study))
    run = next(run for run in read_runs(study) if run.config.schedule == "linear")
    steps = run.plan.steps
    for row in exhibit.rows:
        assert 0 <= row["gate_least"] <= row["gate"] <= row["gate_most"] <= 1
        assert row["steps"] >= 0
        if row["schedule"] == "linear" and row["layer"] == "layer3.0.conv2":
            assert row["steps"] == row["epoch"] * steps
    assert {row["schedule"] for row in exhibit.rows} == {"linear", "constant at 0", "constant at 1"}
    gaps = exhibit.more["differences"]
    assert "reliance" not in exhibit.more and "was not measured" in exhibit.caption
    assert "which was not measured here" in exhibit.figure.legends[0].get_title().get_text().replace("\n", " ")
    assert {gap["minus"] for gap in gaps} == {"constant at 0", "constant at 1"}
    for gap in gaps:  # two copies of one run are two seeds without scatter
        at = {
            name: np.interp(gap["steps"], *zip(*[
                (row["steps"], row["gate"]) for row in exhibit.rows
                if (row["schedule"], row["layer"], row["seed"]) == (name, gap["layer"], 0)
            ], strict=True))
            for name in ("linear", gap["minus"])
        }  # fmt: skip
        assert gap["difference"] == pytest.approx(at["linear"] - at[gap["minus"]])
        assert (gap["half"], gap["n"]) == (pytest.approx(0), 2)


def test_recasts_of_another_kind_are_kept_out_of_the_schedules_and_seeds_without_both_ends_out_of_the_interpolation(
    study: Path, make: Make
) -> None:
    make("none", seed=7)
    table = prs.schedule_table(read_runs(study))
    assert {row["schedule"] for row in table.rows} == {"none", "linear", "constant, same mean"}
    assert "recast otherwise than linear: constant at 0" in table.caption
    exhibit = interpolation(read_runs(study))
    assert {row["seed"] for row in exhibit.rows} == {0, 1}
    assert "n = 6 runs of 2 epochs, 2 seeds" in exhibit.caption
    t = [row["t"] for row in exhibit.rows if row["seed"] == 0]  # the other seed is a copy of it
    assert f"in {2 * (t[0] > t[1] > t[2])} of 2 seeds" in exhibit.caption


def test_captions_say_the_data_scale(make: Make, tmp_path: Path) -> None:
    for scale in (0.025, 1.0):
        make("none", scale=scale)
    assert "2.5, 100 % of squares.npz" in scales.accuracy_by_scale(read_runs(tmp_path / "runs")).caption


def test_the_ends_of_the_interpolation_are_0_and_1(study: Path) -> None:
    exhibit = interpolation(read_runs(study))
    at = {(row["seed"], row["switch"]): row["t"] for row in exhibit.rows}
    assert at[0, 1.0] == pytest.approx(0)
    assert at[0, 0.0] == pytest.approx(1)
    assert set(switch for _, switch in at) == {0.0, 0.5, 1.0}
    assert "nats apart" in exhibit.caption


def test_eit_counts_and_branches(study: Path) -> None:
    table = eit.eit_table(read_runs(study))
    mini = next(row for row in table.rows if row["model"] == "eit_mini")
    assert mini["parameters"] == 3512750
    assert mini["gmacs"] == pytest.approx(1.73, abs=0.005)
    share = eit_features.eit_hfd_share(read_runs(study))
    run = next(run for run in read_runs(study) if run.config.model == "eit_small_w80")
    assert run.spectra is not None
    point = run.spectra["blocks.0.mixer.conv"]
    row = next(r for r in share.rows if (r["part"], r["point"]) == ("convolution", point.name))
    assert row["hfd_share"] == pytest.approx(point.scalars["hfd_share"])
    assert row["delta"] == pytest.approx(np.interp(row["frequency"], point.frequency, point.delta))
    beside = run.spectra["blocks.0.mixer.attn"].scalars["hfd_share"]
    branches = next(r for r in share.more["differences"] if r["contrast"].endswith("minus attention, HFD share"))
    assert (branches["layer"], branches["n"]) == ("blocks.0", 2)
    assert branches["difference"] == pytest.approx(point.scalars["hfd_share"] - beside)
    diversity = eit_features.eit_head_diversity(read_runs(study))
    first = next(r for r in diversity.rows if r["model"].startswith("eit"))
    assert first["diversity"] == pytest.approx(run.spectra.attention[0].diversity)
    ablation = eit.eit_ablation(read_runs(study))
    assert ablation.rows[1]["minus_whole"] == pytest.approx(-0.045)  # 0.66 minus 0.70 and 0.71
    twin = next(r for r in read_runs(study) if r.config.model_args.get("split"))
    assert twin.spectra is not None
    gap = diversity.more["differences"][0]
    mine, theirs = (run.spectra.attention[0].diversity, twin.spectra.attention[0].diversity)
    assert gap["difference"] == pytest.approx(mine - theirs)
    assert "minus its all-attention twin" in share.caption


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"eit-table"}))
def test_missing_runs_are_named_with_a_line_of_a_plan(name: str, make: Make, tmp_path: Path) -> None:
    make("vit")
    shutil.rmtree(tmp_path / "runs" / "vit-1.0-0" / "spectra", ignore_errors=True)
    (tmp_path / "runs" / "vit-1.0-0" / "spectra.json").unlink()
    with pytest.raises(MissingRunsError, match=r"needs|`fourier-probe sweep studies/planted.toml`"):
        FIGURES.get(name)(read_runs(tmp_path / "runs"))


def test_bad_input_of_the_command(make: Make, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert "Did you mean schedule-table, schedules?" in figures("schedule-tabel", "--out", out).stderr
    (tmp_path / "empty").mkdir()
    assert "there is no run in" in figures("--runs", str(tmp_path / "empty"), "--out", out).stderr
    make("vit")
    result = figures("schedule-table", "--runs", str(tmp_path / "runs"), "--out", out)
    assert result.exit_code == 1
    assert "1 of 1 figures could not be drawn" in result.stderr
    record = tmp_path / "runs" / "vit-1.0-0" / "config.json"
    record.write_text("{")
    result = figures("--runs", str(tmp_path / "runs"), "--out", out)
    assert (result.exit_code, "config.json, line 1" in " ".join(result.stderr.split())) == (1, True)
    assert not list((tmp_path / "out").glob("*.p*"))


def test_an_unfinished_run_does_not_count(make: Make, tmp_path: Path) -> None:
    make("none")
    record = tmp_path / "runs" / "none-1.0-0" / "config.json"
    value = json.loads(record.read_text())
    value["result"] = None
    record.write_text(json.dumps(value))
    with pytest.raises(MissingRunsError, match="none of the runs is finished"):
        prs.schedule_table(read_runs(tmp_path / "runs"))


def test_metrics_of_a_run_are_numbers(trained: dict[str, Path]) -> None:
    run = Run.read(trained["linear"])
    with (trained["linear"] / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row.train_loss for row in run.metrics] == [float(row["train_loss"]) for row in rows]
    assert run.metrics[0].test_acc is None
    assert [result.epoch for result in run.trajectory] == [0, 1, 2]
    assert schedule_name(run) == "linear"


def test_runs_that_differ_otherwise_are_told_apart_and_copies_count_once(make: Make, tmp_path: Path) -> None:
    """Two lengths of training are two lines; the same run in two folders is one."""
    for scale in (0.1, 1.0):
        for seed in (0, 1):
            make("none", 0.6, seed=seed, scale=scale)
            make("vit", 0.5, seed=seed, scale=scale)
    folders = sorted((tmp_path / "runs").iterdir())
    for folder in folders:
        shutil.copytree(folder, tmp_path / "runs" / f"copy-{folder.name}")
        if folder.name.startswith("none"):
            shutil.copytree(folder, tmp_path / "runs" / f"long-{folder.name}")
            path = tmp_path / "runs" / f"long-{folder.name}" / "config.json"
            record = json.loads(path.read_text())
            record["config"]["epochs"] = 40
            record["result"]["test_acc"] = 0.9
            path.write_text(json.dumps(record))
    exhibit = scales.accuracy_by_scale(read_runs(tmp_path / "runs"))
    found = {row["model"].removeprefix("cifar_resnet8 width=4 "): row for row in exhibit.rows}
    assert {"epochs=2", "epochs=40"} < set(found)
    assert (found["epochs=2"]["test_acc"], found["epochs=2"]["n"]) == (0.6, 2)
    assert (found["epochs=40"]["test_acc"], found["epochs=40"]["n"]) == (0.9, 2)
    assert "n = 12 runs" in exhibit.caption


def test_without_the_same_mean_there_is_no_primary_contrast(make: Make, tmp_path: Path) -> None:
    for kind in ("none", "linear", "start"):
        make(kind)
    exhibit = prs.schedule_table(read_runs(tmp_path / "runs"))
    assert "The same-mean control is missing" in exhibit.caption
    assert not any(row["role"] == "same-mean control" for row in exhibit.rows)


def test_an_ablation_needs_the_whole(make: Make, tmp_path: Path) -> None:
    make("twin")
    make("eit")
    folder = tmp_path / "runs" / "eit-1.0-0"
    record = json.loads((folder / "config.json").read_text())
    record["config"]["model_args"] = {"depth": 2, "use_pos_embed": True}
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(MissingRunsError, match="itself beside its ablations"):
        eit.eit_ablation(read_runs(tmp_path / "runs"))


def test_stale_spectra_and_other_images_fail_their_figures_only(study: Path, tmp_path: Path) -> None:
    path = study / "none-1.0-0" / "spectra.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "target": {**value["target"], "seed": 7}}))
    result = figures("--runs", str(study), "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "analyze the run again" in result.stderr
    assert (tmp_path / "out" / "accuracy-by-scale.pdf").exists()
    assert not (tmp_path / "out" / "spectra-by-scale.pdf").exists()

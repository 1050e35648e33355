"""tools/ship.py: what checkpoints/ holds can be analyzed, drawn and built upon without the images it was made from."""

from __future__ import annotations

import hashlib
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fourier_probe import cli
from fourier_probe.studies import SweepPlan, sweep
from fourier_probe.studies.job import analyze_run
from fourier_probe.studies.plan import Analysis
from fourier_probe.targets import resolve
from fourier_probe.training import train
from fourier_probe.training.runs import read_runs

from .tiny import make_data

TOOL = Path(__file__).parents[2] / "tools" / "ship.py"


def ship(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["ship.py", *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name="__main__")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepPlan]:
    """Four small runs: two seeds of two schedules, analyzed."""
    folder = tmp_path_factory.mktemp("ship")
    data = make_data(folder / "mine.npz", size=32, channels=3)
    plan = SweepPlan.of(
        {
            "shared": {
                "model": "cifar_resnet8", "model_args": {"width": 4}, "data": str(data), "val_split": 0.25,
                "batch_size": 16, "epochs": 2, "early_epoch": 1, "late_epoch": 1, "probe_every": 1,
                "probe_images": 8, "max_key_grid": 8, "workers": 0, "device": "cpu",
            },
            "axes": {"schedule": ["none", "linear"], "seed": [0, 1]},
            "analyze": {"images": 8},
        }
    )  # fmt: skip
    for entry in plan.entries:
        train(entry.config, folder / "runs" / entry.name)
        analyze_run(folder / "runs" / entry.name, entry.config, Analysis(images=8))
    return folder / "runs", plan


def test_shipped_runs_stand_alone(
    study: tuple[Path, SweepPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, plan = study
    ship(monkeypatch, runs, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [each["weights"] for each in sorted(manifest, key=lambda each: each["seed"])] == [True, True, False, False]
    for each in manifest:
        folder = tmp_path / "out" / each["name"]
        assert each["data"] == "mine.npz"
        assert each["result"]["test_acc"] == read_runs(runs / each["name"])[0].result.test_acc  # type: ignore[union-attr]
        for name, digest in each["files"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
            assert str(runs.parent).encode() not in (folder / name).read_bytes()
        assert (folder / "spectra.json").exists()
        assert (folder / "spectra" / "epoch-001.json").exists()
        assert (folder / "spectra.npz").exists() == each["weights"]
        if each["weights"]:
            whole, half = resolve(str(runs / each["name"])).model, resolve(str(folder)).model
            assert whole is not None
            assert half is not None
            for (name, a), b in zip(whole.state_dict().items(), half.state_dict().values(), strict=True):
                torch.testing.assert_close(a, b, rtol=2**-11, atol=1e-7, msg=name)
            assert (folder / "last.pt").stat().st_size < (runs / each["name"] / "last.pt").stat().st_size / 2

    shutil.move(runs.parent / "mine.npz", tmp_path / "elsewhere.npz")
    try:
        monkeypatch.chdir(tmp_path)
        name = next(each["name"] for each in manifest if each["weights"])
        probed = CliRunner().invoke(cli.group, ["analyze", f"out/{name}", "--images", "4", "--out", "probed"])
        assert probed.exit_code == 0, probed.output
        assert "mine.npz, which this was trained on, is not here: the bundled images are used" in probed.output
        assert json.loads(Path("probed/spectra.json").read_text())["images"]["source"] == "bundled"
        drawn = CliRunner().invoke(cli.group, ["figures", "schedule-table", "training-trajectory", "--runs", "out"])
        assert drawn.exit_code == 0, drawn.output
        assert [row["state"] for row in sweep(plan, tmp_path / "out")] == ["finished"] * 4  # nothing is trained again
    finally:
        shutil.move(tmp_path / "elsewhere.npz", runs.parent / "mine.npz")


def test_a_path_that_leads_nowhere_stays_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = CliRunner().invoke(cli.group, ["analyze", "timm:cifar_resnet8", "--data", "gone.npz"])
    assert asked.exit_code == 1
    assert "gone.npz" in asked.output


def test_weights_can_be_kept_to_some_and_a_second_shipment_adds(
    study: tuple[Path, SweepPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, plan = study
    first = plan.entries[0].name
    shutil.copytree(runs / first, tmp_path / "part" / first)
    ship(monkeypatch, tmp_path / "part", tmp_path / "out", "--weights", "nothing*")
    assert "1 runs, 0 with weights" in capsys.readouterr().out
    ship(monkeypatch, runs, tmp_path / "out", "--weights", "*linear*")
    assert "4 runs, 1 with weights" in capsys.readouterr().out

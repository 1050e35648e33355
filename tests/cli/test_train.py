"""`train` and `schedule` as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fourier_probe import cli
from fourier_probe.training import TrainConfig, read_config
from fourier_probe.training.config import NAMES, flag_of


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.group, list(arguments))


def good(*arguments: str) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def data(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 24), ("test", 8)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, 12, 12), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 2
    np.savez(tmp_path / "d.npz", **arrays)
    return str(tmp_path / "d.npz")


SMALL = ["--model", "cifar_resnet8", "--model-arg", "width=4", "--epochs", "2", "-b", "8", "--workers", "0"]


def test_train_writes_a_run_and_prints_a_summary(data: str, tmp_path: Path) -> None:
    result = good("train", *SMALL, "--data", data, "--schedule", "constant", "--at-epoch", "1", "--convert", "layer3*")
    folder = tmp_path / "runs" / "cifar_resnet8-d-constant"
    assert (folder / "last.pt").exists()
    assert "test (once)" in result.stdout
    assert "epoch 2" in result.stderr
    assert "2 layers are attention" in " ".join(result.stderr.split())


def test_json_is_the_config_with_the_result(data: str) -> None:
    result = good("train", *SMALL, "--data", data, "--out", "run", "--json")
    record = json.loads(result.stdout)
    assert record == json.loads(Path("run/config.json").read_text())
    assert 0 <= record["result"]["test_acc"] <= 1


def test_flags_win_over_the_config_file(data: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"model: cifar_resnet8\nepochs: 7\nlr: 5e-2\ndata: {data}\nbatch-size: 8\n")
    good("train", "-c", "c.yaml", "--epochs", "1", "--model-arg", "width=4", "--out", "run")
    config = json.loads(Path("run/config.json").read_text())["config"]
    assert (config["epochs"], config["lr"], config["batch_size"]) == (1, 0.05, 8)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "epochs: 3\nconvert: [layer3*]\n"),
        ("c.json", '{"epochs": 3, "convert": ["layer3*"]}'),
        ("c.toml", 'epochs = 3\nconvert = ["layer3*"]\n'),
        ("run.json", '{"config": {"epochs": 3, "convert": ["layer3*"]}, "result": null}'),
    ],
)
def test_config_files(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_config(tmp_path / name) == {"epochs": 3, "convert": ("layer3*",)}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.yaml", "epoch: 3", "unknown option 'epoch'. Did you mean epochs"),
        ("c.yaml", "epochs: many", "epochs is 'many', expected int"),
        ("c.yaml", "- 1", "holds a list"),
        ("c.yaml", "a: [", "cannot read"),
        ("c.json", "{", "cannot read"),
        ("c.ini", "", "expected a .yaml, .toml or .json"),
    ],
)
def test_bad_config_files(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    result = run("train", "-c", name)
    assert result.exit_code == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data-scale", "2"], "--data-scale is 2.0: expected above 0, up to 1"),
        (["--lr", "0"], "--lr is 0.0: expected a number above 0"),
        (["--aa", "rand-m9", "--loader", "device"], "drop --loader device"),
        (["--sched", "multistep"], "--decay-milestones"),
        (["--model", "cifar_resnet21"], "Did you mean cifar_resnet20"),
        (["--opt", "adamx"], "--opt adamx"),
        (["--recast-arg", "strength=1", "--schedule", "constant", "--at-epoch", "0"], "--recast-arg"),
        (["--convert", "layer9*", "--schedule", "linear"], "matches no convolution"),
        (["--fork", "nowhere@1"], "holds no run"),
        (["--device", "cuda:77"], "--device cuda:77 cannot be used"),
        (["--mixup", "1", "-b", "7"], "mixup and cutmix pair images, so it must be even"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(flags: list[str], message: str, data: str) -> None:
    result = run("train", *SMALL, "--data", data, "--out", "run", *flags)
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert not Path("run/last.pt").exists()


def test_usage_errors_exit_2(data: str) -> None:
    assert run("train", "--schedule", "liner").exit_code == 2
    assert run("train", "--resume", "--force").exit_code == 2


def test_an_existing_run_is_refused_and_resume_needs_no_other_flag(data: str) -> None:
    good("train", *SMALL, "--data", data, "--out", "run")
    again = run("train", *SMALL, "--data", data, "--out", "run")
    assert again.exit_code == 1
    assert "--resume" in again.stderr
    assert "is finished" in " ".join(good("train", "--out", "run", "--resume").stderr.split())


def test_every_field_is_a_flag_with_help() -> None:
    text = good("train", "--help").stdout
    for name in NAMES:
        assert flag_of(name) in text
    assert "Optimisation:" in text


def test_help_is_quick() -> None:
    start = time.monotonic()
    code = "import sys, fourier_probe.cli.train, fourier_probe.cli.schedule; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert time.monotonic() - start < 5


def test_recipes_follow_the_family() -> None:
    assert TrainConfig.of(model="cifar_resnet8").recipe == "cnn-small"
    assert TrainConfig.of(model="cifar_vit_patch4").opt == "adamw"
    assert TrainConfig.of(model="resnet18").recipe == "cnn"
    assert TrainConfig.of(model="vit_tiny_patch16_224").recipe == "vit"
    assert TrainConfig.of(model="resnet18", recipe="vit").opt == "adamw"
    assert TrainConfig.of(model="resnet18", batch_size=512).lr == pytest.approx(0.2)
    assert TrainConfig.of(model="resnet18", lr=3.0, batch_size=512).lr == 3.0


def test_a_config_survives_json() -> None:
    config = TrainConfig.of(model="cifar_resnet8", convert=["a", "b"], recast_args={"gate": 2.0})
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


# --- schedule ---


def test_schedule_prints_and_draws_the_plan(data: str, tmp_path: Path) -> None:
    flags = [
        *SMALL,
        "--data",
        data,
        "--epochs",
        "10",
        "--early-epoch",
        "8",
        "--late-epoch",
        "3",
        "--max-key-grid",
        "16",
    ]
    result = good("schedule", *flags, "--out", "plan")
    assert {path.name for path in (tmp_path / "plan").iterdir()} == {
        "schedule.json",
        "schedule.png",
        "schedule.pdf",
    }
    lines = [line.split() for line in result.stdout.splitlines() if line.startswith("layer")]
    assert [cells[1] for cells in lines if ".conv" in cells[0]] == ["8", "7", "6", "5", "4", "3"]
    assert "parameters" in result.stdout
    record = json.loads(Path("plan/schedule.json").read_text())
    added = sum(layer["added"] for layer in record["layers"])
    assert record["cost"]["after"]["parameters"] - record["cost"]["before"]["parameters"] == added
    more = sum(layer["multiply_adds_recast"] - layer["multiply_adds"] for layer in record["layers"])
    assert record["cost"]["after"]["multiply_adds"] - record["cost"]["before"]["multiply_adds"] == more
    assert not Path("runs").exists()


def test_schedule_as_json(data: str) -> None:
    result = good("schedule", *SMALL, "--data", data, "--schedule", "soft", "--epochs", "8", "--json", "--out", "plan")
    record = json.loads(result.stdout)
    assert record["schedule"] == "soft"
    assert all(layer["end"] > layer["epoch"] for layer in record["layers"])


def test_the_drawing_shows_the_switches() -> None:
    from matplotlib.figure import Figure

    from fourier_probe.plots.schedule import draw_schedule

    ax = Figure().add_subplot()
    draw_schedule(ax, ["a", "b", "c"], {"a": 6, "b": 4}, 10, ends={"b": 7})
    bars = [(round(bar.get_y() + 0.4), bar.get_x(), bar.get_width()) for group in ax.containers for bar in group]
    assert bars == [(0, 0, 6), (0, 6, 4), (1, 0, 4), (1, 4, 3), (1, 7, 3), (2, 0, 10)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first layer on top


def test_compare_by_epoch_draws_how_spectra_move(data: str, tmp_path: Path) -> None:
    prs = ["--schedule", "constant", "--at-epoch", "1", "--max-key-grid", "16"]
    good("train", *SMALL, *prs, "--data", data, "--epochs", "2", "--probe-every", "1", "--out", "run")
    result = good("compare", "run", "--by", "epoch", "--out", "moved")
    assert "cifar_resnet8 width=4, constant@0" in result.stdout
    assert {path.name for path in (tmp_path / "moved").iterdir()} == {"compare.csv", "epochs.pdf", "epochs.png"}
    header, *rows = (tmp_path / "moved" / "compare.csv").read_text().splitlines()
    assert header.startswith("label,")
    labels = list(dict.fromkeys(row.split('"')[1] for row in rows))
    assert labels == [f"cifar_resnet8 width=4, constant@{epoch}" for epoch in range(3)]
    assert run("compare", "run", "--by", "epoch", "--out", "moved").exit_code == 1
    files = ("run/spectra/epoch-000.json", "run/spectra/epoch-002.json")
    for names in (files, ("run/epoch-001.pt", "run/last.pt", "--images", "8")):
        found = json.loads(good("compare", *names, "--by", "epoch", "--json", "--out", "files", "--force").stdout)
        assert [row["epoch"] for row in found["targets"]] == ([0, 2] if names == files else [1, 2])
    assert found["targets"][1]["target"] == "cifar_resnet8 width=4, constant, switch at epoch 1, epoch 2"
    again = good("compare", str(tmp_path / "run"), "--by", "epoch", "--out", "moved", "--force")
    assert "constant@0" in again.stdout and str(tmp_path / "run@0") not in again.stdout
    good("train", *SMALL, "--data", data, "--out", "bare")
    refused = run("compare", "bare", "--by", "epoch", "--out", "none")
    assert refused.exit_code == 1
    assert "--probe-every" in refused.stderr

"""The verbs as a user meets them: tables, files, exit codes, and errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from fourier_probe import cli
from fourier_probe.models import zoo
from fourier_probe.results.spectra import Spectra

FEW = ["--images", "24", "--batch-size", "8"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.group, list(arguments))


def good(*arguments: str) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    model = zoo.create("cifar_resnet8", num_classes=10, in_chans=1)
    path = tmp_path / "ckpt.pt"
    torch.save(model.state_dict(), path)
    return path


BARE = ["--model", "cifar_resnet8", "--model-arg", "num_classes=10", "--model-arg", "in_chans=1"]


# --- analyze ---


def test_analyze_writes_results_and_figures_and_prints_a_table(checkpoint: Path, tmp_path: Path) -> None:
    result = good("analyze", str(checkpoint), *BARE, *FEW, "--out", "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"spectra.{s}" for s in ("json", "npz", "csv", "pdf", "png")} | {"depth.pdf", "depth.png"}
    assert "layer3.0" in result.stdout
    assert "24 images of bundled" in result.stdout
    saved = Spectra.load(tmp_path / "out")
    assert saved.target.weights == "raw"
    assert len(saved.target.sha256) == 64
    assert saved.top1 is not None
    assert saved.images.size == [32, 32]


def test_json_on_stdout_is_the_result_file(checkpoint: Path, tmp_path: Path) -> None:
    result = good("analyze", str(checkpoint), *BARE, *FEW, "--out", "out", "--json", "--metrics", "diagonal")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "spectra.json").read_text())


def test_a_full_disk_leaves_the_earlier_result_whole(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    good("analyze", str(checkpoint), *BARE, *FEW, "--out", "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    sync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 2:  # both figures are staged, then the result's own files fail
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    result = run("analyze", str(checkpoint), *BARE, *FEW, "--out", "out", "--force", "--floor", "0.001")
    assert result.exit_code == 1
    assert "what was there before is intact" in result.output
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_results_are_kept_unless_forced(checkpoint: Path, tmp_path: Path) -> None:
    command = ["analyze", str(checkpoint), *BARE, *FEW, "--out", "out"]
    good(*command)
    before = (tmp_path / "out" / "spectra.json").read_bytes()
    refused = run(*command)
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert (tmp_path / "out" / "spectra.json").read_bytes() == before
    good(*command, "--force")


def test_untrained_is_the_same_architecture_with_other_weights(checkpoint: Path, tmp_path: Path) -> None:
    good("analyze", str(checkpoint), *BARE, *FEW, "--out", "raw")
    good("analyze", str(checkpoint), *BARE, *FEW, "--untrained", "--out", "fresh")
    raw, fresh = Spectra.load(tmp_path / "raw"), Spectra.load(tmp_path / "fresh")
    assert fresh.target.weights == "untrained"
    assert fresh.images.digest == raw.images.digest
    assert not np.allclose(fresh.points[-1].delta, raw.points[-1].delta)


def test_paper_axis_window_logarithm_points_and_maps_reach_the_result(tmp_path: Path) -> None:
    good(
        "analyze", "timm:cifar_resnet8", *FEW, "--axis", "paper", "--log", "log1p", "--window", "hann", "--maps",
        "--points", "layer2*", "--out", "out",
    )  # fmt: skip
    saved = Spectra.load(tmp_path / "out")
    assert saved.definition.formula == "ln(1+|F|)"
    assert (saved.definition.axis, saved.definition.window) == ("paper", "hann")
    assert all(point.name.startswith("layer2") for point in saved.points)
    assert saved.points[0].map is not None
    assert saved.points[0].frequency[-1] == 1.0
    assert saved.target.weights == "untrained"


def test_other_sizes_and_statistics_and_photographs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    options = ["--data", "photos", "--img-size", "24x40", "--mean", "0.5", "--std", "0.25,0.25,0.25"]
    result = good("analyze", "timm:cifar_resnet8", *options, "--out", "out")
    saved = Spectra.load(tmp_path / "out")
    assert saved.points[0].grid == (24, 40)
    assert saved.images.std == [0.25] * 3
    assert saved.top1 is None
    assert "2 classes and the model has 100" in result.stderr


def test_sharded_runs_give_the_single_process_result(tmp_path: Path) -> None:
    # 25 images: the last batch of one rank is of one, and the other rank sees one image fewer
    arguments = ["analyze", "timm:cifar_resnet8", "--images", "25", "--batch-size", "4"]
    good(*arguments, "--out", "one")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        [*launcher, "fourier_probe", *arguments, "--out", "two"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = Spectra.load(tmp_path / "one"), Spectra.load(tmp_path / "two")
    assert one.images == two.images
    for a, b in zip(one.points, two.points, strict=True):
        assert a.log_amplitude == pytest.approx(b.log_amplitude, abs=1e-6)
        assert a.stderr == pytest.approx(b.stderr, abs=1e-6)
        assert a.scalars == pytest.approx(b.scalars, rel=1e-5, nan_ok=True)


# --- the other verbs ---


def test_points_lists_what_is_listened_to() -> None:
    lines = good("points", "timm:cifar_resnet8").stdout
    assert "layer1.0" in lines
    assert "16x16" in lines
    value = json.loads(good("points", "timm:cifar_resnet8", "--json", "--points", "layer[123].0").stdout)
    assert [point["name"] for point in value] == ["layer1.0", "layer2.0", "layer3.0"]


def test_models_lists_ours_and_timms() -> None:
    assert "cifar_resnet20" in good("models").stdout
    rows = json.loads(good("models", "resnet18", "--json").stdout)
    assert rows == [
        {
            "name": "resnet18",
            "parameters": 11689512,
            "multiply_adds": pytest.approx(1.814e9, rel=1e-3),
            "size": [224, 224],
            "grids": [[56, 56], [28, 28], [14, 14], [7, 7]],
        }
    ]
    assert "no model matches" in run("models", "resnet-nope").stderr


def test_compare_takes_models_and_saved_results_on_the_same_images(checkpoint: Path, tmp_path: Path) -> None:
    good("analyze", str(checkpoint), *BARE, *FEW, "--out", "saved")
    result = good("compare", "saved", "timm:cifar_vit_patch4", "timm:cifar_vit_patch4", *FEW, "--out", "both")
    figures = {
        f"{name}.{kind}" for name in ("spectra", "depth", "zigzag", "steps", "density") for kind in ("pdf", "png")
    }
    assert {p.name for p in (tmp_path / "both").iterdir()} == figures | {"compare.csv", "steps.csv", "density.csv"}
    assert "cifar_vit_patch4 #2" in result.stdout
    header, *rows = (tmp_path / "both" / "compare.csv").read_text().splitlines()
    assert header.startswith("label,target,")
    assert len({row.split(",")[0] for row in rows}) == 3
    other = run("compare", "saved", "timm:cifar_vit_patch4", "--images", "20", "--out", "differs")
    assert other.exit_code == 1
    assert "cannot be compared" in other.stderr


def test_compare_places_targets_between_a_cnn_and_a_vit(tmp_path: Path) -> None:
    good("analyze", "timm:cifar_resnet8", *FEW, "--out", "cnn")
    ends = ("--cnn", "cnn", "--vit", "timm:cifar_vit_patch4")
    result = good("compare", "timm:cifar_convit", "cnn", *ends, *FEW, "--json", "--out", "both")
    record = json.loads(result.stdout)
    assert [row["target"] for row in record["targets"]] == ["cifar_convit", "cifar_resnet8", "cifar_vit_patch4"]
    places = {row["target"]: row for row in record["coordinates"]}
    assert places["cifar_resnet8"]["t"] == pytest.approx(0)
    assert places["cifar_vit_patch4"]["t"] == pytest.approx(1)
    assert set(places) == {"cifar_convit", "cifar_resnet8", "cifar_vit_patch4", "white noise"}
    assert {step["op"] for step in record["targets"][0]["steps"]} == {"attention", "mlp"}
    assert {"coordinate.csv", "coordinate.pdf", "coordinate.png"} <= {p.name for p in (tmp_path / "both").iterdir()}
    assert "give both" in run("compare", "cnn", "--cnn", "cnn").stderr
    saved = (tmp_path / "cnn" / "spectra.json").read_text().replace('"untrained"', '"raw"')
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "spectra.json").write_text(saved)
    wrong = run("compare", "cnn", "trained", "--by", "schedule", "--out", "by")
    assert "does not say its schedule" in wrong.stderr


def test_compare_by_data_scale_draws_models_by_scales(tmp_path: Path) -> None:
    good("analyze", "timm:cifar_resnet8", *FEW, "--out", "a")
    for name, scale in (("b", 0.1), ("c", 1.0)):
        record = json.loads((tmp_path / "a" / "spectra.json").read_text())
        record["target"] |= {"data_scale": scale, "schedule": "none", "weights": "raw"}
        (tmp_path / name).mkdir()
        (tmp_path / name / "spectra.json").write_text(json.dumps(record))
    result = good("compare", "c", "b", "--by", "data-scale", "--out", "scales")
    assert "data-scale" in result.stdout
    again = good("compare", "c", "timm:cifar_resnet8", *FEW, "--by", "model", "--with-untrained", "--out", "both")
    assert "its untrained network cannot be made" in again.stderr


def test_a_comparison_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    good("analyze", "timm:cifar_resnet8", "--model-arg", "width=4", *FEW, "--out", "a")
    record = json.loads((tmp_path / "a" / "spectra.json").read_text())
    record["target"] |= {"weights": "raw", "model_args": {"width": 8, "num_classes": 10}}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "spectra.json").write_text(json.dumps(record))
    found = json.loads(good("compare", "a", "b", "--json", "--out", "both").stdout)
    assert [row["target"] for row in found["targets"]] == ["cifar_resnet8 width=4", "cifar_resnet8 width=8"]
    before = {path.name: path.read_bytes() for path in (tmp_path / "both").iterdir()}
    for by in ("schedule", "epoch"):
        refused = run("compare", "a", "b", "--by", by, "--out", "both", "--force")
        assert refused.exit_code == 1
        assert f"does not say its {by}" in refused.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "both").iterdir()} == before

    wrong = [["compare", "a", "b", "--by", "schedule"], ["figures", "--runs", "a"], ["analyze", "nowhere.pt"]]
    (tmp_path / "mine").mkdir()
    for arguments in wrong:
        assert run(*arguments, "--out", "new/deep").exit_code == 1
        assert not (tmp_path / "new").exists()  # what the command made
        assert run(*arguments, "--out", "mine").exit_code == 1
        assert (tmp_path / "mine").exists()  # and what it did not


# --- errors ---

TINY = [f for a in ("img_size=2", "num_classes=10", "in_chans=1") for f in ("--model-arg", a)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["analyze", "nowhere.pt"], "no file or folder nowhere.pt"),
        (["analyze", "resnet18"], "Did you mean timm:resnet18?"),
        (["analyze", "timm:resnet1800"], "unknown model 'resnet1800'"),
        (["analyze", "timm:cifar_resnet8", "--data", "nowhere.npz"], "nowhere.npz"),
        (["analyze", "timm:cifar_resnet8", "--points", "layer9*", *FEW], "layer9*"),
        (["analyze", "timm:cifar_resnet8", "--out", "/proc/nope/x"], "cannot write into /proc/nope/x"),
        (["analyze", "timm:cifar_resnet8", "--floor", "0", *FEW], "must be positive"),
        (["compare", "empty"], "neither a run folder"),
        (["analyze", "timm:cifar_resnet8", "--use-ema"], "names an architecture"),
        (["analyze", "timm:vit_tiny_patch16_224", "--img-size", "8", *FEW], "cannot take images of 8x8"),
        (["analyze", "timm:cifar_convit", "--img-size", "48x64", *FEW], "with --model-arg img_size=48,64"),
        (["analyze", "timm:eit_small_nope", *FEW], "unknown model 'eit_small_nope'"),
        (["analyze", "timm:eit_small", "--model-arg", "num_heads=7", *FEW], "7 heads do not divide width 250"),
        (["analyze", "timm:eit_mini", "--img-size", "5", *FEW], "leave no patch"),
        (["analyze", "timm:cifar_convit", "--model-arg", "num_heads=3", *FEW], "square number of heads"),
        (["analyze", "timm:cifar_vit_patch4", *TINY, *FEW], "fails on an image of 1 x 2 x 2"),
        (["points", "timm:cifar_vit_patch4", *TINY], "fails on an image of 1 x 2 x 2"),
        (["heatmap", "timm:cifar_vit_patch4", *TINY, *FEW], "fails on an image of 1 x 2 x 2"),
        (["heatmap", "timm:cifar_vit_patch4", *TINY, *FEW, "--points", "blocks.1"], "fails on an image of 1 x 2 x 2"),
        (["analyze", "timm:convnext_atto", "--img-size", "2", *FEW], "it takes with --img-size"),
    ],
)
def test_domain_errors_exit_1_and_say_what_to_do(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stderr.startswith(("error: ", "note: "))
    assert "Traceback" not in result.output


class Evil:
    """A pickle that would leave a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


def _spoil(kind: str, path: Path) -> None:
    state: dict[str, Any] = torch.load(path, weights_only=True) if kind != "header" else {}
    if kind == "malicious":
        torch.save({"state_dict": state, "extra": Evil()}, path)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "header":
        path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    elif kind == "keys":
        state["other.weight"] = state.pop("conv1.weight")
        torch.save(state, path)
    elif kind == "prefix":
        torch.save({("module." + name if name.startswith("layer") else name): v for name, v in state.items()}, path)
    elif kind == "nan":
        state["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
        torch.save(state, path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("malicious", "mkdir"),
        ("cut", "damaged or incomplete"),
        ("header", "ckpt"),
        ("keys", "conv1.weight"),
        ("prefix", "module."),
        ("nan", "layer2.0.conv1.weight"),
    ],
)
def test_bad_checkpoints_exit_1_and_nothing_is_done(checkpoint: Path, tmp_path: Path, kind: str, message: str) -> None:
    """Faults 1, 2, 4, 5, 6 and 8, as the command line meets them."""
    path = checkpoint.rename(tmp_path / "ckpt.safetensors") if kind == "header" else checkpoint
    _spoil(kind, path)
    before = path.read_bytes()
    result = run("analyze", str(path), *BARE, *FEW, "--out", "out")
    assert result.exit_code == 1, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert path.read_bytes() == before
    assert not (tmp_path / "harmed").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyse", "x"],
        ["analyze"],
        ["analyze", "x", "--img-size", "big"],
        ["analyze", "x", "--mean", "a,b"],
        ["analyze", "x", "--model-arg", "novalue"],
        ["analyze", "x", "--axis", "sideways"],
        ["analyze", "timm:cifar_resnet8", "--device", "abacus", "--images", "8"],
    ],
)
def test_usage_errors_exit_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


def test_an_unknown_verb_suggests_a_near_one() -> None:
    assert "Did you mean analyze?" in run("analyse", "x").stderr


def test_every_verb_has_help_with_an_example() -> None:
    for verb in cli.COMMANDS:
        assert f"fourier-probe {verb}" in good(verb, "--help").stdout, verb


def test_ctrl_c_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Verbs, "get_command", lambda *_: interrupted)
    assert run("models").exit_code == 130


def test_help_answers_in_under_half_a_second_and_without_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "fourier_probe", "--help"]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - start)
    assert "torch" not in done.stderr
    assert "analyze" in done.stdout
    assert min(times) < 0.5


def test_analyze_attention_adds_fields_and_a_figure(tmp_path: Path) -> None:
    result = good("analyze", "timm:cifar_convit", "--images", "4", "--attention", "--out", "found")
    assert "attention.png" in result.stdout
    layers = json.loads((tmp_path / "found" / "spectra.json").read_text())["attention"]
    assert [layer["gate"] is None for layer in layers] == [False] * 4 + [True] * 2
    assert all(0 < min(layer["distance"]) and layer["images"] == 4 for layer in layers)


def test_attention_that_cannot_be_read_is_a_note_and_the_spectra_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = good("analyze", "timm:cifar_resnet8", "--images", "4", "--attention", "--out", "none")
    assert "attention is left out: this network has none with a map" in result.stderr
    assert Spectra.load(tmp_path / "none").attention == []

    def broken(*_: object, **__: object) -> None:
        raise NotImplementedError("flex_attention in a dispatch mode")

    monkeypatch.setattr("fourier_probe.probe.attention.observe", broken)
    result = good("analyze", "timm:cifar_convit", "--images", "4", "--attention", "--out", "some")
    assert "attention is left out: NotImplementedError: flex_attention" in result.stderr
    assert (tmp_path / "some" / "spectra.json").exists()


def test_a_figure_that_fails_is_a_note_and_the_numbers_are_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("ParseFatalException: Expected \\frac")

    monkeypatch.setattr("fourier_probe.plots.spectra_figure", broken)
    result = good("analyze", str(checkpoint), *BARE, *FEW, "--out", "out")
    assert "the figure spectra could not be drawn (ValueError: ParseFatalException" in result.stderr
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"spectra.json", "spectra.npz", "spectra.csv", "depth.pdf", "depth.png"}
    result = good("compare", "out", "out", "--out", "both")
    assert "the figure spectra could not be drawn" in result.stderr
    assert (tmp_path / "both" / "compare.csv").exists() and (tmp_path / "both" / "depth.png").exists()


def test_analyze_goes_on_over_labels_of_other_classes(checkpoint: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", test_images=pixels, test_labels=np.arange(24) * 4)
    result = good("analyze", str(checkpoint), *BARE, *FEW, "--data", "other.npz", "--out", "out")
    assert "top-1 is left out: the largest label is" in result.stderr
    assert Spectra.load(tmp_path / "out").top1 is None


def test_a_run_that_was_analyzed_is_a_model_still_and_compared_by_its_result(tmp_path: Path) -> None:
    args = ("--data-scale", "0.02", "--epochs", "1", "--model", "cifar_resnet8", "--model-arg", "width=4")
    good("train", *args, "--out", "run")
    good("analyze", "run", "--images", "20", "--out", "run")
    again = good("analyze", "run", "--images", "24", "--out", "other", "--json")
    assert json.loads(again.stdout)["images"]["n"] == 24
    both = json.loads(good("compare", "run", "run/spectra.json", "--json", "--out", "saved").stdout)
    assert [row["top1"] for row in both["targets"]] == [both["targets"][0]["top1"]] * 2
    mixed = good("compare", "run", "timm:cifar_resnet8", "--model-arg", "width=4", "--images", "24", "--out", "mixed")
    assert "24 images of bundled" in mixed.stdout
    fresh = good("compare", "run", "run", "--images", "22", "--out", "fresh")  # an option is not ignored
    assert "22 images of bundled" in fresh.stdout
    good("train", *args, "--seed", "1", "--out", "run", "--force")
    assert not (tmp_path / "run" / "spectra.json").exists()  # it was of the weights before
    (tmp_path / "run" / "spectra.json").write_text((tmp_path / "other" / "spectra.json").read_text())
    (tmp_path / "run" / "last.pt").unlink()
    assert "saved result" in run("heatmap", "run").stderr

"""`heatmap` as a user meets it."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from fourier_probe import cli
from fourier_probe.models import create

FEW = ["--images", "12", "-b", "12"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.group, ["heatmap", *arguments])


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    torch.manual_seed(0)
    args = {"num_classes": 10, "in_chans": 1, "width": 4}
    model = create("cifar_resnet8", **args)
    payload = {"state_dict": model.state_dict(), "arch": "cifar_resnet8", "model_args": args}
    torch.save(payload, tmp_path / "a.pt")
    return str(tmp_path / "a.pt")


def test_a_coarse_map_is_written_and_goes_on_where_it_was(checkpoint: str, tmp_path: Path) -> None:
    out = ["--stride", "8", "--points", "layer3*", "--out", "map"]
    result = run(checkpoint, *FEW, *out)
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "map").iterdir()} == {
        f"heatmap.{kind}" for kind in ("json", "csv", "pdf", "png")
    }
    with (tmp_path / "map" / "heatmap.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["ky"], rows[0]["kx"]) == ("0", "0")
    assert len(rows) == 10 and "change:layer3.0" in rows[0]
    assert run(checkpoint, *FEW, *out).exit_code == 1  # nothing is overwritten

    whole = (tmp_path / "map" / "heatmap.csv").read_bytes()
    for path in (tmp_path / "map").iterdir():
        path.unlink()
    again = run(checkpoint, *FEW, *out)
    assert again.exit_code == 0 and (tmp_path / "map" / "heatmap.csv").read_bytes() == whole


WIDE = ["timm:cifar_resnet8", *(f for a in ("num_classes=10", "in_chans=1") for f in ("--model-arg", a)), "--model-arg"]


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ([], ["--seed", "1"]),
        ([], ["--untrained"]),
        ([], ["--no-ema"]),
        ([], ["--mean", "0.25"]),
        ([], ["--std", "0.75"]),
        ([*WIDE, "width=4"], [*WIDE, "width=2"]),
    ],
)
def test_a_stopped_map_is_continued(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: list[str], other: list[str]
) -> None:
    """With the same options only: another network, or other statistics, has other numbers."""
    from fourier_probe.verbs import noise, partial

    monkeypatch.setattr(noise, "CHUNK", 4)
    first, other = ([*([] if "--model-arg" in options else [checkpoint]), *options] for options in (first, other))
    file = torch.load(checkpoint, weights_only=True)
    file["state_dict_ema"] = create("cifar_resnet8", **file["model_args"]).state_dict()
    torch.save(file, checkpoint)
    real, calls = partial.atomic.write_json, []

    def stop(path: Path, value: object) -> None:
        real(path, value)
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(partial.atomic, "write_json", stop)
    out = [*FEW, "--stride", "8", "--out", "map"]
    stopped = run(*first, *out)
    assert stopped.exit_code == 130
    assert "interrupted: run the same command again to go on" in stopped.stderr
    state = (tmp_path / "map" / "partial.json").read_text()
    assert len(json.loads(state)["rows"]) == 8
    monkeypatch.setattr(partial.atomic, "write_json", real)
    again = run(*first, *out)
    assert again.exit_code == 0, again.output
    assert "8 of 10 frequencies are done already" in again.stderr
    (tmp_path / "map" / "partial.json").write_text(state)
    anew = run(*other, *out, "--force")
    assert anew.exit_code == 0, anew.output
    assert "begun anew" in anew.stderr


def test_bands(checkpoint: str, tmp_path: Path) -> None:
    result = run(checkpoint, *FEW, "--bands", "4", "--out", "bands")
    assert result.exit_code == 0, result.output
    with (tmp_path / "bands" / "bands.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["from"] for row in rows] == ["0.0", "0.25", "0.5", "0.75"]
    assert all(0 <= float(row["error"]) <= 1 for row in rows)


def test_without_labels_of_the_models_classes_there_is_no_error(tmp_path: Path) -> None:
    refused = run("timm:cifar_resnet8", *FEW, "--out", "none")
    assert refused.exit_code == 1
    assert "the labels are of 10 classes and the model has 100" in refused.stderr and "--points" in refused.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("eps", ["nan", "inf", "0", "-1"])
def test_a_strength_that_is_none_is_refused_before_torch_is_there(eps: str) -> None:
    refused = run("no-such-target", f"--eps={eps}")
    assert refused.exit_code == 2 and "give a number above 0" in refused.stderr


@pytest.mark.parametrize("damage", [
    lambda s: s[: len(s) // 2], lambda s: s.replace('"wrong": ', '"wrong": 1000000'), lambda s: "[" * 100_000,
    lambda s: s.replace('"broken": ', '"broken": "a", "x": '), lambda s: '{"key": {}, "rows": []}',
])  # fmt: skip
def test_a_damaged_partial_result_is_begun_anew(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[str], str]
) -> None:
    from fourier_probe.verbs import partial

    out = [checkpoint, *FEW, "--stride", "8", "--out", "map"]
    monkeypatch.setattr(partial.Partial, "remove", lambda _folder: None)
    assert run(*out).exit_code == 0
    state, first = tmp_path / "map" / "partial.json", (tmp_path / "map" / "heatmap.csv").read_bytes()
    state.write_text(damage(state.read_text()))
    again = run(*out, "--force")
    assert again.exit_code == 0, again.output
    assert "begun anew" in again.stderr
    assert (tmp_path / "map" / "heatmap.csv").read_bytes() == first


def test_sigterm_says_how_to_go_on(checkpoint: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fourier_probe", "heatmap", checkpoint, "--images", "200", "--out", "map"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "map" / "partial.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143, told
    assert "interrupted: run the same command again to go on" in told


def test_a_figure_that_fails_loses_nothing(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("no drawing today")

    monkeypatch.setattr("fourier_probe.plots.heatmap.heat_map_figure", broken)
    result = run(checkpoint, *FEW, "--stride", "8", "--out", "map")
    assert result.exit_code == 0 and "no drawing today" in result.stderr
    assert {path.name for path in (tmp_path / "map").iterdir()} == {"heatmap.json", "heatmap.csv"}


def test_two_targets_and_filters(checkpoint: str) -> None:
    result = run(
        checkpoint, checkpoint, *FEW, "--filters", "--bands", "2", "--label", "a", "--label", "b", "--out", "f"
    )
    assert result.exit_code == 0, result.output
    assert {path.name for path in Path("f").iterdir()} == {"a", "b", "filters.csv", "filters.pdf", "filters.png"}
    assert {path.name for path in Path("f", "a").iterdir()} == {"heatmap.json", "filters.csv"}
    with Path("f", "filters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["target"] for row in rows] == ["a"] * 8 + ["b"] * 8
    assert result.stdout.count("top-1 unfiltered") == 2
    assert run(checkpoint, checkpoint, *FEW, "--filters", "--out", "f").exit_code == 1  # nothing is overwritten
    for wrong in (["--filters", "--eps", "2"], ["--filters", "--stride", "2"], ["--label", "a", "--label", "b"]):
        assert run(checkpoint, *FEW, *wrong, "--out", "g").exit_code == 2


@pytest.mark.slow
def test_two_ranks_give_what_one_gives_and_go_on_from_three(checkpoint: str, tmp_path: Path) -> None:
    """Files of three ranks, one of them for the same rows twice, are taken up by two, and what they add agrees."""
    options = [checkpoint, "--images", "12", "-b", "12", "--stride", "8"]
    alone = run(*options, "--out", "one")
    assert alone.exit_code == 0, alone.output
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
              "--nproc-per-node", "2"]  # fmt: skip
    (tmp_path / "stop.py").write_text(
        "from fourier_probe import cli\n"
        "from fourier_probe.verbs import noise, partial\n"
        "noise.CHUNK = 2\n"
        "add = partial.Partial.add\n"
        "def stopping(self, responses):\n"
        "    add(self, responses)\n"
        "    raise SystemExit(143)\n"
        "partial.Partial.add = stopping\n"
        "cli.main()\n"
    )
    rest = ["heatmap", *options, "--out", "two"]
    first = subprocess.run([*launch, "stop.py", *rest], capture_output=True, text=True, timeout=200, check=False)
    assert first.returncode != 0
    left = sorted(path.name for path in (tmp_path / "two").glob("partial*"))
    assert left and "Traceback (most recent call last):\n  File" not in first.stdout
    (tmp_path / "two" / "partial-7.json").write_bytes((tmp_path / "two" / left[0]).read_bytes())  # of a larger run
    again = [*launch, "-m", "fourier_probe", *rest]
    second = subprocess.run(again, capture_output=True, text=True, timeout=200, check=False)
    assert second.returncode == 0, second.stderr
    assert "frequencies are done already" in second.stderr
    one, two = ((tmp_path / name / "heatmap.csv").read_bytes() for name in ("one", "two"))
    assert one == two
    assert not list((tmp_path / "two").glob("partial*"))
    powers = [json.loads((tmp_path / name / "heatmap.json").read_text())["sensitivity"] for name in ("one", "two")]
    assert powers[0]["images"] == powers[1]["images"] == 12
    for a, b in zip(powers[0]["log_power"], powers[1]["log_power"], strict=True):
        assert a["value"] == pytest.approx(b["value"], abs=1e-6)

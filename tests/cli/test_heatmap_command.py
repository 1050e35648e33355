"""`heatmap` as a user meets it."""

from __future__ import annotations

import csv
import json
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
    assert {path.name for path in (tmp_path / "map").iterdir()} == {"heatmap.csv", "heatmap.pdf", "heatmap.png"}
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
    from fourier_probe.cli import heatmap

    monkeypatch.setattr(heatmap, "CHUNK", 4)
    first, other = ([*([] if "--model-arg" in options else [checkpoint]), *options] for options in (first, other))
    file = torch.load(checkpoint, weights_only=True)
    file["state_dict_ema"] = create("cifar_resnet8", **file["model_args"]).state_dict()
    torch.save(file, checkpoint)
    real, calls = heatmap.atomic.write_json, []

    def stop(path: Path, value: object) -> None:
        real(path, value)
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(heatmap.atomic, "write_json", stop)
    out = [*FEW, "--stride", "8", "--out", "map"]
    assert run(*first, *out).exit_code == 130
    state = (tmp_path / "map" / "partial.json").read_text()
    assert len(json.loads(state)["rows"]) == 8
    monkeypatch.setattr(heatmap.atomic, "write_json", real)
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
    assert refused.exit_code == 2
    assert "--points" in refused.stderr

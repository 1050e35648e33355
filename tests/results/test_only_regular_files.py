"""A FIFO, a device or a huge file in the place of a result is a message at once, and fills no memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from fourier_probe.errors import CheckpointError, ProbeError, ResultError
from fourier_probe.results.analysis import analyze
from fourier_probe.results.heatmap import HeatMap
from fourier_probe.results.spectra import Spectra
from fourier_probe.results.validation import Validation
from fourier_probe.targets import ModelOptions, resolve


def _put(kind: str, path: Path) -> None:
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**36)  # sparse: it takes no room


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fifo", "device", "huge"])
@pytest.mark.parametrize(
    ("name", "load"),
    [("spectra.json", Spectra.load), ("heatmap.json", HeatMap.load), ("validation.json", Validation.load)],
)
def test_in_the_place_of_a_result(tmp_path: Path, kind: str, name: str, load: object) -> None:
    _put(kind, tmp_path / name)
    with pytest.raises(ResultError, match=r"not a regular file|more than 256 MB"):
        load(tmp_path)  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_in_the_place_of_the_group_sums(tmp_path: Path, kind: str) -> None:
    analyze(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), [torch.randn(3, 1, 8, 8)]).save(tmp_path)
    _put(kind, tmp_path / "spectra.npz")
    with pytest.raises(ResultError, match="not a regular file"):
        Spectra.load(tmp_path)


def test_in_a_folder_of_transformers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type":"vit","architectures":["ViTModel"]}')
    os.mkfifo(tmp_path / "model.safetensors.index.json")
    with pytest.raises((CheckpointError, ProbeError)):
        resolve(str(tmp_path), ModelOptions())

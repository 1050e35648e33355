"""Reliance in `analyze --attention`: measured, saved, read back, drawn, printed; left out with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import fourier_probe as fp
from fourier_probe.cli import group
from fourier_probe.data import ImageSet
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.results.reliance import RelianceRecord
from fourier_probe.runtime.messages import listening

LAYERS = ["blocks.0.conv1", "blocks.1.conv1"]


def network(gate: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    model = fp.create("patch_resnet", width=8)
    recast_(model, LAYERS, locality_strength=1.0, gate=gate)
    return model.train()


def reliance_of(model: nn.Module, data: str | ImageSet) -> tuple[RelianceRecord | None, list[str]]:
    heard: list[str] = []
    with listening(heard.append):
        found = fp.analyze(model, data, images=40, points=["blocks.0"], attention=True)
    return found.reliance, heard


def test_it_is_measured_saved_read_back_and_drawn(tmp_path: Path) -> None:
    model = network()
    spectra = fp.analyze(model, "planted", images=40, attention=True, out=tmp_path / "s")
    record = spectra.reliance
    assert record is not None and model.training
    assert (record.images, record.training, record.layers) == (40, 1000, [*LAYERS, "all layers"])
    assert len(record.lesions) == 3 * 2 * 2 and [row.layer for row in record.departures] == LAYERS
    assert spectra.top1 is not None and record.top1 == pytest.approx(spectra.top1)
    row = record.lesion(LAYERS[0], "content")
    assert row is not None and row.top1_change.value == pytest.approx(row.top1 - record.top1)
    assert row.top1_change.low is not None and row.top1_change.low <= row.top1_change.value
    assert record.departures[0].gate == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item())
    assert fp.Spectra.load(tmp_path / "s").reliance == record
    assert (tmp_path / "s" / "reliance.png").stat().st_size > 1000
    assert len(record.to_frame()) == 12 and list(record.table().index) == record.layers
    assert repr(record).startswith("Reliance(2 layers, 40 images")


def test_a_layer_without_content_does_not_rely_on_it() -> None:
    record, _ = reliance_of(network(gate=40.0), "planted")
    assert record is not None
    for layer in record.layers:
        row = record.lesion(layer, "content")
        assert row is not None and row.top1_change.value == 0 == row.loss_change.value


def test_what_cannot_be_measured_is_said() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    record, heard = reliance_of(network(), ImageSet("mine", "test", None, None, pixels))
    assert record is None and any("reliance is left out: the images have no labels" in text for text in heard)
    record, heard = reliance_of(network(), ImageSet("mine", "test", np.arange(8), None, pixels))
    assert record is None and any("reliance is left out: the largest label is 7" in text for text in heard)
    record, heard = reliance_of(network(), ImageSet("mine", "test", np.arange(8) % 2, None, pixels))
    assert record is not None and record.training is None
    assert {row.test for row in record.lesions} == {"exchanged"}
    assert any("exchanged, not switched off" in text for text in heard)


def test_a_network_without_gated_attention_has_none() -> None:
    record, heard = reliance_of(fp.create("cifar_vit_patch4", num_classes=2), "planted")
    assert record is None and not any("reliance" in text for text in heard)


def test_the_command_prints_it(tmp_path: Path) -> None:
    shipped = fp.train(
        data="planted", train_images=32, steps=2, val_every=1, schedule="constant", at_epoch=0, device="cpu",
        model_args={"width": 8}, out=tmp_path / "run",
    )  # fmt: skip
    out = tmp_path / "run"
    result = CliRunner().invoke(
        group, ["analyze", str(out), "--data", "planted", "--images", "20", "--attention", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    for text in (
        "reliance: change of top-1",
        "exchanged: the half comes from another image",
        "gate x tap",
        "all layers",
        "reliance.png",
    ):
        assert text in result.stdout, text
    record = json.loads((out / "spectra.json").read_text())["reliance"]
    assert record["lesions"][0]["test"] == "exchanged"
    read = fp.Run.read(shipped.path).reliance()
    assert read is not None and read.images == 20

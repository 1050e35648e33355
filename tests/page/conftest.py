"""Results to make pages of: small ones with sums behind them, and many large ones made of plain arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fourier_probe.io.tables import to_csv
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.fast import image_statistics
from fourier_probe.probe.sums import Sums
from fourier_probe.results.attention import AttentionRecord
from fourier_probe.results.estimates import point_spectrum
from fourier_probe.results.point import PointSpectrum
from fourier_probe.results.records import ImagesInfo, Provenance
from fourier_probe.results.spectra import Spectra
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.record import CONVERSIONS, METRICS

Maker = Callable[..., Spectra]
STEPS = [("stem", "stem", "embed", 8), ("block.0+attn", "residual", "attention", 8), ("block.0", "residual", "mlp", 8)]
STEPS += [("block.0.local", "branch", "conv", 8), ("down", "residual", "downsample", 4)]


def _measured(rng: torch.Generator, index: int, images: int, definition: Definition) -> PointSpectrum:
    name, kind, op, side = STEPS[index]
    features = torch.randn(images, 3, side, side, generator=rng).cumsum(2) + 1
    sums = Sums(definition.groups)
    groups = torch.arange(images) % definition.groups
    sums.update(image_statistics(features, definition), groups)
    count = np.bincount(groups.numpy(), minlength=definition.groups).astype(float)
    meta = {
        "name": name,
        "kind": kind,
        "op": op,
        "depth": index / (len(STEPS) - 1),
        "grid": (side, side),
        "channels": 3,
    }
    flat = sums.flat.numpy() if sums.flat is not None else None
    return point_spectrum(meta, {**sums.arrays(), "count": count}, flat, definition)


def _result(
    source: str = "timm:resnet18",
    *,
    images: int = 24,
    metrics: str = "all",
    seed: int = 0,
    attention: bool = False,
    digest: str = "same",
    **target: Any,
) -> Spectra:
    definition = Definition(metrics=metrics, grouping="permutation")  # type: ignore[arg-type]
    rng = torch.Generator().manual_seed(seed)
    described = ImagesInfo(source="noise", split="test", n=images, size=[8, 8], mean=[0.5], std=[0.5], digest=digest)
    layer = AttentionRecord(
        name="block.0.attn", grid=(8, 8), distance=[3.0, 4.5], diversity=0.75, uniform=4.2, frequency=[0.0, 0.5],
        response=[[1.0, 0.2], [1.0, 0.4]], gate=[0.7, 0.3], images=24,
    )  # fmt: skip
    return Spectra(
        target=Provenance.of(
            {"source": source, "arch": "net", "weights": "raw", "seed": seed, "sha256": f"{seed:064x}", **target}
        ),
        images=described,
        definition=definition,
        points=[_measured(rng, index, images, definition) for index in range(len(STEPS))],
        top1=0.25,
        attention=[layer] if attention else [],
        versions={"fourier-probe": "0.1.0"},
        created="2025-01-01T00:00:00+00:00",
    )


@pytest.fixture
def make_result() -> Maker:
    """A small result with group sums; same seed, same numbers."""
    return _result


@pytest.fixture
def save_result(tmp_path: Path) -> Callable[..., Path]:
    """Save a small result into a folder of this name; returns the folder."""

    def save(name: str, **given: Any) -> Path:
        _result(**given).save(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def large_result() -> Callable[[int, int, int], Spectra]:
    """A result of so many points of so large maps, in plain arrays."""

    def make(seed: int, points: int, side: int) -> Spectra:
        rng, result = np.random.default_rng(seed), _result(seed=seed)
        bins, rings = side // 2 + 1, side // 2
        scalars = dict.fromkeys(
            ("hfd_share", "hfd_share_pooled", "slope", "variance", "ac_dc", "token_cosine", "white_delta"), 0.123456789
        )
        result.points = [
            PointSpectrum(
                name=f"stages.{index // 8}.blocks.{index}.conv",
                kind="residual" if index % 4 else "branch",
                op="conv",
                depth=index / points,
                grid=(side, side),
                channels=256,
                frequency=np.linspace(0, 1, bins),
                usable=bins - 1,
                log_amplitude=rng.normal(size=bins),
                delta=rng.normal(size=bins),
                stderr=rng.random(bins),
                radius=np.arange(1, rings + 1) / rings,
                log_density=rng.normal(size=rings),
                log_density_stderr=rng.random(rings),
                scalars=dict(scalars),
                stderr_of=dict(scalars),
                hfd_share_white=0.8,
            )
            for index in range(points)
        ]
        return result

    return make


@pytest.fixture
def save_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder of four epochs, one conversion, and the analyses asked for; returns the folder."""

    def save(name: str, *, analyzed: bool = True, epochs: tuple[int, ...] = (), **given: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        record = {"config": TrainConfig().to_json()}
        (folder / "config.json").write_text(json.dumps(record))
        rows = [
            {"epoch": e, "train_loss": 2 - e / 4, "val_loss": 2.1 - e / 5, "train_acc": e / 5, "val_acc": e / 6}
            for e in range(4)
        ]
        (folder / "metrics.csv").write_text(to_csv(rows, METRICS))
        (folder / "conversions.csv").write_text(to_csv([{"layer": "layer1.conv1", "epoch": 2}], CONVERSIONS))
        if analyzed:
            _result(source=str(folder), **given).save(folder)
        for epoch in epochs:
            result = _result(source=str(folder), epoch=epoch, seed=epoch, **given)
            (folder / "spectra").mkdir(exist_ok=True)
            (folder / "spectra" / f"epoch-{epoch:03d}.json").write_text(json.dumps(result.to_json()))
        return folder

    return save

"""What only a GPU can show: the same numbers as on the CPU, training that resumes exactly, compiled conversions.

Skipped where torch finds no GPU: `tools/device_check.sh` on a machine that has one. Each takes a few seconds there: a
GPU is slow at starting, and tiny networks show the same faults as large ones.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

import fourier_probe as fp
import fourier_probe.models
from fourier_probe.models.gpsa.recast import recast, recast_
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.fast import image_statistics
from fourier_probe.probe.reliance import reliance
from fourier_probe.results.spectra import Spectra
from fourier_probe.training import TrainConfig, train

SIDE = 64  # pixels
MODELS: dict[str, dict[str, object]] = {
    "resnet10t": {},
    "vit_tiny_patch16_224": {"img_size": SIDE, "depth": 2},
    "swin_tiny_patch4_window7_224": {"img_size": SIDE, "window_size": 4, "depths": (1, 1, 2, 1), "embed_dim": 48},
    "convnext_atto": {"depths": (1, 1, 2, 1)},
    "convit_tiny": {"img_size": SIDE, "depth": 2, "local_up_to_layer": 1},
    "mobilenetv3_small_050": {},
    "eit_mini": {"img_size": SIDE, "depth": 2},
}


def _usable(result: Spectra) -> dict[str, np.ndarray]:
    return {point.name: point.log_amplitude[: point.usable] for point in result.points}


@pytest.mark.parametrize("name", MODELS)
def test_spectra_equal_those_of_the_cpu(name: str, device: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, **MODELS[name]).eval()
    batches = [torch.randn(4, 3, SIDE, SIDE) for _ in range(2)]
    on_cpu = _usable(fp.analyze(model.double(), [batch.double() for batch in batches]))
    on_gpu = _usable(fp.analyze(model, [batch.double() for batch in batches], device=device))
    single = _usable(fp.analyze(model.float(), batches, device=device))
    assert list(on_cpu) == list(on_gpu) == list(single)
    # torch's CUDA kernels of hard sigmoid and hard swish take 1/6 in single precision, 3e-8 off, for doubles too.
    hard = any("hard" in type(module).__name__.lower() for module in model.modules())
    for point, expected in on_cpu.items():
        np.testing.assert_allclose(on_gpu[point], expected, atol=1e-6 if hard else 1e-8, err_msg=point)
        np.testing.assert_allclose(single[point], expected, atol=2e-3, err_msg=point)
    half = fp.analyze(model, batches, device=device, amp=torch.bfloat16)
    assert all(np.isfinite(point.delta[: point.usable]).all() for point in half.points)
    assert next(model.parameters()).device.type == "cpu"  # it was brought back


@pytest.mark.parametrize("shape", [(4, 8, 56, 56), (4, 8, 14, 14), (4, 8, 7, 7), (4, 8, 12, 20), (4, 8, 1, 1)])
def test_statistics_equal_a_reference_in_float64(shape: tuple[int, ...], device: str) -> None:
    torch.manual_seed(0)
    maps = torch.randn(shape) + torch.rand(1, shape[1], 1, 1) * 3
    expected = image_statistics(maps.double(), Definition())
    found = image_statistics(maps.to(device), Definition())
    for key, value in expected.items():
        torch.testing.assert_close(found[key].cpu().double(), value.double(), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("channels", "side", "stride", "groups"),
    [(16, 8, 1, 1), (320, 8, 1, 1), (64, 16, 2, 1), (32, 16, 1, 32), (16, 32, 1, 1)],
)
def test_recast_layers_equal_those_of_the_cpu(channels: int, side: int, stride: int, groups: int, device: str) -> None:
    """Also with values of more than 256 channels, on which fused attention has another kernel."""
    torch.manual_seed(0)
    layer = recast(nn.Conv2d(channels, channels, 3, padding=1, stride=stride, groups=groups), gate=0.5,
                   locality_strength=2.0)  # fmt: skip
    twin = recast(nn.Conv2d(channels, channels, 3, padding=1, stride=stride, groups=groups))
    twin.load_state_dict(layer.state_dict())
    twin.to(device)
    maps = torch.randn(3, channels, side, side)
    ours, theirs = maps.clone().requires_grad_(), maps.to(device).requires_grad_()
    layer(ours).square().mean().backward()
    twin(theirs).square().mean().backward()
    torch.testing.assert_close(twin(theirs).cpu(), layer(ours), rtol=1e-4, atol=1e-5)
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(theirs.grad.cpu(), ours.grad, rtol=1e-3, atol=1e-7)
    for (name, a), b in zip(layer.named_parameters(), twin.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, name
        torch.testing.assert_close(b.grad.cpu(), a.grad, rtol=2e-3, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
    with torch.autocast(device, torch.bfloat16):
        assert twin(theirs).isfinite().all()


def test_reliance_equals_that_of_the_cpu(device: str) -> None:
    torch.manual_seed(0)
    model = fp.create("patch_resnet").eval()
    recast_(model, ["blocks.0.conv1", "blocks.1.conv1"], locality_strength=1.0, gate=0.0)
    images, labels = torch.randn(40, 3, 32, 32), torch.randint(0, 2, (40,))
    on_cpu = reliance(model, images, labels, training=images)
    on_gpu = reliance(model.to(device), images.to(device), labels.to(device), training=images.to(device))
    for a, b in zip(on_cpu, on_gpu, strict=True):
        assert (a.layer, a.half, a.test) == (b.layer, b.half, b.test)
        assert b.loss == pytest.approx(a.loss, abs=1e-3)


def _config(data: Path, device: str, **more: object) -> TrainConfig:
    rich = {"schedule": "linear", "early_epoch": 3, "late_epoch": 1, "mixup": 0.5, "cutmix": 0.5, "reprob": 0.3}
    return TrainConfig.of(
        {"model": "cifar_resnet8", "model_args": {"width": 4}, "data": str(data), "batch_size": 16, "epochs": 4,
         "val_split": 0.25, "crop_padding": 1, "workers": 0, "device": device, **rich, **more}
    )  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 64), ("test", 16)):
        arrays[f"{split}_labels"] = np.arange(count) % 4
        noise = rng.integers(0, 60, (count, 12, 12, 1))
        arrays[f"{split}_images"] = (noise + 45 * arrays[f"{split}_labels"][:, None, None, None]).astype(np.uint8)
    path = tmp_path / "tiny.npz"
    np.savez(path, **arrays)
    return path


def test_a_resumed_run_equals_the_uninterrupted_one(data: Path, tmp_path: Path, device: str) -> None:
    from fourier_probe import checkpoints

    config = _config(data, device, deterministic=True, checkpoint_at=(2,))
    train(config, tmp_path / "a")
    train(config, tmp_path / "b")
    (tmp_path / "b" / "last.pt").write_bytes((tmp_path / "b" / "epoch-002.pt").read_bytes())
    train(config, tmp_path / "b", resume=True)
    a, b = (checkpoints.read(tmp_path / name / "last.pt").state for name in ("a", "b"))
    assert list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("amp", ["bf16", "fp16", "none"])
def test_it_trains_in_every_precision_through_conversions(data: Path, tmp_path: Path, device: str, amp: str) -> None:
    run = train(_config(data, device, amp=amp, channels_last=True, model_ema=True), tmp_path / "run")
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 5 and "nan" not in "".join(rows)


@pytest.mark.compile
def test_it_compiles_again_at_a_conversion(data: Path, tmp_path: Path, device: str) -> None:
    """By the compiler that writes the GPU's code; tests/training/test_compile.py counts versions over many switches."""
    config = _config(data, device, compile=True, model="patch_resnet", model_args={"width": 8}, schedule="constant",
                     at_epoch=1, epochs=2, convert=["blocks.1.conv1"], mixup=0.0, cutmix=0.0, reprob=0.0)  # fmt: skip
    plain = train(replace(config, compile=False), tmp_path / "plain")
    compiled = train(config, tmp_path / "compiled")
    assert len((compiled / "conversions.csv").read_text().splitlines()) == 2
    rows = [list(csv.DictReader((run / "metrics.csv").read_text().splitlines())) for run in (plain, compiled)]
    for a, b in zip(*rows, strict=True):
        assert float(b["train_loss"]) == pytest.approx(float(a["train_loss"]), rel=0.02)

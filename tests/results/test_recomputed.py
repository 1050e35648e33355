"""Measures of the shipped networks once more, from features that own hooks capture, by numpy alone: equal to 1e-5."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fourier_probe as fp

SHIPPED = Path(__file__).parents[2] / "checkpoints"
RESNET, VIT = (
    SHIPPED / name for name in ("cifar_resnet20-cifar100-10pc-f1531685", "cifar_vit_patch4-cifar100-10pc-d9297f22")
)
IMAGES = (
    torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(19))
    * torch.linspace(0.5, 2, 40)[:, None, None, None]
)


@contextmanager
def listening(model: nn.Module, names: list[str]) -> Iterator[dict[str, np.ndarray]]:
    """The outputs of modules by name, in double precision."""
    heard: dict[str, np.ndarray] = {}

    def keep(name: str) -> object:
        return model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output: heard.__setitem__(name, output.detach().double().numpy())
        )

    handles = [keep(name) for name in names]
    yield heard
    for handle in handles:
        handle.remove()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return opened(RESNET)


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return opened(VIT)


def opened(path: Path) -> nn.Module:
    model = fp.open_target(str(path)).model
    assert model is not None
    return model.float().eval()


@pytest.mark.slow
def test_effective_rank_and_singular_values(resnet: nn.Module, vit: nn.Module) -> None:
    for model, names in ((resnet, ["layer1.0", "layer2.1", "layer3.2"]), (vit, ["blocks.0", "blocks.3", "blocks.5"])):
        spectra = fp.analyze(model, [IMAGES], tokens=True, self_check=False)
        with listening(model, names) as heard, torch.no_grad():
            model(IMAGES)
        for name in names:
            out = heard[name]
            tokens = out.reshape(*out.shape[:2], -1).transpose(0, 2, 1) if out.ndim == 4 else out[:, 1:]
            singular = np.linalg.svd(tokens, compute_uv=False)  # (images, values)
            power = singular**2 / (singular**2).sum(1, keepdims=True)
            rank = np.exp(-(power * np.log(power.clip(1e-300))).sum(1))
            assert spectra[name].scalars["effective_rank"] == pytest.approx(rank.mean(), rel=1e-5), name
            ratio = np.log((singular / singular[:, :1]).clip(1e-6)).mean(0)
            half = len(ratio) // 2  # beyond, single precision is what is measured
            assert spectra[name].singular.value[:half] == pytest.approx(ratio[:half], abs=1e-5), name


@pytest.mark.slow
def test_mutual_information_of_attention(vit: nn.Module) -> None:
    spectra = fp.analyze(vit, [IMAGES], attention=True, self_check=False)
    names = [f"blocks.{k}.attn.qkv" for k in range(6)]
    with listening(vit, names) as heard, torch.no_grad():
        vit(IMAGES)
    heads = vit.get_submodule("blocks.0.attn").num_heads
    for record, name in zip(spectra.information, names, strict=True):
        images, tokens, width = heard[name].shape
        q, k, _ = heard[name].reshape(images, tokens, 3, heads, -1).transpose(2, 0, 3, 1, 4)
        logits = q @ k.swapaxes(-1, -2) / np.sqrt(width / 3 / heads)
        maps = np.exp(logits - logits.max(-1, keepdims=True))[..., 1:, 1:]  # without the class token
        maps /= maps.sum(-1, keepdims=True)
        keys = maps.mean(-2)
        entropy = -(keys * np.log(keys)).sum(-1)
        shared = entropy + (maps * np.log(maps)).sum(-1).mean(-1)
        nmi = shared / np.sqrt(entropy * np.log(tokens - 1))
        assert record.nmi == pytest.approx(nmi.mean(0), abs=1e-5), name


def test_similarity_of_layers(resnet: nn.Module) -> None:
    spectra = fp.analyze(resnet, [IMAGES], cka=True, self_check=False)
    names = ["layer1.0", "layer2.1", "layer3.2"]
    with listening(resnet, names) as heard, torch.no_grad():
        resnet(IMAGES)
    n, one = len(IMAGES), np.ones(len(IMAGES))
    grams = []
    for name in names:
        features = heard[name].mean((2, 3))
        gram = features @ features.T
        np.fill_diagonal(gram, 0)
        grams.append(gram)

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        middle = one @ a @ one * (one @ b @ one) / ((n - 1) * (n - 2))
        return float((np.trace(a @ b) + middle - 2 / (n - 2) * (one @ a @ b @ one)) / (n * (n - 3)))

    assert spectra.cka is not None and spectra.cka.minibatch >= n
    for i, a in enumerate(grams):
        for j, b in enumerate(grams):
            expected = hsic(a, b) / np.sqrt(hsic(a, a) * hsic(b, b))
            row, column = spectra.cka.rows.index(names[i]), spectra.cka.columns.index(names[j])
            assert spectra.cka.value[row][column] == pytest.approx(expected, abs=1e-5), (names[i], names[j])


def test_responses_of_kernels(resnet: nn.Module) -> None:
    spectra = fp.analyze(resnet, [IMAGES], kernels=True, self_check=False)
    record = next(each for each in spectra.kernels if each.name == "layer2.1.conv2")
    taps = resnet.get_submodule("layer2.1.conv2").weight.detach().double().numpy()
    side = 2 * (len(record.radius) - 1)
    power = np.abs(np.fft.fft2(taps, (side, side))) ** 2 / (taps**2).sum((2, 3), keepdims=True).mean((0, 1))
    f = np.fft.fftfreq(side) * 2
    ring = np.rint(np.hypot(f[:, None], f[None, :]) * side / 2).astype(int)
    for at, (radius, value) in enumerate(zip(record.radius, record.log_power, strict=True)):
        assert radius == pytest.approx(at * 2 / side)
        assert value == pytest.approx(np.log(power.mean((0, 1))[ring == at].mean()), abs=1e-5), radius


@pytest.mark.slow
def test_the_loss_in_single_steps_less(vit: nn.Module) -> None:
    labels = torch.arange(40) % 100
    result = fp.validate(vit, [(IMAGES, labels)], lesions=True)
    module = vit.get_submodule("blocks.2.mlp")

    def loss() -> np.ndarray:
        with torch.no_grad():
            scores = vit(IMAGES).double().numpy()
        shifted = scores - scores.max(1, keepdims=True)
        return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(40), labels.numpy()]

    whole = loss()
    handle = module.register_forward_hook(lambda _module, _inputs, output: output * 0)
    change = (loss() - whole).mean()
    handle.remove()
    (row,) = [each for each in result.lesions or [] if each.name == "blocks.2"]
    assert row.loss_change is not None and row.loss_change.value == pytest.approx(change, abs=1e-5)


def test_the_sensitivity_spectrum(vit: nn.Module) -> None:
    pixels, labels = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(24) % 100
    heat = fp.heatmap(vit, [(pixels, labels)], bands=2)
    gradient = pixels.clone().requires_grad_()
    torch.nn.functional.cross_entropy(vit(gradient), labels, reduction="sum").backward()  # type: ignore[no-untyped-call]
    assert isinstance(gradient.grad, Tensor) and heat.sensitivity is not None
    power = (np.abs(np.fft.fft2(gradient.grad.double().numpy())) ** 2).sum(1)
    f = np.fft.fftfreq(32) * 2
    ring = np.rint(np.hypot(f[:, None], f[None, :]) * 16).astype(int)
    rows = np.stack([np.log(power[:, ring == at].mean(1)) for at in range(1, 17)], 1).mean(0)
    found = np.array([each.value for each in heat.sensitivity.log_power])
    assert found - found[0] == pytest.approx(rows - rows[0], abs=1e-5)  # but for the scale of a Fourier transform
    assert np.ptp(found - rows) < 1e-5

"""Responses of kernels against numpy's FFT and a loop over groups, and of attention maps against their own response."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from click.testing import CliRunner
from torch import nn

from fourier_probe import analyze, cli
from fourier_probe.models import create
from fourier_probe.plots.kernels import kernels_figure
from fourier_probe.probe.attention import observe
from fourier_probe.probe.attention_maps import map_measures, mutual_information, offsets
from fourier_probe.probe.groups import group_of
from fourier_probe.probe.kernels import attention_response, kernel_responses
from fourier_probe.results.kernels import KernelRecord
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime.messages import listening


def expected(weight: np.ndarray, dilation: int = 1, grid: int = 32) -> np.ndarray:
    """ln of radial mean power over the sum of squared taps, of (pairs, H, W), by numpy's FFT."""
    H, W = weight.shape[1:]
    placed = np.zeros((len(weight), grid, grid))
    placed[:, : H * dilation : dilation, : W * dilation : dilation] = weight
    power = (np.abs(np.fft.fft2(placed)) ** 2).mean(0)
    k = np.fft.fftfreq(grid) * grid
    ring = np.rint(np.hypot(k[:, None], k[None]))
    return np.log([power[ring == m].mean() / (weight**2).sum((1, 2)).mean() for m in range(grid // 2 + 1)])


def seeded(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.Conv2d(4, 24, 3, padding=1), "dense"),
        (nn.Conv2d(4, 24, (1, 7), padding=(0, 3)), "dense"),
        (nn.Conv2d(4, 24, 3, stride=2, padding=2, dilation=2, groups=2), "grouped"),
        (nn.Conv2d(4, 8, 5, padding=2, groups=4), "depthwise"),
    ],
)
def test_responses_equal_numpys_fft_of_the_kernels(layer: nn.Conv2d, kind: str) -> None:
    model = seeded(nn.Sequential(layer, nn.ReLU()))
    (found,), left_out = kernel_responses(model, torch.zeros(1, 4, 16, 16))
    weight = layer.weight.detach().double().flatten(0, 1).numpy()
    assert found.log_power == pytest.approx(expected(weight, layer.dilation[0]), abs=1e-9)
    assert (found.kind, found.size, found.groups) == (kind, layer.kernel_size, layer.groups) and not left_out
    assert (found.inputs, found.outputs) == (4, layer.out_channels) and found.radius[[0, -1]].tolist() == [0, 1]
    assert found.tilt == pytest.approx(found.log_power[-1] - found.log_power[0])
    assert found.norm == pytest.approx(math.sqrt((weight**2).sum() / layer.out_channels))
    assert np.isnan(found.stderr).all() == (layer.out_channels < 20)


def test_errors_are_a_jackknife_over_groups_of_output_channels() -> None:
    model = seeded(nn.Sequential(nn.Conv2d(2, 40, 3, padding=1)))
    (found,), _ = kernel_responses(model, torch.zeros(1, 2, 8, 8))
    weight, group = model[0].weight.detach().double().numpy(), group_of(np.arange(40), 40, 20)
    partial = np.array([expected(weight[group != g].reshape(-1, 3, 3)) for g in range(20)])
    error = np.sqrt(19 / 20 * ((partial - partial.mean(0)) ** 2).sum(0))
    assert found.stderr == pytest.approx(error, rel=1e-6)


def test_closed_forms_of_a_box_a_difference_and_one_tap() -> None:
    model = nn.Sequential(*(nn.Conv2d(1, 1, size, padding=size // 2, bias=False) for size in (3, 3, 1)))
    model[0].weight.data.fill_(1 / 9)
    model[1].weight.data.copy_(torch.tensor([[0.0, 0, 0], [-0.5, 1, -0.5], [0, 0, 0]]))
    box, difference, tap = kernel_responses(model, torch.zeros(1, 1, 8, 8))[0]
    assert box.log_power[0] == pytest.approx(math.log(9)) and box.tilt < -2  # all it can be: ln of the taps
    assert difference.log_power[0] < -30 and difference.tilt > 0
    assert tap.log_power == pytest.approx(0, abs=1e-12)


def test_the_kernel_that_runs_is_read_not_the_one_that_is_stored() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return nn.functional.conv2d(x, weight, padding=1)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = seeded(nn.Conv2d(3, 3, 3, padding=1))
            self.up, self.line = nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Conv1d(2, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.line(self.up(self.conv(self.conv(x))).flatten(2))

    (found,), _ = kernel_responses(nn.Sequential(seeded(Standardised(1, 3, 3))), torch.zeros(1, 1, 8, 8))
    assert found.log_power[0] < -20  # no mean: frequency 0 is gone
    layers, left_out = kernel_responses(Twice(), torch.zeros(1, 3, 8, 8))
    assert [(each.name, each.kind) for each in layers] == [("conv", "dense"), ("up", "transposed")]
    assert list(left_out) == ["line"] and (layers[1].inputs, layers[1].outputs) == (3, 2)


def test_every_convolution_of_a_network_once_with_the_depth_of_its_step() -> None:
    model = create("cifar_resnet8", num_classes=3)
    layers, left_out = kernel_responses(model, torch.zeros(1, 3, 32, 32))
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    assert sorted(each.name for each in layers) == sorted(names) and not left_out
    depth = {each.name: each.depth for each in layers}
    assert depth["conv1"] == 0 and depth["layer3.0.conv2"] == 1 and 0 < depth["layer2.0.conv1"] < 1
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# --- attention -------------------------------------------------------------------------------------------------------


def test_the_effective_filter_is_the_mean_map_by_offset() -> None:
    H, W = 3, 4
    A = torch.rand(2, 2, H * W, H * W, dtype=torch.float64).softmax(-1)
    found = offsets(5 * A, (H, W)).numpy()
    naive = np.zeros((2, 2, 2 * H - 1, 2 * W - 1))
    for i in range(H * W):
        for j in range(H * W):
            at = (j // W - i // W + H - 1, j % W - i % W + W - 1)
            naive[:, :, at[0], at[1]] += A[:, :, i, j].numpy() / (H * W)
    assert found == pytest.approx(naive) and found.sum((2, 3)) == pytest.approx(1)
    assert attention_response("a", naive, np.ones(2), depth=0).log_power == pytest.approx(
        expected(naive.mean(0)), abs=1e-9
    )


def test_its_transform_on_the_diagonal_is_the_response_of_the_map() -> None:
    A = torch.rand(1, 1, 16, 16, dtype=torch.float64).softmax(-1)
    _, response, frequency = map_measures(A, (4, 4), (1.0, 1.0))
    filter_ = offsets(A, (4, 4))[0, 0].numpy()
    y, x = np.meshgrid(np.arange(-3, 4), np.arange(-3, 4), indexing="ij")
    by_hand = [abs((filter_ * np.exp(-1j * math.pi * f * (y + x))).sum()) for f in frequency]
    assert response[0, 0].numpy() == pytest.approx(by_hand)


def test_nmi_equals_the_definition_and_is_0_where_queries_do_not_matter() -> None:
    A = (3 * torch.randn(3, 5, 7, dtype=torch.float64)).softmax(-1)
    for each, value in zip(A.numpy(), mutual_information(A), strict=True):
        joint = each / 5
        q, k = joint.sum(1), joint.sum(0)
        information = sum(joint[i, j] * math.log(joint[i, j] / (q[i] * k[j])) for i in range(5) for j in range(7))
        entropies = [-(p * np.log(p)).sum() for p in (q, k)]
        assert float(value) == pytest.approx(information / math.sqrt(entropies[0] * entropies[1]), abs=1e-10)
    same = torch.rand(7, dtype=torch.float64).softmax(-1).expand(5, 7)
    assert float(mutual_information(same)) == pytest.approx(0, abs=1e-12)
    assert (
        mutual_information(torch.ones(2, 1, 4)).tolist() == mutual_information(torch.ones(2, 4, 1)).tolist() == [0, 0]
    )


@pytest.mark.slow
def test_nmi_is_there_for_attention_over_windows_and_channels_too() -> None:
    torch.manual_seed(0)
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(2, 1), num_heads=(2, 2), window_size=7
    ).eval()
    seen = observe(swin, [torch.randn(12, 3, 56, 56), torch.randn(12, 3, 56, 56)], total=24)
    assert len(seen.information) == 3 and seen.images == 24
    windows = seen.information[0]
    assert "windows of 49" in windows.over and windows.nmi.shape == (2,) and (windows.nmi > 0).all()
    assert windows.mean_stderr > 0 and windows.mean == pytest.approx(windows.nmi.mean())
    assert windows.name in seen.left_out  # it has no distance over the grid
    xcit = timm.create_model("xcit_nano_12_p16_224", img_size=32, depth=1).eval()
    assert any("channels" in each.over for each in observe(xcit, [torch.randn(2, 3, 32, 32)]).information)


@pytest.mark.slow
def test_means_and_errors_are_over_images_whatever_the_batches() -> None:
    torch.manual_seed(0)
    model, images = create("cifar_vit_patch4", num_classes=3).eval(), torch.randn(24, 3, 32, 32)
    whole = observe(model, [images], total=24)
    parts = observe(model, torch.split(images, 7), total=24)
    for ours, theirs in zip(whole.layers, parts.layers, strict=True):
        assert ours.nmi == pytest.approx(theirs.nmi, abs=1e-6)
        assert ours.stderr_of["distance"] == pytest.approx(theirs.stderr_of["distance"], rel=1e-3)
        assert ours.filter.log_power == pytest.approx(theirs.filter.log_power, abs=1e-4)
        assert np.isfinite(ours.stderr_of["mean_nmi"]).all() and ours.filter.tilt <= 0
    one = observe(model, [images[:1]])
    assert np.isnan(one.information[0].stderr).all() and one.information[0].mean == pytest.approx(
        one.layers[0].nmi.mean()
    )


# --- as a user meets them --------------------------------------------------------------------------------------------


def record(number: int, kind: str = "dense", taps: int = 3) -> KernelRecord:
    value = [1.0, 0.5, -0.5]
    return KernelRecord(
        name=f"layer{number}", kind=kind, depth=number / 25, size=(taps, taps), stride=(1, 1), dilation=(1, 1),
        groups=1, inputs=3, outputs=4, radius=[0.0, 0.5, 1.0], log_power=value, stderr=[0.1] * 3, tilt=-1.5,
        tilt_stderr=None if number % 2 else 0.1, norm=1.0,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 7, 25])
def test_a_curve_and_a_tilt_per_layer_of_more_than_one_tap(layers: int) -> None:
    kernels = [record(n, ("dense", "depthwise", "attention")[n % 3]) for n in range(layers)] + [record(3, taps=1)]
    figure = kernels_figure(kernels, "net", 2.093)
    curves = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 3]
    assert len(curves) == layers and list(curves[0].get_ydata()) == [1.0, 0.5, -0.5]
    assert "1 kernels of one tap" in figure.legends[0].get_title().get_text()


@pytest.mark.slow
def test_the_command_writes_prints_and_reads_them(tmp_path: Path) -> None:
    common = ["--data", "bundled", "--images", "24", "--kernels", "--attention"]
    done = CliRunner().invoke(cli.group, ["analyze", "timm:cifar_vit_patch4", *common, "--out", str(tmp_path / "v")])
    assert done.exit_code == 0, done.output
    assert "Responses of kernels" in done.output and "NMI" in done.output and "blocks.0.attn" in done.output
    spectra = Spectra.load(tmp_path / "v")
    assert {each.kind for each in spectra.kernels} == {"dense", "attention"}
    assert len(spectra.information) == 6 and spectra.information[0].over == "8x8 positions"
    assert Spectra.load(spectra.save(tmp_path / "again")).to_json() == spectra.to_json()
    frame = pd.read_csv(tmp_path / "v" / "attention.csv")
    assert len(frame) == 6 * len(spectra.information[0].nmi) and frame.nmi.between(0, 1).all()
    assert frame.nmi_stderr.notna().all() and frame.distance_stderr.notna().all()
    assert pd.read_csv(tmp_path / "v" / "kernels.csv").groupby("name").size().eq(17).all()
    assert spectra.plot("kernels").axes and spectra.plot("attention").axes


def test_a_network_without_either_gets_a_note() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    said: list[str] = []
    with listening(said.append):
        spectra = analyze(model, "bundled", images=4, kernels=True, attention=True, img_size=(8, 8))
    text = " ".join(said)
    assert "kernels of one tap alone" in text and "this network has none with a map" in text
    assert not spectra.attention and not spectra.information and len(spectra.kernels) == 2

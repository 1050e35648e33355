"""Effective rank and singular values of tokens against numpy's SVD, in files, tables and figures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from fourier_probe import analyze, cli
from fourier_probe.errors import ResultError
from fourier_probe.plots.tokens import tokens_figure
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.measuring import Listen
from fourier_probe.probe.tokens import token_statistics
from fourier_probe.results.analysis import analyze as analyze_batches
from fourier_probe.results.spectra import Spectra


def naive(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ranks, spectra = [], []
    for image in maps.astype(np.float64):
        s = np.linalg.svd(image.reshape(len(image), -1).T, compute_uv=False)
        p = s**2 / (s**2).sum()
        ranks.append(math.exp(-sum(x * math.log(x) for x in p if x > 0)))
        spectra.append(np.log(np.maximum(s / s[0], 1e-6)))
    return np.array(ranks), np.array(spectra)


@pytest.mark.parametrize("shape", [(5, 3, 4, 4), (5, 20, 3, 4), (5, 16, 4, 4), (5, 1, 6, 6), (5, 7, 1, 1)])
@pytest.mark.parametrize("scale", [1.0, 1e12])
def test_rank_and_spectrum_equal_numpys_svd(shape: tuple[int, ...], scale: float) -> None:
    maps = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.5) * scale
    rank, spectrum = naive(maps.numpy())
    found = token_statistics(maps)
    assert found["rank"].numpy() == pytest.approx(rank, abs=1e-5)
    assert found["singular"].numpy() == pytest.approx(spectrum, abs=1e-5) and (found["singular"][:, 0] == 0).all()


def test_closed_forms_dead_maps_and_maps_that_are_not_finite() -> None:
    maps = torch.zeros(4, 3, 2, 2)
    maps[0] = torch.tensor([1.0, 2.0, 3.0])[:, None, None]  # all tokens alike
    maps[1].view(3, 4)[range(3), range(3)] = 1.0  # three directions of one length
    maps[3, 0, 0, 0] = math.nan
    found = token_statistics(maps)
    assert found["rank"][:3].tolist() == pytest.approx([1, 3, 0]) and found["ranked"][:3].tolist() == [1, 1, 0]
    assert found["singular"][0, 1:].tolist() == pytest.approx([math.log(1e-6)] * 2)
    assert all(value[3].isnan().all() for value in found.values())
    with torch.autocast("cpu", torch.bfloat16):
        assert token_statistics(maps[:2].bfloat16())["rank"].tolist() == pytest.approx([1, 3], abs=1e-3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))


def test_the_result_is_the_mean_over_images_with_its_jackknife(tmp_path: Path) -> None:
    images, model = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(1)), network()
    spectra = analyze_batches(model, list(torch.split(images, 15)), listen=Listen(tokens=True))
    rank, singular = naive(model(images).detach().numpy())
    point = spectra.points[-1]
    assert point.scalars["effective_rank"] == pytest.approx(rank.mean(), abs=1e-5)
    assert point.singular.value == pytest.approx(singular.mean(0), abs=1e-5)
    from fourier_probe.probe.groups import group_of

    group = group_of(np.arange(40), None, 20)
    partial = np.array([rank[group != g].mean() for g in range(20)])
    error = math.sqrt(19 / 20 * ((partial - partial.mean()) ** 2).sum())
    assert point.stderr_of["effective_rank"] == pytest.approx(error, rel=1e-4)
    assert spectra["input"].scalars["effective_rank"] == pytest.approx(naive(images.numpy())[0].mean(), abs=1e-5)
    assert "effective rank" in spectra.table().columns
    again = Spectra.load(spectra.save(tmp_path))
    assert again.to_json() == spectra.to_json() and np.array_equal(
        again.points[-1].singular.value, point.singular.value
    )
    diagonal = analyze_batches(
        network(), [images], listen=Listen(tokens=True), definition=Definition(metrics="diagonal")
    )
    assert diagonal.points[-1].scalars == {"effective_rank": pytest.approx(rank.mean(), abs=1e-5)}


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 7, 25])
def test_a_point_and_a_curve_per_layer(layers: int) -> None:
    torch.manual_seed(0)
    parts = [part for _ in range(layers) for part in (nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())]
    spectra = analyze_batches(
        nn.Sequential(*parts), [torch.rand(20, 3, 8, 8)], listen=Listen(tokens=True, self_check=False)
    )
    ranks, curves = tokens_figure(spectra, "net").axes[:2]
    assert len(ranks.get_lines()[0].get_xdata()) == layers and len(curves.get_lines()) == layers
    assert list(ranks.get_lines()[0].get_ydata()) == [p.scalars["effective_rank"] for p in spectra.stream]
    with pytest.raises(ResultError, match="analyze with --tokens"):
        tokens_figure(analyze_batches(network(), [torch.rand(2, 3, 8, 8)]), "net")


@pytest.mark.slow
def test_the_command_prints_and_writes_them(tmp_path: Path) -> None:
    command = ["analyze", "timm:cifar_resnet8", "--data", "bundled", "--images", "20", "--tokens"]
    done = CliRunner().invoke(cli.group, [*command, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0 and "Directions of tokens" in done.output, done.output
    frame = pd.read_csv(tmp_path / "out" / "tokens.csv")
    assert (
        frame.log_ratio.le(0).all() and set(frame.point) >= {"input", "stem"} and (tmp_path / "out/tokens.png").exists()
    )
    one = analyze(network(), [torch.rand(1, 3, 1, 1)], tokens=True)  # one image, one position
    assert one.points[-1].scalars["effective_rank"] == pytest.approx(1)

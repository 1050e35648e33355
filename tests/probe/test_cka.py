"""CKA against a loop over the definition, its invariances, its errors, and as `analyze` and `compare` give it."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from fourier_probe import analyze, cli, compare
from fourier_probe.errors import ResultError
from fourier_probe.plots.cka import cka_figure
from fourier_probe.probe.cka import hsic, similarity
from fourier_probe.results.analysis import analyze as analyze_batches
from fourier_probe.results.cka import CkaRecord
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime.messages import listening


def features(n: int, *widths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(n, widths[0])) + 5
    return [first, *(np.tanh(first @ rng.normal(size=(widths[0], width))) for width in widths[1:])]


def naive_hsic(X: np.ndarray, Y: np.ndarray) -> float:
    """HSIC_1 of Song et al. 2012, equation 5, sum by sum."""
    n = len(X)
    K, L = X @ X.T, Y @ Y.T
    np.fill_diagonal(K, 0)
    np.fill_diagonal(L, 0)
    ones = np.ones(n)
    trace = sum(K[i, j] * L[j, i] for i in range(n) for j in range(n))
    ends = (ones @ K @ ones) * (ones @ L @ ones) / ((n - 1) * (n - 2))
    return float((trace + ends - 2 / (n - 2) * (ones @ K @ L @ ones)) / (n * (n - 3)))


def naive_cka(X: np.ndarray, Y: np.ndarray) -> float:
    return naive_hsic(X, Y) / math.sqrt(naive_hsic(X, X) * naive_hsic(Y, Y))


def test_cka_and_its_error_equal_a_loop_over_the_definition() -> None:
    X, Y, Z = features(60, 4, 6, 3)
    group = np.arange(60) % 20
    found = similarity([X, Y], [Y, Z], group)
    for (i, a), (j, b) in itertools.product(enumerate([X, Y]), enumerate([Y, Z])):
        assert found.value[i, j] == pytest.approx(naive_cka(a, b), abs=1e-8)
        partial = np.array([naive_cka(a[group != g], b[group != g]) for g in range(20)])
        error = math.sqrt(19 / 20 * ((partial - partial.mean()) ** 2).sum())
        assert found.stderr[i, j] == pytest.approx(error, rel=1e-2, abs=1e-9)  # pseudo-values: equal to second order
    assert (found.images, found.minibatch) == (60, 60)


def test_rotation_scale_and_shift_change_nothing_and_independence_is_0() -> None:
    X, _ = features(150, 5, 5)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    found = similarity([X], [7 * X @ turn + 100], np.arange(150) % 20)
    assert found.value[0, 0] == pytest.approx(1, abs=1e-9)
    values = [
        similarity([rng.normal(size=(60, 30))], [rng.normal(size=(60, 30))], np.arange(60) % 20).value[0, 0]
        for rng in map(np.random.default_rng, range(40))
    ]
    assert abs(np.mean(values)) < 0.02  # unbiased: the biased estimator gives 0.3 here


@pytest.mark.slow
def test_minibatches_are_drawn_and_sorted_images_give_what_shuffled_ones_give() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(10), 60)  # sorted by class
    means = rng.normal(size=(10, 8)) * 3
    X = means[labels] + rng.normal(size=(600, 8))
    Y = means[labels] @ rng.normal(size=(8, 8)) + rng.normal(size=(600, 8))
    found = similarity([X], [Y], np.arange(600) % 20)
    assert found.minibatch == 200
    assert found.value[0, 0] == pytest.approx(naive_cka(X, Y), abs=0.02)  # of all at once


def test_hsic_of_matrices_is_the_matrix_of_hsics() -> None:
    X, Y, Z = features(12, 3, 4, 5)
    products = []
    for each in (X, Y, Z):
        K = each @ each.T
        np.fill_diagonal(K, 0)
        products.append(K)
    found = hsic(np.stack(products), np.stack(products))
    assert found[0, 2] == pytest.approx(naive_hsic(X, Z)) and found[1, 1] == pytest.approx(naive_hsic(Y, Y))


def test_few_images_constant_features_and_other_images() -> None:
    X, Y = features(10, 3, 4)
    few = similarity([X], [Y], np.arange(10) % 20)
    assert math.isfinite(few.value[0, 0]) and math.isnan(few.stderr[0, 0])
    assert np.isnan(similarity([X[:3]], [Y[:3]], np.arange(3)).value).all()
    assert np.isnan(similarity([np.ones((30, 2))], [np.ones((30, 2))], np.arange(30) % 20).value).all()
    with pytest.raises(ResultError, match="features of another number"):
        similarity([X], [Y[:8]], np.arange(10))


def network(width: int) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 4, 3, padding=1))


def test_a_result_holds_the_similarity_of_its_own_points(tmp_path: Path) -> None:
    images, model = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)), network(5)
    spectra = analyze(model, list(torch.split(images, 15)), cka=True, points=["0", "2"])
    with torch.no_grad():
        pooled = [layer.mean((2, 3)).double().numpy() for layer in (model[0](images), model(images))]
    assert spectra.cka.rows == ["0", "2"] and spectra.cka.at(0, 0) == (pytest.approx(1), 0)
    assert spectra.cka.at(0, 1)[0] == pytest.approx(naive_cka(*pooled), abs=1e-5) and spectra.cka.at(0, 1)[1] > 0
    again = Spectra.load(spectra.save(tmp_path))
    assert again.cka == spectra.cka and again.pooled is None
    assert analyze_batches(model, [images]).pooled is None  # nothing is kept unasked


@pytest.mark.slow
def test_two_networks_on_the_same_images(tmp_path: Path) -> None:
    images = [torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))]
    found = compare([network(5), network(6)], images, labels=["a", "b"], cka=True, out=tmp_path / "out")
    assert [(each.a, each.b) for each in found.cka] == [("a", "a"), ("a", "b"), ("b", "b")]
    with torch.no_grad():
        ours, theirs = (model(images[0]).mean((2, 3)).double().numpy() for model in (network(5), network(6)))
    assert found.cka[1].at(-1, -1)[0] == pytest.approx(naive_cka(ours, theirs), abs=1e-5)
    assert any("CKA" in table.title for table in found.tables())
    frame = pd.read_csv(tmp_path / "out" / "cka.csv")
    assert set(frame.columns) == {"a", "b", "row", "column", "cka", "stderr"} and (tmp_path / "out/cka.png").exists()
    saved, said = analyze(network(5), images, out=tmp_path / "saved"), []
    with listening(said.append):
        assert not compare([saved, saved], cka=True).cka
    assert any("name the network" in text for text in said)
    with listening(said.append):
        assert analyze(network(5), [images[0][:3]], cka=True).cka is None
    assert any("it needs 4 images" in text for text in said)


def record(count: int, own: bool = False) -> CkaRecord:
    names = [f"blocks.{n}" for n in range(count)]
    matrix: list[list[float | None]] = [[1 / (1 + abs(i - j)) for j in range(count)] for i in range(count)]
    matrix[0][-1] = None if count > 1 else 1.0
    return CkaRecord(
        a="a", b="a" if own else "b", rows=names, columns=names, row_depth=[0.0] * count, column_depth=[0.0] * count,
        value=matrix, stderr=[[0.01] * count] * count, images=100, minibatch=100,
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, 7, 25])
def test_a_panel_per_pair_shallow_layers_below(count: int) -> None:
    figure = cka_figure([record(count), record(count, own=True)], "nets", 2.1)
    axes = [ax for ax in figure.axes if ax.get_images()]
    assert len(axes) == 2 and axes[0].get_images()[0].get_array().shape == (count, count)
    assert axes[0].get_images()[0].origin == "lower" and len(axes[0].get_xticks()) <= 14
    assert len(axes[0].texts) == (count * count - (count > 1) if count <= 8 else 0)
    with pytest.raises(ResultError, match="with --cka"):
        cka_figure([], "", 2.1)


@pytest.mark.slow
def test_the_command_prints_a_row_per_layer(tmp_path: Path) -> None:
    command = ["analyze", "timm:cifar_resnet8", "--data", "bundled", "--images", "24", "--cka"]
    done = CliRunner().invoke(cli.group, [*command, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0 and "Similarity of layers (CKA)" in done.output, done.output
    assert (tmp_path / "out" / "cka.csv").exists() and (tmp_path / "out" / "cka.pdf").exists()

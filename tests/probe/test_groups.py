"""Image groups: balanced, fixed, and errors that do not depend on how a file is ordered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fourier_probe.data import Batch, ImageSet, InputSpec, batches
from fourier_probe.data.subset import splitmix64
from fourier_probe.errors import DataError
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.groups import group_of
from fourier_probe.probe.sums import jackknife, jackknife_variance, quantile
from fourier_probe.results.analysis import analyze

G = 20
Array = NDArray[np.float64]


def error_of_the_mean(values: Array, group: NDArray[np.int64]) -> Array:
    """Jackknife standard errors (D,) of the mean over images of (N, D)."""
    sums = np.zeros((G, values.shape[1]))
    np.add.at(sums, group, values)
    count = np.bincount(group, minlength=G).astype(float)
    return jackknife(lambda s: {"x": s["x"] / s["count"][:, None]}, {"x": sums, "count": count})[1]["x"]


def orders(rng: np.random.Generator, n: int, classes: int) -> dict[str, NDArray[np.int64]]:
    """The class of every image of a file, three times the same images."""
    cycling = np.arange(n) % classes
    return {"cycling": cycling, "sorted": np.sort(cycling), "shuffled": rng.permutation(cycling)}


@pytest.mark.parametrize("classes", [10, 20, 100])
@pytest.mark.parametrize("known", [True, False], ids=["source", "iterable"])
def test_errors_do_not_depend_on_the_order_of_the_file(known: bool, classes: int) -> None:
    """20 draws of data whose classes differ more than images do: index mod 20 is 6.4, 5.1 and 1.8 times too large."""
    found: dict[str, list[float]] = {}
    for draw in range(20):
        rng, n = np.random.default_rng(draw), 1000 + 40 * draw
        means, noise = 3 * rng.normal(size=(classes, 32)), rng.normal(size=(n, 32))
        group = group_of(np.arange(n), n if known else None, G)
        for name, label in orders(rng, n, classes).items():
            found.setdefault(name, []).append(float(error_of_the_mean(means[label] + noise, group).mean()))
    mean = {name: np.mean(errors) for name, errors in found.items()}
    for name in ("cycling", "sorted"):
        assert mean[name] == pytest.approx(mean["shuffled"], rel=0.1), mean


@pytest.mark.parametrize("known", [True, False], ids=["source", "iterable"])
@pytest.mark.parametrize("n", [20, 45, 60, 250])
def test_intervals_cover_at_their_nominal_rate(n: int, known: bool) -> None:
    """The mean of a Gaussian, at sizes that leave groups unequal: 4,000 intervals of 95 % each."""
    values = np.random.default_rng(n).normal(size=(n, 4000))
    error = error_of_the_mean(values, group_of(np.arange(n), n if known else None, G))
    covered = (np.abs(values.mean(0)) <= quantile(G) * error).mean()
    assert covered == pytest.approx(0.95, abs=0.02)


def test_groups_are_fixed() -> None:
    """What results of the past were made with: another generator or seed would unpair them in silence."""
    assert group_of(np.arange(8), 1000, G).tolist() == [11, 5, 2, 15, 12, 14, 10, 12]
    assert group_of(np.arange(56, 64), None, G).tolist() == [12, 18, 6, 15, 15, 9, 2, 5]
    published = 0xE220A8397B1DCDAF  # first output of splitmix64 from state 0
    assert int(splitmix64(np.zeros(1, dtype=np.uint64))[0]) == published


@pytest.mark.parametrize("n", [1, 19, 20, 41, 999, 10_000])
def test_a_source_fills_its_groups_to_one_image(n: int) -> None:
    sizes = np.bincount(group_of(np.arange(n), n, G), minlength=G)
    assert sizes.sum() == n and sizes.max() - sizes.min() <= 1


def test_a_short_stream_has_one_image_per_run_in_each_group() -> None:
    group = group_of(np.arange(60), None, G)
    assert [sorted(run) for run in group.reshape(3, G)] == [list(range(G))] * 3
    assert np.bincount(group_of(np.arange(100_000), None, G), minlength=G).min() > 4700


def test_the_jackknife_of_unequal_groups_is_that_of_busing() -> None:
    """Pseudo-values as the paper writes them, for a ratio; and for equal groups the textbook formula."""
    rng = np.random.default_rng(1)
    count = rng.integers(3, 9, 20).astype(float)
    sums = {"count": count, "x": rng.normal(5, 1, 20) * count, "y": rng.normal(7, 1, 20) * count}
    whole, error = jackknife(lambda s: {"r": s["x"] / s["y"]}, sums)
    n, t = count.sum(), float(whole["r"])
    without = [(sums["x"].sum() - sums["x"][g]) / (sums["y"].sum() - sums["y"][g]) for g in range(20)]
    h = n / count
    estimate = 20 * t - sum((1 - count[g] / n) * without[g] for g in range(20))
    pseudo = [h[g] * t - (h[g] - 1) * without[g] for g in range(20)]
    expected = sum((pseudo[g] - estimate) ** 2 / (h[g] - 1) for g in range(20)) / 20
    assert float(error["r"]) ** 2 == pytest.approx(expected)
    partial = rng.normal(size=(20, 3))
    plain = 19 / 20 * ((partial - partial.mean(0)) ** 2).sum(0)
    assert jackknife_variance(np.zeros(3), partial, np.full(20, 4.0)) == pytest.approx(plain)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())


def test_the_source_tells_its_length_and_the_result_its_grouping() -> None:
    """The same images of a source and of an iterable have other groups; batch size and shards change nothing."""
    pixels = np.random.default_rng(0).integers(0, 256, (45, 8, 8, 3), dtype=np.uint8)
    images, spec = ImageSet("noise", "test", pixels=pixels), InputSpec(3, (8, 8), (0.5,) * 3, (0.5,) * 3)
    whole = analyze(net(), batches(images, spec, batch_size=45))
    parts = analyze(net(), (b for s in range(3) for b in batches(images, spec, batch_size=4, shard=(s, 3))))
    stream = analyze(net(), (batch.images for batch in batches(images, spec, batch_size=9)))
    assert [r.definition.grouping for r in (whole, parts, stream)] == ["permutation", "permutation", "stream"]
    assert whole.definition == Definition(grouping="permutation")
    expected = np.bincount(group_of(np.arange(45), 45, G), minlength=G)
    assert whole.points[0].sums is not None and parts.points[0].sums is not None
    assert whole.points[0].sums["count"].tolist() == expected.tolist()
    assert parts.points[0].sums["ring"] == pytest.approx(whole.points[0].sums["ring"])


def test_a_source_of_a_wrong_length_is_refused() -> None:
    batch = Batch(torch.rand(3, 3, 8, 8), None, torch.arange(3), torch.zeros(3, 4, dtype=torch.int64), 2)
    with pytest.raises(DataError, match="image 2 came from a source of 2 images"):
        analyze(net(), [batch])

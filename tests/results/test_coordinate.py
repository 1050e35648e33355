"""The coordinate: closed forms, no clamping, paired errors that cover, undefined where the ends are too close."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fourier_probe.errors import ResultError
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.sums import quantile
from fourier_probe.results.analysis import analyze
from fourier_probe.results.coordinate import Axes, Coordinate, common_axes, locate, surface
from fourier_probe.results.side_by_side import coordinates
from fourier_probe.results.spectra import Spectra

AXES = Axes(np.array([0.0, 0.5, 1.0]), np.array([0.5, 1.0]), np.outer([0.25, 0.5, 0.25], [0.5, 0.5]), matched=True)


def coordinate(result: Spectra, cnn: Spectra, vit: Spectra) -> Coordinate:
    """Where a result lies, as `compare` says it."""
    row, _white = coordinates([result], ["model"], cnn, vit)
    return Coordinate(**{name: value for name, value in row.items() if name != "target"})


def blur(width: int, *, seed: int = 0, grid: int = 1) -> nn.Module:
    """Two convolutions, the second a blur of `width`: less and less high frequency."""
    torch.manual_seed(seed)
    first = nn.Conv2d(3, 4, 3, padding=1, stride=grid)
    second = nn.Conv2d(4, 4, width, padding=width // 2, groups=4, bias=False)
    nn.init.constant_(second.weight, 1 / width**2)
    return nn.Sequential(first, nn.Sequential(nn.ReLU(), second))


def images(n: int = 60, size: int = 16) -> list[torch.Tensor]:
    return [torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(5))]


def test_points_on_the_line_have_their_share_and_only_what_is_beyond_an_end_a_distance() -> None:
    rng = np.random.default_rng(0)
    cnn, vit = rng.normal(size=(2, 1, 3, 2))
    for share in (-0.5, 0.0, 0.25, 1.0, 1.75):
        found = locate(cnn + share * (vit - cnn), cnn, vit, AXES)
        assert found.t == pytest.approx(share)
        assert found.distance == pytest.approx(max(-share, 0, share - 1), abs=1e-7)
    assert locate(vit, cnn, vit, AXES).cosine == pytest.approx(1)
    assert found.segment == pytest.approx(np.sqrt(((vit - cnn) ** 2 * AXES.weight).sum()))


def test_what_is_at_a_right_angle_has_distance_only() -> None:
    cnn, vit, model = np.zeros((3, 1, 3, 2))
    vit[..., 0] = 1.0  # along the first radius
    model[..., 1] = 2.0  # along the second
    found = locate(model, cnn, vit, AXES)
    assert (found.t, found.cosine) == (0, 0)
    assert found.distance == pytest.approx(2)


@pytest.mark.parametrize(("t", "gap"), [(-0.4, 0.4), (0.5, 0.0), (1.84, 0.84)])
def test_the_distance_is_from_the_segment_and_beyond_an_end_from_that_end(t: float, gap: float) -> None:
    rng = np.random.default_rng(4)
    cnn, vit, off = np.zeros((3, 21, 3, 2))
    vit[..., 0], off[..., 1] = 1.0, 1.22  # at a right angle
    noise = 0.05 * rng.normal(size=(21, 1, 1))
    found = locate(t * vit + off, cnn, vit, AXES)
    assert found.t == pytest.approx(t)  # not clamped
    assert found.distance == pytest.approx(np.hypot(gap, 1.22))
    noisy = locate((t + noise) * vit + off, cnn, vit, AXES)  # only along the segment
    expected = np.std(np.hypot(np.maximum(np.maximum(-t - noise[1:], t + noise[1:] - 1), 0), 1.22)) * 19**0.5
    assert noisy.distance_stderr == pytest.approx(expected, abs=1e-12)
    assert (noisy.distance_stderr > 0.01) == (gap > 0)


def test_a_milder_blur_lies_between() -> None:
    cnn, between, vit = (analyze(blur(width), images()) for width in (1, 3, 5))
    found = coordinate(between, cnn, vit)
    assert found.matched
    assert 0 < found.t < 1
    assert 0 < found.t_stderr < 0.2
    ends = coordinate(cnn, cnn, vit), coordinate(vit, cnn, vit)
    assert [end.t for end in ends] == pytest.approx([0, 1])
    assert [end.t_stderr for end in ends] == pytest.approx([0, 0], abs=1e-12)  # paired with itself


def test_other_depths_and_grids_are_interpolated() -> None:
    deep = nn.Sequential(*blur(1), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)))
    cnn, vit = analyze(blur(1), images()), analyze(blur(5, grid=2), images())
    found = analyze(deep, images())
    axes = common_axes([found, cnn, vit])
    assert not axes.matched
    assert axes.radius[0] == 0.25  # the first ring of the 8x8 maps
    assert axes.radius[-1] == 1.0
    assert axes.weight.sum() == pytest.approx(1)
    values = surface(cnn, axes)
    assert values.shape == (21, 33, 16)
    np.testing.assert_allclose(values[0, 0], np.interp(axes.radius, cnn.points[0].radius, cnn.points[0].log_density))
    half = (values[0, 0] + values[0, -1]) / 2
    np.testing.assert_allclose(values[0, 16], half)  # two points: depth 0.5 is their mean
    assert np.isfinite(coordinate(found, cnn, vit).t)


def test_ends_closer_than_their_scatter_leave_it_undefined() -> None:
    rng = np.random.default_rng(1)
    ends = rng.normal(size=(2, 21, 3, 2))  # leave-one-out values as noisy as their difference
    found = locate(ends[0], ends[0], ends[1], AXES)
    assert np.isnan([found.t, found.distance]).all()
    assert found.scatter > found.segment / 2


def test_the_interval_covers() -> None:
    """t of a model from noisy group means: 95 % intervals hold the true 0.5 about 95 % of the time."""
    rng = np.random.default_rng(2)
    cnn, vit = np.zeros((3, 2)), np.ones((3, 2))
    inside, trials = 0, 400
    for _ in range(trials):
        groups = 0.5 + rng.normal(size=(20, 3, 2))
        mean = groups.mean(0)
        partial = (groups.sum(0) - groups) / 19
        model = np.concatenate([mean[None], partial])
        found = locate(model, np.repeat(cnn[None], 21, 0), np.repeat(vit[None], 21, 0), AXES)
        inside += abs(found.t - 0.5) < quantile(20) * found.t_stderr
    assert 0.91 < inside / trials < 0.985


def test_a_result_read_without_its_sums_has_no_error() -> None:
    first, last = analyze(blur(1), images()), analyze(blur(5), images())
    bare = copy.deepcopy(first)
    for point in bare.points:
        point.sums = None
    found = coordinate(bare, first, last)
    assert found.t == pytest.approx(0)
    assert np.isnan(found.t_stderr)


def test_without_radial_profiles_it_says_what_to_do() -> None:
    diagonal = analyze(blur(1), images(), definition=Definition(metrics="diagonal"))
    with pytest.raises(ResultError, match="--metrics all"):
        coordinate(diagonal, diagonal, diagonal)


def test_depths_that_a_model_does_not_cover_are_left_out() -> None:
    """A network whose last map is 2x2 has no profile there, and the common depths end before."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1, stride=2 if i else 1) for i in range(4)]
    short = analyze(nn.Sequential(*layers), images())  # 16, 8, 4 and 2 positions a side
    axes = common_axes([short, analyze(blur(3), images())])
    assert axes.depth[0] == 0
    assert axes.depth[-1] == pytest.approx(2 / 3)
    short.points = short.points[:1]
    with pytest.raises(ResultError, match="several depths"):
        common_axes([short, short])

"""The Fourier basis against a direct numpy construction, and a model's response against one image at a time."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from fourier_probe.errors import DataError
from fourier_probe.probe.filters import ImageFilter
from fourier_probe.probe.heatmap import (
    NoiseProbe,
    band_noise,
    basis_image,
    default_eps,
    distinct_frequencies,
    full_plane,
)
from fourier_probe.probe.points import find_points

SIZES = [(32, 32), (7, 7), (6, 5), (5, 8), (1, 4)]


@pytest.mark.parametrize("size", SIZES)
def test_basis_is_the_inverse_transform_of_a_pair_of_bins(size: tuple[int, int]) -> None:
    H, W = size
    for ky, kx in distinct_frequencies(size):
        plane = np.zeros(size)
        plane[ky % H, kx % W] = plane[-ky % H, -kx % W] = 1
        direct = np.fft.ifft2(plane)
        assert np.abs(direct.imag).max() < 1e-12
        expected = direct.real / np.linalg.norm(direct.real)
        assert np.allclose(basis_image(size, (ky, kx)).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_each_distinct_frequency_once(size: tuple[int, int]) -> None:
    H, W = size
    plane = full_plane(dict.fromkeys(distinct_frequencies(size), 1.0), size)
    assert np.array_equal(plane, np.ones(size))
    own = sum(1 for y in range(H) for x in range(W) if (2 * y) % H == 0 and (2 * x) % W == 0)  # their own mirror
    assert len(distinct_frequencies(size)) == (H * W - own) // 2 + own


def test_counts_strides_and_the_middle() -> None:
    assert len(distinct_frequencies((32, 32))) == 514
    coarse = distinct_frequencies((32, 32), stride=4)
    assert all(ky % 4 == 0 == kx % 4 for ky, kx in coarse)
    assert coarse[0] == (0, 0)
    plane = full_plane({(0, 0): 2.0, (1, 0): 1.0}, (4, 5))
    assert plane[2, 2] == 2.0 and plane[1, 2] == plane[3, 2] == 1.0
    assert np.isnan(plane).sum() == 17
    assert default_eps((32, 32)) == pytest.approx(4.0) and default_eps((224, 224)) == pytest.approx(15.7)


def probe_of(batch_size: int) -> NoiseProbe:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 5, 3))
    pixels, labels = torch.rand(7, 3, 6, 5), torch.arange(7) % 3
    points = find_points(model, pixels[:1], select=["0"])
    return NoiseProbe(model, pixels, labels, (0.4, 0.5, 0.6), (0.2, 0.3, 0.1), points, batch_size)


def test_responses_are_those_of_single_images_and_of_any_batch_size() -> None:
    frequencies, eps = [(0, 0), (1, 2), (-2, 1)], 1.5
    found = [probe_of(batch).frequencies(frequencies, eps, seed=3) for batch in (2, 7, 100)]
    probe = probe_of(7)
    signs = torch.randint(0, 2, (7, 3, 1, 1), generator=torch.Generator().manual_seed(3)).float() * 2 - 1
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (probe.mean, probe.std))
    name = probe.points[0].name
    for frequency in frequencies:
        wrong = broken = mended = change = squares = 0.0
        for pixels, label, sign in zip(probe.pixels, probe.labels, signs, strict=True):
            noisy = (pixels + eps * sign * basis_image((6, 5), frequency)).clamp(0, 1)
            with torch.no_grad():
                before, after = (probe.model[0]((x - mean)[None] / std) for x in (pixels, noisy))
                clean, noised = (bool(probe.model((x - mean)[None] / std).argmax() != label) for x in (pixels, noisy))
            wrong, broken, mended = wrong + noised, broken + (noised > clean), mended + (clean > noised)
            each_change = float((after - before).norm() / before.norm())
            change, squares = change + each_change, squares + each_change**2
        for each in found:
            response = each[frequency]
            assert (response.wrong, response.broken, response.mended) == (wrong, broken, mended)
            assert response.change[name] == pytest.approx((change, squares), rel=1e-4)


def test_no_noise_is_no_change_and_no_labels_no_error() -> None:
    probe = probe_of(4)
    assert probe.frequencies([(1, 1)], 0.0)[1, 1].change[probe.points[0].name] == pytest.approx((0.0, 0.0), abs=1e-6)
    assert probe.clean().wrong == probe.frequencies([(1, 1)], 0.0)[1, 1].wrong
    probe.labels = None
    assert probe.clean().wrong is None


def test_an_answer_that_is_not_finite_is_wrong() -> None:
    probe = probe_of(4)
    assert probe.labels is not None
    with torch.no_grad():
        probe.model[3].bias[int(probe.labels[0])] = float("nan")  # type: ignore[index, union-attr]
    assert probe.clean().wrong == len(probe.pixels)


@pytest.mark.parametrize(("size", "bands"), [((56, 56), 14), ((20, 30), 8)])
def test_a_frequency_on_an_edge_is_in_the_band_above(size: tuple[int, int], bands: int) -> None:
    """Decided in exact fractions here: (r bands)^2 >= band^2."""
    H, W = size
    drawn = [np.abs(np.fft.rfft2(band_noise(size, band, bands, 1, 1)[0, 0].double().numpy())) for band in range(bands)]
    taken = np.argmax(drawn, axis=0)
    for y in range(H):
        for x in range(W // 2 + 1):
            square = 4 * bands**2 * (Fraction(min(y, H - y), H) ** 2 + Fraction(x, W) ** 2)
            assert square == 0 or taken[y, x] == min(math.isqrt(math.floor(square)), bands - 1), (y, x)


@pytest.mark.parametrize("size", [(32, 32), (9, 12)])
def test_band_noise_stays_in_its_band(size: tuple[int, int]) -> None:
    H, W = size
    radius = np.hypot(2 * np.fft.fftfreq(H)[:, None], 2 * np.fft.fftfreq(W)[None, :])
    for band in range(4):
        noise = band_noise(size, band, 4, 2, 3).double().numpy()
        assert np.allclose((noise**2).sum((2, 3)), 1, atol=1e-5)
        power = (np.abs(np.fft.fft2(noise)) ** 2).sum((0, 1))
        inside = (radius >= band / 4) & ((radius < (band + 1) / 4) | (band == 3)) & (radius > 0)
        assert power[~inside].sum() < 1e-9 * power.sum()
        assert (power[inside] > 0).all()
    with pytest.raises(DataError, match="no frequency in band"):
        band_noise((4, 4), 0, 8, 1, 1)


@pytest.mark.parametrize(("size", "bands"), [((32, 32), 8), ((8, 12), 3), ((7, 9), 2)])
def test_bands_of_noise_and_removed_bands_differ_on_their_edges_alone(size: tuple[int, int], bands: int) -> None:
    """Each of the two shares out all frequencies but the mean; `square` is r^2 in whole numbers over (H W)^2."""
    H, W = size
    ky, kx = torch.arange(H)[:, None], torch.arange(W // 2 + 1)[None, :]
    ky = torch.minimum(ky, H - ky)
    square = 4 * (ky**2 * W**2 + kx**2 * H**2)
    on_edge = torch.stack([bands**2 * square == (band * H * W) ** 2 for band in range(1, bands)]).any(0)
    noise = [torch.fft.rfft2(band_noise(size, band, bands, 1, 1)[0, 0].double()).abs() > 1e-6 for band in range(bands)]
    removed = [~ImageFilter("removed", band, bands).passes(size) for band in range(bands)]
    every = torch.ones_like(square)
    every[0, 0] = 0
    for parts in (noise, removed):
        assert torch.equal(torch.stack(parts).sum(0), every)
    assert bool(on_edge.any()) == (size != (7, 9))
    for one, other in zip(noise, removed, strict=True):
        assert not ((one != other) & ~on_edge).any()
    for band in range(bands - 1):
        low, high = (ImageFilter("low", step, bands).passes(size) for step in (band, band + 1))
        assert torch.equal(removed[band], high & ~low)

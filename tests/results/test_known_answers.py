"""What is known without any reference code: spectra of images and of filters that have a formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import fourier_probe as fp


def noise_of(power: NDArray[np.float64], images: int, seed: int = 0) -> Tensor:
    """White noise with its power multiplied by (H, W) `power`, (images, 2, H, W)."""
    white = np.random.default_rng(seed).standard_normal((images, 2, *power.shape))
    return torch.from_numpy(np.fft.ifft2(np.fft.fft2(white) * np.sqrt(power)).real).float()


def radii(size: tuple[int, int]) -> NDArray[np.float64]:
    return np.hypot(2 * np.fft.fftfreq(size[0])[:, None], 2 * np.fft.fftfreq(size[1])[None, :])


def seen_by_identity(images: Tensor) -> fp.PointSpectrum:
    return fp.analyze(nn.Sequential(nn.Identity()), list(images.split(16)), points=["0"]).points[0]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [(64, 64), (48, 63)])
def test_images_of_power_1_over_f_to_the_a_have_slope_minus_a(size: tuple[int, int], exponent: float) -> None:
    r = radii(size)
    power = np.where(r > 0, np.where(r > 0, r, 1) ** -exponent, 0)
    point = seen_by_identity(noise_of(power, 64))
    assert point.scalars["slope"] == pytest.approx(-exponent, abs=0.05)  # the first rings are a pixel wide
    # To a thousandth: the slope of the ring means of that power, and the spread of the draw.
    rings = np.rint(r * min(size) / 2).astype(int)
    means = np.array([power[rings == m].mean() for m in range(1, min(size) // 2 + 1)])
    x = np.log(np.arange(1, len(means) + 1))
    expected = np.polyfit(x, np.log(means), 1)[0]
    assert point.scalars["slope"] == pytest.approx(expected, abs=3 * point.stderr_of["slope"] + 1e-3)


@pytest.mark.parametrize("size", [(32, 32), (7, 7), (14, 21)])
def test_white_noise_is_zero_on_every_grid(size: tuple[int, int]) -> None:
    point = seen_by_identity(noise_of(np.ones(size), 400))
    assert point.log_density is not None and point.log_density_stderr is not None
    assert np.abs(point.log_density).max() < 0.05
    assert (np.abs(point.log_density) < 4.5 * point.log_density_stderr).all()
    assert point.scalars["hfd_share"] == pytest.approx(point.hfd_share_white, abs=0.005)


@pytest.mark.parametrize(("side", "kernel"), [(32, 3), (14, 5)])
def test_the_step_of_a_box_blur_is_its_transfer_function(side: int, kernel: int) -> None:
    same = nn.Conv2d(1, 1, 1, bias=False)
    blur = nn.Conv2d(1, 1, kernel, padding=kernel // 2, padding_mode="circular", bias=False)
    nn.init.constant_(same.weight, 1)
    nn.init.constant_(blur.weight, 1 / kernel**2)
    images = torch.rand(24, 1, side, side, generator=torch.Generator().manual_seed(0))
    spectra = fp.analyze(nn.Sequential(same, blur), [images])
    before, after = spectra.points
    assert after.step is not None and after.step.origin == before.name
    w = np.pi * after.frequency
    transfer = np.abs(sum(np.cos(k * w) for k in range(-(kernel // 2), kernel // 2 + 1)) / kernel) ** 2
    assert after.step.delta.change == pytest.approx(np.log(transfer), abs=2e-3)  # the floor of the logarithm
    assert after.step.log_amplitude.change == pytest.approx(np.log(transfer), abs=2e-3)

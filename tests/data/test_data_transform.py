"""Pixels in the model's size and channels, against timm's evaluation transform and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from fourier_probe.data import InputSpec, normalise
from fourier_probe.data.transform import fit
from fourier_probe.errors import DataError


def spec(size: tuple[int, int], channels: int = 3, **options: Any) -> InputSpec:
    """An input with statistics that change nothing."""
    return InputSpec(channels, size, (0.0,) * channels, (1.0,) * channels, **options)


def noise(*shape: int) -> npt.NDArray[np.uint8]:
    """Random pixels, (H, W, C)."""
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("crop", [False, True])
def test_an_image_of_the_right_size_is_left_alone(crop: bool) -> None:
    pixels = noise(6, 9, 3)
    assert fit(pixels, spec((6, 9)), crop=crop) is not None
    np.testing.assert_array_equal(fit(pixels, spec((6, 9)), crop=crop), pixels)


def test_an_array_of_another_size_is_resized_without_a_crop() -> None:
    pixels = noise(20, 30, 3)
    wanted = np.asarray(Image.fromarray(pixels).resize((16, 8), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(fit(pixels, spec((8, 16), crop_pct=0.5), crop=False), wanted)


@pytest.mark.parametrize("shape", [(40, 60, 3), (61, 40, 3), (40, 40, 3), (17, 90, 3), (9, 7, 3)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_files_are_resized_and_cropped_as_timm_does_for_square_inputs(
    shape: tuple[int, int, int], interpolation: str
) -> None:
    pixels = noise(*shape)
    theirs = create_transform(
        (3, 28, 28), interpolation=interpolation, crop_pct=0.875, mean=(0, 0, 0), std=(1, 1, 1)
    )  # resizes the short side to 32
    wanted = theirs(Image.fromarray(pixels)).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    ours = fit(pixels, spec((28, 28), crop_pct=0.875, interpolation=interpolation), crop=True)
    np.testing.assert_array_equal(ours, wanted)


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.floats(0.3, 1.0),
)
def test_a_crop_has_the_size_asked_for_and_keeps_the_aspect(
    have: tuple[int, int], size: tuple[int, int], crop_pct: float
) -> None:
    # a ramp along each axis: its slope tells how far that axis was stretched
    rows, columns = np.meshgrid(np.linspace(0, 255, have[0]), np.linspace(0, 255, have[1]), indexing="ij")
    pixels = np.stack([rows, columns, rows], axis=2).astype(np.uint8)
    out = fit(pixels, spec(size, crop_pct=crop_pct, interpolation="bilinear"), crop=True)
    assert out.shape == (*size, 3)
    assert fit(pixels, spec(size, crop_pct=crop_pct), crop=False).shape == (*size, 3)


def test_a_non_square_crop_is_central_and_in_proportion() -> None:
    # 100 x 200 to cover (20, 20) / 0.5 = (40, 40): 40 x 80, then the middle 20 x 20: columns 75 to 125 of the original
    columns = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 1))
    out = fit(columns, spec((20, 20), 1, crop_pct=0.5, interpolation="box"), crop=True)
    np.testing.assert_allclose(out[10, :, 0], 75 + 2.5 * np.arange(20) + 0.75, atol=0.8)
    tall = fit(columns, spec((40, 10), 1, interpolation="box"), crop=True)  # 40 x 80, the middle 10 columns
    np.testing.assert_allclose(tall[10, :, 0], 87.5 + 2.5 * np.arange(10) + 0.75, atol=0.8)


def test_grey_is_repeated_and_colour_becomes_luma() -> None:
    grey, colour = noise(5, 4, 1), noise(5, 4, 3)
    np.testing.assert_array_equal(fit(grey, spec((5, 4)), crop=False), np.repeat(grey, 3, axis=2))
    luma = fit(colour, spec((5, 4), 1), crop=False)
    assert luma.shape == (5, 4, 1)
    np.testing.assert_allclose(luma[..., 0], colour @ [0.299, 0.587, 0.114], atol=0.51)
    assert fit(grey, spec((3, 8)), crop=False).shape == (3, 8, 3)
    assert fit(colour, spec((3, 8), 1), crop=False).shape == (3, 8, 1)


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(DataError, match="images of 3 channels for a model that takes 4"):
        fit(noise(4, 4, 3), spec((4, 4), 4), crop=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": (0, 4)}, r"input size is \(0, 4\)"),
        ({"mean": (0.5,)}, "a mean of 1 and a std of 3 channels for an input of 3"),
        ({"std": (1.0, 0.0, 1.0)}, "every std above 0"),
        ({"mean": (0.5, float("nan"), 0.5)}, "finite"),
        ({"mean": (127.5,) * 3, "std": (51.0,) * 3}, "divide by 255, which gives mean 0.5,0.5,0.5, std 0.2,0.2,0.2"),
        ({"mean": (0.5, 127.5, 0.5)}, "divide by 255"),
        ({"std": (0.5, 0.5, 51.0)}, "divide by 255"),
        ({"std": (2.1,) * 3}, "divide by 255"),
        ({"mean": (0.5, -0.1, 0.5)}, r"a mean is in \[0, 1\] and a std above 0, up to 2\.$"),
        ({"mean": (300.0,) * 3}, r"up to 2\.$"),
        ({"interpolation": "bicubik"}, r"'bicubik'.*Did you mean bicubic\?"),
        ({"crop_pct": 0.0}, "crop_pct is 0.0"),
        ({"crop_pct": 1.5}, "crop_pct is 1.5"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    whole: dict[str, Any] = {"channels": 3, "size": (4, 4), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.raises(DataError, match=message):
        InputSpec(**(whole | changed))


@pytest.mark.parametrize(
    ("mean", "std"), [((0, 0, 0), (1, 1, 1)), ((0, 0, 0), (1 / 255,) * 3), ((0, 1, 0.5), (2.0,) * 3)]
)
def test_statistics_that_networks_have_are_taken(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    assert InputSpec(3, (4, 4), mean, std).std == std


def test_normalise_by_the_formula() -> None:
    mean, std = (0.2, 0.5), (0.3, 0.1)
    pixels = torch.from_numpy(noise(2, 2, 5, 4))
    centre, scale = (np.array(each)[None, :, None, None] for each in (mean, std))
    wanted = (pixels.numpy() / 255 - centre) / scale
    ours = normalise(pixels, mean, std)
    assert ours.dtype == torch.float32 and ours.is_contiguous()
    np.testing.assert_allclose(ours, wanted, atol=2e-6)
    np.testing.assert_allclose(normalise(pixels.double() / 255, mean, std), wanted, atol=1e-12)

"""Closed forms, an independent float64 reference, and invariances of the spectrum functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import dawsn, expi

from fourier_probe.errors import ResultError
from fourier_probe.probe import metrics as spectrum
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.fast import Scratch, image_statistics, relative_log_amplitude, white_log
from fourier_probe.probe.frequency import ring_radii, usable_bins, white_noise_hfd_share
from fourier_probe.probe.metrics import MetricRequest, plain_statistics
from fourier_probe.probe.transforms import powers
from fourier_probe.results.estimates import estimates

GRIDS = [(8, 8), (7, 7), (14, 14), (9, 9), (6, 10), (10, 6), (7, 12), (5, 9), (4, 16)]


def maps(grid: tuple[int, int], *, images: int = 3, channels: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, channels, *grid, generator=generator, dtype=torch.float64) + 1.5


def numbers(features: torch.Tensor, definition: Definition | None = None) -> dict[str, np.ndarray]:
    """What the result would report of these features."""
    sums = {k: v.double().sum(0, keepdim=True).numpy() for k, v in image_statistics(features, definition).items()}
    sums["count"] = np.array([float(len(features))])
    with np.errstate(divide="ignore", invalid="ignore"):
        return {k: v[0] for k, v in estimates(sums, tuple(features.shape[2:])).items()}


# --- closed forms ---


@pytest.mark.parametrize("n", [8, 9, 16])
@pytest.mark.parametrize("bin_", [1, 2, 3])
def test_a_cosine_lights_one_bin(n: int, bin_: int) -> None:
    position = torch.arange(n, dtype=torch.float64)
    wave = torch.cos(2 * math.pi * bin_ * (position[:, None] + position[None, :]) / n)[None, None]
    amplitude = image_statistics(wave)["log_amplitude"][0].exp()
    assert amplitude[bin_] == pytest.approx(n * n / 2 + 1e-6)
    others = torch.cat([amplitude[:bin_], amplitude[bin_ + 1 :]])
    assert float(others.max()) < 1e-5


@pytest.mark.parametrize("grid", GRIDS)
def test_a_delta_is_flat(grid: tuple[int, int]) -> None:
    impulse = torch.zeros(1, 1, *grid)
    impulse[0, 0, 1, 2] = 3.0
    amplitude = image_statistics(impulse)["log_amplitude"][0]
    assert amplitude.numpy() == pytest.approx(math.log(3 + 1e-6), abs=1e-6)
    assert numbers(impulse)["log_density"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("mean_over_sigma", "n", "expected"), [(3, 7, -3.33), (3, 14, -4.03), (3, 56, -5.41), (0, 14, 0.35), (0, 9, 0.35)]
)
def test_white_noise_reads_what_the_formula_says(mean_over_sigma: float, n: int, expected: float) -> None:
    noise = torch.randn(40, 60, n, n, generator=torch.Generator().manual_seed(1)) + mean_over_sigma
    _, delta = relative_log_amplitude(noise)
    usable = usable_bins((n, n))
    formula = spectrum.ZERO_MEAN_WHITE_NOISE
    if mean_over_sigma:
        formula = math.log(1 / mean_over_sigma) - math.log(n) - spectrum.EULER_GAMMA / 2
    assert formula == pytest.approx(expected, abs=0.005)
    assert delta[1:usable].numpy() == pytest.approx(formula, abs=0.07)
    if n % 2 == 0:  # Nyquist is a real coefficient, half ln 2 lower
        assert float(delta[-1]) == pytest.approx(formula - math.log(2) / 2, abs=0.07)


@pytest.mark.parametrize("mean_over_sigma", [0, 3])
@pytest.mark.parametrize("grid", [(8, 12), (12, 8), (7, 10), (9, 6), (5, 9), (6, 14)])
def test_white_noise_on_oblong_grids_reads_what_the_formula_says(grid: tuple[int, int], mean_over_sigma: float) -> None:
    """Bin by bin, also where the bin lies between two of the longer axis."""
    noise = torch.randn(80, 150, *grid, generator=torch.Generator().manual_seed(7)) + mean_over_sigma
    _, delta = relative_log_amplitude(noise)
    usable = usable_bins(grid)
    formula = spectrum.ZERO_MEAN_WHITE_NOISE
    if mean_over_sigma:
        formula = -math.log(mean_over_sigma) - math.log(math.prod(grid)) / 2 - spectrum.EULER_GAMMA / 2
    assert delta[1:usable].numpy() == pytest.approx(formula, abs=0.04)
    if min(grid) % 2 == 0:  # Nyquist is a real coefficient where the longer axis has it too
        real = math.log(2) / 2 if max(grid) % 2 == 0 else 0.0
        assert float(delta[-1]) == pytest.approx(formula - real, abs=0.04)


@pytest.mark.parametrize("grid", GRIDS)
def test_white_noise_has_no_density_profile_and_its_share_is_the_share_of_bins(grid: tuple[int, int]) -> None:
    noise = torch.randn(50, 80, *grid, generator=torch.Generator().manual_seed(2)) + 4
    found = numbers(noise)
    assert found["log_density"] == pytest.approx(0, abs=0.03)
    assert float(found["hfd_share"]) == pytest.approx(white_noise_hfd_share(grid), abs=0.01)
    # The expected delta of noise of the same mean and variance agrees with what is seen below Nyquist.
    usable = usable_bins(grid)
    assert float(found["white_delta"]) == pytest.approx(float(found["delta"][1:usable].mean()), abs=0.03)


def test_slope_is_exact_on_a_power_law() -> None:
    n = 32
    ky, kx = np.meshgrid(np.fft.fftfreq(n) * 2, np.fft.fftfreq(n) * 2, indexing="ij")
    ring = np.floor(np.hypot(ky, kx) * n / 2 + 0.5) * 2 / n
    amplitude = np.where(ring > 0, ring, 1.0) ** -1.0  # power r^-2 on ring centres
    phase = np.angle(np.fft.fft2(np.random.default_rng(0).standard_normal((n, n))))
    image = torch.from_numpy(np.fft.ifft2(amplitude * np.exp(1j * phase)).real)[None, None]
    assert float(numbers(image)["slope"]) == pytest.approx(-2, abs=1e-6)
    assert np.isnan(numbers(maps((6, 6)))["slope"])  # under 4 rings there is none


# --- independent reference ---


@pytest.mark.parametrize("grid", GRIDS)
def test_diagonal_agrees_with_the_reference(grid: tuple[int, int]) -> None:
    features = maps(grid)
    ours = image_statistics(features)["log_amplitude"].mean(0).numpy()
    assert ours == pytest.approx(reference.log_amplitude(features.numpy()), abs=1e-9)
    single = image_statistics(features.float())["log_amplitude"].mean(0).numpy()
    assert single == pytest.approx(ours, abs=1e-5)


@pytest.mark.parametrize("n", [4, 7, 8, 14])
def test_paper_axis_is_the_published_result(n: int) -> None:
    features = maps((n, n))
    frequency, delta = relative_log_amplitude(features, definition=Definition(axis="paper"))
    x, y = reference.published_delta(features.numpy())
    assert frequency.numpy() == pytest.approx(x)
    assert delta.numpy() == pytest.approx(y, abs=1e-9)


@pytest.mark.parametrize("grid", GRIDS)
def test_radial_profile_share_and_the_rest_agree_with_the_reference(grid: tuple[int, int]) -> None:
    features = maps(grid)
    found, array = numbers(features), features.numpy()
    radii, density = reference.log_density(array)
    assert ring_radii(grid) == pytest.approx(radii)
    assert found["log_density"] == pytest.approx(density, abs=1e-5)
    share = reference.hfd_share(array)
    assert float(found["hfd_share"]) == pytest.approx(share.mean(), abs=1e-6)
    plain = spectrum.hfd_share.measure(MetricRequest(features))
    assert (plain["share"] / plain["live"]).numpy() == pytest.approx(share.mean(1), abs=1e-9)
    power, radius = reference.plane(array)
    assert float(found["hfd_share_pooled"]) == pytest.approx(
        power[..., radius > 0.5].sum() / power[..., radius > 0].sum(), abs=1e-6
    )
    assert float(found["variance"]) == pytest.approx(array.var(axis=(2, 3)).mean(), rel=1e-6)
    mean = array.mean(axis=(2, 3), keepdims=True)
    ratio = np.linalg.norm(array - mean) / np.linalg.norm(np.broadcast_to(mean, array.shape))
    assert float(found["ac_dc"]) == pytest.approx(ratio, rel=1e-6)
    assert float(found["token_cosine"]) == pytest.approx(reference.token_cosine(array), abs=1e-6)


def test_nearly_constant_channels_keep_their_digits() -> None:
    """Summing the map itself in float32 loses everything here: error 1e-4 to 2e-2."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, 200, 56, 56, generator=generator) * 1e-4 + 3
    features[:, ::100] = 7.0  # and exactly constant ones
    reference_value = reference.log_amplitude(features.double().numpy())
    assert image_statistics(features)["log_amplitude"].mean(0).numpy() == pytest.approx(reference_value, abs=2e-6)


def test_mean_map_is_the_shifted_plane() -> None:
    features = maps((6, 8))
    ours = image_statistics(features, maps=True)["map"].mean(0).numpy()
    theirs = np.fft.fftshift(np.log(np.abs(np.fft.fft2(features.numpy())) + 1e-6).mean((0, 1)))
    assert ours == pytest.approx(theirs, abs=1e-9)


# --- properties ---


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(2, 12), st.integers(2, 12)),
    st.floats(0.1, 50),
    st.tuples(st.integers(0, 11), st.integers(0, 11)),
)
def test_shift_changes_nothing_and_scale_changes_log_amplitude_alone(
    grid: tuple[int, int], scale: float, shift: tuple[int, int]
) -> None:
    features = maps(grid)
    plain = Definition(log="plain")  # a floor has a scale of its own
    moved = numbers(torch.roll(features, shift, dims=(2, 3)) * scale, plain)
    still = numbers(features, plain)
    for name in ("delta", "log_density", "hfd_share", "token_cosine", "ac_dc"):
        assert moved[name] == pytest.approx(still[name], abs=1e-5, nan_ok=True), name
    assert moved["log_amplitude"] == pytest.approx(still["log_amplitude"] + math.log(scale), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_also_under_autocast(dtype: torch.dtype) -> None:
    features = maps((7, 7)).to(dtype)
    plain = image_statistics(features.float())
    with torch.autocast("cpu", torch.bfloat16):
        cast = image_statistics(features)
    for name, value in plain.items():
        assert torch.equal(cast[name], value), name


def test_layout_in_memory_changes_nothing() -> None:
    features = maps((7, 7)).float()
    for name, value in image_statistics(features).items():
        same = image_statistics(features.to(memory_format=torch.channels_last))[name]
        assert torch.allclose(same, value, rtol=1e-6), name


def test_features_are_not_modified() -> None:
    features = maps((8, 8))
    before = features.clone()
    image_statistics(features, Definition(window="hann"), maps=True)
    assert torch.equal(features, before)


def test_hann_window_keeps_dc_and_white_noise_and_stops_leakage() -> None:
    hann = Definition(window="hann")
    ramp = torch.arange(32.0).expand(1, 1, 32, 32).contiguous()  # a ramp is discontinuous at the border
    assert numbers(ramp, hann)["log_amplitude"][0] == pytest.approx(math.log(float(ramp.sum())))
    assert numbers(ramp, hann)["hfd_share"] < 0.01 * numbers(ramp)["hfd_share"]
    noise = torch.randn(30, 40, 16, 16, generator=torch.Generator().manual_seed(4))
    usable = usable_bins((16, 16))
    assert numbers(noise, hann)["log_amplitude"][1:usable] == pytest.approx(
        numbers(noise)["log_amplitude"][1:usable], abs=0.05
    )


@pytest.mark.parametrize(("log", "formula"), [("floor", "ln(|F|+0.01)"), ("log1p", "ln(1+|F|)"), ("plain", "ln|F|")])
def test_every_logarithm(log: str, formula: str) -> None:
    definition = Definition(log=log, floor=1e-2)
    features = maps((6, 6))
    amplitude = np.abs(np.fft.fft2(features.numpy()))[:, :, [0, 1, 2, 3], [0, 1, 2, 3]]
    expected = {"floor": np.log(amplitude + 1e-2), "log1p": np.log1p(amplitude), "plain": np.log(amplitude)}[log]
    found = image_statistics(features, definition)["log_amplitude"].mean(0).numpy()
    assert found == pytest.approx(expected.mean((0, 1)), abs=1e-9)
    assert definition.formula == formula
    assert Definition.from_json(definition.to_json()) == definition


@pytest.mark.parametrize("n", [7, 8, 14])
def test_white_noise_stays_flat_under_the_window(n: int) -> None:
    noise = torch.randn(400, 20, n, n, generator=torch.Generator().manual_seed(5)) + 2
    found = numbers(noise, Definition(window="hann"))
    assert found["log_density"] == pytest.approx(0, abs=0.025)
    assert float(found["hfd_share_pooled"]) == pytest.approx(white_noise_hfd_share((n, n)), abs=0.005)


@pytest.mark.parametrize("log", ["floor", "log1p", "plain"])
@pytest.mark.parametrize("sigma", [0.01, 1.0])
def test_the_white_noise_level_holds_for_every_logarithm_and_with_dead_channels(log: str, sigma: float) -> None:
    noise = torch.randn(60, 20, 14, 14, generator=torch.Generator().manual_seed(6)) * sigma + 3 * sigma
    noise[:, 0] = 0
    found = numbers(noise, Definition(log=log))
    assert float(found["white_delta"]) == pytest.approx(float(found["delta"][1:7].mean()), abs=0.03)


# --- borders and bad input ---


def test_a_single_position_has_no_frequencies() -> None:
    found = numbers(torch.ones(2, 3, 1, 1))
    assert found["delta"].tolist() == [0.0]
    assert len(found["log_density"]) == 0
    assert np.isnan(found["white_delta"])
    assert white_noise_hfd_share((1, 1)) is None


def test_dead_channels_count_in_the_mean_and_not_in_the_share() -> None:
    features = maps((8, 8), channels=4)
    features[:, 1] = 0
    features[:, 2] = 5.0
    statistics = image_statistics(features)
    assert (statistics["flat"] <= spectrum.DEAD).sum(1).tolist() == [2, 2, 2]
    assert statistics["live"].tolist() == [2.0, 2.0, 2.0]
    live = reference.hfd_share(features[:, [0, 3]].numpy()).mean()
    assert float(numbers(features)["hfd_share"]) == pytest.approx(live, abs=1e-6)
    expected = reference.log_amplitude(features.numpy())
    assert numbers(features)["log_amplitude"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("features", [torch.zeros(3, 4, 5), torch.zeros(1, 2, 4, 4, dtype=torch.int64)])
def test_what_is_no_map_is_refused(features: torch.Tensor) -> None:
    with pytest.raises(ResultError, match=r"expected floating feature maps \(B, C, H, W\)"):
        image_statistics(features)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ResultError, match="axis='sideways' is not one of true, paper"):
        Definition(axis="sideways")
    with pytest.raises(ResultError, match="floor=0 must be positive"):
        Definition(floor=0)
    with pytest.raises(ResultError, match="floor=inf must be positive and finite"):
        Definition(floor=math.inf)
    with pytest.raises(ResultError, match="at least 2"):
        Definition(groups=1)
    with pytest.raises(ResultError, match="square maps only and this grid is 6x10"):
        relative_log_amplitude(maps((6, 10)), definition=Definition(axis="paper"))


@pytest.mark.parametrize("grid", [(14, 14), (7, 7), (12, 16), (16, 5), (20, 20)])
@pytest.mark.parametrize("window", ["none", "hann"])
def test_layout_in_memory_does_not_matter(grid: tuple[int, int], window: str) -> None:
    features = torch.randn(3, 6, *grid, generator=torch.Generator().manual_seed(0)) + 2.0
    features[:, 1] = 3.0  # constant
    features[:, 2] = 0.0  # dead
    definition = Definition(window=window)  # type: ignore[arg-type]
    last = features.to(memory_format=torch.channels_last)
    assert last.stride() != features.stride()
    first = image_statistics(features, definition, maps=True)
    for name, value in image_statistics(last, definition, maps=True).items():
        assert torch.allclose(value.double(), first[name].double(), rtol=2e-5, atol=2e-6), name


def test_the_matrices_are_the_real_fourier_transform() -> None:
    maps = torch.randn(2, 5, 9, 8, dtype=torch.float64).to(memory_format=torch.channels_last)
    assert maps.stride(1) == 1
    by_products, by_fft = powers(maps), powers(maps.contiguous())
    for ours, theirs in zip(by_products, by_fft, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-11)


def test_memory_kept_between_calls_carries_nothing_over() -> None:
    square, wide, scratch = torch.randn(2, 3, 6, 6), torch.randn(2, 3, 6, 7), Scratch()
    before = image_statistics(square, scratch=scratch)
    image_statistics(wide, scratch=scratch)  # its maps are as large as the padded maps of the other
    for name, value in image_statistics(square, scratch=scratch).items():
        assert torch.equal(value, before[name]), name
    for size in range(2, 2 * Scratch.ROOMS):
        image_statistics(torch.randn(1, 1, size, size), scratch=scratch)
    assert len(scratch._rooms) == Scratch.ROOMS


@pytest.mark.parametrize("grid", [*GRIDS, (1, 1), (2, 2), (3, 3), (1, 5), (20, 18)])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "definition",
    [
        Definition(),
        Definition(window="hann"),
        Definition(log="log1p", window="hann"),
        Definition(log="plain"),
        Definition(metrics="diagonal"),
    ],
    ids=lambda definition: f"{definition.log}-{definition.window}-{definition.metrics}",
)
def test_the_fast_path_equals_the_plain_functions(grid: tuple[int, int], last: bool, definition: Definition) -> None:
    features = maps(grid)
    features[:, 1] = 2.5  # constant
    features[:, 2] = 0.0  # dead
    features[0] *= 1e-3
    ours = features.to(memory_format=torch.channels_last) if last else features
    fast, plain = image_statistics(ours, definition), plain_statistics(features, definition)
    assert fast.keys() == plain.keys()
    for name, value in plain.items():
        assert torch.allclose(fast[name].double(), value.double(), rtol=1e-6, atol=1e-8), name
    for name, value in image_statistics(ours.float(), definition).items():
        assert torch.allclose(value.double(), plain[name].double(), rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_digits_do_not_depend_on_the_precision_of_matrix_products(layout: torch.memory_format) -> None:
    features = torch.randn(2, 40, 14, 14, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    exact = image_statistics(features.double())
    try:
        torch.set_float32_matmul_precision("medium")
        found = image_statistics(features)
    finally:
        torch.set_float32_matmul_precision("highest")
    for name, value in found.items():
        assert torch.allclose(value.double(), exact[name].double(), rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("definition", [Definition(), Definition(log="log1p")], ids=["floor", "log1p"])
def test_the_white_level_near_the_floor_is_the_expectation(definition: Definition) -> None:
    """Against the closed form, v Rayleigh, D Dawson's: E ln(v + s) = ln s + sqrt(pi) D(s) - exp(-s^2) Ei(s^2) / 2."""
    floor = 1.0 if definition.log == "log1p" else definition.floor
    amplitude = floor * torch.logspace(-1, 8, 200, dtype=torch.float64)
    s = (floor / amplitude).numpy()
    closed = math.log(floor) + math.sqrt(math.pi) * dawsn(s) - np.exp(-(s**2)) * expi(s**2) / 2
    level = white_log(amplitude.square(), definition).numpy()
    assert level == pytest.approx(closed, abs=2e-7)
    assert float(white_log(torch.zeros(1), definition)) == pytest.approx(math.log(floor))
    drawn = torch.rand(200_000, generator=torch.Generator().manual_seed(0)).log().neg().sqrt() * floor
    assert float((drawn.double() + floor).log().mean()) == pytest.approx(
        float(white_log(torch.tensor([floor**2]), definition)), abs=3e-3
    )

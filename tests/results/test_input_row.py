"""The images themselves as depth "input": against an independent computation, in tables, files and profiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from torch import nn

from fourier_probe.plots.spectra import depth_figure
from fourier_probe.probe.measuring import Listen
from fourier_probe.probe.totals import Totals
from fourier_probe.results.analysis import analyze
from fourier_probe.results.comparison import Comparison
from fourier_probe.results.input_level import input_level, input_text
from fourier_probe.results.profile import view_of
from fourier_probe.results.spectra import Spectra


def pictures(count: int = 40, size: int = 8) -> torch.Tensor:
    """Noise with some colour and a mean."""
    noise = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0)) + 0.5
    return noise + 0.5 * torch.roll(noise, 1, dims=3)


def network(stride: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=stride, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))


def result(stride: int = 1, size: int = 8, **options: object) -> Spectra:
    listen = Listen(**options)  # type: ignore[arg-type]
    return analyze(network(stride), list(torch.split(pictures(size=size), 16)), listen=listen)


def test_the_numbers_are_those_of_the_images() -> None:
    images, point = pictures().double().numpy(), result()["input"]
    amplitude = reference.log_amplitude(images)
    assert point.log_amplitude == pytest.approx(amplitude, abs=1e-5)
    assert point.delta == pytest.approx(amplitude - amplitude[0], abs=1e-5)
    radius, density = reference.log_density(images)
    assert point.radial is not None and point.radial.radius == pytest.approx(radius)
    assert point.radial.log_density == pytest.approx(density, abs=1e-5)
    assert point.scalars["hfd_share"] == pytest.approx(reference.hfd_share(images).mean(), abs=1e-5)
    assert point.scalars["token_cosine"] == pytest.approx(reference.token_cosine(images), abs=1e-5)
    assert (point.kind, point.grid, point.channels) == ("input", (8, 8), 3) and point.stderr[1] > 0


def test_it_is_first_in_tables_and_survives_its_files(tmp_path: Path) -> None:
    spectra = result(maps=True)
    frame = spectra.to_frame()
    first = frame[frame["index"] == -1]
    assert set(first["point"]) == {"input"} and first["depth"].isna().all() and len(first) == 5 + 4 + 7
    assert spectra.table()["point"][0] == "input" and spectra.table()["depth"][0] == "input"
    spectra.save(tmp_path)
    again = Spectra.load(tmp_path)
    assert again.input is not None and again.to_json() == spectra.to_json()
    assert np.array_equal(again.input.sums["ring"], spectra.input.sums["ring"])
    assert again.input.map.shape == (8, 8) and np.array_equal(again.input.map_stderr, spectra.input.map_stderr)


def test_a_profile_says_whether_the_images_can_be_set_beside_its_points() -> None:
    same, pyramid, other = result(), result(stride=2, points=["0", "*"]), result(stride=2, points=["2"])
    level = input_level(same, view_of(same))
    assert level is not None and level.alike and level.value == pytest.approx(same["input"].delta[3])
    level = input_level(other, view_of(other))  # every map is 4x4: delta, and the images are 8x8
    assert level is not None and not level.alike and level.white == same["input"].scalars["white_delta"]
    assert "on 8x8, where white noise has" in input_text([other], ["net"], view_of(other))[0]
    assert input_level(pyramid, view_of(pyramid)) is not None
    both = Comparison((same, other), ("a", "b"))
    assert both.view.quantity == "log_density"
    assert both.table().caption.count("The images themselves: log density") == 1


def test_the_mark_stands_left_of_depth_0_filled_only_where_it_may_be_compared() -> None:
    same, other = result(), result(stride=2, points=["2"])
    for spectra, label in ((same, "input"), (other, "input")):
        ax = depth_figure([spectra], ["net"]).axes[0]
        assert ax.get_xticklabels()[0].get_text() == label and ax.get_xlim()[0] < -0.1
    marks = [line for line in depth_figure([same], [""]).axes[0].get_lines() if line.get_marker() == "D"]
    assert len(marks) == 1 and marks[0].get_markerfacecolor() != "white"
    assert list(marks[0].get_ydata()) == [pytest.approx(same["input"].delta[3])]
    hollow = [line for line in depth_figure([other], [""]).axes[0].get_lines() if line.get_marker() in ("D", "v", "^")]
    assert hollow[0].get_markerfacecolor() == "white"
    overlaid = depth_figure([same, same], ["a", "b"]).axes[0]
    assert sum(line.get_marker() == "D" for line in overlaid.get_lines()) <= 2  # one mark, and maybe one of a legend


def test_ranks_add_up_their_images() -> None:
    whole = result()["input"]
    parts = [analyze(network(), [part]) for part in torch.split(pictures(), 20)]
    merged = Totals(count=torch.zeros(20, dtype=torch.int64))
    assert whole.sums["count"].sum() == sum(part["input"].sums["count"].sum() for part in parts)
    merged.merge(Totals(count=torch.ones(20, dtype=torch.int64), shape=(3, 8, 8)))
    assert merged.shape == (3, 8, 8)


def test_images_of_one_position_and_a_paper_axis_of_other_images_are_no_crash() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    assert analyze(model, [torch.rand(3, 3, 1, 1)])["input"].grid == (1, 1)
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(3, 4, 1), nn.ReLU())
    from fourier_probe.probe.definition import Definition

    spectra = analyze(flat, [torch.rand(3, 3, 8, 6)], definition=Definition(axis="paper"))
    assert spectra.input is None and spectra.table()["point"][0] != "input"

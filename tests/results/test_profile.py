"""One rule for what profiles show: delta on one grid, the log density where grids differ, with intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fourier_probe.plots import depth_figure, spectra_figure
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.measuring import Listen
from fourier_probe.results.analysis import analyze
from fourier_probe.results.profile import difference_at, ends_of, profile, value_at, view_of
from fourier_probe.results.spectra import Spectra


def network(stride: int, *, scale: float = 1.0) -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 3, padding=1, stride=stride))
    with torch.no_grad():
        model[0].bias.mul_(scale)
    return model


def spectra(stride: int, *, metrics: str = "all", scale: float = 1.0) -> Spectra:
    images = torch.randn(40, 3, 14, 14, generator=torch.Generator().manual_seed(1)).cumsum(3)
    definition = Definition(metrics=metrics)  # type: ignore[arg-type]
    return analyze(network(stride, scale=scale), [images], definition=definition, listen=Listen(points=["0", "1"]))


def white_noise() -> Spectra:
    """White noise of a large mean, as it is and on maps of half the size."""
    images = 3 + torch.randn(200, 8, 14, 14, generator=torch.Generator().manual_seed(2))
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.MaxPool2d(1, stride=2))
    return analyze(model, [images], listen=Listen(points=["0", "1"]))


def test_one_grid_shows_delta_and_several_the_log_density() -> None:
    same, other = view_of(spectra(1)), view_of(spectra(2))
    assert (same.quantity, same.grids) == ("delta", ("14x14",))
    assert "14x14" in same.why and same.heading == "delta at 0.86 pi"
    assert (other.quantity, other.grids) == ("log_density", ("14x14", "7x7"))
    assert other.at == pytest.approx(6 / 7)  # the last ring of the smaller map
    assert "14x14, 7x7" in other.why and "0 for white noise" in other.why
    assert view_of([spectra(1), spectra(2)]).quantity == "log_density"


def test_white_noise_is_level_in_the_view_and_not_in_delta() -> None:
    result = white_noise()
    along = profile(result)
    assert along.value == pytest.approx([0, 0], abs=0.05)
    assert (along.white == 0).all() and (np.abs(along.value) < 4 * along.stderr).all()
    delta = [point.delta[point.usable - 1] for point in result.points]
    assert delta[1] - delta[0] > 0.5  # ln 2 for the grid alone


def test_without_radial_profiles_the_grids_are_named() -> None:
    view = view_of(spectra(2, metrics="diagonal"))
    assert view.quantity == "delta" and "14x14, 7x7" in view.why and "--metrics all" in view.why
    figure = depth_figure([spectra(2, metrics="diagonal")], ["a"])
    assert "14x14, 7x7" in figure.legends[0].get_title().get_text()


@pytest.mark.parametrize("stride", [1, 2])
def test_values_and_errors_are_those_of_the_bins_they_lie_on(stride: int) -> None:
    result = spectra(stride)
    view, last = view_of(result), result.points[-1]
    value, error = value_at(last, view)
    if stride == 1:
        expected = last.delta[last.usable - 1], last.stderr[last.usable - 1]
    else:
        assert last.log_density is not None and last.log_density_stderr is not None
        expected = last.log_density[-1], last.log_density_stderr[-1]
    assert (value, error) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    bare = replace(last, sums=None)
    assert value_at(bare, view) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


@pytest.mark.parametrize("stride", [1, 2])
def test_differences_are_paired(stride: int) -> None:
    one, other = spectra(stride), spectra(stride, scale=1.02)
    ends = ends_of([one, other], view_of([one, other]))
    assert ends[0].last_difference == 0 and ends[0].last_difference_stderr == 0
    assert ends[1].last_difference == pytest.approx(ends[1].last - ends[0].last)
    assert 0 <= ends[1].last_difference_stderr < 0.5 * np.hypot(ends[0].last_stderr, ends[1].last_stderr)
    bare = replace(other.points[-1], sums=None)
    assert np.isnan(difference_at(bare, one.points[-1], view_of(one))[1])


def test_figures_say_what_they_show() -> None:
    same, other = spectra(1), spectra(2)
    assert "Delta" in depth_figure([same], ["a"]).axes[0].get_ylabel()
    for figure in (depth_figure([other], ["a"]), depth_figure([same, other], ["a", "b"])):
        assert figure.axes[0].get_ylabel() == "Log density at radius 0.86 (nats)"
    legend = spectra_figure([other], ["a"]).legends[0]
    assert "here 14x14, 7x7" in legend.get_title().get_text()
    assert "grid" not in spectra_figure([same], ["a"]).legends[0].get_title().get_text()

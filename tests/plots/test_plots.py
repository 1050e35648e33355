"""What stands on the Axes, and the same bytes for the same figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from fourier_probe.plots import depth_figure, draw_spectra, save, spectra_figure
from fourier_probe.plots.spectra import wrapped_title
from fourier_probe.probe.definition import Definition
from fourier_probe.results.analysis import analyze
from fourier_probe.results.spectra import Spectra


@pytest.fixture(scope="module")
def result() -> Spectra:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 4, 3, padding=1, stride=2),
        torch.nn.ReLU(),
    )
    return analyze(model, [torch.rand(20, 3, 16, 16) for _ in range(2)])


def test_a_curve_a_point_ends_before_nyquist_which_stands_apart(result: Spectra) -> None:
    ax = draw_spectra(Figure().subplots(), result)
    lines = ax.get_lines()
    for point in result.stream:
        match = [line for line in lines if np.array_equal(line.get_ydata(), point.delta[: point.usable])]
        assert len(match) == 1, point.name
        assert np.array_equal(match[0].get_xdata(), point.frequency[: point.usable])
        assert max(match[0].get_xdata()) < 1
    circles = [line for line in lines if line.get_marker() == "o"]
    assert sorted(float(c.get_ydata()[0]) for c in circles) == sorted(float(p.delta[-1]) for p in result.stream)
    assert len([line for line in lines if line.get_marker() == "<"]) == len(result.stream)
    assert len(ax.collections) == len(result.stream)  # one band a curve
    levels = [line.get_ydata()[0] for line in lines if line.get_linestyle() == ":"]
    assert levels == [pytest.approx(0.3466, abs=1e-4)]


def test_paper_axis_says_so_and_has_no_nyquist(result: Spectra) -> None:
    model = torch.nn.Conv2d(3, 4, 3, padding=1)
    paper = analyze(torch.nn.Sequential(model), [torch.rand(20, 3, 8, 8)], definition=Definition(axis="paper"))
    ax = draw_spectra(Figure().subplots(), paper)
    assert "paper" in ax.get_xlabel()
    assert not [line for line in ax.get_lines() if line.get_marker() == "o"]


def test_depth_figure_overlays_results_at_one_frequency(result: Spectra) -> None:
    figure = depth_figure([result, result], ["a", "b"])
    ax = figure.axes[0]
    handles, labels = ax.get_legend_handles_labels()
    assert labels == ["a", "b"]
    assert len(handles) == 2
    single = depth_figure([result], ["a"]).axes[0]
    shades = [patch for patch in single.patches if patch.get_width() < 1.1]
    assert len(shades) == sum(point.op in ("attention", "downsample") for point in result.stream)


def test_figures_have_a_panel_a_result_and_a_colour_bar(result: Spectra) -> None:
    figure = spectra_figure([result] * 5, list("abcde"))
    visible = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in visible[:5]] == list("abcde")
    assert len(visible) == 6


def test_a_long_title_is_wrapped_and_keeps_its_end() -> None:
    name = "cifar_resnet8-60pc-constant-seed1-4a18cc72"
    lines = wrapped_title(name).split("\n")
    assert max(map(len, lines)) <= 22 and "".join(lines) == name
    long = wrapped_title(name + "/" + name)
    assert long.count("\n") <= 4 and long.replace("\n", "").endswith("4a18cc72")
    assert wrapped_title("timm:resnet18") == "timm:resnet18"


@pytest.mark.slow
def test_the_same_figure_is_the_same_bytes(tmp_path: Path, result: Spectra) -> None:
    first = [path.read_bytes() for path in save(spectra_figure([result], ["a"]), tmp_path / "one")]
    second = [path.read_bytes() for path in save(spectra_figure([result], ["a"]), tmp_path / "two")]
    assert first == second
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.pdf", "one.png", "two.pdf", "two.png"]

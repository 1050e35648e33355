"""Figures that can be printed: sizes, fonts, styles, and what stands in them and nowhere beyond their edge."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from fourier_probe.errors import OutputError
from fourier_probe.plots import depth_figure, epochs_figure, figure_style, save, spectra_figure
from fourier_probe.plots.attention import attention_figure
from fourier_probe.plots.compare import coordinate_figure, density_figure, steps_figure, zigzag_figure
from fourier_probe.plots.schedule import schedule_figure
from fourier_probe.plots.spectra import step_errors
from fourier_probe.plots.style import panel_columns
from fourier_probe.probe.metrics import Definition
from fourier_probe.results.analysis import analyze
from fourier_probe.results.attention import AttentionRecord
from fourier_probe.results.profile import view_of
from fourier_probe.results.records import Provenance
from fourier_probe.results.side_by_side import coordinates
from fourier_probe.results.spectra import Spectra
from fourier_probe.results.steps import step_changes

pytestmark = pytest.mark.slow  # each figure drawn


def network(layers: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        *(step for at in range(layers) for step in (torch.nn.Conv2d(4 if at else 3, 4, 3, padding=1), torch.nn.ReLU()))
    )


def result_of(layers: int, axis: str = "true") -> Spectra:
    images = torch.rand(40, 3, 12, 12) * torch.linspace(0.5, 2, 40)[:, None, None, None]
    result = analyze(network(layers), [images], definition=Definition(axis=axis))  # type: ignore[arg-type]
    return replace(result, target=Provenance(source="run", epoch=1))


LAYER = AttentionRecord(
    name="a", grid=(4, 4), distance=[3.0, 5.0], diversity=1.0, uniform=9.0, frequency=[0.0, 0.5, 1.0], gate=[0.5, 0.9],
    response=[[1.0, 0.2, 0.1], [1.0, 0.4, 0.1]], images=64,
)  # fmt: skip
NAME = "a_rather_long_name_of_a_network, linear, 10 % of the data"


@pytest.fixture(scope="module")
def few() -> Spectra:
    return result_of(4)


@pytest.fixture(scope="module")
def many() -> Spectra:
    return result_of(14)


@pytest.fixture(scope="module")
def figures(few: Spectra, many: Spectra) -> dict[str, Callable[[], Figure]]:
    steps, view = step_changes(few), view_of(few)
    placed = coordinates([few, many], [NAME, "b"], few, many)
    return {
        "spectra": lambda: spectra_figure([few], [NAME]),
        "five spectra": lambda: spectra_figure([few] * 5, [NAME] * 5),
        "depth": lambda: depth_figure([many], [NAME]),
        "depths": lambda: depth_figure([few, many], [NAME, "b"]),
        "steps": lambda: steps_figure([steps, steps], [NAME, "b"], view),
        "coordinate": lambda: coordinate_figure(placed),
        "density": lambda: density_figure([few] * 5, [NAME] * 5),
        "epochs": lambda: epochs_figure([[few, few]] * 2, [NAME, "b"], [[1], []]),
        "attention": lambda: attention_figure([LAYER] * 3, NAME),
        "schedule": lambda: schedule_figure(["layer3.0.conv2"], {"layer3.0.conv2": 4}, 10, title=NAME),
    }  # fmt: skip


NAMES = (
    "spectra",
    "five spectra",
    "depth",
    "depths",
    "steps",
    "coordinate",
    "density",
    "epochs",
    "attention",
    "schedule",
)


@pytest.mark.parametrize(("name", "width"), list(itertools.product(NAMES, (None, "single", "double"))))
def test_nothing_is_cut_at_an_edge(figures: dict[str, Callable[[], Figure]], name: str, width: str | None) -> None:
    with figure_style(width):
        figure = figures[name]()
    if width:
        assert figure.get_figwidth() == {"single": 3.5, "double": 7.0}[width]
    figure.draw_without_rendering()
    box = figure.get_tightbbox()  # inches
    assert box.x0 > -0.02 and box.y0 > -0.02
    assert box.x1 < figure.get_figwidth() + 0.02 and box.y1 < figure.get_figheight() + 0.02


def test_every_interval_is_said(figures: dict[str, Callable[[], Figure]]) -> None:
    for name in ("spectra", "five spectra", "depth", "depths", "steps", "coordinate", "epochs"):
        said = " ".join(legend.get_title().get_text() for legend in figures[name]().legends)
        assert "95 %" in said and "images" in said, name


def test_bands_of_many_curves_are_of_the_first_and_the_last(few: Spectra, many: Spectra) -> None:
    for result, bands in ((few, len(few.stream)), (many, 2)):
        figure = spectra_figure([result], ["a"])
        assert len(figure.axes[0].collections) == bands
        assert ("first and the last" in figure.legends[0].get_title().get_text()) == (bands == 2)


def test_bars_of_a_depth_profile_are_of_the_step_and_paired(many: Spectra) -> None:
    errors = step_errors(many, view_of(many))
    assert errors is not None and np.isnan(errors[0])
    ax = depth_figure([many], ["a"]).axes[0]
    bars = ax.containers[0]  # then those of the images themselves
    ends = [np.ptp([y for _, y in segment]) for segment in bars.lines[2][0].get_segments() if len(segment)]
    known = [end for end in ends if np.isfinite(end) and end > 0]
    t95 = 2.093  # 20 groups
    np.testing.assert_allclose(sorted(known), sorted(2 * t95 * errors[1:][errors[1:] > 0]), rtol=2e-3)


def test_on_the_papers_axis_nothing_is_said_of_nyquist() -> None:
    texts = {
        axis: [text.get_text() for text in spectra_figure([result_of(2, axis)], ["a"]).legends[0].get_texts()]
        for axis in ("true", "paper")
    }
    assert "Nyquist" in texts["true"] and "Nyquist" not in texts["paper"]


def test_epochs_show_a_point_with_five_frequencies(few: Spectra) -> None:
    small = torch.nn.Sequential(*network(2), torch.nn.MaxPool2d(4), torch.nn.Conv2d(4, 4, 3, padding=1))
    result = replace(analyze(small, [torch.rand(20, 3, 16, 16)]), target=Provenance(epoch=1))
    assert result.stream[-1].usable < 5
    right = epochs_figure([[result, result]], ["a"], [[]]).axes[1]
    assert all(len(line.get_xdata()) >= 5 for line in right.get_lines())


def test_no_panel_is_alone_in_the_last_row() -> None:
    for panels in (*range(2, 13), 14, 15, 16):
        assert panels % panel_columns(panels) != 1, panels


def test_a_style_of_your_own(tmp_path: Path, few: Spectra) -> None:
    (tmp_path / "mine.mplstyle").write_text("axes.facecolor: f0e0d0\n")
    with figure_style(look=str(tmp_path / "mine.mplstyle")):
        figure = spectra_figure([few], ["a"])
    assert figure.axes[0].get_facecolor()[:3] == pytest.approx((0xF0 / 255, 0xE0 / 255, 0xD0 / 255))
    for bad in ({"look": "gggplot"}, {"width": "triple"}, {"width": 0.2}, {"look": str(tmp_path / "none.mplstyle")}):
        with pytest.raises(OutputError, match=r"no figure style|figure width"), figure_style(**bad):  # type: ignore[arg-type]
            pass


def test_fonts_are_embedded_as_outlines_that_can_be_edited(tmp_path: Path) -> None:
    pdf, _ = save(schedule_figure(["a"], {"a": 1}, 3), tmp_path / "figure")
    assert b"/Type0" in pdf.read_bytes() and b"/Type3" not in pdf.read_bytes()


def test_depth_profiles_side_by_side_share_their_axes(few: Spectra, many: Spectra) -> None:
    figure = zigzag_figure([few, many], ["a", "b"])
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim() and (left.get_title(), right.get_title()) == ("a", "b")
    said = figure.legends[0].get_title().get_text()
    assert "40 images" in said and "paired" in said

"""Spectra by epoch on Axes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure

from fourier_probe.plots import draw_epochs, epochs_figure
from fourier_probe.results.analysis import analyze
from fourier_probe.results.profile import delta_view, profile, view_of
from fourier_probe.results.records import Provenance
from fourier_probe.results.spectra import Spectra


def run_of(epochs: int) -> list[Spectra]:
    torch.manual_seed(0)
    images, found = torch.rand(20, 3, 16, 16), []
    for epoch in range(epochs):
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))
        found.append(replace(analyze(model, [images]), target=Provenance(source="run", epoch=epoch)))
    return found


def test_a_curve_a_point_against_epoch_and_a_line_a_switch() -> None:
    results = run_of(3)
    ax = draw_epochs(Figure().subplots(), results, 0.5, switches=[2, 1, 2])
    curves = [line for line in ax.get_lines() if line.get_marker() == "o"]
    profiles = [profile(result, delta_view(0.5)) for result in results]
    assert len(curves) == len(profiles[0].names)
    for place, curve in enumerate(curves):
        assert np.array_equal(curve.get_xdata(), [0, 1, 2])
        assert np.allclose(curve.get_ydata(), [profile.value[place] for profile in profiles])
    assert [line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == "--"] == [1, 2]
    assert "recast" in ax.get_xlabel()


def test_where_grids_differ_a_view_draws_the_log_density() -> None:
    results = run_of(2)  # 16x16 and 14x14
    view = view_of(results)
    figure = epochs_figure([results], ["a"], [[]], view=view)
    assert figure.axes[0].get_ylabel() == view.label == "Log density at radius 1.00 (nats)"
    curves = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert np.allclose(curves[-1].get_ydata(), [profile(result, view).value[-1] for result in results])


def test_a_row_a_run() -> None:
    figure = epochs_figure([run_of(2), run_of(3)], ["a", "b"], [[], [1]])
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles[0] == "a"
    assert "b" in titles

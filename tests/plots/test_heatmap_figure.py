"""The heat map on Axes: every frequency where it belongs, blocks where a stride left some out."""

from __future__ import annotations

import numpy as np
import pytest

from fourier_probe.plots.heatmap import heat_map_figure
from fourier_probe.probe.heatmap import distinct_frequencies, full_plane


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 10)])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_every_measured_frequency_lies_in_the_middle_of_its_block(size: tuple[int, int], stride: int) -> None:
    values = {(ky, kx): 100.0 * abs(ky) + 10 * kx + 1 for ky, kx in distinct_frequencies(size, stride)}
    ax = heat_map_figure({"Top-1 error": full_plane(values, size)}).axes[0]
    (image,) = ax.get_images()
    drawn = np.asarray(image.get_array())
    assert np.isfinite(drawn).all()  # no grey between the blocks
    left, right, bottom, top = image.get_extent()
    for (ky, kx), value in values.items():
        row = (ky * 2 / size[0] - bottom) / (top - bottom) * drawn.shape[0]
        column = (kx * 2 / size[1] - left) / (right - left) * drawn.shape[1]
        assert (row % 1, column % 1) == (pytest.approx(0.5), pytest.approx(0.5))
        assert drawn[int(row), int(column)] == value
    assert "Horizontal frequency" in ax.get_xlabel() and "Vertical frequency" in ax.get_ylabel()


def test_nyquist_is_at_both_ends() -> None:
    plane = full_plane({k: float(k[1]) for k in distinct_frequencies((8, 8))}, (8, 8))
    (image,) = heat_map_figure({"a": plane}).axes[0].get_images()
    drawn = np.asarray(image.get_array())
    assert drawn.shape == (9, 9)
    assert (drawn[:, 0] == 4).all() and (drawn[:, -1] == 4).all()


def test_labels_stand_at_the_edges_of_the_figure() -> None:
    plane = np.ones((4, 4))
    axes = [ax for ax in heat_map_figure({name: plane for name in "abcde"}).axes if ax.get_title()]
    assert [bool(ax.get_ylabel()) for ax in axes] == [True, False, False, False, True]
    assert [bool(ax.get_xlabel()) for ax in axes] == [False, True, True, True, True]

"""The heat map on Axes: every frequency where it belongs, blocks where a stride left some out."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from fourier_probe.plots.heatmap import draw_heat_map, heat_map_figure
from fourier_probe.probe.heatmap import distinct_frequencies, full_plane
from fourier_probe.results.heatmap import HeatMap, ImagesRecord, NoiseDefinition, NoiseResponse, TargetRecord
from fourier_probe.results.intervals import Interval


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 10)])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_every_measured_frequency_lies_in_the_middle_of_its_block(size: tuple[int, int], stride: int) -> None:
    values = {(ky, kx): 100.0 * abs(ky) + 10 * kx + 1 for ky, kx in distinct_frequencies(size, stride)}
    ax = draw_heat_map(Figure().subplots(), full_plane(values, size))
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
    (image,) = draw_heat_map(Figure().subplots(), plane).get_images()
    drawn = np.asarray(image.get_array())
    assert drawn.shape == (9, 9)
    assert (drawn[:, 0] == 4).all() and (drawn[:, -1] == 4).all()


def test_labels_stand_at_the_edges_of_the_figure() -> None:
    size, names = (4, 4), list("abcd")
    heat = HeatMap(
        target=TargetRecord(label="net", source="net"),
        images=ImagesRecord(source=None, split=None, n=20, size=size, mean=[0.0], std=[1.0]),
        definition=NoiseDefinition(kind="frequencies", basis="cosines", eps=1.0, seed=0, stride=1),
        clean_error=None,
        points=names,
        responses=[
            NoiseResponse(frequency=k, change=dict.fromkeys(names, Interval(1.0))) for k in distinct_frequencies(size)
        ],
    )
    axes = [ax for ax in heat_map_figure(heat).axes if ax.get_title()]
    assert [bool(ax.get_ylabel()) for ax in axes] == [True, False, True, False]  # two by two
    assert [bool(ax.get_xlabel()) for ax in axes] == [False, False, True, True]

"""Attention measures on Axes."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from fourier_probe.plots.attention import attention_figure
from fourier_probe.results.attention import AttentionRecord
from fourier_probe.results.intervals import Interval
from fourier_probe.results.reliance import LesionRecord, RelianceRecord


def layer(gate: list[float] | None, **more: Any) -> AttentionRecord:
    record = AttentionRecord(
        name="a",
        grid=(4, 4),
        distance=[3.0, 5.0],
        diversity=1.0,
        uniform=9.0,
        frequency=[0.0, 0.5, 1.0],
        response=[[1.0, 0.2, 1e-9], [1.0, 0.4, 1e-9]],
        gate=gate,
    )
    return msgspec.structs.replace(record, **more)


def test_dots_means_diversity_and_gates() -> None:
    figure = attention_figure([layer([0.7, 0.9]), layer(None)], "net")
    distance, diversity, response, gates = figure.axes[:4]
    dots = [line for line in distance.get_lines() if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in dots] == [[3.0, 5.0]] * 2
    means = [line for line in distance.get_lines() if line.get_linestyle() == "-" and line.get_marker() != "o"]
    assert list(means[0].get_ydata()) == [4.0, 4.0]
    assert distance.get_ylim()[1] > 9.0  # the highest is not cut
    assert list(diversity.get_lines()[0].get_ydata()) == [1.0, 1.0]
    assert response.get_yscale() == "log"
    np.testing.assert_allclose(response.get_lines()[0].get_ydata(), [1.0, 0.3, np.nan])
    assert 0.1 < response.get_ylim()[0] < 0.3  # rounding does not stretch the scale
    assert [list(line.get_ydata()) for line in gates.get_lines()] == [[0.7, 0.9]]


def test_layers_stand_in_their_order_in_every_panel() -> None:
    axes = attention_figure([layer([0.5, 0.5])] * 2, "net").axes
    assert [list(line.get_xdata()) for line in axes[1].get_lines()[:1]] == [[1, 2]]
    assert [line.get_xdata()[0] for line in axes[3].get_lines()] == [1, 2]
    assert ["order" in axes[at].get_xlabel() for at in (0, 1, 3)] == [True] * 3


def test_a_record_of_an_earlier_version_with_a_depth_is_read() -> None:
    record = msgspec.to_builtins(layer(None)) | {"depth": None}
    assert msgspec.convert(record, AttentionRecord) == layer(None)


def test_no_gates_no_panel() -> None:
    assert len(attention_figure([layer(None)], "net").axes) == 3


@pytest.mark.slow
def test_one_layer_has_one_tick_and_colours_and_dashes_are_explained() -> None:
    figure = attention_figure([layer(None, images=64)], "net")
    figure.draw_without_rendering()
    assert [tick for tick in figure.axes[0].get_xticks() if 0.5 <= tick <= 1.5] == [1]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "one head",
        "mean over heads",
        "if attention were uniform",
    ]
    assert "64 images" in legend.get_title().get_text()
    several = attention_figure([layer(None), layer(None)], "net")
    assert several.axes[3].get_ylabel() == "Attention layer"  # the colour bar of the responses


def test_heads_that_are_alike_and_uniform() -> None:
    alike = layer(None, distance=[9.0], response=[[1.0, 0.0, 0.0]])
    _, diversity, response = attention_figure([alike], "net").axes
    assert diversity.get_ylim() == (0.0, 1.0)
    assert response.get_ylim()[0] > 0


def test_gates_without_reliance_say_so() -> None:
    figure = attention_figure([layer([0.7, 0.9])], "net")
    assert "which was not measured here" in figure.legends[0].get_title().get_text().replace("\n", " ")
    figure = attention_figure([layer(None)], "net")
    assert "not measured" not in figure.legends[0].get_title().get_text()


def test_gates_never_stand_alone_where_reliance_was_measured() -> None:
    lost = Interval(value=-0.3, low=-0.4, high=-0.2)
    lesion = LesionRecord(
        layer="a", half="content", test="exchanged", top1=0.5, loss=1.0, top1_change=lost, loss_change=lost
    )
    record = RelianceRecord(images=10, top1=0.8, lesions=[lesion])
    gates, relied = attention_figure([layer([0.7, 0.9])], "net", reliance=record).axes[3:5]
    assert gates.get_ylabel().startswith("Gate")
    assert relied.get_ylabel() == "Top-1 lost (percentage points)"
    assert relied.patches[0].get_height() == pytest.approx(30)
    assert len([ax for ax in attention_figure([layer(None)], "net", reliance=record).axes]) == 3

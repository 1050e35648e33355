"""Attention measures on Axes."""

from __future__ import annotations

import numpy as np

from fourier_probe.plots.attention import attention_figure


def layer(gate: list[float] | None) -> dict[str, object]:
    return {
        "name": "a",
        "distance": [3.0, 5.0],
        "uniform": 9.0,
        "frequency": [0.0, 1.0],
        "response": [[1.0, 0.2], [1.0, 0.4]],
        "gate": gate,
    }


def test_dots_means_and_gates() -> None:
    figure = attention_figure([layer([0.7, 0.9]), layer(None)], "net")
    distance, response, gates = figure.axes
    dots = [line for line in distance.get_lines() if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in dots] == [[3.0, 5.0]] * 2
    means = [line for line in distance.get_lines() if line.get_linestyle() == "-" and line.get_marker() != "o"]
    assert list(means[0].get_ydata()) == [4.0, 4.0]
    assert np.allclose(response.get_lines()[0].get_ydata(), [1.0, 0.3])
    assert [list(line.get_ydata()) for line in gates.get_lines()] == [[0.7, 0.9]]


def test_no_gates_no_panel() -> None:
    assert len(attention_figure([layer(None)], "net").axes) == 2

"""Names of any kind in places of a figure that are no title: as text, never a formula, never longer than the figure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from fourier_probe.plots import heatmap as heat_maps
from fourier_probe.plots.heatmap import _wrapped
from fourier_probe.plots.lesions import draw_lesions
from fourier_probe.plots.profiles import draw_metric, draw_radial
from fourier_probe.plots.style import style
from fourier_probe.results.intervals import Interval
from fourier_probe.results.records import MetricInfo
from fourier_probe.results.shown import Shown
from fourier_probe.results.validation import Lesion

NAME = r"Zq$\frac{$Zq"


class Only:
    """Stands for a result: what a drawing asks of it."""

    stream = ()
    top1 = Interval(0.5, 0.4, 0.6)

    class definition:  # noqa: N801
        groups = 20

    lesions = (Lesion(name="a", op=NAME, depth=0.5, top1=Interval(0.4, 0.3, 0.5), top1_change=Interval(-0.1)),)


def named(figure: Figure) -> Iterator[str]:
    return (text.get_text() for text in figure.findobj(Text) if "Zq" in text.get_text())


@pytest.mark.parametrize("kind", ["scalar", "radial", "op"])
def test_labels_of_axes_and_legends_are_text(kind: str) -> None:
    metric = Shown("m", MetricInfo(NAME, "Zq_$"), "scalar", ours=False)
    with style():
        figure = Figure()
        ax: Axes = figure.subplots()
        if kind == "op":
            draw_lesions(ax, Only())  # type: ignore[arg-type]
            ax.legend()
        else:
            (draw_metric if kind == "scalar" else draw_radial)(ax, Only(), metric)  # type: ignore[arg-type]
        figure.draw_without_rendering()  # a formula that is none fails here
    (text,) = named(figure)
    assert text.replace(r"\$", "").count("$") == 0 and text.count(r"\$") > 1


def test_a_heading_of_a_heat_map_is_never_longer_than_five_lines() -> None:
    assert heat_maps.NAMED
    lines = _wrapped(f"{'long name ' * 1000}: n = 24, clean error 3.0%", 7.0).splitlines()
    assert len(lines) <= 5 and " ".join(lines).endswith("clean error 3.0%")
    assert _wrapped("net: n = 24, clean error 3.0%", 7.0) == "net: n = 24, clean error 3.0%"

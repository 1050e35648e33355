"""Figures with one, seven and twenty-five layers: nothing cut, no label on another, ticks of whole numbers.

Made of numbers, no network: tools/layer_figures.py draws those of real measurements, to be looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from fourier_probe.plots.attention import attention_figure
from fourier_probe.plots.cka import cka_figure
from fourier_probe.plots.heatmap import heat_map_figure
from fourier_probe.plots.hessian import hessian_figure
from fourier_probe.plots.kernels import kernels_figure
from fourier_probe.plots.lesions import lesions_figure
from fourier_probe.plots.sensitivity import sensitivity_figure
from fourier_probe.probe.heatmap import distinct_frequencies
from fourier_probe.results import intervals
from fourier_probe.results.attention import AttentionRecord
from fourier_probe.results.cka import CkaRecord
from fourier_probe.results.heatmap import (
    HeatMap,
    ImagesRecord,
    NoiseDefinition,
    NoiseResponse,
    Sensitivity,
    TargetRecord,
)
from fourier_probe.results.heatmap_set import HeatMaps
from fourier_probe.results.information import InformationRecord
from fourier_probe.results.intervals import Interval
from fourier_probe.results.kernels import KernelRecord
from fourier_probe.results.records import ImagesInfo, Provenance
from fourier_probe.results.reliance import LesionRecord, RelianceRecord
from fourier_probe.results.validation import ClassAnswers, Curvature, Lesion, Validation

pytestmark = pytest.mark.slow  # each figure drawn

LABEL = "a_rather_long_name_of_a_network, linear, 10 % of the data"
RNG = np.random.default_rng(0)


def names(layers: int) -> list[str]:
    return [f"stages.{k // 4}.blocks.{k}+attn" for k in range(layers)]


def near(value: float) -> Interval:
    return Interval(value, value - 0.1, value + 0.1)


def heat_map(layers: int, kind: str, *, labelled: bool) -> HeatMap:
    places = {
        "frequencies": [{"frequency": k} for k in distinct_frequencies((8, 8), 2)],
        "bands": [{"band": (k / 4, (k + 1) / 4)} for k in range(4)],
        "filters": [{"filter": f, "cutoff": k / 4} for f in ("low", "high") for k in range(5)]
        + [{"filter": "removed", "band": (k / 4, (k + 1) / 4)} for k in range(4)],
    }[kind]
    error = near(0.5) if labelled else None
    noise = None if kind == "filters" else 1.0
    return HeatMap(
        target=TargetRecord(label=LABEL, source="net"),
        images=ImagesRecord(source=None, split=None, n=20, size=(8, 8), mean=[0.0], std=[1.0]),
        definition=NoiseDefinition(
            kind=kind,  # type: ignore[arg-type]
            basis="",
            eps=noise,
            stride=2 if kind == "frequencies" else None,
            bands=None if kind == "frequencies" else 4,
        ),
        clean_error=error,
        points=names(layers),
        responses=[
            NoiseResponse(
                error=error, increase=error, change={n: near(float(RNG.random())) for n in names(layers)}, **place
            )
            for place in places
        ],  # type: ignore[arg-type]
        sensitivity=Sensitivity(radius=[0.25, 0.5, 0.75, 1.0], log_power=[near(-float(k)) for k in range(4)], images=20)
        if labelled and noise
        else None,
    )


def validation(layers: int) -> Validation:
    share = intervals.share(10, 20)
    return Validation(
        label=LABEL,
        target=Provenance(),
        images=ImagesInfo(n=20),
        top1=share,
        classes=[ClassAnswers(name="a", images=20, predicted=10), ClassAnswers(name="b", images=0, predicted=10)],
        answers=[(0, 0, 10), (0, 1, 10)],
        lesions=[
            Lesion(name=name, op=("attention", "mlp", "conv")[k % 3], depth=(k + 1) / layers,
                   top1=intervals.share(int(RNG.integers(0, 20)), 20), top1_change=near(-0.1))
            for k, name in enumerate(names(layers))
        ],
        curvature=Curvature(
            batch_size=4,
            eigenvalues=np.sort(RNG.random((layers, 5)))[:, ::-1].tolist(),
            largest=near(1.0),
            at=[-1.0, 0.0, 1.0],
            loss=(RNG.random((3, 3)) * 100 + 0.01).tolist(),
        ),
    )  # fmt: skip


def cka(layers: int) -> CkaRecord:
    values, depth = RNG.random((layers, layers)).tolist(), np.linspace(0, 1, layers).tolist()
    return CkaRecord(
        a=LABEL,
        b=LABEL,
        rows=names(layers),
        columns=names(layers),
        row_depth=depth,
        column_depth=depth,
        value=values,
        stderr=values,
        images=20,
        minibatch=20,
    )


def kernels(layers: int) -> list[KernelRecord]:
    radius = np.linspace(0, 1, 17)
    return [
        KernelRecord(
            name=name, kind=("dense", "depthwise", "attention")[k % 3], depth=k / max(layers - 1, 1), size=(3, 3),
            stride=(1, 1), dilation=(1, 1), groups=1, inputs=3, outputs=3, radius=radius.tolist(),
            log_power=(-k * radius).tolist(), stderr=[0.1] * 17, tilt=-float(k), tilt_stderr=0.1, norm=1.0,
        )
        for k, name in enumerate(names(layers))
    ]  # fmt: skip


def information(layers: int) -> list[InformationRecord]:
    numbers = {"over": "keys", "queries": 16, "keys": 16, "nmi": [0.1, 0.3], "stderr": [0.01, 0.01], "mean": 0.2}
    return [InformationRecord(name=name, mean_stderr=0.01, images=64, **numbers) for name in names(layers)]  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [1, 2, 7, 12, 25])
def test_layers_in_their_order_have_whole_numbers(layers: int) -> None:
    figure = attention_figure([], LABEL, information(layers))
    figure.draw_without_rendering()
    ticks = [tick for tick in figure.axes[0].get_xticks() if 0.5 <= tick <= layers + 0.5]
    assert ticks and all(tick == round(tick) for tick in ticks)


def reliance(layers: int) -> RelianceRecord:
    lesions = [
        LesionRecord(layer=name, half=half, test="exchanged", top1=0.5, loss=1.0, top1_change=near(-0.2),
                     loss_change=near(0.1))
        for name in [*(f"blocks.{k}.conv1" for k in range(layers)), "all layers"]
        for half in ("content", "positional")
    ]  # fmt: skip
    return RelianceRecord(images=200, top1=0.9, lesions=lesions)  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [1, 2, 7])
def test_what_a_network_relies_on_stands_beside_its_gates_with_a_legend(layers: int) -> None:
    figure = attention(layers, reliance(layers))
    said = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert said[-2:] == ["content", "positional"]
    assert "Of top-1 lost: 95 % over 200 images." in figure.legends[0].get_title().get_text().replace("\n", " ")
    figure.draw_without_rendering()
    (panel,) = [ax for ax in figure.axes if "lost" in ax.get_ylabel()]
    labels = panel.get_xticklabels()
    flat = [label.get_window_extent() for label in labels if not label.get_rotation()]
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(flat)) and len(labels) == layers + 1


def attention(layers: int, relied: RelianceRecord | None = None) -> Figure:
    records = [
        AttentionRecord(name=name, grid=(4, 4), distance=[3.0, 5.0], diversity=1.0, uniform=9.0,
                        frequency=[0.0, 0.5, 1.0], gate=[0.5, 0.9], response=[[1.0, 0.2, 0.1], [1.0, 0.4, 0.1]],
                        images=64)
        for name in names(layers)
    ]  # fmt: skip
    return attention_figure(records, LABEL, (), relied)


FIGURES: dict[str, Callable[[int], Figure]] = {
    "heat map": lambda layers: heat_map_figure(heat_map(layers, "frequencies", labelled=True)),
    "bands": lambda layers: heat_map_figure(heat_map(layers, "bands", labelled=True)),
    "bands of features": lambda layers: heat_map_figure(heat_map(layers, "bands", labelled=False)),
    "filters of features": lambda layers: heat_map_figure(heat_map(layers, "filters", labelled=False)),
    "sensitivity": lambda layers: sensitivity_figure(HeatMaps((heat_map(layers, "bands", labelled=True),))),
    "lesions": lambda layers: lesions_figure(validation(layers)),
    "hessian": lambda layers: hessian_figure(validation(layers)),
    "cka": lambda layers: cka_figure([cka(layers)], LABEL, 2.1),
    "kernels": lambda layers: kernels_figure(kernels(layers), LABEL, 2.1),
    "attention": attention,
}


@pytest.mark.parametrize(("name", "layers"), list(itertools.product(FIGURES, (1, 7, 25))))
def test_it_can_be_read(name: str, layers: int) -> None:
    figure = FIGURES[name](layers)
    figure.draw_without_rendering()
    box = figure.get_tightbbox()  # inches
    assert box.x0 > -0.02 and box.y0 > -0.02
    assert box.x1 < figure.get_figwidth() + 0.02 and box.y1 < figure.get_figheight() + 0.02
    for ax in every_axes(figure):
        for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
            apart([label for label in labels if label.get_visible() and label.get_text() and ax.get_visible()])
    apart(
        [
            text
            for ax in every_axes(figure)
            if ax.get_visible()
            for text in (ax.title, ax.xaxis.label, ax.yaxis.label)
            if text.get_text()
        ]
    )


def every_axes(figure: Figure) -> list[Axes]:
    """Those of panels, and the colour bars inside them."""
    return [each for ax in figure.axes for each in (ax, *ax.child_axes)]


@pytest.mark.parametrize("layers", [1, 7, 25])
def test_a_colour_bar_stands_beside_its_map_and_touches_no_other(layers: int) -> None:
    figure = heat_map_figure(heat_map(layers, "frequencies", labelled=True))
    figure.draw_without_rendering()
    panels = [ax for ax in figure.axes if ax.get_visible()]
    bars = [(ax, ax.child_axes[0]) for ax in panels if ax.child_axes]
    assert len(bars) == layers + 1
    for ax, bar in bars:
        panel, beside = ax.get_window_extent(), bar.get_window_extent()
        assert (beside.y0, beside.y1) == (pytest.approx(panel.y0), pytest.approx(panel.y1))
        assert 0 < beside.x0 - panel.x1 < 0.1 * panel.width
        right = bar.get_tightbbox().x1  # with its numbers and its label
        row = [other for other in panels if abs(other.get_window_extent().y0 - panel.y0) < 1]
        nexts = [other.yaxis.get_tightbbox().x0 for other in row if other.get_window_extent().x0 > panel.x1]
        assert right + 4 < min(nexts, default=figure.bbox.x1 + 10)


def apart(texts: list[Text]) -> None:
    """No two of them on each other, as drawn."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        shared = Bbox.intersection(a, b)
        assert shared is None or min(shared.width, shared.height) < 1.5, f"{one!r} lies on {two!r}"


def test_many_lines_are_in_order_and_some_named_and_without_bars() -> None:
    figure = heat_map_figure(heat_map(25, "bands", labelled=False))
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert len(shown) == 8 and shown[0].startswith("stages.0.blocks.0+") and "24" in shown[-1]
    assert "25 lines, in order" in legend.get_title().get_text() and "bands.csv" in legend.get_title().get_text()
    assert not any(collection.get_label() for collection in figure.axes[0].collections)
    few = heat_map_figure(heat_map(7, "bands", labelled=False))
    assert len({line.get_color() for line in few.axes[0].lines}) == 7

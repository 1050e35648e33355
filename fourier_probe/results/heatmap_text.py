"""What `fourier-probe heatmap` prints of heat maps on the same images. Imports heatmap and the tables of text."""

from __future__ import annotations

from collections.abc import Sequence

from fourier_probe.results.heatmap import HeatMap, NoiseResponse
from fourier_probe.results.records import weights_text
from fourier_probe.results.text_table import TextTable


def summary(heat: HeatMap) -> str:
    """Number of images, strength of the noise, accuracy without it; what the gradient predicts."""
    clean, eps = heat.clean_error, heat.definition.eps
    told = "unknown (no labels of the model's classes)" if clean is None else f"{1 - clean.value:.1%}"
    strength = "" if eps is None else f", eps {eps:.2f}"
    without = "unfiltered" if eps is None else "without noise"
    line = f"{heat.images.text}{strength}{weights_text(heat.target.weights)}; top-1 {without} {told}"
    predicted = heat.prediction()
    if predicted is None:
        return line
    return f"{line}; rank correlation of error and gradient {predicted[0]:+.2f} over {predicted[1]} radii"


def tables_of(heats: Sequence[HeatMap], labels: Sequence[str]) -> list[TextTable | str]:
    """A line per target, then the error of each in every band, filter or ring of frequencies."""
    lines: list[TextTable | str] = [
        f"{label}: {summary(heat)}" if len(heats) > 1 else summary(heat)
        for label, heat in zip(labels, heats, strict=True)
    ]
    if any(heat.clean_error is None for heat in heats):
        return lines
    columns = labels if len(heats) > 1 else ("top-1 error, %",)
    title = "top-1 error, %, under noise of each band" if len(heats) > 1 else ""
    if heats[0].definition.kind == "frequencies":
        rings = [heat.table()["error"] for heat in heats]
        rows = tuple((str(radius), *(f"{100 * ring[radius]:.1f}" for ring in rings)) for radius in rings[0].index)
        caption = "Means over the frequencies of a ring; radius 1: Nyquist of an axis. heatmap.csv has every frequency."
        title = title and "top-1 error, %, under noise of one frequency"
        return [*lines, TextTable(title, ("radius", *columns), rows, caption)]
    rows = tuple((_name(together[0]), *map(_error, together)) for together in _side_by_side(heats))
    caption = "In brackets 95 % over images (Wilson); radius 1: Nyquist of an axis."
    if heats[0].definition.kind == "filters":
        title = title and "top-1 error, %, of filtered images"
    return [*lines, TextTable(title, ("images" if "filter" in title else "radius", *columns), rows, caption)]


def _side_by_side(heats: Sequence[HeatMap]) -> list[tuple[NoiseResponse, ...]]:
    """The same band or filter of every target, in the order of the first."""
    others = [{_name(row): row for row in heat.responses} for heat in heats]
    return [
        tuple(other[name] for other in others)
        for name in map(_name, heats[0].responses)
        if all(name in other for other in others)
    ]


def _name(row: NoiseResponse) -> str:
    if row.filter is not None and row.cutoff is not None:
        return row.where
    low, high = row.band or (0.0, 0.0)
    return f"{'without ' if row.filter else ''}{low:.2f} to {high:.2f}"


def _error(row: NoiseResponse) -> str:
    error = row.error
    if error is None:
        return "-"
    if error.low is None or error.high is None:
        return f"{100 * error.value:.1f}"
    return f"{100 * error.value:.1f} ({100 * error.low:.1f} to {100 * error.high:.1f})"

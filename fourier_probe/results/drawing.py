"""The drawings of results by name, imported on use: results know none of plots. Imports nothing of ours."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWINGS = {
    "attention": "fourier_probe.plots.attention:attention_figure",
    "confusion": "fourier_probe.plots.confusion:confusion_figure",
    "cka": "fourier_probe.plots.cka:cka_figure",
    "coordinate": "fourier_probe.plots.compare:coordinate_figure",
    "density": "fourier_probe.plots.compare:density_figure",
    "depth": "fourier_probe.plots:depth_figure",
    "heatmap": "fourier_probe.plots.heatmap:heat_map_figure",
    "heatmaps": "fourier_probe.plots.heatmap:heat_maps_figure",
    "hessian": "fourier_probe.plots.hessian:hessian_figure",
    "kernels": "fourier_probe.plots.kernels:kernels_figure",
    "lesions": "fourier_probe.plots.lesions:lesions_figure",
    "maps": "fourier_probe.plots.maps:maps_figure",
    "metrics": "fourier_probe.plots.profiles:metrics_figure",
    "one-depth": "fourier_probe.plots.spectra:depth_of_one",
    "one-metric": "fourier_probe.plots.profiles:metric_of_one",
    "one-spectra": "fourier_probe.plots.spectra:spectra_of_one",
    "panels": "fourier_probe.plots.compare:panels_figure",
    "reliance": "fourier_probe.plots.reliance:reliance_figure",
    "run-loss": "fourier_probe.plots.losses:loss_figure",
    "run-switches": "fourier_probe.plots.losses:switches_figure",
    "sensitivity": "fourier_probe.plots.sensitivity:sensitivity_figure",
    "spectra": "fourier_probe.plots:spectra_figure",
    "tokens": "fourier_probe.plots.tokens:tokens_figure",
    "steps": "fourier_probe.plots.compare:steps_figure",
    "zigzag": "fourier_probe.plots.compare:zigzag_figure",
}
"""What a result calls its drawing -> module:function, which returns the figure."""


def drawing(name: str) -> Callable[..., Figure]:
    """The function that draws a kind of result."""
    module, function = DRAWINGS[name].split(":")
    draw: Callable[..., Figure] = getattr(importlib.import_module(module), function)
    return draw

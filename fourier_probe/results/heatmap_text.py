"""What `fourier-probe heatmap` prints of a heat map. Imports heatmap."""

from __future__ import annotations

from fourier_probe.results.heatmap import HeatMap


def summary(heat: HeatMap) -> str:
    """Number of images, strength of the noise, accuracy without it; what the gradient predicts."""
    clean, eps = heat.clean_error, heat.definition.eps
    told = "unknown (no labels of the model's classes)" if clean is None else f"{1 - clean.value:.1%}"
    strength = "" if eps is None else f", eps {eps:.2f}"
    without = "unfiltered" if eps is None else "without noise"
    line = f"{heat.images.n} images{strength}; top-1 {without} {told}"
    predicted = heat.prediction()
    if predicted is None:
        return line
    return f"{line}; rank correlation of error and gradient {predicted[0]:+.2f} over {predicted[1]} radii"

"""Axes in, Axes out: spectra, depth profiles, spectra by epoch. Sees results, never models."""

from fourier_probe.plots.epochs import draw_epochs, draw_last_point, epochs_figure
from fourier_probe.plots.spectra import (
    depth_colorbar,
    depth_figure,
    draw_depth_profile,
    draw_spectra,
    shade_handles,
    spectra_figure,
)
from fourier_probe.plots.style import figure_style, save, save_each, style

__all__ = [
    "depth_colorbar",
    "depth_figure",
    "draw_depth_profile",
    "draw_epochs",
    "draw_last_point",
    "draw_spectra",
    "epochs_figure",
    "figure_style",
    "save",
    "save_each",
    "shade_handles",
    "spectra_figure",
    "style",
]

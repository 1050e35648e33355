"""Axes in, Axes out: spectra and depth profiles. Sees results, never models."""

from fourier_probe.plots.spectra import (
    depth_colorbar,
    depth_figure,
    draw_depth_profile,
    draw_spectra,
    shade_legend,
    spectra_figure,
)
from fourier_probe.plots.style import save, style

__all__ = [
    "depth_colorbar",
    "depth_figure",
    "draw_depth_profile",
    "draw_spectra",
    "save",
    "shade_legend",
    "spectra_figure",
    "style",
]

"""The figures and tables of the papers, one function each, from finished runs; see `FIGURES`."""

from fourier_probe.papers.registered import FIGURES, FigureKind, draw_figure, register_figure

__all__ = ["FIGURES", "FigureKind", "draw_figure", "register_figure"]

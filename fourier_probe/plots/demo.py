"""The demo's picture on Axes: top-1 by step with the bound, reliance, and the spectra of the halves. Sees results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourier_probe.plots.reliance import draw_reliance
from fourier_probe.plots.style import PAGE, canvas, categories, foot, literal, style
from fourier_probe.results.point import PointSpectrum
from fourier_probe.results.reliance import RelianceRecord

HALVES = {"content": "-", "positional": "--"}
NAMES = {"cnn": "CNN", "prs": "PRS: converted on the way", "attention": "attention from the start"}


@dataclass(frozen=True)
class Curve:
    """Validation top-1 of a run by step, and the steps at which its layers switched."""

    name: str
    steps: Sequence[int]
    top1: Sequence[float]
    switches: Sequence[int] = ()


def draw_curves(ax: Axes, curves: Sequence[Curve], bound: float) -> Axes:
    """Top-1 by step; the bound of a sum over windows as a line, switches as dotted lines of the run's colour."""
    for curve, color in zip(curves, categories(len(curves)), strict=True):
        ax.plot(curve.steps, [100 * value for value in curve.top1], color=color, marker=".", ms=3,
                label=literal(NAMES.get(curve.name, curve.name)))  # fmt: skip
        for step in curve.switches:
            ax.axvline(step, color=color, linestyle=":", linewidth=0.8)
    ax.axhline(100 * bound, color="0.35", linestyle="--", linewidth=0.9)
    ax.annotate(f"bound of a convolution, {100 * bound:.1f} %", (0.98, 100 * bound),
                xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points", fontsize=6,
                ha="right")  # fmt: skip
    ax.set_ylim(45, 103)
    ax.set_xlabel("Step (dotted: a layer switches)")
    ax.set_ylabel("Validation top-1 (%)")
    ax.legend(loc="lower right", fontsize=6)
    ax.set_title("What a convolution cannot learn")
    return ax


def draw_halves(ax: Axes, points: Sequence[PointSpectrum]) -> Axes:
    """Radial log power density of the halves of each gated layer, at its mean 0; the HFD share in the legend."""
    layers = list(dict.fromkeys(point.name.rpartition("+")[0] for point in points if _half(point)))
    for layer, color in zip(layers, categories(len(layers)), strict=True):
        for point in points:
            half = _half(point)
            if not half or point.name.rpartition("+")[0] != layer or point.radius is None or point.log_density is None:
                continue
            share = point.scalars.get("hfd_share")
            share_text = "" if share is None else f", HFD {share:.2f}"
            level = point.log_density - point.log_density.mean()
            ax.plot(point.radius, level, HALVES[half], color=color, marker=".", ms=3,
                    label=literal(f"{layer} {half}{share_text}"))  # fmt: skip
    ax.set_xlabel(r"Frequency, radius ($\pi$ rad/sample)")
    ax.set_ylabel("ln power density, mean 0 (nats)")
    ax.legend(fontsize=6)
    ax.set_title("Spectra of the halves (PRS)")
    return ax


def _half(point: PointSpectrum) -> str:
    half = point.name.rpartition("+")[2]
    return half if half in HALVES and "+" in point.name else ""


def demo_figure(
    curves: Sequence[Curve], bound: float, reliance: RelianceRecord | None, points: Sequence[PointSpectrum]
) -> Figure:
    """The three panels in a row."""
    with style():
        figure = canvas(1.35 * PAGE, 3.1)
        first, second, third = figure.subplots(1, 3)
        draw_curves(first, curves, bound)
        if reliance is None:
            second.set_visible(False)
        else:
            draw_reliance(second, reliance).set_title("What PRS relies on (half from another image)")
            second.legend()
        draw_halves(third, points)
        over = "" if reliance is None else f" Bars: 95 % over {reliance.images} images, paired."
        foot(figure, notes=[f"PRS: a convolution that becomes attention on the way. One seed per curve.{over}"])
        return figure

"""The images themselves in a depth profile: where it starts, before the network. May import profile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fourier_probe.probe.sums import quantile
from fourier_probe.results.profile import View, has_rings, value_at
from fourier_probe.results.spectra import Spectra
from fourier_probe.results.text_table import plus_minus


@dataclass(frozen=True)
class InputLevel:
    """What a profile starts from: the quantity of the view of the images themselves.

    Attributes:
        value, stderr: in nats.
        white: the same of white noise; of delta with the mean and variance of the images.
        grid: (H, W) of the images.
        alike: whether the value may be set beside those of the points as it is: of the log density always, of delta
            where all maps have the grid of the images. Elsewhere it is read against `white`.
    """

    value: float
    stderr: float
    white: float
    grid: tuple[int, int]
    alike: bool


def input_level(result: Spectra, view: View) -> InputLevel | None:
    """The images of a result in a profile; None where they have no such value, or the result does not hold them."""
    point = result.input
    if point is None or point.highest <= 0 or (view.quantity == "log_density" and not has_rings(point)):
        return None
    reach = point.highest if view.quantity == "delta" or point.radius is None else float(point.radius[-1])
    if view.at > reach + 1e-9:
        return None
    value, stderr = value_at(point, view)
    if not math.isfinite(value):
        return None
    delta = view.quantity == "delta"
    white = point.scalars.get("white_delta", math.nan) if delta else 0.0
    alike = not delta or view.grids == ("x".join(map(str, point.grid)),)
    return InputLevel(value, stderr, white, point.grid, alike)


def input_text(results: Sequence[Spectra], labels: Sequence[str], view: View) -> list[str]:
    """Sentences on the images themselves, as each network saw them; one where all saw the same."""
    sentences: dict[str, list[str]] = {}
    for label, result in zip(labels, results, strict=True):
        level, point = input_level(result, view), result.input
        if level is None or point is None:
            continue
        half = quantile(result.definition.groups) * level.stderr
        text = f"{view.heading} {plus_minus(level.value, half)}"
        if not level.alike:
            text += f" on {point.grid[0]}x{point.grid[1]}, where white noise has {level.white:+.2f}"
        share, slope = (point.scalars.get(name, math.nan) for name in ("hfd_share", "slope"))
        text += f", HFD share {share:.3f}" if math.isfinite(share) else ""
        text += f", slope {slope:+.2f}" if math.isfinite(slope) else ""
        sentences.setdefault(text, []).append(label)
    if len(sentences) == 1 and len(next(iter(sentences.values()))) == len(results):
        return [f"The images themselves: {next(iter(sentences))}."]
    return [f"The images as {', '.join(names)} saw them: {text}." for text, names in sentences.items()]

"""What a result may hold beside its spectra: for each its tables, its figure, and how it is read.

One list serves `analyze` (files, what is printed), `Spectra.plot`, `compare` and the report page, so that a measure
that is added here shows in all of them. What validations and heat maps hold is in answer_parts. May import spectra and
drawing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from fourier_probe.probe.sums import quantile
from fourier_probe.results import cka
from fourier_probe.results.cka import cka_frame, cka_table
from fourier_probe.results.drawing import drawing
from fourier_probe.results.information import attention_frame, attention_table
from fourier_probe.results.kernels import kernels_frame, kernels_table
from fourier_probe.results.point import PointSpectrum

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from fourier_probe.results.spectra import Spectra

Result = TypeVar("Result")


@dataclass(frozen=True)
class Part(Generic[Result]):
    """One kind of measure that a result may hold.

    Attributes:
        name: of its figure and its file, NAME.csv.
        title: a heading.
        present: whether a result holds it.
        frame: all of its numbers, tidy; None where spectra.csv has them.
        draw: its figure, from the result and a title.
        short: a table of a few columns to print, a row per layer; None for none.
        reading: how to read it, in a few sentences.
    """

    name: str
    title: str
    present: Callable[[Result], bool]
    draw: Callable[..., Figure]
    reading: str
    frame: Callable[[Result], pd.DataFrame] | None = None
    short: Callable[[Result], pd.DataFrame | None] | None = None


def parts_of(result: Spectra) -> list[Part[Spectra]]:
    """The parts that a result holds, in the order in which they are shown."""
    return [part for part in PARTS if part.present(result)]


# --- 2-D maps --------------------------------------------------------------------------------------------------------


def maps_frame(result: Spectra) -> pd.DataFrame:
    """A row per point and 2-D frequency: `fy`, `fx` in pi rad/sample from -1 to 1, `log_amplitude`, its `stderr`."""
    import pandas as pd

    frames = []
    for point in _mapped(result):
        values = np.asarray(point.map)
        H, W = values.shape
        fy, fx = np.meshgrid((np.arange(H) - H // 2) * 2 / H, (np.arange(W) - W // 2) * 2 / W, indexing="ij")
        errors = np.full(values.shape, np.nan) if point.map_stderr is None else point.map_stderr
        columns = {"fy": fy, "fx": fx, "log_amplitude": values, "stderr": errors}
        frames.append(pd.DataFrame({"point": point.name, **{name: column.ravel() for name, column in columns.items()}}))
    return pd.concat(frames, ignore_index=True)


def tokens_frame(result: Spectra) -> pd.DataFrame:
    """A row per point and singular value: `number` from 1, `log_ratio`, its `stderr`; the effective rank in each."""
    import pandas as pd

    frames = [
        pd.DataFrame(
            {
                "point": point.name,
                "effective_rank": point.scalars.get("effective_rank"),
                "effective_rank_stderr": point.stderr_of.get("effective_rank"),
                "number": np.arange(1, len(point.singular.value) + 1),
                "log_ratio": point.singular.value,
                "stderr": point.singular.stderr,
            }
        )
        for point in _with_input(result)
        if point.singular is not None
    ]
    return pd.concat(frames, ignore_index=True)


def tokens_table(result: Spectra) -> pd.DataFrame:
    """A row per point: effective rank, the most it could be, how far the second and the middle value have fallen."""
    import pandas as pd

    t95, nan = quantile(result.definition.groups), float("nan")
    rows = []
    for point in _with_input(result):
        if point.singular is not None:
            value = point.singular.value
            rows.append(
                {
                    "point": point.name,
                    "positions": point.grid[0] * point.grid[1],
                    "channels": point.channels,
                    "effective rank": point.scalars.get("effective_rank", nan),
                    "± 95 %": t95 * point.stderr_of.get("effective_rank", nan),
                    "of": min(point.grid[0] * point.grid[1], point.channels),
                    "ln s2 / s1": float(value[1]) if len(value) > 1 else nan,
                    "ln middle / s1": float(value[len(value) // 2]) if len(value) > 2 else nan,
                }
            )
    return pd.DataFrame(rows)


def _cka_table(result: Spectra) -> pd.DataFrame | None:
    return None if result.cka is None else cka_table(result.cka, quantile(result.definition.groups))


def _with_input(result: Spectra) -> list[PointSpectrum]:
    return result.points if result.input is None else [result.input, *result.points]


def _mapped(result: Spectra) -> list[PointSpectrum]:
    return [point for point in _with_input(result) if point.map is not None]


PARTS: tuple[Part[Spectra], ...] = (
    Part(
        name="metrics",
        title="Metrics that were added",
        present=lambda result: any(not metric.ours for metric in result.metrics),
        draw=lambda result, title: drawing("metrics")([result], [title]),
        reading="Metrics that are not of this package: scalars against depth, radial ones against radius.",
    ),
    Part(
        name="maps",
        title="2-D spectra",
        present=lambda result: bool(_mapped(result)),
        frame=maps_frame,
        draw=lambda result, title, **options: drawing("maps")([result], [title], **options),
        reading=(
            "Mean log amplitude of every 2-D frequency, 0 in the middle, the Nyquist frequency at the borders. On the "
            "common scale each panel is shown minus its mean over all frequencies but 0: red holds more, blue less "
            "than white noise of the same power, on a grid of any size. A cross is energy along the axes: edges, or "
            "the grid of patches."
        ),
    ),
    Part(
        name="tokens",
        title="Directions of tokens",
        present=lambda result: any(point.singular is not None for point in result.points),
        draw=lambda result, title: drawing("tokens")(result, title),
        frame=tokens_frame,
        short=tokens_table,
        reading=(
            "Effective rank: how many directions the vectors at the positions of an image use, 1 where all lie on one "
            "line, at most the smaller of positions and channels. The spectrum is ln of each singular value over the "
            "first. Mean over images, ± 95 %."
        ),
    ),
    Part(
        name="kernels",
        title="Responses of kernels",
        present=lambda result: any(kernel.taps > 1 for kernel in result.kernels),
        draw=lambda result, title: drawing("kernels")(result.kernels, title, quantile(result.definition.groups)),
        frame=lambda result: kernels_frame(result.kernels),
        short=lambda result: kernels_table(result.kernels, quantile(result.definition.groups)),
        reading=(
            "What each layer passes, by its kernel alone: ln of the power at a radius over the sum of squared taps, 0 "
            "for a kernel of one tap, at every radius. Tilt: at Nyquist minus at frequency 0; below 0 the layer "
            "smooths, above 0 it sharpens. Attention is its map as a function of the offset, which cannot be negative "
            "and so always smooths. ± 95 %: over output channels, for attention over images."
        ),
    ),
    Part(
        name="attention",
        title="Attention",
        present=lambda result: bool(result.attention or result.information),
        draw=lambda result, title: drawing("attention")(result.attention, title, result.information, result.reliance),
        frame=lambda result: attention_frame(result.attention, result.information),
        short=lambda result: attention_table(result.attention, result.information, quantile(result.definition.groups)),
        reading=(
            "How far heads look and how they differ, in pixels; what a map passes as a filter; and the normalised "
            "mutual information (NMI) of queries and keys: 0 where the map does not depend on the query, 1 where "
            "every query has a key of its own. ± 95 % over images."
        ),
    ),
    Part(
        name="cka",
        title=cka.TITLE,
        present=lambda result: result.cka is not None,
        draw=lambda result, title: drawing("cka")([result.cka], title, quantile(result.definition.groups)),
        frame=lambda result: cka_frame([] if result.cka is None else [result.cka]),
        short=_cka_table,
        reading=cka.READING,
    ),
    Part(
        name="reliance",
        title="Reliance",
        present=lambda result: result.reliance is not None,
        draw=lambda result, title: drawing("reliance")(result.reliance, title),
        reading="What the network loses without one half of its gated attention.",
    ),
)
"""In the order in which they are shown."""

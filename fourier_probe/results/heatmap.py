"""A heat map as a result: errors and feature changes under noise of each frequency or band, and its files.

Imports errors, io, intervals, drawing, and the grid of frequencies from probe.heatmap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from fourier_probe.errors import ResultError, suggest
from fourier_probe.io import atomic
from fourier_probe.io.typed import read_json
from fourier_probe.results.drawing import drawing
from fourier_probe.results.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA, VERSION = "fourier-probe/heatmap", 1
FILES = ("heatmap.json", "heatmap.csv", "bands.csv")
FIGURES = tuple(f"{name}.{kind}" for name in ("heatmap", "bands") for kind in ("pdf", "png"))
INTERVALS = (
    "95 % over images: Wilson for errors, Agresti and Min (paired) for increases, Student for changes of features; "
    "nothing about training another network"
)
BASIS = {
    "frequencies": "the real Fourier basis image of one frequency",
    "bands": "white noise limited to one band of radii",
}
Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]


class TargetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Which network it was; what is not known is null."""

    label: str
    source: str
    arch: str | None = None
    model_args: dict[str, Any] | None = None
    weights: str | None = None
    sha256: str | None = None
    digest: str | None = None  # SHA-256 of the tensors that were run
    data: str | None = None
    data_scale: float | None = None
    schedule: str | None = None
    seed: int | None = None
    epoch: int | None = None


class ImagesRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Which images, and as the network saw them."""

    source: str | None
    split: str | None
    n: Annotated[int, msgspec.Meta(ge=1)]
    size: tuple[Side, Side]
    mean: list[float]
    std: list[float]
    skipped: int = 0
    digest: str | None = None


class NoiseDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What was added to the images, in pixels from 0 to 1: eps times an image of unit L2 norm per channel."""

    kind: Literal["frequencies", "bands"]
    basis: str
    eps: Annotated[float, msgspec.Meta(gt=0)]
    seed: int
    stride: Annotated[int, msgspec.Meta(ge=1)] | None = None
    bands: Annotated[int, msgspec.Meta(ge=2)] | None = None


class NoiseResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What one noise did: of a frequency (ky, kx), cycles per image, or of a band of radii, 1 being Nyquist of an axis.

    Attributes:
        error: top-1 error, null without labels of the model's classes. increase: that minus the clean error, paired.
        change: probe point -> mean over images of |f(x + noise) - f(x)| / |f(x)|; null where it was not finite.
    """

    frequency: tuple[int, int] | None = None
    band: tuple[float, float] | None = None
    error: Interval | None = None
    increase: Interval | None = None
    change: dict[str, Interval | None] = {}


class HeatMap(msgspec.Struct, frozen=True, kw_only=True):
    """Errors and feature changes under noise of each frequency, or of each band; the fields are those of heatmap.json.

    Attributes:
        target, images, definition: what was run, on what, under which noise.
        clean_error: top-1 error without noise; null without labels of the model's classes.
        points: names of the probe points whose change was measured.
        responses: a row per frequency, the lowest first, or per band.
        notes: what a reader must know, such as a clean accuracy at chance.
    """

    schema: str = SCHEMA
    version: int = VERSION
    target: TargetRecord
    images: ImagesRecord
    definition: NoiseDefinition
    clean_error: Interval | None
    points: list[str]
    responses: Annotated[list[NoiseResponse], msgspec.Meta(min_length=1)]
    notes: list[str] = []
    intervals: str = INTERVALS
    versions: dict[str, str] = {}
    created: str = msgspec.field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    def __post_init__(self) -> None:
        bands, (H, W) = self.definition.kind == "bands", self.images.size
        for index, row in enumerate(self.responses):
            if (row.band is None) is bands or (row.frequency is None) is not bands:
                raise ValueError(f"`$.responses[{index}]` holds no {'band' if bands else 'frequency'}")
            if row.frequency is not None and (abs(row.frequency[0]) > H // 2 or abs(row.frequency[1]) > W // 2):
                raise ValueError(f"`$.responses[{index}].frequency` lies outside the plane of {H}x{W} images")
            if set(row.change) != set(self.points):
                raise ValueError(f"`$.responses[{index}].change` is not of the points in `$.points`")
            if (row.error is None) is not (self.clean_error is None):
                raise ValueError(f"`$.responses[{index}].error` and `$.clean_error` must both be null, or neither")

    # --- to look at ---

    @property
    def quantities(self) -> list[str]:
        """What was measured: "error" where there are labels, and "change:POINT"."""
        return ["error"] * (self.clean_error is not None) + [f"change:{name}" for name in self.points]

    @property
    def title(self) -> str:
        """Model, number of images, strength of the noise, error without it."""
        clean = "" if self.clean_error is None else f", clean error {self.clean_error.value:.1%}"
        return f"{self.target.label}: n = {self.images.n}, eps = {self.definition.eps:.3g}{clean}"

    def value(self, row: NoiseResponse, quantity: str) -> Interval | None:
        """One of `quantities`, or "increase", of a row."""
        if quantity in ("error", "increase"):
            return row.error if quantity == "error" else row.increase
        return row.change[self._point(quantity)]

    def plane(self, quantity: str = "error") -> NDArray[np.float64]:
        """(H, W) values over the Fourier plane, DC in the middle; NaN where nothing was measured.

        Raises:
            ResultError: it was not measured, or the noise was of bands.
        """
        from fourier_probe.probe.heatmap import full_plane

        if self.definition.kind == "bands":
            raise ResultError("this heat map is of bands of frequencies: it has no plane; see .to_frame().")
        self._check(quantity)
        values = {row.frequency: self.value(row, quantity) for row in self.responses if row.frequency is not None}
        return full_plane({k: math.nan if v is None else v.value for k, v in values.items()}, self.images.size)

    def to_frame(self) -> pd.DataFrame:
        """A row per frequency (ky, kx, radius) or band (from, to), with every quantity and the ends of its interval."""
        import pandas as pd

        return pd.DataFrame([dict(self._cells(row)) for row in self.responses])

    def table(self) -> pd.DataFrame:
        """A short table: of bands as they are; of frequencies, means over rings of a quarter of Nyquist's radius."""
        frame = self.to_frame()
        if self.definition.kind == "bands":
            return frame
        shown = [*self.quantities[:1], *(["increase"] if self.clean_error else []), *self.quantities[1:]]
        ring = np.ceil(frame["radius"] * 4 - 1e-9).clip(upper=5) / 4
        grouped = frame.assign(ring=ring).groupby("ring")
        table = grouped[list(dict.fromkeys(shown))].mean()
        table.insert(0, "frequencies", grouped.size())
        name = {0.0: "mean", 1.25: "above 1 (corners)"}
        table.index = [name.get(edge, f"up to {edge:.2f}") for edge in table.index]
        return table.rename_axis("radius")

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The map, a panel per quantity, or accuracy against bands; on `ax` the first quantity alone."""
        return drawing("heatmap")(self, ax=ax)

    def __repr__(self) -> str:
        what = f"{len(self.responses)} {self.definition.kind}"
        return f"HeatMap({self.title}, {what}{self._worst()})"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<p>{escape(repr(self))}</p>{notes}{self.table().to_html(float_format='{:.3f}'.format)}"

    def _worst(self) -> str:
        if self.clean_error is None:
            return ""
        error, row = max(((row.error.value, row) for row in self.responses if row.error), key=lambda pair: pair[0])
        where = row.frequency if row.frequency is not None else row.band
        return f", largest error {error:.1%} at {where}"

    def _cells(self, row: NoiseResponse) -> Iterator[tuple[str, float | int | None]]:
        if row.frequency is not None:
            (ky, kx), (H, W) = row.frequency, self.images.size
            yield from (("ky", ky), ("kx", kx), ("radius", math.hypot(2 * ky / H, 2 * kx / W)))
        if row.band is not None:
            yield from zip(("from", "to"), row.band, strict=True)
        names = ["error", "increase"] * (self.clean_error is not None) + self.quantities[self.clean_error is not None :]
        for name in names:
            interval = self.value(row, name) or Interval(math.nan)
            yield from ((name, interval.value), (f"{name}_low", interval.low), (f"{name}_high", interval.high))

    def _point(self, quantity: str) -> str:
        self._check(quantity)
        return quantity.removeprefix("change:")

    def _check(self, quantity: str) -> None:
        if quantity not in (*self.quantities, "increase"):
            raise ResultError(
                f"this heat map holds no {quantity!r}: it holds {', '.join(self.quantities)}."
                f"{suggest(quantity, self.quantities)}"
            )

    # --- files ---

    def save(self, folder: Path | str, *, force: bool = False) -> Path:
        """Write heatmap.json and its CSV (heatmap.csv or bands.csv), each whole or not at all; returns the former.

        Raises:
            OutputError: the folder cannot be written, or holds a result already and `force` is not set.
            ResultError: a number is not finite, which no JSON reader takes.
        """
        folder = atomic.output_folder(folder, results=FILES, force=force)
        table = "bands.csv" if self.definition.kind == "bands" else "heatmap.csv"
        with atomic.staged(folder, (*FIGURES, *FILES[1:], FILES[0])) as place:  # figures of an older result go
            atomic.write_text(place / table, self.to_frame().to_csv(index=False, lineterminator="\n"))
            try:
                atomic.write_json(place / FILES[0], msgspec.to_builtins(self))
            except ValueError as error:
                raise ResultError(
                    f"{self!r} holds a number that is not finite ({error}): it is not written."
                ) from error
        return folder / FILES[0]

    @classmethod
    def load(cls, path: Path | str) -> HeatMap:
        """Read a heat map from heatmap.json or its folder.

        Raises:
            ResultError: missing, damaged, of another schema or of a later version; a wrong type is named by its field.
        """
        path = Path(path).expanduser()
        path = path / FILES[0] if path.is_dir() else path
        return read_json(path, cls, schema=SCHEMA, version=VERSION, again="run `fourier-probe heatmap` again")

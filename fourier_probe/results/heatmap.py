"""A heat map as a result: errors and feature changes under noise or filters of the images, and its files.

Imports errors, io, intervals, drawing, and the grid of frequencies from probe.heatmap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from fourier_probe.errors import ResultError, suggest
from fourier_probe.io import atomic
from fourier_probe.io.paths import expanded
from fourier_probe.io.tables import write_frame
from fourier_probe.io.typed import read_result
from fourier_probe.results.bounds import Count, Pixel, Radius, Spread
from fourier_probe.results.drawing import drawing
from fourier_probe.results.intervals import Interval, check_change, check_share
from fourier_probe.results.records import images_text
from fourier_probe.runtime.versions import now

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA, VERSION = "fourier-probe/heatmap", 2
NAMES: dict[str, str] = {"frequencies": "heatmap", "bands": "bands", "filters": "filters"}
"""What the table and the figure of a kind of heat map are called."""
FILES = ("heatmap.json", *(f"{name}.csv" for name in NAMES.values()))
FIGURES = tuple(f"{name}.{kind}" for name in NAMES.values() for kind in ("pdf", "png"))
INTERVALS = (
    "95 % over images: Wilson for errors, Agresti and Min (paired) for increases, Student for changes of features; "
    "nothing about training another network"
)
BASIS = {
    "frequencies": "the real Fourier basis image of one frequency",
    "bands": "white noise limited to one band of radii",
    "filters": "ideal filters of the images, in pixels and not clamped: low keeps radii up to the cut-off, high those "
    "beyond it and the mean, removed all but a band",
}
_ONE = {"frequencies": "frequency", "bands": "band", "filters": "filter"}
Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 13)]


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
    mean: Annotated[list[Pixel], msgspec.Meta(min_length=1)]
    std: Annotated[list[Spread], msgspec.Meta(min_length=1)]
    skipped: Count = 0
    digest: str | None = None

    @property
    def text(self) -> str:
        """How many images of what, and how many were left out."""
        return images_text(self.n, self.source, self.skipped)


class NoiseDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to the images, in pixels from 0 to 1.

    Attributes:
        kind: noise of single frequencies or of bands, or filters. basis: in words.
        eps: L2 norm of the noise per image and channel. seed: of it. Null for filters.
        stride: of frequencies. bands: how many bands, or parts of 1 that cut-offs are multiples of.
    """

    kind: Literal["frequencies", "bands", "filters"]
    basis: str
    eps: Annotated[float, msgspec.Meta(gt=0)] | None = None
    seed: int | None = None
    stride: Annotated[int, msgspec.Meta(ge=1)] | None = None
    bands: Annotated[int, msgspec.Meta(ge=2)] | None = None


class NoiseResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What one noise or filter did: of a frequency (ky, kx), cycles per image, or of radii, 1 being Nyquist of an axis.

    Attributes:
        frequency, band: of the noise; of a filter, `band` is what was removed.
        filter, cutoff: "low" and "high" have a cut-off, "removed" has a band.
        error: top-1 error, null without labels of the model's classes. increase: that minus the clean error, paired.
        change: probe point -> mean over images of |f(x + noise) - f(x)| / |f(x)|; null where it was not finite.
    """

    frequency: tuple[int, int] | None = None
    band: tuple[Radius, Radius] | None = None
    filter: Literal["low", "high", "removed"] | None = None
    cutoff: Radius | None = None
    error: Interval | None = None
    increase: Interval | None = None
    change: dict[str, Interval | None] = {}

    def __post_init__(self) -> None:
        check_share(error=self.error)
        check_change(increase=self.increase)
        if self.band is not None and not self.band[0] < self.band[1]:
            raise ValueError(f"`band` is {self.band[0]:g} to {self.band[1]:g}")
        below = next((name for name, each in self.change.items() if each is not None and each.value < 0), None)
        if below is not None:
            raise ValueError(f"`change` of {below[:80]!r} is below 0")

    @property
    def kind(self) -> str | None:
        """Which kind of heat map it is a row of; None where it is of none."""
        if self.filter is not None:
            own = self.band if self.filter == "removed" else self.cutoff
            return "filters" if own is not None and self.frequency is None else None
        if (self.frequency is None) is (self.band is None):
            return None
        return "bands" if self.frequency is None else "frequencies"

    @property
    def where(self) -> str:
        """The frequency, the band, or the filter, in words."""
        if self.filter is not None and self.cutoff is not None:
            return f"{self.filter}-pass at {self.cutoff:g}"
        return f"{'without ' if self.filter else ''}{self.band or self.frequency}"


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """The sensitivity spectrum: power of d loss / d image over rings of radii.

    Attributes:
        radius: of the rings, 1 being Nyquist of an axis; the mean is in none.
        log_power: ln of the mean power of a ring, summed over channels: per image, then the mean over images.
        images: whose gradient is not 0.
    """

    radius: list[Radius]
    log_power: list[Interval]
    images: Annotated[int, msgspec.Meta(ge=1)]

    def __post_init__(self) -> None:
        if len(self.radius) != len(self.log_power):
            raise ValueError("`$.sensitivity.radius` and `$.sensitivity.log_power` have different lengths")
        if any(abs(each.value) > 1e4 for each in self.log_power):
            raise ValueError("`$.sensitivity.log_power` holds what is no logarithm of a float")


class HeatMap(msgspec.Struct, frozen=True, kw_only=True):
    """Errors and feature changes under noise of each frequency or band, or filters; the fields are heatmap.json's.

    Attributes:
        target, images, definition: what was run, on what, under which noise.
        clean_error: top-1 error without noise; null without labels of the model's classes.
        points: names of the probe points whose change was measured.
        responses: a row per frequency, the lowest first, or per band.
        sensitivity: of the same images; null without labels, and for filters.
        notes: what a reader must know, such as a clean accuracy at chance.

    >>> import fourier_probe as fp
    >>> model = fp.create("cifar_resnet8", num_classes=10, in_chans=1)
    >>> heat = fp.heatmap(model, "bundled", images=4, bands=2)
    >>> len(heat.responses), heat.images.n
    (2, 4)
    """

    schema: str = SCHEMA
    version: int = VERSION
    target: TargetRecord
    images: ImagesRecord
    definition: NoiseDefinition
    clean_error: Interval | None
    points: list[str]
    responses: Annotated[list[NoiseResponse], msgspec.Meta(min_length=1)]
    sensitivity: Sensitivity | None = None
    notes: list[str] = []
    intervals: str = INTERVALS
    versions: dict[str, str] = {}
    created: str = msgspec.field(default_factory=now)

    def __post_init__(self) -> None:
        kind, (H, W) = self.definition.kind, self.images.size
        check_share(clean_error=self.clean_error)
        if (self.definition.eps is None) is not (kind == "filters"):
            raise ValueError("`$.definition.eps` belongs to noise, and to nothing else")
        stride = self.definition.stride or 1
        if kind == "frequencies" and H * W > 4 * stride**2 * (len(self.responses) + 1):
            raise ValueError(f"`$.responses` are {len(self.responses)}, too few for a plane of {H}x{W}")
        for index, row in enumerate(self.responses):
            if row.kind != kind:
                raise ValueError(f"`$.responses[{index}]` holds no {_ONE[kind]}")
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
        eps = "" if self.definition.eps is None else f", eps = {self.definition.eps:.3g}"
        return f"{self.target.label}: n = {self.images.n}{eps}{clean}"

    def value(self, row: NoiseResponse, quantity: str) -> Interval | None:
        """One of `quantities`, or "increase", of a row."""
        if quantity in ("error", "increase"):
            return row.error if quantity == "error" else row.increase
        self._check(quantity)
        return row.change[quantity.removeprefix("change:")]

    def plane(self, quantity: str = "error") -> NDArray[np.float64]:
        """(H, W) values over the Fourier plane, DC in the middle; NaN where nothing was measured.

        Raises:
            ResultError: it was not measured, or the noise was of bands.
        """
        from fourier_probe.probe.heatmap import full_plane

        if self.definition.kind != "frequencies":
            raise ResultError(f"this heat map is of {self.definition.kind}: it has no plane; see .to_frame().")
        self._check(quantity)
        values = {row.frequency: self.value(row, quantity) for row in self.responses if row.frequency is not None}
        return full_plane({k: math.nan if v is None else v.value for k, v in values.items()}, self.images.size)

    def to_frame(self) -> pd.DataFrame:
        """A row per frequency (ky, kx, radius), band (from, to) or filter: quantities, the ends of their intervals."""
        import pandas as pd

        return pd.DataFrame([dict(self._cells(row)) for row in self.responses])

    def table(self) -> pd.DataFrame:
        """A short table: of frequencies, means over rings of a quarter of Nyquist's radius; of others, the rows."""
        frame = self.to_frame()
        if self.definition.kind != "frequencies":
            return frame
        shown = [*self.quantities[:1], *(["increase"] if self.clean_error else []), *self.quantities[1:]]
        ring = np.ceil(frame["radius"] * 4 - 1e-9).clip(upper=5) / 4
        grouped = frame.assign(ring=ring).groupby("ring")
        table = grouped[list(dict.fromkeys(shown))].mean()
        table.insert(0, "frequencies", grouped.size())
        name = {0.0: "mean", 1.25: "above 1 (corners)"}
        table.index = [name.get(edge, f"up to {edge:.2f}") for edge in table.index]
        return table.rename_axis("radius")

    def prediction(self) -> tuple[float, int] | None:
        """Spearman's correlation, over radii, of the sensitivity spectrum with the error; and the number of radii.

        None without a sensitivity spectrum, under four radii, or where one of the two is the same everywhere.
        """
        from scipy.stats import spearmanr

        pairs = self.over_radii()
        if len(pairs) < 4 or len({error for _, error, _ in pairs}) == 1:
            return None
        rho = float(spearmanr([error for _, error, _ in pairs], [power for _, _, power in pairs]).statistic)
        return (rho, len(pairs)) if math.isfinite(rho) else None

    def over_radii(self) -> list[tuple[float, float, float]]:
        """(radius, mean error, mean log power of the gradient) of each ring, or of each band, that has both."""
        if self.sensitivity is None or self.clean_error is None:
            return []
        radius, short = self.sensitivity.radius, min(self.images.size)
        out = []
        if self.definition.kind == "bands":
            for row in self.responses:
                low, high = row.band or (0.0, 0.0)
                own = [p.value for r, p in zip(radius, self.sensitivity.log_power, strict=True)
                       if low <= r < high or r == high == 1]  # fmt: skip
                if own and row.error is not None:
                    out.append(((low + high) / 2, row.error.value, math.fsum(own) / len(own)))
            return out
        rings: dict[int, list[float]] = {}
        for row in self.responses:
            if row.frequency is not None and row.error is not None:
                (ky, kx), (H, W) = row.frequency, self.images.size
                rings.setdefault(round(math.hypot(2 * ky / H, 2 * kx / W) * short / 2), []).append(row.error.value)
        for ring, (r, power) in enumerate(zip(radius, self.sensitivity.log_power, strict=True), 1):
            if ring in rings:
                out.append((r, math.fsum(rings[ring]) / len(rings[ring]), power.value))
        return out

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The map, a panel per quantity, or accuracy against bands or cut-offs; on `ax` the first quantity alone."""
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
        return f", largest error {error:.1%}: {row.where}"

    def _cells(self, row: NoiseResponse) -> Iterator[tuple[str, float | int | str | None]]:
        if row.frequency is not None:
            (ky, kx), (H, W) = row.frequency, self.images.size
            yield from (("ky", ky), ("kx", kx), ("radius", math.hypot(2 * ky / H, 2 * kx / W)))
        if row.filter is not None:
            yield from (("filter", row.filter), ("cutoff", math.nan if row.cutoff is None else row.cutoff))
        if row.band is not None or row.filter is not None:
            yield from zip(("from", "to"), row.band or (math.nan, math.nan), strict=True)
        names = ["error", "increase"] * (self.clean_error is not None) + self.quantities[self.clean_error is not None :]
        for name in names:
            interval = self.value(row, name) or Interval(math.nan)
            yield from ((name, interval.value), (f"{name}_low", interval.low), (f"{name}_high", interval.high))

    def _check(self, quantity: str) -> None:
        if quantity not in (*self.quantities, "increase"):
            raise ResultError(
                f"this heat map holds no {quantity!r}: it holds {', '.join(self.quantities)}."
                f"{suggest(quantity, self.quantities)}"
            )

    # --- files ---

    def save(self, folder: Path | str, *, force: bool = False) -> Path:
        """Write heatmap.json and its CSV (heatmap, bands or filters), each whole or not at all; returns the former.

        Raises:
            OutputError: the folder cannot be written, or holds a result already and `force` is not set.
            ResultError: a number is not finite, which no JSON reader takes.
        """
        folder = atomic.output_folder(folder, results=FILES, force=force)
        table = f"{NAMES[self.definition.kind]}.csv"
        with atomic.staged(folder, (*FIGURES, *FILES[1:], FILES[0])) as stage:  # figures of an older result go
            write_frame(stage / table, self.to_frame())
            try:
                atomic.write_json(stage / FILES[0], msgspec.to_builtins(self))
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
        path = expanded(path)
        path = path / FILES[0] if path.is_dir() else path
        return read_result(path, cls, schema=SCHEMA, version=VERSION, again="run `fourier-probe heatmap` again")

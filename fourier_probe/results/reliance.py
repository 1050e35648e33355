"""What a network relies on, as a part of spectra.json: a row per layer, half and test, and what its parameters say.

The definitions are those of `probe.reliance`. Imports bounds, intervals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from fourier_probe.results.bounds import Share, Size
from fourier_probe.results.intervals import Interval, check_change

if TYPE_CHECKING:
    import pandas as pd

ALL = "all layers"


class LesionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What happens without one half of a layer's attention, or of all layers' together.

    Attributes:
        layer: module path, or "all layers".
        half: what was taken away.
        test: exchanged: taken from another image; off: gate at 0 or 1, BatchNorm estimated again on training images.
        top1, loss: without the half; loss in nats.
        top1_change, loss_change: that minus the intact network's, with the 95 % interval over images, paired.
    """

    layer: str
    half: Literal["content", "positional"]
    test: Literal["exchanged", "off", "off_raw"]
    top1: Share
    loss: Size
    top1_change: Interval
    loss_change: Interval

    def __post_init__(self) -> None:
        check_change(top1_change=self.top1_change)


class DepartureRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How far a recast layer has left its convolution, by its parameters; a gate alone is no measure of reliance.

    Attributes:
        layer: module path.
        gate: mean of sigmoid(lambda) over heads, 1 is positional. gate_least, gate_most: of its heads.
        tap: mean of gate x positional attention on the kernel's own tap: 1 is the convolution.
        displacement: of the attention centres from the taps, mean, pixels. locality: mean alpha.
        content: norm of the content half over that of the output minus bias.
    """

    layer: str
    gate: Share
    gate_least: Share
    gate_most: Share
    tap: Share | None = None
    displacement: Size
    locality: float
    content: Size | None = None


class RelianceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Reliance of a network with gated attention, measured on labelled images.

    Attributes:
        images: how many. training: images on which BatchNorm was estimated again; null where none was.
        top1: of the intact network.
        lesions: by layer in order, then those of all layers. departures: of recast layers.
    """

    images: Annotated[int, Meta(ge=2)]
    training: Annotated[int, Meta(ge=1)] | None = None
    top1: Share
    lesions: list[LesionRecord]
    departures: list[DepartureRecord] = []

    @property
    def layers(self) -> list[str]:
        """Names, in order, "all layers" last."""
        return list(dict.fromkeys(row.layer for row in self.lesions))

    def lesion(self, layer: str, half: str, test: str = "exchanged") -> LesionRecord | None:
        """One row; None where it was not measured."""
        key = (layer, half, test)
        return next((row for row in self.lesions if (row.layer, row.half, row.test) == key), None)

    def table(self) -> pd.DataFrame:
        """A row per layer: change of top-1 in percentage points without each half, and what the parameters say."""
        import pandas as pd

        known = {row.layer: row for row in self.departures}
        rows = []
        for layer in self.layers:
            cells: dict[str, str | float] = {"layer": layer}
            for test in ("exchanged", "off"):
                for half in ("content", "positional"):
                    row = self.lesion(layer, half, test)
                    cells[f"{half} {test}"] = float("nan") if row is None else 100 * row.top1_change.value
            by = known.get(layer)
            for name in ("gate", "tap", "displacement", "locality"):
                value = None if by is None else getattr(by, name)
                cells["gate x tap" if name == "tap" else name] = float("nan") if value is None else value
            rows.append(cells)
        return pd.DataFrame(rows).set_index("layer")

    def to_frame(self) -> pd.DataFrame:
        """A tidy row per layer, half and test."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    **{name: getattr(row, name) for name in ("layer", "half", "test", "top1", "loss")},
                    **{f"{name}{end}": getattr(getattr(row, name), part)
                       for name in ("top1_change", "loss_change")
                       for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))},
                }
                for row in self.lesions
            ]
        )  # fmt: skip

    def __repr__(self) -> str:
        together = {half: self.lesion(ALL, half) for half in ("content", "positional")}
        changes = ", ".join(
            f"{half} exchanged {100 * row.top1_change.value:+.1f}" for half, row in together.items() if row
        )
        return (
            f"Reliance({len(self.layers) - 1} layers, {self.images} images, top-1 {self.top1:.1%}; points: {changes})"
        )

    def _repr_html_(self) -> str:
        return self.table().to_html(float_format="{:.2f}".format, na_rep="")

"""CKA of several networks as a result of its own: cka.json, read back, tabulated, drawn. Imports cka, records, io."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from fourier_probe.io import atomic
from fourier_probe.io.paths import expanded
from fourier_probe.io.typed import read_result
from fourier_probe.probe.sums import quantile
from fourier_probe.results.cka import CkaRecord, most_alike
from fourier_probe.results.drawing import drawing
from fourier_probe.results.records import ImagesInfo, Provenance
from fourier_probe.runtime.versions import versions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SCHEMA, VERSION, FILE = "fourier-probe/cka", 1, "cka.json"
AGAIN = "run `fourier-probe compare --cka` again"


class Similarity(msgspec.Struct, frozen=True, kw_only=True):
    """How alike the points of several networks are on the same images: what `compare --cka` measures.

    Attributes:
        labels: of the networks. targets: which network each is.
        images: which images.
        groups: of images, for the intervals.
        cka: a matrix for each pair of networks, and of each network with itself.
        versions: of the packages that count.
    """

    schema: str = SCHEMA
    version: int = VERSION
    labels: list[str]
    targets: list[Provenance]
    images: ImagesInfo
    groups: Annotated[int, Meta(ge=2, le=1 << 20)]
    cka: Annotated[list[CkaRecord], Meta(min_length=1)]
    versions: dict[str, str] = msgspec.field(default_factory=versions)

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.targets):
            raise ValueError(f"{len(self.labels)} `labels` for {len(self.targets)} `targets`")
        for record in self.cka:
            if unknown := {record.a, record.b} - set(self.labels):
                raise ValueError(f"`cka` names {sorted(unknown)[0]!r}, which is none of `labels`")

    @property
    def label(self) -> str:
        """Of all networks."""
        return ", ".join(self.labels)

    @property
    def quantile(self) -> float:
        """Standard errors of a 95 % interval."""
        return quantile(self.groups)

    def table(self) -> pd.DataFrame:
        """A row per pair of different networks: CKA of their first and of their last points, and the pair most alike.

        A column that begins with ± is the half interval of the one before it, 95 % over images.
        """
        import pandas as pd

        rows: list[dict[str, str | float]] = []
        for record in self.cka:
            best = most_alike(record)
            if record.own or best is None:
                continue
            row: dict[str, str | float] = {"target": record.a, "with": record.b}
            places = {"first points": (0, 0), "last points": (-1, -1), "most alike": best}
            for mark, (heading, place) in enumerate(places.items()):
                value, error = record.at(*place)
                row |= {heading: value, "±" + " " * mark: self.quantile * error}
            rows.append(row | {"these are": f"{record.rows[best[0]]} and {record.columns[best[1]]}"})
        return pd.DataFrame(rows)

    def plot(self) -> Figure:
        """A matrix per pair, the same colours in all."""
        return drawing("cka")(self.cka, "", self.quantile)

    def write(self, folder: Path) -> Path:
        """Write cka.json into a folder, whole or not at all; returns its path."""
        path = folder / FILE
        atomic.write_bytes(path, msgspec.json.encode(self))
        return path

    @classmethod
    def load(cls, path: Path | str) -> Similarity:
        """Read cka.json, or the one in a folder.

        Raises:
            ResultError: missing, damaged, of another schema or of a later version; a wrong type is named by its field.
        """
        path = expanded(path)
        path = path / FILE if path.is_dir() else path
        return read_result(path, cls, schema=SCHEMA, version=VERSION, again=AGAIN)

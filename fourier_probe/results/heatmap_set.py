"""Heat maps of several targets on the same images: one figure, a folder each. Imports heatmap, io, drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fourier_probe.errors import ResultError, suggest
from fourier_probe.io import atomic
from fourier_probe.io.paths import expanded
from fourier_probe.io.tables import write_frame
from fourier_probe.results.drawing import drawing
from fourier_probe.results.heatmap import FIGURES, FILES, NAMES, HeatMap

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class HeatMaps:
    """Heat maps of one kind on the same images, one per target, in order; `[0]` and `["label"]` give one of them.

    Attributes:
        maps: of the targets. They may have been given the images at different sizes.

    >>> import fourier_probe as fp
    >>> models = [fp.create("cifar_resnet8", num_classes=10, in_chans=1) for _ in range(2)]
    >>> maps = fp.heatmap(models, "bundled", images=4, bands=2, labels=["a", "b"])
    >>> len(maps)
    2
    """

    maps: tuple[HeatMap, ...]

    def __post_init__(self) -> None:
        if not self.maps:
            raise ResultError("there are no heat maps: expected at least one.")
        kinds = sorted({heat.definition.kind for heat in self.maps})
        if len(kinds) > 1:
            raise ResultError(f"heat maps of {' and '.join(kinds)} cannot be shown together: measure one kind.")
        first = self.maps[0]
        for heat in self.maps[1:]:
            if (heat.images.digest, heat.images.n) != (first.images.digest, first.images.n):
                raise ResultError(
                    f"{heat.target.label} and {first.target.label} were measured on different images: measure them on "
                    "the same ones."
                )

    @property
    def labels(self) -> list[str]:
        """What tables and figures call the targets; a second of one label is `label#2`."""
        labels: list[str] = []
        for heat in self.maps:
            count = sum(other.target.label == heat.target.label for other in self.maps[: len(labels)])
            labels.append(heat.target.label if not count else f"{heat.target.label}#{count + 1}")
        return labels

    def __len__(self) -> int:
        return len(self.maps)

    def __iter__(self) -> Iterator[HeatMap]:
        return iter(self.maps)

    def __getitem__(self, which: int | str) -> HeatMap:
        """One of them.

        Raises:
            ResultError: there is none of this label.
        """
        if isinstance(which, int):
            return self.maps[which]
        if which not in self.labels:
            raise ResultError(f"there is no heat map of {which!r}.{suggest(which, self.labels)}")
        return self.maps[self.labels.index(which)]

    def to_frame(self) -> pd.DataFrame:
        """The rows of all, with a column `target` before the others."""
        return self._joined([heat.to_frame() for heat in self.maps]).reset_index(drop=True)

    def table(self) -> pd.DataFrame:
        """The short tables of all, with a column `target` before the others."""
        return self._joined([heat.table() for heat in self.maps])

    def _joined(self, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        import pandas as pd

        for label, frame in zip(self.labels, frames, strict=True):
            frame.insert(0, "target", label)
        return pd.concat(frames)

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """One figure: a row of panels per target for full maps, a line per target for bands and filters."""
        return drawing("heatmaps")(self, ax=ax)

    def __repr__(self) -> str:
        return f"HeatMaps({', '.join(self.labels)}; {self.maps[0].images.n} images, {self.maps[0].definition.kind})"

    def _repr_html_(self) -> str:
        return "".join(heat._repr_html_() for heat in self.maps)

    # --- files ---

    def save(self, folder: Path | str, *, force: bool = False) -> Path:
        """Write FOLDER/LABEL/heatmap.json and its CSV for each target, and one CSV of all; returns the last's path.

        Raises:
            OutputError: a folder cannot be written, or holds a result already and `force` is not set.
        """
        folder = atomic.output_folder(folder, results=(*FILES, f"*/{FILES[0]}"), force=force)
        for name, heat in zip(folder_names(self.labels), self.maps, strict=True):
            heat.save(folder / name, force=True)
        table = f"{NAMES[self.maps[0].definition.kind]}.csv"
        with atomic.staged(folder, (*FIGURES, *FILES)) as stage:  # what an older result left goes
            write_frame(stage / table, self.to_frame())
        return folder / table

    @classmethod
    def load(cls, folder: Path | str) -> HeatMaps:
        """Read every FOLDER/*/heatmap.json, in order of name.

        Raises:
            ResultError: there is none, or they do not belong together.
        """
        paths = sorted(expanded(folder).glob(f"*/{FILES[0]}"))
        if not paths:
            raise ResultError(f"there is no heat map in the folders of {folder}: run `fourier-probe heatmap` again.")
        return cls(tuple(HeatMap.load(path) for path in paths))


def folder_names(labels: Sequence[str]) -> list[str]:
    """A folder name for each label, all different, also where case does not count.

    >>> folder_names(["a/b", "a-b", "A-B"])
    ['a-b', 'a-b-2', 'A-B-3']
    """
    names: list[str] = []
    for label in labels:
        base, count = atomic.safe_name(label), 1
        name = base
        while name.lower() in {other.lower() for other in names}:
            count += 1
            name = f"{base}-{count}"
        names.append(name)
    return names

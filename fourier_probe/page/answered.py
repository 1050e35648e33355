"""Validations and heat maps that the reader named -> those of a page, with labels. May import results, io, inputs.

They stand beside analyses, or alone. Heat maps of one kind on the same images are one figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fourier_probe.errors import ResultError
from fourier_probe.io.paths import expanded
from fourier_probe.io.regular import read_regular
from fourier_probe.page.inputs import RESULT
from fourier_probe.results import heatmap, validation
from fourier_probe.results.heatmap import HeatMap
from fourier_probe.results.heatmaps import HeatMaps
from fourier_probe.results.spectra import Spectra
from fourier_probe.results.validation import Validation
from fourier_probe.training.runs import Run

Named = str | Path | Spectra | Run | Validation | HeatMap | HeatMaps
"""What a report is made of: results, or the paths of their files and folders."""
FILES = {validation.SCHEMA: "validation.json", heatmap.SCHEMA: "heatmap.json"}


@dataclass(frozen=True)
class Answered:
    """Validations of a page, and its heat maps in groups that belong together.

    Attributes:
        validations: each with a label of its own.
        heat_maps: each group of one kind, on the same images.
    """

    validations: tuple[tuple[str, Validation], ...] = ()
    heat_maps: tuple[HeatMaps, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.validations or self.heat_maps)

    @property
    def labels(self) -> list[str]:
        """Of the targets, each once."""
        heats = [heat.target.label for group in self.heat_maps for heat in group]
        return list(dict.fromkeys([*(label for label, _ in self.validations), *heats]))

    @property
    def about(self) -> str:
        """How many there are.

        >>> Answered().about
        ''
        """
        counts = {"validation": len(self.validations), "heat map": sum(map(len, self.heat_maps))}
        return " and ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count)


def split(results: Sequence[Named]) -> tuple[list[str | Path | Spectra | Run], Answered]:
    """What was named, parted: analyses and runs, to be gathered, and validations and heat maps, read.

    Raises:
        ResultError: a validation or heat map is damaged.
    """
    analyses: list[str | Path | Spectra | Run] = []
    validations: dict[Path | int, Validation] = {}
    heats: dict[Path | int, HeatMap] = {}
    for result in results:
        if isinstance(result, Validation):
            validations[id(result)] = result
        elif isinstance(result, HeatMap):
            heats[id(result)] = result
        elif isinstance(result, HeatMaps):
            heats |= {id(heat): heat for heat in result}
        elif isinstance(result, str | Path):
            path = expanded(result)
            files = _answers_in(path)
            for file, schema in files.items():
                if schema == validation.SCHEMA:
                    validations[file.resolve()] = Validation.load(file)
                else:
                    heats[file.resolve()] = HeatMap.load(file)
            if not files or (path.is_dir() and _holds_analyses(path)):
                analyses.append(result)
        else:
            analyses.append(result)
    return analyses, Answered(_labelled(list(validations.values())), _grouped(list(heats.values())))


def _answers_in(path: Path) -> dict[Path, str]:
    """The files at or below a path that are validations or heat maps, and the schema of each."""
    if path.is_dir():
        return {file: schema for schema, name in FILES.items() for file in sorted(path.rglob(name))}
    schema = _schema(path)
    return {path: schema} if schema in FILES else {}


def _schema(path: Path) -> str | None:
    """What a file says it is; None where it says nothing: whoever reads it then says what is wrong."""
    try:
        return msgspec.json.decode(read_regular(path), type=_Header).schema
    except (ResultError, OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class _Header(msgspec.Struct):
    schema: str


def _holds_analyses(folder: Path) -> bool:
    return any(True for name in (RESULT, "config.json") for _ in folder.rglob(name))


def _labelled(results: Sequence[Validation]) -> tuple[tuple[str, Validation], ...]:
    """Each with its label; a second of one label is `label#2`."""
    named = [result.label for result in results]
    return tuple(
        (label if named[:index].count(label) == 0 else f"{label}#{named[:index].count(label) + 1}", result)
        for index, (label, result) in enumerate(zip(named, results, strict=True))
    )


def _grouped(heats: Sequence[HeatMap]) -> tuple[HeatMaps, ...]:
    """Those of one kind on the same images together; images without a digest are only like themselves."""
    groups: dict[object, list[HeatMap]] = {}
    for heat in heats:
        images = heat.images.digest or id(heat)
        groups.setdefault((heat.definition.kind, images, heat.images.n), []).append(heat)
    return tuple(HeatMaps(tuple(group)) for group in groups.values())

"""What the reader named beside analyses (validations, heat maps, comparisons by CKA) -> those of a page, with labels.

They stand beside analyses, or alone. Heat maps of one kind on the same images are one figure. May import results, io,
inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from fourier_probe.errors import ResultError
from fourier_probe.io.paths import expanded
from fourier_probe.io.regular import read_regular
from fourier_probe.page.inputs import RESULT
from fourier_probe.results import heatmap, similarity, validation
from fourier_probe.results.comparison import Comparison
from fourier_probe.results.heatmap import HeatMap
from fourier_probe.results.heatmap_set import HeatMaps
from fourier_probe.results.similarity import Similarity
from fourier_probe.results.spectra import Spectra
from fourier_probe.results.validation import Validation
from fourier_probe.training.runs import Run

Named = str | Path | Spectra | Run | Comparison | Validation | HeatMap | HeatMaps | Similarity
"""What a report is made of: results, or the paths of their files and folders."""
FILES = {validation.SCHEMA: "validation.json", heatmap.SCHEMA: "heatmap.json", similarity.SCHEMA: similarity.FILE}


@dataclass(frozen=True)
class Answered:
    """Validations of a page, its heat maps in groups that belong together, and its comparisons by CKA.

    Attributes:
        validations: each with a label of its own.
        heat_maps: each group of one kind, on the same images.
        similarities: each of several networks, on the same images.
    """

    validations: tuple[tuple[str, Validation], ...] = ()
    heat_maps: tuple[HeatMaps, ...] = ()
    similarities: tuple[Similarity, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.validations or self.heat_maps or self.similarities)

    @property
    def labels(self) -> list[str]:
        """Of the targets, each once."""
        heats = [heat.target.label for group in self.heat_maps for heat in group]
        alike = [label for each in self.similarities for label in each.labels]
        return list(dict.fromkeys([*(label for label, _ in self.validations), *heats, *alike]))

    @property
    def about(self) -> str:
        """How many there are.

        >>> Answered().about
        ''
        """
        counts = (
            (len(self.validations), "validation", "validations"),
            (sum(map(len, self.heat_maps)), "heat map", "heat maps"),
            (len(self.similarities), "comparison by CKA", "comparisons by CKA"),
        )
        *others, last = ["", *(f"{count} {one if count == 1 else several}" for count, one, several in counts if count)]
        return " and ".join(filter(None, [", ".join(filter(None, others)), last]))


def split(results: Sequence[Named]) -> tuple[list[str | Path | Spectra | Run], Answered]:
    """What was named, parted: analyses and runs, to be gathered, and what stands beside them, read.

    A comparison is the analyses it holds, under its labels, and their CKA.

    Raises:
        ResultError: a validation, heat map or comparison by CKA is damaged.
    """
    analyses: list[str | Path | Spectra | Run] = []
    validations: dict[Path | int, Validation] = {}
    heats: dict[Path | int, HeatMap] = {}
    alike: dict[Path | int, Similarity] = {}
    for result in results:
        if isinstance(result, Validation):
            validations[id(result)] = result
        elif isinstance(result, HeatMap):
            heats[id(result)] = result
        elif isinstance(result, HeatMaps):
            heats |= {id(heat): heat for heat in result}
        elif isinstance(result, Similarity):
            alike[id(result)] = result
        elif isinstance(result, Comparison):
            analyses += [_under(label, each) for label, each in zip(result.labels, result.results, strict=True)]
            alike |= {} if result.similarity is None else {id(result): result.similarity}
        elif isinstance(result, str | Path):
            path = expanded(result)
            files = _answers_in(path)
            for file, schema in files.items():
                if schema == validation.SCHEMA:
                    validations[file.resolve()] = Validation.load(file)
                elif schema == similarity.SCHEMA:
                    alike[file.resolve()] = Similarity.load(file)
                else:
                    heats[file.resolve()] = HeatMap.load(file)
            if not files or (path.is_dir() and _holds_analyses(path)):
                analyses.append(result)
        else:
            analyses.append(result)
    answered = Answered(_labelled(list(validations.values())), _grouped(list(heats.values())), tuple(alike.values()))
    return analyses, answered


def _under(label: str, result: Spectra) -> Spectra:
    """A result under the label that a comparison gives it."""
    return replace(result, target=msgspec.structs.replace(result.target, label=label))


def _answers_in(path: Path) -> dict[Path, str]:
    """The files at or below a path that stand beside analyses, and the schema of each."""
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

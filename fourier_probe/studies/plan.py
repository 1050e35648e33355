"""A plan file -> the runs it means: axes multiplied, exclusions dropped, every run checked and named by its content.

    [shared]                        any option of `train`
    data = "cifar100.npz"
    [axes]                          option -> list; an element may be a table of several options
    model = ["cifar_resnet20", {model = "cifar_vit_patch4", epochs = 40}]
    seed = [0, 1, 2]
    [[set]]                         where `when` matches, these options
    when = {model = "eit*"}
    lr = 1e-3
    [[exclude]]                     drops the runs where all of this matches
    model = "cifar_vit*"
    schedule = ["linear", "reverse"]
    [analyze]                       after training, spectra of the last weights on test images
    images = 500

Nothing here starts a run or writes a file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path

from fourier_probe.errors import ProbeError, TrainingError, suggest
from fourier_probe.io import atomic, decode
from fourier_probe.training.config import NAMES, TrainConfig, checked
from fourier_probe.training.config_files import read_values
from fourier_probe.training.naming import content_name

SECTIONS = ("shared", "axes", "set", "exclude", "analyze")
LARGEST = 20_000  # combinations of a plan: each is checked before the first run
_KINDS = {option.name: str(option.type).partition("[")[0] for option in fields(TrainConfig)}


@dataclass(frozen=True)
class Analysis:
    """What `[analyze]` asks for.

    Attributes:
        images: of the test split, spread evenly over it.
        attention: also the measures of attention and reliance, where the model has any.
    """

    images: int = 500
    attention: bool = False

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {"images": self.images, "attention": self.attention}


@dataclass(frozen=True)
class Entry:
    """One run of a plan.

    Attributes:
        name: of its folder; the same for the same content everywhere (`training.naming.content_name`).
        config: all of its options.
    """

    name: str
    config: TrainConfig


@dataclass(frozen=True)
class SweepPlan:
    """A study.

    Attributes:
        name: of the plan file, without its ending.
        entries: the runs, the last axis moving fastest; each content once.
        axes: the options that any axis or `[[set]]` gives, in order of appearance.
        analysis: what to do after a training; None for nothing.
        notes: what the user should know, such as a rule that matches no run.
    """

    name: str
    entries: tuple[Entry, ...]
    axes: tuple[str, ...]
    analysis: Analysis | None = None
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def read(cls, path: Path | str) -> SweepPlan:
        """The study in a file: TOML (Python 3.11 or later), YAML or JSON.

        Raises:
            TrainingError: it cannot be read; an unknown section or option, a value of the wrong type or out of range,
                an axis that is no list or empty, or no run at all. Names the file, the section and the option.
            ModelError: a model that does not exist.
        """
        path = Path(path)
        return cls.of(read_values(path), name=path.stem, folder=path.parent, where=str(path))

    @classmethod
    def of(
        cls, values: Mapping[str, object], *, name: str = "sweep", folder: Path | None = None, where: str = "plan"
    ) -> SweepPlan:
        """A study from the sections of a plan; raises as `read` does.

        Args:
            values: section -> what it holds.
            name: of the study.
            folder: where a relative path of `data`, or of a model's file, is looked for first.
            where: begins error messages.
        """
        for section in values:
            if section not in SECTIONS:
                advice = suggest(section, SECTIONS) or f" Expected {', '.join(SECTIONS)}."
                if section.replace("-", "_") in NAMES:
                    advice = " Options that all runs share go under [shared]."
                raise TrainingError(f"{where}: unknown section {section!r}.{advice}")
        shared = _options(values.get("shared", {}), f"{where} [shared]")
        axes = _axes(values.get("axes", {}), f"{where} [axes]")
        rules = [_Set.of(table, f"{where} [[set]]") for table in _tables(values, "set", where)]
        exclusions = [_Exclude.of(table, f"{where} [[exclude]]") for table in _tables(values, "exclude", where)]
        analysis = _analysis(values.get("analyze"), f"{where} [analyze]")
        total = math.prod(len(elements) for elements in axes.values())
        if total > LARGEST:
            sizes = " x ".join(f"{len(elements):,}" for elements in axes.values())
            raise TrainingError(
                f"{where} [axes]: {sizes} values make {total:,} combinations: expected at most {LARGEST:,}, excluded "
                "ones counted. Leave values out, or make several plans."
            )
        entries: dict[str, Entry] = {}
        for chosen in itertools.product(*axes.values()):
            together = dict(shared)
            for options in chosen:
                together |= options
            for rule in rules:
                rule.apply(together)
            known = _known(together, where)
            if any([exclusion.drops(known) for exclusion in exclusions]):  # a list, so that each counts its matches
                continue
            entry = _entry(together, folder, [key for options in chosen for key in options], where)
            entries.setdefault(entry.name, entry)
        if not entries:
            raise TrainingError(f"{where} has no runs: all {total} combinations of its axes are excluded.")
        touched = itertools.chain(
            (k for elements in axes.values() for e in elements for k in e), *(rule.options for rule in rules)
        )
        used: list[_Set | _Exclude] = [*rules, *exclusions]
        notes = tuple(f"{rule.where} matches no run: {rule.matches}." for rule in used if not rule.hits)
        notes += _overridden(axes, f"{where} [axes]")
        return cls(atomic.safe_name(name), tuple(entries.values()), tuple(dict.fromkeys(touched)), analysis, notes)


@dataclass
class _Exclude:
    """A rule that drops runs."""

    matches: dict[str, object]
    where: str
    hits: int = 0

    @classmethod
    def of(cls, table: Mapping[str, object], where: str) -> _Exclude:
        return cls(_patterns(table, where), where)

    def drops(self, known: Mapping[str, object]) -> bool:
        matched = _matches(self.matches, known)
        self.hits += matched
        return matched


@dataclass
class _Set:
    """A rule that gives options to some runs."""

    matches: dict[str, object]
    options: dict[str, object]
    where: str
    hits: int = 0

    @classmethod
    def of(cls, table: Mapping[str, object], where: str) -> _Set:
        rest = dict(table)
        when = rest.pop("when", None)
        if not isinstance(when, dict):
            raise TrainingError(f'{where}: expected `when`, a table such as when = {{model = "eit*"}}, got {when!r}.')
        if not rest:
            raise TrainingError(f"{where}: gives no option: name at least one beside `when`.")
        return cls(_patterns(when, f"{where} when"), _options(rest, where), where)

    def apply(self, options: dict[str, object]) -> None:
        if _matches(self.matches, _known(options, self.where)):
            self.hits += 1
            options |= self.options


def _tables(values: Mapping[str, object], section: str, where: str) -> list[Mapping[str, object]]:
    tables = values.get(section, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise TrainingError(f"{where}: {section} is to be a list of tables: write [[{section}]], twice the brackets.")
    return tables


def _options(table: object, where: str) -> dict[str, object]:
    """Options of a table by field name, in the type of the field."""
    if not isinstance(table, dict):
        raise TrainingError(f"{where}: expected options, a key each, got {table!r}.")
    return {_name(key, where): checked(_name(key, where), value, where) for key, value in table.items()}


def _name(key: str, where: str) -> str:
    name = key.replace("-", "_")
    if name not in NAMES:
        raise TrainingError(f"{where}: unknown option {key!r}.{suggest(name, NAMES)}")
    return name


def _axes(table: object, where: str) -> dict[str, list[dict[str, object]]]:
    """Axis -> its elements, each a table of options."""
    if not isinstance(table, dict):
        raise TrainingError(f"{where}: expected lists, a key each, got {table!r}.")
    axes: dict[str, list[dict[str, object]]] = {}
    for key, elements in table.items():
        name = _name(key, where)
        if not isinstance(elements, list):
            raise TrainingError(f"{where}: {key} is {elements!r}, expected a list; one value goes under [shared].")
        if not elements:
            raise TrainingError(f"{where}: {key} is empty: give it a value, or leave it out.")
        axes[name] = [_element(name, element, f"{where} {key}") for element in elements]
    return axes


def _overridden(axes: Mapping[str, list[dict[str, object]]], where: str) -> tuple[str, ...]:
    """What to say where the tables of an axis give an option that is an axis itself, or that another axis gives."""
    giving: dict[str, dict[str, None]] = {}
    for axis, elements in axes.items():
        for element in elements:
            for option in element:
                giving.setdefault(option, {})[axis] = None
    return tuple(
        f"{where}: {' and '.join(of)} both give {option}: that of {list(of)[-1]}, the later, is taken."
        for option, of in giving.items()
        if len(of) > 1
    )


def _element(name: str, element: object, where: str) -> dict[str, object]:
    if not isinstance(element, dict) or (_KINDS[name] == "dict" and name not in element):
        return {name: checked(name, element, where)}
    options = _options(element, where)
    if name not in options:
        raise TrainingError(f"{where}: the table {element!r} does not say {name}.")
    return options


def _patterns(table: Mapping[str, object], where: str) -> dict[str, object]:
    """Option -> what it must be: a value; globs for text; a list for any of them."""
    if not table:
        raise TrainingError(f"{where}: is empty, and would match every run: name an option.")
    patterns: dict[str, object] = {}
    for key, wanted in table.items():
        name = _name(key, where)
        if isinstance(wanted, list) and _KINDS[name] != "tuple":
            patterns[name] = [checked(name, value, where) for value in wanted]
        else:
            patterns[name] = checked(name, wanted, where)
    return patterns


def _matches(patterns: Mapping[str, object], known: Mapping[str, object]) -> bool:
    def fits(wanted: object, value: object) -> bool:
        if isinstance(wanted, list):
            return any(fits(pattern, value) for pattern in wanted)
        if isinstance(wanted, str):
            return fnmatchcase(str(value), wanted)
        return bool(wanted == value)

    return all(fits(wanted, known[name]) for name, wanted in patterns.items())


def _known(options: Mapping[str, object], where: str) -> dict[str, object]:
    """Every option of a combination that may not be valid yet: as given, by its recipe, or by default."""
    from fourier_probe.training import recipe

    known: dict[str, object] = {}
    for option in fields(TrainConfig):
        known[option.name] = option.default_factory() if option.default_factory is not MISSING else option.default
    key = {name: options[name] for name in ("recipe", "model", "model_args", "epochs", "batch_size") if name in options}
    try:
        return {**known, **recipe.defaults(key), **options}
    except ProbeError as error:
        raise type(error)(f"{where}: {error}") from error


def _entry(options: dict[str, object], folder: Path | None, axes: list[str], where: str) -> Entry:
    if folder is not None and "data" in options:
        options["data"] = _beside(folder, str(options["data"]))
    if folder is not None and ".py:" in str(options.get("model")):  # file.py:factory
        path, _, factory = str(options["model"]).rpartition(":")
        options["model"] = f"{_beside(folder, path)}:{factory}"
    try:
        config = TrainConfig.of(options)
    except ProbeError as error:
        at = ", ".join(f"{name} = {options[name]!r}" for name in dict.fromkeys(axes))
        raise type(error)(f"{where}{f', the run of {at}' if at else ''}: {error}") from error
    return Entry(content_name(config), config)


def _beside(folder: Path, path: str) -> str:
    """A relative path as seen from the plan's folder, if it is there; else as it is."""
    try:
        there = bool(path) and not Path(path).is_absolute() and (folder / path).exists()
    except OSError:  # too long for a name
        there = False
    return str(folder / path) if there else path


def _analysis(table: object, where: str) -> Analysis | None:
    if table is None:
        return None
    analysis = decode.convert(table, Analysis, where, TrainingError)
    if analysis.images < 1:
        raise TrainingError(f"{where}: images is {analysis.images}: expected at least 1.")
    return analysis

"""What the reader named -> saved results with labels, and their runs. May import spectra, compare, training.runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fourier_probe.errors import ResultError, printable
from fourier_probe.io.paths import expanded
from fourier_probe.results.labels import arguments, legible, name_of, told_apart
from fourier_probe.results.profile import has_frequencies
from fourier_probe.results.side_by_side import check_comparable
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime.messages import note
from fourier_probe.training.runs import Run, read_runs

RESULT = "spectra.json"


@dataclass(frozen=True)
class Entry:
    """One result of a report.

    Attributes:
        label: what tables and charts call it, different for each entry: what it is, not where it lies.
        path: the file or the run folder it came from; none for a result that was not saved.
        result: the saved analysis.
        run: the training run it is of, if a run folder was named.
        group: what results that differ in their seed alone share.
    """

    label: str
    path: Path | None
    result: Spectra
    run: Run | None = None
    group: str = ""

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.label)

    @property
    def model(self) -> str | None:
        """The architecture with its arguments."""
        target = self.result.target
        return None if target.arch is None else " ".join([str(target.arch), *arguments(target)])

    @property
    def schedule(self) -> str | None:
        """The schedule; `constant` with the epoch at which it switched, as `--at-epoch` has it, where the run says."""
        schedule = self.result.target.schedule
        when = {row.epoch for row in self.run.conversions} if self.run and schedule == "constant" else set()
        return f"constant at {when.pop()}" if len(when) == 1 else schedule

    @property
    def facets(self) -> dict[str, str]:
        """What a page can be filtered by."""
        scale = self.result.target.data_scale
        data = "unknown" if scale is None else f"{100 * scale:g} %"
        return {"Model": str(self.model), "Schedule": str(self.schedule), "Data": data}


def gather(results: Sequence[str | Path | Spectra | Run]) -> list[Entry]:
    """Every result that was named, each once, all of the same images by the same definition.

    Args:
        results: analyses; runs; paths of a spectra.json or its folder, of a run folder, or of a folder that holds
            several of either. What is left out of such a folder is a note.

    Returns:
        The results in the order given.

    Raises:
        ResultError: a path is no result, a result is damaged or has no frequencies, or results cannot be compared.
        TrainingError: a run folder is damaged.
    """
    entries_by_source: dict[Path | int, Entry] = {}
    for result in results:
        for entry in _entries(result):
            _check(entry)
            entries_by_source.setdefault(entry.path.resolve() if entry.path else id(entry.result), entry)
    if not entries_by_source:
        raise ResultError("there is no result to report: name at least one.")
    entries = _distinct(list(entries_by_source.values()))
    check_comparable([entry.result for entry in entries])
    return entries


def _entries(result: str | Path | Spectra | Run) -> Iterator[Entry]:
    if isinstance(result, Spectra):
        yield Entry(result.label, None, result)
        return
    if isinstance(result, Run):
        yield _analyzed(result)
        return
    path = expanded(result)
    if path.is_file():
        yield _saved(path)
    elif (path / "config.json").exists():
        yield _analyzed(Run.read(path))
    elif (path / RESULT).exists():
        yield _saved(path / RESULT)
    else:
        yield from _below(path)


def _below(folder: Path) -> Iterator[Entry]:
    """The analyzed runs and the results in a folder of several."""
    runs = read_runs(folder) if any(folder.rglob("config.json")) else []
    results = [path for path in sorted(folder.rglob(RESULT)) if not (path.parent / "config.json").exists()]
    analyzed = [run for run in runs if _has_spectra(run)]
    if not analyzed and not results:
        what = f"holds no analyzed run (of {len(runs)})" if runs else "holds neither a run nor a result"
        raise ResultError(f"{folder} {what}: `fourier-probe analyze` writes results, and so does train --probe-every.")
    if len(analyzed) < len(runs):
        left_out = [str(run.path) for run in runs if run not in analyzed]
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        note(f"runs without an analysis are left out: {', '.join(left_out[:3])}{more}.")
    yield from _of_most_images(list(map(_analyzed, analyzed)) + list(map(_saved, results)))


def _of_most_images(entries: list[Entry]) -> list[Entry]:
    """The results in a folder that are of the images most of them are of; the others are a note."""
    digests = [entry.result.images.digest for entry in entries]
    most = max(dict.fromkeys(digests), key=digests.count)
    others = [entry for entry, digest in zip(entries, digests, strict=True) if digest != most]
    if others:
        named = ", ".join(str(_where(entry)) for entry in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        note(f"results of other images than most in their folder are left out: {named}{more}.")
    return [entry for entry, digest in zip(entries, digests, strict=True) if digest == most]


def _has_spectra(run: Run) -> bool:
    return (run.path / RESULT).exists() or any((run.path / "spectra").glob("epoch-*.json"))


def _saved(path: Path) -> Entry:
    result = Spectra.load(path)
    return Entry(name_of(result.target, path.resolve().parent.name), path, result)


def _analyzed(run: Run) -> Entry:
    """A run with the analysis of its last weights: that in its folder, else the last one made while it trained."""
    result = run.spectra
    if result is None:
        try:
            result = run.trajectory[-1]
        except IndexError as error:
            raise ResultError(
                f"the run {run.path} has no spectra: `fourier-probe analyze {run.path}` and name the folder it writes, "
                "or train with --probe-every."
            ) from error
    return Entry(run.path.resolve().name, run.path, result, run)


def _check(entry: Entry) -> None:
    """Raise where a result has nothing that a page shows."""
    result, again = entry.result, "run `fourier-probe analyze` again."
    if not has_frequencies(result):
        what = "no probe points" if not result.points else "no point with a frequency above 0 (maps of one position)"
        raise ResultError(f"{_where(entry)} has {what}, so there is nothing to show: leave it out, or {again}")


def _where(entry: Entry) -> str:
    return str(entry.path or f"the result {entry.label}")


def _distinct(entries: list[Entry]) -> list[Entry]:
    """Entries with labels of their own: what they are, and what tells equal ones apart."""
    targets = [entry.result.target for entry in entries]
    labels = [legible(entry.result.target, entry.label, entry.schedule) for entry in entries]
    apart = told_apart(labels, targets, [entry.label for entry in entries])
    return [
        replace(entry, label=printable(label), group=printable(group))
        for entry, label, group in zip(entries, apart, _groups(entries, labels), strict=True)
    ]


def labelled(entries: Sequence[Entry], labels: Sequence[str]) -> list[Entry]:
    """Entries with labels of the reader's own, in order.

    Raises:
        ResultError: another number of labels than of entries, or two that are the same.
    """
    if len(labels) != len(entries):
        raise ResultError(f"{len(labels)} labels for {len(entries)} analyses on the page: give one for each, in order.")
    if len(set(labels)) < len(labels):
        raise ResultError(f"two labels are the same ({', '.join(labels)}): give each analysis one of its own.")
    names = map(printable, labels)
    return [replace(entry, label=name, group=name) for entry, name in zip(entries, names, strict=True)]


def _groups(entries: Sequence[Entry], labels: Sequence[str]) -> list[str]:
    """Labels before seeds tell them apart, with a number where two of one label share their seed."""
    seeds: dict[tuple[str, int | None], int] = {}
    out = []
    for group, entry in zip(labels, entries, strict=True):
        key = (group, entry.result.target.seed)
        seeds[key] = seeds.get(key, 0) + 1
        out.append(group if seeds[key] == 1 else f"{group} #{seeds[key]}")
    return out

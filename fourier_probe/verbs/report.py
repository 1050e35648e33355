"""`fp.report`: saved results and runs as one HTML page that needs no network. May import page and io."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from fourier_probe.errors import OutputError, ResultError
from fourier_probe.io import atomic
from fourier_probe.io.paths import expanded

if TYPE_CHECKING:
    from fourier_probe.page.answered import Named as Result


@dataclass(frozen=True)
class Page:
    """A report: one self-contained HTML page.

    Attributes:
        html: all of it.
        labels: of the targets it shows.
        about: what it shows, in a few words.

    >>> Page("<!doctype html>", ("a", "b"), "2 results")
    Page(2 results, 0 kB)
    """

    html: str
    labels: tuple[str, ...]
    about: str

    def __repr__(self) -> str:
        return f"Page({self.about}, {len(self.html.encode()) / 1e3:.0f} kB)"

    def _repr_html_(self) -> str:
        """The page inside a notebook, in a frame of its own."""
        return f'<iframe srcdoc="{escape(self.html)}" style="width: 100%; height: 40em; border: 0"></iframe>'

    def to_json(self) -> dict[str, object]:
        """Plain values: what it shows, without the page."""
        return {"about": self.about, "labels": list(self.labels), "bytes": len(self.html.encode())}

    def save(self, path: Path | str, *, force: bool = False) -> Path:
        """Write the page, whole or not at all; returns its path.

        Raises:
            OutputError: it cannot be written, or would overwrite a file and `force` is not set.
        """
        path = _free(path, force)
        atomic.write_text(path, self.html)
        return path


def report(
    results: Result | Sequence[Result],
    out: Path | str | None = None,
    *,
    title: str | None = None,
    labels: Sequence[str] = (),
    force: bool = False,
) -> Page:
    """Results as one HTML page: summary, spectra to pick and hover, depth profiles, measures, training, provenance.

    Args:
        results: each a `Spectra`, a `Run`, or the path of a spectra.json or its folder, of a run folder (its analysis,
            else the last one made while it trained), or of a folder that holds several of these; all analyses of the
            same images, by the same definition. A `Comparison` stands for the analyses it holds. Also validations,
            heat maps and comparisons by CKA (`Validation`, `HeatMap`, `HeatMaps`, their files, cka.json of `compare
            --cka`, or their folders), beside analyses or alone, of any images.
        out: the file to write; None writes nothing.
        title: the heading; the names of the targets by default.
        labels: of the analyses, one for each in order; by default the label each was given, else what it is.
        force: overwrite a file that is there.

    Raises:
        OutputError: `out` cannot be written, or is there already; before any work.
        ResultError: a path holds no result, one is damaged, or results cannot be compared.
        TrainingError: a run is damaged.

    >>> report("nowhere.json")
    Traceback (most recent call last):
    fourier_probe.errors.ResultError: there is no file or folder nowhere.json: name a spectra.json, its folder, or a ...
    """
    if out is not None:
        _free(out, force)  # before any work
    listed: list[Result] = (
        list(results) if isinstance(results, Sequence) and not isinstance(results, str) else [results]
    )
    for result in listed:
        if isinstance(result, str | Path):
            _check_exists(str(result))
    from fourier_probe.page import gather, labelled, render, split

    analyses, answered = split(listed)
    entries = gather(analyses) if analyses or not answered else []
    if labels:
        entries = labelled(entries, labels)
    about = [answered.about] if answered else []
    if entries:
        images = entries[0].result.images
        about.insert(0, f"{len(entries)} target{'s' * (len(entries) > 1)} on {images.text}")
    labels = tuple(entry.label for entry in entries) or tuple(answered.labels)
    page = Page(render(entries, answered, title=title), labels, ", ".join(about))
    if out is not None:
        page.save(out, force=force)
    return page


def _check_exists(name: str) -> None:
    """Raise at once, before anything large is imported, where a path cannot be a result."""
    path = expanded(name)
    analyze = f"run `fourier-probe analyze {name}` and name the folder it writes."
    if not path.exists():
        advice = f"a report is made of saved results: {analyze}"
        advice = advice if name.startswith("timm:") else "name a spectra.json, its folder, or a run folder."
        raise ResultError(f"there is no file or folder {name}: {advice}")
    if path.is_file() and path.suffix != ".json":
        raise ResultError(f"{name} is no saved result: {analyze}")


def _free(path: Path | str, force: bool) -> Path:
    """The path, if a page may be written there."""
    path = expanded(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file, for example {path / 'report.html'}.")
    atomic.output_folder(path.parent, results=(glob.escape(path.name),), force=force)
    return path

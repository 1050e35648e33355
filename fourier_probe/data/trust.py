"""Which data a file that is read may name: never what downloads, makes or runs anything. Imports errors, io, runtime.

| named by | used |
|---|---|
| `--data`, Python, a plan, a config file given with `-c` | as asked; `pipe:` (a shell command of webdataset) never |
| any file | `bundled` and `planted...`: nothing outside the package is read |
| a run folder or checkpoint of ours | also a local folder or .npz, if it is still what the run read: its fingerprint |
| anything else | never: an error says how to name the data |
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath

import msgspec

from fourier_probe.data.planted import is_planted
from fourier_probe.errors import DataError
from fourier_probe.io.paths import expanded
from fourier_probe.io.regular import open_regular
from fourier_probe.runtime import messages

ENTRIES = 100_000
"""Entries of a folder that are looked at for its fingerprint."""


@dataclass(frozen=True)
class Fingerprint:
    """What a local source was when a run read it.

    Attributes:
        kind: "npz" or "folder".
        files: number of files listed; 1 for a .npz.
        bytes: their size together.
        sha256: of the file; of a folder, of the relative names and sizes of its files, hidden ones left out.
    """

    kind: str
    files: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class NamedData:
    """The data that a file says it was trained on.

    Attributes:
        source: as the file names it.
        file: that names it, as the user called it.
        ours: whether this package wrote the file.
        fingerprint: what the source was then; None where the file does not say.
    """

    source: str
    file: str
    ours: bool = False
    fingerprint: Fingerprint | None = None


def data_of(asked: str | None, named: NamedData | None) -> str:
    """The source to open: `--data`, else what a file names where that may be used, else the bundled images.

    A file of ours that names a bare .npz has left its images behind, as those this project ships have: where no such
    file lies here the bundled images are used. A note says so, as it says that a local source is taken from a file.

    Raises:
        DataError: the data have to be named by the user.
    """
    if asked is not None or named is None:
        return "bundled" if asked is None else asked
    source = named.source
    refuse_commands(source)
    if source == "bundled" or is_planted(source):
        return source
    if named.ours and _is_bare_npz(source) and not os.path.lexists(source):
        messages.note(
            f"{source}, which this was trained on, is not here: the bundled images are used; name others with --data."
        )
        return "bundled"
    if reason := _distrust(named):
        name = shown(source)
        raise DataError(
            f"{named.file} was trained on {name}, which is not opened because a file says so ({reason}): pass --data "
            f"{name} if you trust it, or --data bundled."
        )
    alike = (
        "unchanged since"
        if named.fingerprint is None or named.fingerprint.kind == "npz"
        else "of the same files by name and size"
    )
    messages.note(f"{named.file} was trained on {shown(source)}, {alike}: it is read again.")
    return source


def fingerprint(source: str) -> Fingerprint | None:
    """What a local .npz file or folder is now; None for anything else, for links, and for a folder with links in it.

    Links are not followed, only regular files are opened, and of a folder `ENTRIES` entries are looked at.
    """
    try:
        path = expanded(source)
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            return _of_folder(path)
        if stat.S_ISREG(status.st_mode) and path.suffix.lower() == ".npz":
            with open_regular(path) as file:
                digest = hashlib.sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
            return Fingerprint("npz", 1, status.st_size, digest.hexdigest())
    except (OSError, ValueError, RuntimeError):  # not there, no name a file can have, no such user
        pass
    return None


def read_fingerprint(value: object) -> Fingerprint | None:
    """A fingerprint as a file holds it; None for anything else."""
    try:
        return msgspec.convert(value, Fingerprint)
    except (msgspec.ValidationError, RecursionError):
        return None


def refuse_commands(source: str) -> None:
    """Raise DataError where a source holds `pipe:`, in any case: webdataset hands what follows to a shell."""
    if "pipe:" in source.lower():
        raise DataError(
            f"the data {shown(source)} hold pipe:, which runs a shell command: it is never run here. Name a folder, a "
            "file or a URL."
        )


def shown(source: str) -> str:
    """A source as messages name it: quoted where it holds anything odd, and not longer than a line.

    >>> shown("photos/"), shown("a b")
    ('photos/', "'a b'")
    """
    short = source if len(source) <= 100 else f"{source[:97]}..."
    return short if short.isprintable() and " " not in short and short else repr(short)


def _distrust(named: NamedData) -> str:
    """Why the local source that a file names must not be used; empty if it may."""
    if not named.ours:
        return "it is not a file of fourier-probe"
    if named.fingerprint is None:
        return "the file does not record what these data were"
    try:
        path = expanded(named.source)
        status = path.lstat()
    except (OSError, ValueError, RuntimeError):
        return "there is no such file or folder here"
    if stat.S_ISLNK(status.st_mode):
        return "links are not followed"
    if not stat.S_ISDIR(status.st_mode) and status.st_size != named.fingerprint.bytes:
        return "it has changed since"  # without reading it
    return "" if fingerprint(named.source) == named.fingerprint else "it has changed since"


def _is_bare_npz(source: str) -> bool:
    return source.endswith(".npz") and PurePath(source).name == source and len(os.fsencode(source)) < 256


def _of_folder(root: Path) -> Fingerprint | None:
    digest, files, size = hashlib.sha256(), 0, 0
    for name, entry in _listed(root):
        if entry.is_symlink():
            return None
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            return None
        digest.update(b"%b\0%d\n" % (os.fsencode(name), status.st_size))
        files, size = files + 1, size + status.st_size
    return Fingerprint("folder", files, size, digest.hexdigest()) if files else None


def _listed(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What is no folder under `root`, by relative name, in an order of its own; ends before a folder too many."""
    folders, left = [""], ENTRIES
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            children = sorted(islice(entries, left + 1), key=lambda entry: entry.name)
        left -= len(children)
        if left < 0:
            return
        below = []
        for entry in children:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                below.append(name)
            else:
                yield name, entry
        folders += reversed(below)

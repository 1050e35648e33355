"""Names of files as users write them -> paths. Imports nothing of ours.

A name that cannot be expanded or followed stays as it is: it is no file, and whoever opens it says so.
"""

from __future__ import annotations

from pathlib import Path


def expanded(name: Path | str) -> Path:
    """The path, its leading `~` or `~user` replaced; left alone where there is no such user.

    >>> expanded("~nosuchuser/a.pt")
    PosixPath('~nosuchuser/a.pt')
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def resolved(name: Path | str) -> Path:
    """The path, expanded, absolute and without symbolic links; with them where they go round in a circle."""
    path = expanded(name)
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a RuntimeError up to Python 3.12
        return path.absolute()

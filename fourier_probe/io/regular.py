"""Files are opened only if they are regular files: a FIFO, a socket or a device never is. Imports nothing of ours."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, through links; never waits for another process, and touches no device.

    Raises:
        OSError: it cannot be opened, or is not a regular file; `strerror` says what it is.
    """
    _check(path, os.stat(path).st_mode)  # noqa: PTH116 - before it is opened: opening a device can act on it
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check(path, os.fstat(descriptor).st_mode)  # it may have been exchanged in between
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int = 2**28) -> bytes:
    """All bytes of a regular file.

    Raises:
        OSError: it cannot be opened, is not a regular file, or has more than `most` bytes.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most / 2**20:.3g} MB", str(path))
    return data


def append_regular(path: Path) -> BinaryIO:
    """Open a file to write at its end, made if missing; never through a link, which may lead out of its folder.

    Raises:
        OSError: it cannot be opened, or is a link or no regular file; `strerror` says what it is.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "a link, which may lead anywhere", str(path))
    if path.exists():
        _check(path, path.stat().st_mode)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666), "ab")


def version(file: BinaryIO | Path) -> tuple[int, ...]:
    """What differs as soon as a file is exchanged or written to: device, number, size, time of the last change."""
    status = file.stat() if isinstance(file, Path) else os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "a file of another kind")
        raise OSError(errno.EINVAL, f"{kind}, not a regular file", str(path))

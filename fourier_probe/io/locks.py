"""A folder is one process's at a time. Imports errors and atomic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from fourier_probe.errors import OutputError
from fourier_probe.io import atomic

LOCK = ".lock"


class BusyError(OutputError):
    """Another process holds the folder."""


@contextlib.contextmanager
def held(path: Path, work: str = "training into", *, leave: bool = True) -> Iterator[None]:
    """Keep a folder to this process, made if missing; it goes again where the block fails before it put a file there.

    The system lets go of the lock when its holder dies, however it dies. A file system without locks has none.

    Args:
        path: of the folder.
        work: what another process that holds it is doing there, for messages.
        leave: whether the file of the lock stays beside others, for processes that wait for it.

    Raises:
        BusyError: another process holds it.
        OutputError: a link or a folder has the name of the lock. Early versions of filelock empty the file that a link
            leads to; later ones refuse it, and the folder would go unlocked.
    """
    file = path / LOCK
    with atomic.made(path):
        if file.is_symlink() or file.is_dir():
            raise OutputError(
                f"{file} is a {'link' if file.is_symlink() else 'folder'} and would be the lock of {path}: remove it, "
                "or choose another --out."
            )
        lock = FileLock(file, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise BusyError(f"another process is {work} {path} now: wait for it, or choose another --out.") from error
        except (OSError, NotImplementedError):
            pass
        try:
            yield
        finally:
            if lock.is_locked and (not leave or [other.name for other in path.iterdir()] == [LOCK]):
                with contextlib.suppress(OSError):
                    file.unlink()
            lock.release()

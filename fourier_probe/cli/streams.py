"""Standard streams that may be closed or full: results printed there fail with a message, remarks are let go.

Imports errors only.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

from fourier_probe.errors import OutputError


class _Descriptor(io.FileIO):
    """A file descriptor that fails once, in words of ours, and then takes everything and drops it."""

    def __init__(self, number: int, name: str, *, silent: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._name, self._silent, self._failed = name, silent, False

    def write(self, data: object) -> int:
        """Write, unless it failed before."""
        if not self._failed:
            try:
                return super().write(data)  # type: ignore[arg-type]
            except BrokenPipeError:
                self._failed = True
                if not self._silent:
                    raise  # click and rich end quietly
            except OSError as error:
                self._failed = True
                if not self._silent:
                    code = errno.errorcode.get(error.errno or 0, str(error.errno))
                    raise OutputError(
                        f"cannot print to {self._name}: {os.strerror(error.errno or 0)} ({code}). Files that this "
                        "command writes are written: only what is printed is lost."
                    ) from error
        return memoryview(data).nbytes  # type: ignore[arg-type]


def guard() -> None:
    """Put streams in place of stdout and stderr that say what is wrong with them.

    What is printed on stdout is a result: where it cannot be, the command fails, after its files are written. Remarks
    and progress on stderr are no result: where they cannot be printed, the work goes on.
    """
    if os.name != "posix":
        return
    for number in (0, 1, 2):  # else the next file that is opened takes the number, and is printed into
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDONLY), number)
    sys.stdout = _stream(sys.stdout, 1, "standard output", silent=False)
    sys.stderr = _stream(sys.stderr, 2, "standard error", silent=True)


def _stream(before: TextIO | None, number: int, name: str, *, silent: bool) -> io.TextIOWrapper:
    raw = _Descriptor(number, name, silent=silent)
    encoding = getattr(before, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=silent or raw.isatty()
    )

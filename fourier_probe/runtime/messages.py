"""What a verb says while it works: notes and progress. Imports errors and `launched`; rich only to draw.

In Python a note is a warning (`ProbeNote`) and progress is drawn in a notebook or a terminal. The command line listens
with `printing()`: notes are lines on stderr.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from fourier_probe.errors import printable
from fourier_probe.runtime.launched import rank_and_world

Advance = Callable[[int], None]
"""Called with the number of things that are done."""


class ProbeNote(UserWarning):
    """Something a reader of the result should know; nothing failed."""


def _warn(text: str) -> None:
    warnings.warn(text, ProbeNote, stacklevel=_outside())


def _print(text: str) -> None:
    if rank_and_world()[0] == 0:  # once a run, also under torchrun
        with contextlib.suppress(OSError, ValueError):  # a closed stderr must not lose the work
            sys.stderr.write(f"note: {printable(text)}\n")
            sys.stderr.flush()


_listener: ContextVar[Callable[[str], None]] = ContextVar("listener", default=_warn)


def note(text: str) -> None:
    """Say something that a reader of the result should know."""
    _listener.get()(text)


@contextlib.contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Inside, notes are given to `listener`.

    >>> notes = []
    >>> with listening(notes.append):
    ...     note("three images were left out")
    >>> notes
    ['three images were left out']
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def printing() -> contextlib.AbstractContextManager[None]:
    """Inside, notes are lines on stderr, said by the first rank only."""
    return listening(_print)


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """A progress bar on stderr, or in a notebook; nothing elsewhere. Yields a function to advance it."""
    if not (sys.stderr is not None and (sys.stderr.isatty() or in_notebook())):
        yield lambda done: None
        return
    if in_notebook() and importlib.util.find_spec("ipywidgets") is None:  # rich would warn, and draw nothing
        yield from _counted(what, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, markup=False), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return "ipykernel" in sys.modules


def _counted(what: str, total: int | None) -> Iterator[Advance]:
    """Progress as a line that is written over, at most twice a second."""
    of = "" if total is None else f" of {total}"
    seen, said = 0, 0.0

    def advance(done: int) -> None:
        nonlocal seen, said
        seen += done
        if time.monotonic() - said > 0.5:
            said = time.monotonic()
            sys.stderr.write(f"\r{printable(what)}: {seen}{of}")
            sys.stderr.flush()

    yield advance
    sys.stderr.write("\r" + " " * (len(what) + 2 * len(str(seen)) + 8) + "\r")


def _outside() -> int:
    """Stack level of the first caller outside this package, for warnings."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("fourier_probe"):
        frame, level = frame.f_back, level + 1
    return level

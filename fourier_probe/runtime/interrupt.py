"""Ctrl-C as a request: what is in hand is finished, then the work ends. Imports nothing of ours."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Interrupt:
    """Whether Ctrl-C was pressed."""

    requested: bool = False

    def stopping(self, items: Iterable[T]) -> Iterator[T]:
        """The items, until an interrupt is requested."""
        for item in items:
            yield item
            if self.requested:
                return


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Inside, the first Ctrl-C is noted and the second one raises KeyboardInterrupt, as usual.

    Outside the main thread, where Python delivers no signals, nothing changes.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # somebody else listens: a trainer, a test, an ignored signal
        yield interrupt
        return

    def note(_number: int, _frame: object) -> None:
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested = True

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)

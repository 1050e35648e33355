"""A polite end: SIGTERM and Ctrl-C wait for the step in hand, and for the state to be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, NoReturn


class Stop:
    """Inside the block SIGTERM and SIGINT only set `requested`; a second SIGINT stops at once.

    Does nothing outside the main thread, where Python takes no signals.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.number != 0

    def leave(self) -> NoReturn:
        """End as the signal asks: exit code 143 (SIGTERM), or KeyboardInterrupt, which the command line makes 130."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.number or signal.SIGTERM))

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

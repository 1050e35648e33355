"""For the fuzz tests of every room: damage to a file, and the one assertion, the right result or an error of ours."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fourier_probe.errors import ProbeError

SECONDS, WAITING = 5, 60  # of computing; of the clock, on a machine that is busy
Result = TypeVar("Result")


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit turned over, counted from the start."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def outcome(read: Callable[[], Result]) -> Result | ProbeError:
    """What `read` returns, or the error of ours it raises; any other exception, or 5 s of computing, fails the test."""
    with _within(SECONDS):
        try:
            return read()
        except ProbeError as error:
            message = str(error)
            assert message and "Traceback" not in message and message.isprintable(), repr(message)
            return error


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    limits = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, WAITING))
    before = [signal.signal(number, late) for number, _, _ in limits]
    for _, timer, most in limits:
        signal.setitimer(timer, most)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(limits, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)

"""For the fuzz tests of every room: damage to a file, and the one assertion, the right result or an error of ours."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fourier_probe.errors import ProbeError

SECONDS = 5
Result = TypeVar("Result")


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit turned over, counted from the start."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def outcome(read: Callable[[], Result]) -> Result | ProbeError:
    """What `read` returns, or the error of ours it raises; any other exception, or more than 5 s, fails the test."""
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

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

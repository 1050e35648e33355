"""How much the values of one file may take: memory by its bytes, and the time of its keys. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

NODE = 32  # bytes charged for each value
_KEY = 256  # most values in a key: a tuple of 120 bytes can hold 2**60, and its hash visits each
_KEY_BITS = 128  # of the longest whole number in a key
_ALIKE = 64  # most keys of one dictionary with one hash: looking one up compares it with each


class OversizedError(ValueError):
    """The values would take far more memory than the file has bytes."""


class Budget:
    """What the values of one file may take, in bytes: 32 times its size, and 4 MiB.

    >>> Budget(1000).spend(10**9)
    Traceback (most recent call last):
    fourier_probe.checkpoints.limits.OversizedError: its values repeat or declare far more than its 1000 bytes can hold
    """

    def __init__(self, size: int) -> None:
        self.size, self.left = size, 32 * size + (4 << 20)

    def spend(self, count: int) -> None:
        """Take `count` bytes off; raises OversizedError where they are used up."""
        self.left -= count
        if self.left < 0:
            raise OversizedError(f"its values repeat or declare far more than its {self.size} bytes can hold")


class Keys:
    """What is hashed of one file: no key that takes long, nor keys that collide, which make a dictionary slow."""

    def __init__(self, size: int) -> None:
        self._left = 4 * size + (1 << 12)  # values in all keys
        self._hashes: dict[int, tuple[object, dict[int, int]]] = {}  # the container too: its identity stays its own

    def check(self, keys: Iterable[Any], container: object) -> None:
        """Look at keys on their way into a container; raises OversizedError for those above, TypeError for a list."""
        for key in keys:
            if isinstance(key, str | bytes):  # their hashes are kept, and random
                continue
            self._measure(key)
            _, hashes = self._hashes.setdefault(id(container), (container, {}))
            hashed = hash(key)
            hashes[hashed] = hashes.get(hashed, 0) + 1
            if hashes[hashed] > _ALIKE:
                raise OversizedError(f"more than {_ALIKE} keys of a dictionary have one hash")

    def _measure(self, key: Any) -> None:
        waiting, count = [key], 1
        while waiting:
            value = waiting.pop()
            if isinstance(value, int) and value.bit_length() > _KEY_BITS:
                raise OversizedError(f"a key is a whole number of {value.bit_length()} bits")
            if isinstance(value, tuple | frozenset):
                count += len(value)
                if count > _KEY:
                    raise OversizedError(f"a key of a dictionary or set holds more than {_KEY} values")
                waiting.extend(value)
        self._left -= count
        if self._left < 0:
            raise OversizedError("its keys repeat far more values than its bytes can hold")

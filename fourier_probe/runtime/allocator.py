"""The C library's allocator, told to keep the pages it has: for the commands, never for a program that imports us.

Imports nothing of ours, and no torch.

glibc takes a fresh mapping from the system for every large block and gives it back as soon as it is free: each layer of
a network then pays for zeroed pages. With thresholds above the size of a layer's output freed blocks are used again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of mallopt in malloc.h
LARGEST = (2**30, 2**25)  # bytes; some versions of glibc refuse a threshold above 32 MiB
NEVER = 2**31 - 1
SETTINGS = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def tame() -> bool:
    """Keep freed memory in this process, and in those it starts, for the next use.

    Nothing is done where the C library is not glibc, or where the user has set its allocator himself (`SETTINGS`).

    Returns:
        Whether both thresholds were taken.
    """
    if not _is_glibc() or any(name in os.environ for name in SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mapped = next((size for size in LARGEST if mallopt(MMAP_THRESHOLD, size) == 1), None)
    if mapped is None or mallopt(TRIM_THRESHOLD, NEVER) != 1:
        return False
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(mapped)  # read by a process when it starts
    os.environ["MALLOC_TRIM_THRESHOLD_"] = str(NEVER)
    return True


def _is_glibc() -> bool:
    with contextlib.suppress(AttributeError, ValueError, OSError):  # no confstr, or it knows no such name
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    return False

"""What torchrun tells a process of itself, in its environment. Imports nothing of ours, and no torch."""

from __future__ import annotations

import os


def rank_and_world() -> tuple[int, int]:
    """This process among those torchrun started; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))

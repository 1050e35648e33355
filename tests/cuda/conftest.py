"""What holds around every GPU test: a device, exact products, and a time limit for each."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest
import torch

DEVICE = os.environ.get("PROBE_TEST_DEVICE", "cuda")
"""`cpu` runs these tests without a GPU, to see that they themselves work."""

LIMIT = float(os.environ.get("PROBE_TEST_SECONDS", "60"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if DEVICE == "cuda" and not torch.cuda.is_available():
        for item in items:
            if item.path.parent.name == "cuda":
                item.add_marker(pytest.mark.skip(reason="torch finds no GPU"))


@pytest.fixture(scope="module")
def device() -> str:
    return DEVICE


@pytest.fixture(scope="module", autouse=True)
def _settings() -> Iterator[None]:
    """Products without TF32, and more threads for the CPU's half of each comparison."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.get_num_threads()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(max(1, min(4, (os.cpu_count() or 1) // 4)))
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
    torch.set_num_threads(before[2])


@pytest.fixture(autouse=True)
def _limited() -> Iterator[None]:
    """A test that does not end fails, by name, and the others run."""

    def ended(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"over {LIMIT:g} s")

    before = signal.signal(signal.SIGALRM, ended)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)

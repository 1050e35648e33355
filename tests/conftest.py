"""What holds around every test: one thread, no plots left open, nothing written outside its own folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test works in its own folder and leaves no figure, hook default or process group behind."""
    monkeypatch.chdir(tmp_path)
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        plt = sys.modules["matplotlib.pyplot"]
        assert plt.get_fignums() == [], "a test left figures open"
    assert not torch.distributed.is_initialized(), "a test left a process group"

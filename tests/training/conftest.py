"""Data shared by the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourier_probe.training import train

from .tiny import make_data, tiny


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "tiny.npz")


RICH = {"schedule": "linear", "model_ema": True, "mixup": 0.5, "cutmix": 0.5, "reprob": 0.3, "drop": 0.1}


@pytest.fixture(scope="session")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with conversions, EMA, mixup, erasing and dropout that nothing interrupted."""
    return train(tiny(data, **RICH), tmp_path_factory.mktemp("whole") / "run")

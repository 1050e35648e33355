"""Options out of range are named before anything is opened."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fourier_probe.errors import DeviceError, TrainingError
from fourier_probe.training import TrainConfig, train
from fourier_probe.training.config import flag_of

from .tiny import tiny


@pytest.mark.parametrize("name", ["at_epoch", "anneal_gate", "anneal_locality", "decay_rate"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(name: str, value: float) -> None:
    with pytest.raises(TrainingError, match=rf"{flag_of(name)} is {value!r}: expected (a finite number|an epoch)"):
        TrainConfig.of({name: value})
    assert getattr(TrainConfig.of({name: -0.5}), name) == -0.5


def test_a_device_that_is_not_here_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"--device mps cannot be used: "):
        train(tiny(data, device="mps"), tmp_path / "run")
    with pytest.raises(DeviceError, match=r"--device abacus cannot be used: "):
        train(tiny(data, device="abacus"), tmp_path / "run")

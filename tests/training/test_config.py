"""Options out of range are named before anything is opened."""

from __future__ import annotations

import math

import pytest

from fourier_probe.errors import TrainingError
from fourier_probe.training import TrainConfig
from fourier_probe.training.config import flag_of


@pytest.mark.parametrize("name", ["at_epoch", "anneal_gate", "anneal_locality", "decay_rate"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(name: str, value: float) -> None:
    with pytest.raises(TrainingError, match=rf"{flag_of(name)} is {value!r}: expected (a finite number|an epoch)"):
        TrainConfig.of({name: value})
    assert getattr(TrainConfig.of({name: -0.5}), name) == -0.5

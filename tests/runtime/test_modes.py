"""Modes and random states are put back, also after an error."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from fourier_probe.runtime.modes import evaluating, keeping_random_state


def test_each_module_is_in_its_own_mode_again() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    net[1].eval()  # frozen statistics, as in fine-tuning
    with pytest.raises(ZeroDivisionError), evaluating(net) as same:
        assert same is net
        assert not any(module.training for module in net.modules())
        raise ZeroDivisionError
    assert [module.training for module in net.modules()] == [True, True, False, True]


def drawn() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002, S311


def test_draws_inside_leave_no_trace() -> None:
    with keeping_random_state():
        expected = drawn()
    with pytest.raises(ZeroDivisionError), keeping_random_state(3):
        drawn()
        raise ZeroDivisionError
    assert drawn() == expected
    with keeping_random_state(3):
        seeded = torch.rand(4)
    with keeping_random_state(3):
        assert torch.equal(torch.rand(4), seeded)

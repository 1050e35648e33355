"""Is a factory's network fresh? Two seeds must give two networks. Imports zoo, runtime and errors."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fourier_probe.errors import ModelError, printable
from fourier_probe.models import zoo
from fourier_probe.runtime.messages import note
from fourier_probe.runtime.modes import keeping_random_state

SEED = 0
"""Of the weights of a network that is not trained."""


def untrained(name: str, **model_args: object) -> nn.Module:
    """A network before any training, from `SEED`; torch's generator is left as it was.

    Raises:
        ModelError: it is a factory's and the same under two seeds: its weights are no fresh ones.
    """
    made = _seeded(name, SEED, model_args)
    if zoo.FACTORY.fullmatch(name):
        check(name, made, model_args)
    return made


def check(name: str, made: nn.Module, model_args: dict[str, object]) -> None:
    """Compare a factory's network from `SEED` with another from the next seed.

    Raises:
        ModelError: every parameter that is not constant is equal in both.
    """
    other = dict(_seeded(name, SEED + 1, model_args).named_parameters())
    varied = {key: value.detach() for key, value in made.named_parameters() if _varies(value)}
    equal = [key for key, value in varied.items() if key in other and torch.equal(value, other[key])]
    shown = printable(name, 200)
    if varied and len(equal) == len(varied):
        raise ModelError(
            f"{shown} gives the same {len(varied)} weights under two seeds, so they cannot be taken for untrained "
            "ones. Either it loads weights: give a factory that does not, or leave --untrained out. Or it seeds itself "
            "(torch.manual_seed in the file): take that out."
        )
    if fixed := [key for key in equal if made.get_parameter(key).requires_grad]:
        note(
            f"{len(fixed)} of the {len(varied)} weights of {shown} are the same under two seeds "
            f"({printable(', '.join(fixed[:3]), 200)}): if it loads them, they are not untrained."
        )


def _seeded(name: str, seed: int, model_args: dict[str, Any]) -> nn.Module:
    with keeping_random_state(seed):
        random.seed(seed)  # a factory may draw from any of the three
        np.random.seed(seed)  # noqa: NPY002
        return zoo.create(name, **model_args)


def _varies(value: Tensor) -> bool:
    """Whether a tensor holds more than one number; a bias of zeros says nothing."""
    flat = value.detach().flatten()
    return flat.numel() > 1 and bool((flat != flat[0]).any())

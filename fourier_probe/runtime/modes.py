"""Blocks that leave a model's modes and the global generators as they were. Imports nothing of ours."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


@contextlib.contextmanager
def evaluating(model: Model) -> Iterator[Model]:
    """Inside, a model is in eval mode; afterwards each of its modules is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def keeping_random_state(seed: int | None = None, *, gpus: bool = False) -> Iterator[None]:
    """Inside, draws from the global generators of torch (on the CPU), numpy and Python leave no trace.

    Args:
        seed: of torch's generator inside; as it is by default.
        gpus: also the generators of the GPUs, where one has been used.
    """
    used = gpus and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if used else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - timm and models draw from it
    try:
        with torch.random.fork_rng(devices=devices):
            if seed is not None:
                torch.default_generator.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002

"""Whether a network's score is a sum over windows, seen on the planted task; then its top-1 is bounded. Imports data.

If the logits are a sum of functions of windows that never hold both glyphs of the relation, exchanging one glyph
changes them by the same amount whatever the other is: the mixed second difference over the two glyphs is 0. Attention,
a global norm or a nonlinearity behind the global mean make it differ from 0.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fourier_probe.data.planted import BOUNDS, MEAN, STD, scenes, to_pixels
from fourier_probe.errors import ModelError
from fourier_probe.results.records import TopOneBound

IMAGES = 64  # of the planted test set
TOLERANCE = 1e-9
"""Of the second difference, relative to the largest first difference, in float64."""


@torch.no_grad()
def second_difference(model: nn.Module, *, mean: Sequence[float] = (MEAN,), std: Sequence[float] = (STD,)) -> float:
    """Largest mixed second difference of the logits over the two glyphs of the relation, over the largest first one.

    Args:
        model: takes (B, 3, 32, 32) and returns logits (B, classes); examined in eval mode and float64, as a copy.
        mean: with which it wants its images normalised.
        std: likewise.

    Returns:
        0 up to rounding (about 1e-14) where the score is a sum over windows that never hold both glyphs.

    Raises:
        ModelError: the model does not take these images.
    """
    double = copy.deepcopy(model).cpu().double().eval()
    drawn = scenes("mixed", "test", np.arange(IMAGES))
    a, b = drawn.glyphs.T
    other_a, other_b = (a + 1) % 4, (b + 1) % 4
    center, scale = (torch.tensor(list(value), dtype=torch.float64).view(1, -1, 1, 1) for value in (mean, std))

    def logits(first: np.ndarray, second: np.ndarray) -> Tensor:
        pixels = to_pixels(drawn.values(np.stack([first, second], 1)))
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 255
        try:
            out = double((inputs - center) / scale)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ModelError(f"{type(model).__name__} does not take images of 3 x 32 x 32: {error}") from error
        if not isinstance(out, Tensor) or out.ndim != 2:
            raise ModelError(f"{type(model).__name__} returns no logits (B, classes).")
        return out

    here, there = logits(a, b), logits(other_a, b)
    second = here - there - logits(a, other_b) + logits(other_a, other_b)
    largest = float((here - there).abs().max())
    return float(second.abs().max()) / largest if largest > 0 else 0.0


def top1_bound(
    model: nn.Module, variant: str, *, mean: Sequence[float] = (MEAN,), std: Sequence[float] = (STD,)
) -> TopOneBound:
    """The top-1 that this network cannot pass on a variant of the planted task; its `top1` is null where there is none.

    Raises:
        ModelError: the model does not take these images.
    """
    difference = second_difference(model, mean=mean, std=std)
    known = BOUNDS.get(variant) if difference <= TOLERANCE else None
    return TopOneBound(variant=variant, second_difference=difference, top1=known)

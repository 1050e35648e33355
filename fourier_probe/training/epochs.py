"""An epoch as a user writes it, as a number or a part of the training -> a whole epoch. Imports errors.

It is a number, or a fraction of the training: a float strictly between 0 and 1, or "50%". A fraction that rounds up to
the end of the training is its last epoch.
"""

from __future__ import annotations

import math
from fractions import Fraction

from fourier_probe.errors import TrainingError

Epoch = int | float | str | Fraction
"""50 (an epoch, counted from 0), 0.5 or "50%" (fractions of the training; 1.0 is epoch 1)."""


def check_order(early: Epoch, late: Epoch, epochs: int | None) -> None:
    """Raise TrainingError if early is before late as they are given: rounding to whole epochs may hide it."""
    if _exact(early, "early", epochs)[0] < _exact(late, "late", epochs)[0]:
        raise TrainingError(
            f"schedule: early ({_shown(early)}) must not be before late ({_shown(late)}): late layers convert first. "
            "Use `reverse` for the other order."
        )


def whole_epoch(epoch: Epoch, what: str, epochs: int | None) -> int:
    """A whole epoch within the training from a number, a fraction of it, or a percentage."""
    rounded, share = _rounded(epoch, what, epochs)
    if share and epochs is not None:
        rounded = min(rounded, epochs - 1)
    if rounded < 0 or (epochs is not None and rounded >= epochs):
        inside = f"0 to {epochs - 1}" if epochs is not None else "0 or later"
        raise TrainingError(f"schedule: {what} is epoch {rounded}; expected {inside}.")
    return rounded


def whole_length(span: Epoch, what: str, epochs: int | None) -> int:
    """A number of whole epochs, however many, from a number, a fraction of the training, or a percentage."""
    rounded, _ = _rounded(span, what, epochs)
    if rounded < 0:
        raise TrainingError(f"schedule: {what} is {rounded} epochs long; expected 0 or more.")
    return rounded


def _rounded(epoch: Epoch, what: str, epochs: int | None) -> tuple[int, bool]:
    """The nearest whole number of epochs, and whether it was given as a part of the training, less than all of it."""
    exact, part = _exact(epoch, what, epochs)
    return nearest(exact), part


def _exact(epoch: Epoch, what: str, epochs: int | None) -> tuple[Fraction, bool]:
    """`_rounded` before it is rounded."""
    value: Fraction
    share = isinstance(epoch, float) and 0 < epoch < 1
    try:
        if isinstance(epoch, str) and epoch.strip().endswith("%"):
            value, share = Fraction(epoch.strip()[:-1]) / 100, True
        else:
            # The shortest decimal, so that 0.15 of 10 epochs is the tie 1.5, which goes up.
            value = Fraction(str(epoch))
            share = share or (isinstance(epoch, str) and 0 < value < 1)
    except (ValueError, ZeroDivisionError):
        raise TrainingError(f'schedule: {what} must be an epoch, a fraction or "50%", got {epoch!r}.') from None
    part = share and value < 1
    if share:
        if epochs is None:
            raise TrainingError(f"schedule: {what} is a fraction, {epoch!r}; say how many `epochs` the training has.")
        value *= epochs
    return value, part


def _shown(epoch: Epoch) -> str:
    return f"{float(epoch):g}" if isinstance(epoch, Fraction) else str(epoch)


def nearest(value: Fraction) -> int:
    """The nearest whole number, ties up."""
    return math.floor(value + Fraction(1, 2))


def checked_epoch(epoch: object, what: str) -> int:
    """An epoch that must be whole already; raises TrainingError where it is not."""
    if isinstance(epoch, bool) or not isinstance(epoch, int | float) or epoch != epoch // 1 or epoch < 0:
        raise TrainingError(f"schedule: {what} needs a whole epoch, 0 or later, got {epoch!r}.")
    return int(epoch)

"""What a run says while it trains. The command line draws it; a library caller hears warnings only."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple


class Tick(NamedTuple):
    """One step that is done.

    Attributes:
        epoch: from 0.
        epochs: in all.
        step: done in this epoch.
        steps: an epoch.
        loss: mean training loss of the epoch so far, nats.
        accuracy: mean training accuracy so far, 0 to 1.
        rate: images a second in this epoch.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    rate: float


class Progress:
    """Silent; subclass it to show something."""

    def step(self, tick: Tick) -> None:
        """A step is done; not called for every one of them on a GPU."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch is done; `row` is its line of metrics.csv."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something that may be wrong."""
        warnings.warn(text, UserWarning, stacklevel=3)

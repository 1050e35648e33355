"""Who listens to a sweep: nobody, by default. The command line draws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fourier_probe.studies.tasks import Task


class Watch:
    """Silent; subclass it to show something."""

    def begin(self, tasks: Sequence[Task]) -> None:
        """What there is to do."""

    def started(self, task: Task) -> None:
        """A run has started."""

    def ended(self, task: Task) -> None:
        """A run is finished, failed or interrupted."""

    def tick(self, tasks: Sequence[Task]) -> None:
        """Some time has passed; called a few times a second."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

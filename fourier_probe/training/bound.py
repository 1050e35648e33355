"""What a run on the planted task cannot pass, of the network as it stands. May import data, probe, results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fourier_probe.data.planted import SIDE, is_planted, variant_of
from fourier_probe.errors import ModelError
from fourier_probe.results.records import TopOneBound

if TYPE_CHECKING:
    from fourier_probe.training.session import Session


def planted_bound(session: Session) -> TopOneBound | None:
    """The bound on top-1 of the network that is judged; None off the planted task, and with a note where unknown."""
    data, spec = session.config.data, session.spec
    if not is_planted(data) or not session.ranks.first:
        return None
    if tuple(spec.size) != (SIDE, SIDE):
        session.progress.note(
            f"images of {spec.size[0]}x{spec.size[1]} are not the task's own: its bound is not known."
        )
        return None
    from fourier_probe.probe.window import top1_bound

    try:
        return top1_bound(session.state.judged, variant_of(data), mean=spec.mean, std=spec.std)
    except ModelError as error:
        session.progress.note(f"the bound is not known: {error}")
        return None

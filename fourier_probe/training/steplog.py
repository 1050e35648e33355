"""steps.csv: the loss and the learning rate of every so many steps, over all ranks. May import record and session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fourier_probe.errors import TrainingError
from fourier_probe.training.folder import RunFolder
from fourier_probe.training.record import StepRow, read_steps

if TYPE_CHECKING:
    from fourier_probe.training.session import Session


def log(session: Session, lr: float) -> None:
    """A row for the steps since the last one; every rank must call.

    Args:
        session: `state.recent` has the sums of those steps, which end here.
        lr: of the last of them.
    """
    state = session.state
    loss, correct, count = session.ranks.sum(state.recent.clone()).tolist()
    state.recent = state.recent.new_zeros(3)
    if not count:
        return
    session.steps.append(
        StepRow(
            step=state.epoch * session.plan.steps + state.step,
            lr=lr,
            loss=loss / count,
            acc=correct / count,
            images=round(count),
            converted=len(state.before) + len(state.converted),
        )
    )


def take_up(session: Session, folder: RunFolder) -> None:
    """The rows that a run wrote before the state that is gone on from; later ones will be written again.

    Raises:
        TrainingError: the file is damaged.
    """
    state = session.state
    at = state.epoch * session.plan.steps + state.step
    at -= int(state.recent[2] > 0)  # the steps up to here are not in a row yet
    try:
        rows = read_steps(folder.path)
    except TrainingError as error:
        raise TrainingError(f"{error} Or remove it: the run goes on without its earlier rows.") from error
    session.steps[:] = [row for row in rows if row.step <= at]

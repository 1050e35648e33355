"""What a run must share with the one that it goes on from; what differs is refused by the names of its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fourier_probe.errors import TrainingError
from fourier_probe.training.config import NAMES, TrainConfig, flag_of
from fourier_probe.training.convert import options
from fourier_probe.training.record import (
    RunRecord,
    ScheduleRecord,
)
from fourier_probe.training.session import Session

_AFTER_SWITCH = ("anneal_epochs", "anneal_gate", "anneal_locality", "new_lr_mult", "gate_lr_mult")
"""Of `SCHEDULE_FIELDS`, those that a converted layer is trained under."""


def check_data(payload: dict[str, object], session: Session, path: Path) -> None:
    """Refuse images or labels other than those that a run was trained on."""
    if payload.get("data_digest") != session.splits.digest:
        raise TrainingError(
            f"{path} was trained on other images or labels than {session.config.data} holds now (the digests "
            "differ): point --data at the same set."
        )


def check_initial(record: RunRecord, session: Session, path: Path) -> None:
    """Refuse another file of first weights under the same name."""
    then, now = record.initial, session.initial
    if then is not None and now is not None and then.sha256 != now.record.sha256:
        raise TrainingError(
            f"{path} began from {then.source}, and --initial-checkpoint {now.record.source} holds something else now "
            "(the digests differ): name the same file."
        )


def check_recasts(
    before: TrainConfig,
    schedule: ScheduleRecord,
    conversions: list[dict[str, Any]],
    session: Session,
    path: Path,
    advice: str,
) -> None:
    """Refuse a fork under which the layers that are converted already would have been recast or eased otherwise."""
    free = tuple(name for name in NAMES if name not in _AFTER_SWITCH)
    refuse_other(before, session.config, free, f"{path} had switched layers by then, with", advice)
    now, ramps = options(session.config), session.plan.schedule.ends
    for row in conversions:
        layer, then = row["layer"], row["options"]
        if names := [name for name in {**then, **now} if then.get(name) != now.get(name)]:
            listed = ", ".join(
                f"--recast-arg {n}={then.get(n, '(default)')} (now {now.get(n, '(default)')})" for n in names
            )
            raise TrainingError(f"{path} had switched {layer} by then, with {listed}: {advice}.")
        end = schedule.ends.get(layer)
        if end != ramps.get(layer):
            was, new = ("no ramp" if e is None else f"a ramp to epoch {e}" for e in (end, ramps.get(layer)))
            raise TrainingError(
                f"{path} had switched {layer} by then, with {was} (now {new}), which --schedule, --soft-epochs and the "
                f"epochs of switches decide: {advice}."
            )


def refuse_other(before: TrainConfig, now: TrainConfig, allowed: tuple[str, ...], what: str, advice: str) -> None:
    """Refuse options that differ, but for the allowed ones."""
    names = [name for name in before.differing(now) if name not in allowed]
    if "data" in names and Path(before.data).name == Path(now.data).name:
        names.remove("data")  # the same set in another place: `check_data` compares what is in it
    if "initial_checkpoint" in names and Path(before.initial_checkpoint).name == Path(now.initial_checkpoint).name:
        names.remove("initial_checkpoint")  # `check_initial` compares what is in it
    if names:
        listed = ", ".join(f"{flag_of(n)} {getattr(before, n)!r} (now {getattr(now, n)!r})" for n in names)
        raise TrainingError(f"{what} {listed}: {advice}.")

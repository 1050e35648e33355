"""Where a run may begin other than at the beginning: where it was left, or at the state of another run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from fourier_probe import checkpoints
from fourier_probe.errors import CheckpointError, TrainingError, printable
from fourier_probe.io import atomic
from fourier_probe.io.decode import convert, read_json
from fourier_probe.training.agreement import check_data, check_initial, check_recasts, refuse_other
from fourier_probe.training.bound import planted_bound
from fourier_probe.training.config import FREE, SCHEDULE_FIELDS
from fourier_probe.training.folder import RunFolder
from fourier_probe.training.optim import rescale
from fourier_probe.training.record import (
    Environment,
    Resumed,
    RunResult,
    ScheduleRecord,
    read_record,
)
from fourier_probe.training.session import Session
from fourier_probe.training.state import environment
from fourier_probe.training.steplog import take_up

_FORK = re.compile(r"(?P<run>.+)@(?P<epoch>\d+)")


def resume(session: Session) -> bool:
    """Take up the run in the folder where it was left; returns whether it is finished already.

    Raises:
        TrainingError: the folder's run was asked for something else; names the options.
        CheckpointError: its last.pt is damaged.
    """
    record = session.folder.read_config()
    before = record.config
    refuse_other(before, session.config, FREE, f"{session.folder.path} was trained with", "--force starts over")
    if not session.folder.last.exists():
        check_initial(record, session, session.folder.path)
        session.progress.note(f"{session.folder.path} has no last.pt yet: starting from the beginning.")
        return False
    payload = _read(session.folder.last)
    check_data(payload, session, session.folder.path)
    _restore(session, payload, session.folder.last)
    take_up(session, session.folder)
    session.rewrap()
    if payload["finished"] and record.result is None and session.ranks.first:  # killed between the two files
        outcome = convert({**payload["metrics"], "epochs": payload["epoch"]}, RunResult, "last.pt", TrainingError)
        outcome = msgspec.structs.replace(outcome, bound=planted_bound(session))
        session.folder.write_config(msgspec.structs.replace(record, result=outcome))
    earlier = convert(payload["environment"], Environment, str(session.folder.last), CheckpointError)
    now = environment(session.ranks)
    if difference := earlier.changed(now):
        if session.ranks.first and not payload["finished"]:
            again = Resumed(session.state.epoch, session.state.step, now)
            session.folder.write_config(msgspec.structs.replace(record, resumed=(*(record.resumed or ()), again)))
        session.progress.warn(f"resumed under other conditions ({difference}): not promised to repeat bit by bit.")
    return bool(payload["finished"])


def fork(session: Session, source: str) -> None:
    """Begin at the exact state of another run after some epochs.

    Args:
        session: of the new run, fresh.
        source: RUN@EPOCH.

    Raises:
        TrainingError: no such run or state, or the runs differ in more than the schedule before that epoch, or in how
            the layers converted by then are recast and eased.
    """
    match = _FORK.fullmatch(source)
    if match is None:
        raise TrainingError(f"--fork is {source!r}: expected RUN@EPOCH, such as runs/cifar_resnet20@10.")
    path, epoch = Path(match["run"]), int(match["epoch"])
    record = read_record(path)
    if epoch == 0:
        raise TrainingError(
            f"--fork {source}: nothing is trained by epoch 0, so no state is kept. Leave --fork out: a run with the "
            "same options and seed begins with the same weights."
        )
    before = record.config
    allowed = (*SCHEDULE_FIELDS, *FREE)
    refuse_other(before, session.config, allowed, f"{path} was trained with", "a fork may differ in the schedule only")
    payload = _read(_state_at(path, epoch))
    if (payload["epoch"], payload["step"]) != (epoch, 0):
        raise TrainingError(
            f"{path} was kept after {payload['epoch']} epochs and {payload['step']} steps, not {epoch}."
        )
    check_data(payload, session, path)
    check_initial(record, session, path)
    own = [row for row in payload["conversions"] if not row.get("initial")]
    done = {row["layer"]: row["epoch"] for row in own}
    planned = {layer: at for layer, at in session.plan.schedule.items() if at < epoch}
    if done != planned:
        raise TrainingError(
            f"{source} cannot be forked: by epoch {epoch} it had converted {done or 'nothing'}, this schedule "
            f"{planned or 'nothing'}. Fork before the first switch of both."
        )
    if done:
        first = min(done.values())
        advice = f"fork at {path}@{first}, before the first switch" if first else "leave --fork out"
        check_recasts(
            before,
            record.plan.schedule if record.plan else ScheduleRecord(),
            own,
            session,
            path,
            advice,
        )
    _restore(session, payload, path)
    take_up(session, RunFolder(path))
    rescale(session.state.optimizer, session.config)
    session.rewrap()


class _Images(msgspec.Struct):
    n: int


class _Probed(msgspec.Struct):
    """Of spectra.json, what is looked at here."""

    images: _Images
    target: dict[str, Any]


def take_spectra(session: Session, source: str) -> None:
    """Copy the spectra of the shared beginning under this run's name: they are of the very same weights and images."""
    match = _FORK.fullmatch(source)
    if match is None or not session.config.probe_every:
        return
    for e in range(0, int(match["epoch"]) + 1, session.config.probe_every):
        file = RunFolder(Path(match["run"])).spectra(e)
        if file.exists():
            result = read_json(file, TrainingError)
            asked = min(session.config.probe_images, len(session.splits.val or session.splits.train))
            if convert(result, _Probed, str(file), TrainingError).images.n != asked or not isinstance(result, dict):
                continue
            result["target"] |= {"source": str(session.folder.path), "schedule": session.config.schedule}
            target_file = session.folder.spectra(e)
            target_file.parent.mkdir(exist_ok=True)
            atomic.write_json(target_file, result)


def _read(path: Path) -> dict[str, Any]:
    checkpoint = checkpoints.read(path)
    if checkpoint.format != "fourier-probe" or "finished" not in checkpoint.payload:
        raise CheckpointError(f"{path} is no state of a run: expected a file that `fourier-probe train` wrote.")
    needed = ("finished", "epoch", "step", "best", "conversions", "rows", "metrics", "environment", "optimizer")
    if absent := [name for name in needed if checkpoint.payload.get(name) is None]:
        raise CheckpointError(f"{path} has no {absent[0]}: it is no state of a run, and nothing to go on from.")
    return checkpoint.payload


def _restore(session: Session, payload: dict[str, object], path: Path) -> None:
    """Become what `payload` holds; what does not fit in it is the file's fault."""
    try:
        session.state.restore(payload, session.config, session.ranks)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise TrainingError(
            f"{path} cannot be gone on from: its weights, optimizer or random states are not those of this run "
            f"({type(error).__name__}: {printable(error, 200)}). Use an earlier checkpoint, or start again with "
            "--force."
        ) from error


def _state_at(path: Path, epoch: int) -> Path:
    saved = RunFolder(path).epoch(epoch)
    if saved.exists():
        return saved
    last = path / "last.pt"
    if last.exists() and checkpoints.read(last).epoch == epoch:
        return last
    have = ", ".join(sorted(file.name for file in path.glob("epoch-*.pt"))) or "none"
    raise TrainingError(
        f"{path} has no state after {epoch} epochs (it has: {have}): train it with --checkpoint-at {epoch}, or "
        "--checkpoint-every K. The state before its first switch is always kept."
    )

"""The trainer: `train` from top to bottom.

A run is a loop over epochs. Each begins by converting the layers that are due, passes once over the images, looks at
the validation split, and is saved. The test set is looked at once, at the end.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec
import torch

from fourier_probe import checkpoints
from fourier_probe.errors import DataError, TrainingError
from fourier_probe.io.decode import convert
from fourier_probe.runtime.distributed import ranks
from fourier_probe.training import idle, logs, steplog
from fourier_probe.training import resume as beginnings
from fourier_probe.training.bound import planted_bound
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.convert import convert_, ease_, options
from fourier_probe.training.exactness import differences
from fourier_probe.training.folder import RunFolder
from fourier_probe.training.initial import Initial
from fourier_probe.training.inputs import Evaluation
from fourier_probe.training.optim import rate
from fourier_probe.training.progress import Outlook, Progress, Tick
from fourier_probe.training.record import RunResult, read_record
from fourier_probe.training.session import Session, settings
from fourier_probe.training.state import seeded
from fourier_probe.training.steps import Diverged, evaluate, prepare, train_step
from fourier_probe.training.stop import Stop
from fourier_probe.training.timeleft import Clock, work_of

Batch = TypeVar("Batch")
LOOK = 20  # most steps between two looks at a GPU, or at the other ranks: each makes the host wait
PATIENCE = 2.0  # seconds between two looks, where steps are slow: torchrun kills 30 s after SIGTERM


def train(
    config: TrainConfig,
    out: Path | str,
    *,
    resume: bool = False,
    force: bool = False,
    fork: str | None = None,
    progress: Progress | None = None,
    asked: Collection[str] = (),
) -> Path:
    """Train a model; returns the run folder.

    Args:
        config: what to do.
        out: the run folder (see `training.folder`); made if missing.
        resume: continue the run in it, exactly; from the beginning where there is nothing to continue.
        force: overwrite the run in it.
        fork: RUN@EPOCH, another run whose state to begin from.
        progress: who listens; nobody by default.
        asked: names of the options that the user gave; what cannot do anything among them is said.

    Raises:
        ProbeError: a leaf of it that says what is wrong and what to do; the last good checkpoint is kept.
        SystemExit: 143 after SIGTERM, once the step in hand is done and saved.
        KeyboardInterrupt: after Ctrl-C, likewise.
    """
    if resume and force:
        raise TrainingError("resume continues a run and force overwrites it: choose one.")
    out, progress = Path(out), progress or Progress()
    with contextlib.ExitStack() as stack:
        team, stop = stack.enter_context(ranks(config.device)), stack.enter_context(Stop())
        stack.enter_context(settings(config, team))
        stack.enter_context(seeded(config.seed, team))
        claimed = RunFolder.claim(out, resume=resume, force=force)
        folder = stack.enter_context(claimed) if team.first else RunFolder(out)
        session = None
        try:
            again = resume and (out / "config.json").exists()
            team.barrier()
            initial = _begun(out) if again else None
            session = Session.open(config, team, folder, progress if team.first else Progress(), stop, fork, initial)
            if again and beginnings.resume(session):
                session.progress.note(f"{out} is finished: nothing is left to train.")
                return out
            if not again:
                if fork is not None:
                    beginnings.fork(session, fork)
                if team.first:
                    folder.clear()
                    folder.write_config(session.record())
                    if fork is not None:
                        beginnings.take_spectra(session, fork)
            for remark in idle.said(session, asked):
                session.progress.note(remark)
            for reason in differences(session.state.model, config, team.world):
                session.progress.note(reason)
            with logs.writer(session):
                _fit(session)
        finally:
            if session is not None:
                session.training.close()
    return out


def _begun(out: Path) -> Initial | None:
    """What the run in a folder began from: with a state to go on from, the file itself is not read again."""
    record = read_record(out)
    if record.initial is None or not RunFolder(out).last.exists():
        return None
    return Initial(record.initial, record.model_args, size=None if record.input is None else record.input.size)


def _fit(session: Session) -> None:
    state, plan = session.state, session.plan
    work = work_of(session, measure=session.ranks.any(session.progress.measures))
    session.clock = Clock(work)
    left = session.clock.mark(state.epoch, state.step)
    session.progress.outlook(Outlook(state.epoch, plan.epochs, plan.unit, left, work.measured))
    if state.epoch == 0 and state.step == 0:
        logs.probe(session)
    while state.epoch < plan.epochs:
        _convert(session)
        _pass(session)
        _finish_epoch(session)
    _finish(session)


def _convert(session: Session) -> None:
    """Switch the layers that are due, measuring both sides on the same fixed images."""
    state, plan, config = session.state, session.plan, session.config
    due = [layer for layer in plan.schedule.due(state.epoch) if layer not in state.converted]
    if not due:
        return
    if config.log_interval:
        steplog.log(session, rate(state.optimizer))  # no row has steps of both sides
    before = _evaluate(session, state.model, session.fixed)
    for layer in due:
        convert_([layer], state.model, state.average, state.optimizer, config)
        for model in (state.model, state.average):
            if model is not None:
                ease_(model, [layer], plan, config, state.epoch)
        after = evaluate(state.model, _share(session.fixed, session), config, session.ranks).means
        state.conversions.append(
            {
                "layer": layer,
                "epoch": state.epoch,
                "options": options(config),
                "loss_before": before[0],
                "acc_before": before[1],
                "loss_after": after[0],
                "acc_after": after[1],
                "ratio": after[0] / before[0],
                "images": len(session.fixed.images),
            }
        )
        before = after
        if session.ranks.any(session.stop.requested):
            _leave(session)
    session.rewrap()


def _pass(session: Session) -> None:
    """One pass over the images, or what is left of it."""
    state, plan, config, spec = session.state, session.plan, session.config, session.spec
    gpu = session.ranks.device.type != "cpu"
    interval = LOOK if gpu or session.ranks.world > 1 else 1
    bad = torch.full((), -1, device=session.ranks.device)
    converted = state.converted
    start = time.perf_counter() - state.seconds
    looked, seen, following = time.perf_counter(), state.step, state.step + 1
    session.net.train()
    for batch in _until_stopped(
        session, session.training.batches(state.epoch * plan.steps + state.step, plan.steps - state.step)
    ):
        now = state.epoch + state.step / plan.steps
        ease_(state.model, converted, plan, config, now)
        if session.mixup is not None:
            session.mixup.mixup_enabled = plan.mixes(config, now)
        inputs, targets = prepare(batch, config, spec, session.mixup)
        try:
            outcome = train_step(
                session.net,
                inputs,
                targets,
                state.optimizer,
                state.scaler,
                config,
                check=not gpu,
                ranks=session.ranks,
                batch=batch.share.batch,
            )
        except Diverged:
            raise _diverged(session, state.step) from None
        sums = torch.stack(outcome)
        state.sums += sums
        state.recent += sums
        lr = rate(state.optimizer)
        if gpu:
            bad = torch.where((bad < 0) & outcome.loss.isnan(), state.step, bad)
        state.step += 1
        done = state.epoch * plan.steps + state.step
        if state.ema is not None:
            state.ema.update(state.model, step=done)
            ease_(state.ema.module, converted, plan, config, now)
        state.scheduler.step_update(done)
        if config.log_interval and done % config.log_interval == 0:
            steplog.log(session, lr)
        if state.step >= following or state.step == plan.steps:
            if gpu and int(bad) >= 0:
                raise _diverged(session, int(bad))
            loss, correct, count = state.sums.tolist()
            state.seconds = time.perf_counter() - start
            speed = state.step * session.training.batch / state.seconds
            left = session.clock.mark(state.epoch, state.step) if session.clock else None
            at = (state.epoch, plan.epochs, state.step, plan.steps)
            session.progress.step(Tick(*at, loss / count, correct / count, speed, plan.unit, left))
            clock = time.perf_counter()
            stop, slowest = session.ranks.largest(float(session.stop.requested), (clock - looked) / (state.step - seen))
            if stop:
                _leave(session)
            looked, seen = clock, state.step
            following = state.step + max(1, min(interval, int(PATIENCE / max(slowest, 1e-9))))


def _finish_epoch(session: Session) -> None:
    """Validate, log, save."""
    state, plan, config = session.state, session.plan, session.config
    lr = rate(state.optimizer)
    sums = session.ranks.sum(state.sums.clone()).tolist()
    session.ranks.share_buffers(state.model)
    session.ranks.share_buffers(state.average)
    row: dict[str, Any] = {
        "epoch": state.epoch,
        "step": state.epoch * plan.steps + plan.steps,
        "lr": float(lr),
        "train_loss": sums[0] / sums[2],
        "train_acc": sums[1] / sums[2],
        "converted": len(state.before) + len(state.converted),
        "parameters": session.cost.parameters,
        "multiply_adds": session.cost.multiply_adds,
        "seconds": state.seconds,
        "images_per_second": sums[2] / state.seconds if state.seconds else None,
    }
    judged = None
    if session.val is not None:
        row["val_loss"], row["val_acc"] = _evaluate(session, state.model, session.val)
        judged = row["val_acc"]
        if state.ema is not None:
            row["ema_val_loss"], row["ema_val_acc"] = _evaluate(session, state.ema.module, session.val)
            judged = row["ema_val_acc"]
        if not math.isfinite(row["val_loss"]):
            raise _diverged(session, plan.steps - 1)
    state.rows.append(row)
    state.epoch, state.step, state.seconds = state.epoch + 1, 0, 0.0
    state.sums = torch.zeros_like(state.sums)
    better = judged is not None and judged > state.best
    if better and judged is not None:
        state.best = judged
    metrics = {key: value for key, value in row.items() if key.endswith(("loss", "acc"))}
    payload = session.payload(metrics)
    if session.ranks.first:
        if better:
            weights = ("optimizer", "scaler", "rng", "rows", "sums", "seconds")
            checkpoints.save(session.folder.best, {k: v for k, v in payload.items() if k not in weights})
        if _keep(session):
            checkpoints.save(session.folder.epoch(state.epoch), payload)
        _save(session, payload)
    left = session.clock.mark(state.epoch) if session.clock else None
    session.progress.outlook(Outlook(state.epoch, plan.epochs, plan.unit, left))
    logs.epoch(session, row)
    if config.probe_every and state.epoch % config.probe_every == 0:
        logs.probe(session)
    if session.ranks.any(session.stop.requested) and state.epoch < plan.epochs:
        _end(session)


def _finish(session: Session) -> None:
    """Look at the test set, once, and write down what came of the run."""
    state = session.state
    row = state.rows[-1]
    test = session.test()
    if test is not None:
        row["test_loss"], row["test_acc"] = _evaluate(session, state.judged, test)
        if test.images.conflict is not None and test.images.conflict.any():
            against = replace(test, images=test.images.take(test.images.conflict.nonzero()[0]), held=None)
            row["test_conflict_acc"] = _evaluate(session, state.judged, against)[1]
    known = {key: value for key, value in row.items() if key.endswith(("loss", "acc")) and value is not None}
    result = {key: value for key, value in known.items() if math.isfinite(value)}  # JSON has no NaN; metrics.csv has
    if state.best >= 0:
        result["best_val_acc"] = state.best
    payload = session.payload(result, finished=True)
    if session.ranks.first:
        _save(session, payload)
        outcome = convert({**result, "epochs": state.epoch}, RunResult, "the result", TrainingError)
        outcome = msgspec.structs.replace(outcome, bound=planted_bound(session))
        session.folder.write_config(msgspec.structs.replace(session.folder.read_config(), result=outcome))


def _keep(session: Session) -> bool:
    """Whether the state after this epoch is kept to fork from: asked for, or the last before the first switch."""
    epoch = session.state.epoch
    return session.plan.keeps(session.config, epoch) or epoch == session.plan.schedule.first


def _save(session: Session, payload: dict[str, object]) -> None:
    if session.config.log_interval:  # first: of a run that is killed between the two, rows too many are dropped
        session.folder.write_steps(session.steps)
    checkpoints.save(session.folder.last, payload)
    session.folder.write_logs(session.state.rows, session.state.conversions)


def _evaluate(session: Session, model: torch.nn.Module, images: Evaluation) -> tuple[float, float]:
    """Loss and accuracy; a signal is answered at once, since the state before is whole."""

    def interrupted() -> None:
        if session.ranks.any(session.stop.requested):
            _leave(session)

    def shared() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        asked = 0
        try:
            for batch in _share(images, session):
                asked += 1
                yield batch
        except DataError:  # the signal ends loader processes too
            if session.stop.requested:
                interrupted()
            raise
        for _ in range(asked, images.steps(session.ranks.world)):  # a rank with fewer images is asked as often
            interrupted()

    return evaluate(model, shared(), session.config, session.ranks, interrupted=interrupted).means


def _until_stopped(session: Session, batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches; where the signal that ends the run has ended a loader process too, the run ends as asked."""
    try:
        yield from batches
    except DataError:
        if session.stop.requested and session.ranks.world == 1:
            _leave(session)
        raise


def _share(images: Evaluation, session: Session) -> Any:
    return images.batches(session.ranks.rank, session.ranks.world)


def _leave(session: Session) -> NoReturn:
    """Save the state as it is, also in the middle of an epoch, and end."""
    rows = session.state.rows
    payload = session.payload(rows[-1] if rows else {})
    if session.ranks.first:
        _save(session, payload)
    _end(session)


def _end(session: Session) -> NoReturn:
    """Say where the run stands, and end as the signal asks."""
    state = session.state
    session.progress.note(
        f"stopped after {state.epoch} {session.plan.unit}{'s' * (state.epoch != 1)} and {state.step} "
        f"step{'s' * (state.step != 1)}; saved to {session.folder.last}: --resume goes on."
    )
    session.stop.leave()


def _diverged(session: Session, step: int) -> TrainingError:
    state = session.state
    lr = rate(state.optimizer)
    saved = session.folder.last
    have = f"{saved} holds the state after {len(state.rows)} epochs" if saved.exists() else "no epoch was finished"
    return TrainingError(
        f"the loss or its gradient became NaN or infinite at step {state.epoch * session.plan.steps + step} (epoch "
        f"{state.epoch}, step {step}) at learning rate {lr:.3g}: nothing of it was saved; {have}. Lower --lr, "
        f"lengthen --warmup-epochs, or clip with --clip-grad 1."
    )

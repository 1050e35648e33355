"""All that a run holds, made ready before its first step; and where it may begin other than at the beginning."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import nn

from fourier_probe import checkpoints
from fourier_probe.data import InputSpec
from fourier_probe.errors import CheckpointError, TrainingError, printable
from fourier_probe.io import atomic
from fourier_probe.io.decode import convert, read_json
from fourier_probe.models import zoo
from fourier_probe.runtime.distributed import Ranks
from fourier_probe.runtime.modes import keeping_random_state
from fourier_probe.runtime.versions import versions
from fourier_probe.training.bound import planted_bound
from fourier_probe.training.config import FREE, NAMES, SCHEDULE_FIELDS, TrainConfig, flag_of
from fourier_probe.training.convert import options
from fourier_probe.training.folder import RunFolder
from fourier_probe.training.initial import Initial
from fourier_probe.training.inputs import HELD, Evaluation, Splits, Training, derived, fixed_images, open_splits
from fourier_probe.training.optim import make_optimizer, make_scheduler, rescale
from fourier_probe.training.plan import Plan, make_model
from fourier_probe.training.progress import Progress
from fourier_probe.training.record import (
    Environment,
    ImageCounts,
    InputRecord,
    PlanRecord,
    RunRecord,
    RunResult,
    ScheduleRecord,
    StepRow,
    read_record,
)
from fourier_probe.training.state import State, environment
from fourier_probe.training.steplog import take_up
from fourier_probe.training.steps import check_output
from fourier_probe.training.stop import Stop
from fourier_probe.training.timeleft import Clock

if TYPE_CHECKING:
    from timm.data import Mixup
    from torch.utils.tensorboard import SummaryWriter

_WEIGHTS = 0  # a stream of the seed of its own
_FORK = re.compile(r"(?P<run>.+)@(?P<epoch>\d+)")
_AFTER_SWITCH = ("anneal_epochs", "anneal_gate", "anneal_locality", "new_lr_mult", "gate_lr_mult")
"""Of `SCHEDULE_FIELDS`, those that a converted layer is trained under."""


@dataclass
class Session:
    """A run, ready to go.

    Attributes:
        config: what was asked for.
        ranks: the processes.
        folder: its files.
        progress: who listens.
        stop: whether to end early.
        splits: its images.
        spec: the model's input.
        plan: how long, and what converts when.
        training: batches.
        fixed: the training images on which both sides of a switch are measured.
        state: what changes.
        mixup: timm's, if asked for.
        arch: name and arguments of the model, for checkpoints.
        fork: the run and epoch it was forked from.
        initial: the weights it began from, where a file was named.
        board: TensorBoard's writer, while one is open.
        net: the model as it is trained: wrapped, compiled. plain: its cost before any switch. cost: now.
        clock: time left. steps: rows of steps.csv.
    """

    config: TrainConfig
    ranks: Ranks
    folder: RunFolder
    progress: Progress
    stop: Stop
    splits: Splits
    spec: InputSpec
    plan: Plan
    training: Training
    fixed: Evaluation
    val: Evaluation | None
    state: State
    mixup: Mixup | None
    arch: dict[str, Any]
    fork: str | None = None
    initial: Initial | None = None
    board: SummaryWriter | None = field(init=False, default=None)
    net: nn.Module = field(init=False)
    plain: zoo.Stats = field(init=False)
    cost: zoo.Stats = field(init=False)
    clock: Clock | None = field(init=False, default=None)
    steps: list[StepRow] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.plain = zoo.stats(self.state.model, (self.spec.channels, *self.spec.size))
        self.rewrap()

    @classmethod
    def open(
        cls,
        config: TrainConfig,
        ranks: Ranks,
        folder: RunFolder,
        progress: Progress,
        stop: Stop,
        fork: str | None,
        initial: Initial | None = None,
    ) -> Session:
        """Images, model, optimizer; everything that can be wrong is found here, before the first step.

        Args:
            config: what is asked for.
            ranks: the processes.
            folder: for the files.
            progress: who listens.
            stop: set by signals.
            fork: RUN@EPOCH, for config.json.
            initial: what the run began from, where it is resumed; else the file is read.

        Raises:
            DataError, ModelError, TrainingError: what is wrong, and what to do.
        """
        from timm.data import Mixup
        from timm.utils import ModelEmaV3

        splits = open_splits(config)
        if splits.note:
            progress.note(splits.note)
        with keeping_random_state(derived(_WEIGHTS, config.seed)):  # the same weights on every rank
            fresh = bool(config.initial_checkpoint) and initial is None
            initial = Initial.open(config) if fresh else initial
            model, arguments, spec = make_model(config, splits, initial)
        if initial is not None and fresh:
            progress.note(initial.said())
        dtype = getattr(torch, config.model_dtype)
        model = model.to(ranks.device, dtype)
        if config.channels_last:
            model = model.to(memory_format=torch.channels_last)
        check_output(model, spec, splits.classes, dtype)
        training = Training.of(config, splits.train, spec, ranks)
        plan = Plan.of(config, model, spec, images=len(splits.train), whole=splits.whole, batch=training.batch)
        if plan.over_limit:
            progress.note(plan.unconverted())
        plan.keeps(config, 0)  # a step to keep a state at that never comes
        optimizer = make_optimizer(model, config)
        state = State(
            model=model,
            optimizer=optimizer,
            scheduler=make_scheduler(optimizer, config, plan),
            scaler=torch.amp.GradScaler(ranks.device.type, enabled=config.amp == "fp16"),
            ema=ModelEmaV3(model, decay=config.model_ema_decay, use_warmup=True) if config.model_ema else None,
            sums=torch.zeros(3, dtype=torch.float64, device=ranks.device),
            recent=torch.zeros(3, dtype=torch.float64, device=ranks.device),
            before=[] if initial is None else initial.rows,
        )
        mixup = None
        if config.mixup or config.cutmix:
            mixup = Mixup(  # type: ignore[no-untyped-call]
                mixup_alpha=config.mixup,
                cutmix_alpha=config.cutmix,
                prob=config.mixup_prob,
                switch_prob=config.mixup_switch_prob,
                label_smoothing=config.smoothing,
                num_classes=splits.classes,
            )
        return cls(
            config=config,
            ranks=ranks,
            folder=folder,
            progress=progress,
            stop=stop,
            splits=splits,
            spec=spec,
            plan=plan,
            training=training,
            fixed=_evaluation(fixed_images(splits.train), spec, config, ranks),
            val=None if splits.val is None else _evaluation(splits.val, spec, config, ranks),
            state=state,
            mixup=mixup,
            arch={"arch": config.model, "model_args": arguments},
            fork=fork,
            initial=initial,
        )

    def test(self) -> Evaluation | None:
        """The test images; for the end. None where there are none, or `--no-test`."""
        if self.splits.test is None or not self.config.test:
            return None
        return _evaluation(self.splits.test, self.spec, self.config, self.ranks)

    def rewrap(self) -> None:
        """Wrap the model for training again, and count its cost again: its layers have changed."""
        net = self.ranks.wrap(self.state.model)
        if self.config.compile:
            torch.compiler.reset()  # or dynamo gives up, silently, after eight versions of one forward
        self.net = torch.compile(net) if self.config.compile else net  # type: ignore[assignment]
        self.cost = self.plan.cost(self.state.model, self.plain)

    def record(self) -> RunRecord:
        """config.json, but for the result."""
        skipped: int | msgspec.UnsetType = msgspec.UNSET
        if self.config.skip_bad:
            splits = (self.splits.train, self.splits.val, self.splits.test)
            skipped = sum(split.skipped for split in splits if split is not None)
        schedule = self.plan.schedule
        return RunRecord(
            config=self.config,
            fork=self.fork,
            arch=self.arch["arch"],
            model_args=self.arch["model_args"],
            initial=None if self.initial is None else self.initial.record,
            input=InputRecord(self.spec.size, tuple(self.spec.mean), tuple(self.spec.std)),
            data_fingerprint=self.splits.fingerprint,
            images=ImageCounts(
                train=len(self.splits.train),
                val=None if self.splits.val is None else len(self.splits.val),
                test=None if self.splits.test is None else len(self.splits.test),
                digest=self.splits.digest,
                skipped=skipped,
            ),
            classes=self.splits.classes,
            plan=PlanRecord(
                epochs=self.plan.epochs,
                steps=self.plan.steps,
                unit=self.plan.unit,
                batch=self.training.batch,
                schedule=convert(schedule.to_dict(), ScheduleRecord, "schedule", TrainingError),
            ),
            environment=environment(self.ranks),
            versions=versions(),
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        )

    def input(self) -> dict[str, Any]:
        """Size, mean and std as checkpoints carry them."""
        return {"size": list(self.spec.size), "mean": list(self.spec.mean), "std": list(self.spec.std)}

    def payload(self, metrics: dict[str, Any], *, finished: bool = False) -> dict[str, Any]:
        """The values of a checkpoint; every rank must call."""
        record = {**self.arch, "config": {**self.config.to_json(), "input": self.input()}}
        extra = {
            "finished": finished,
            "data_digest": self.splits.digest,
            "data_fingerprint": msgspec.to_builtins(self.splits.fingerprint),
        }
        return {**self.state.payload(self.ranks, record, metrics), **extra}


def resume(session: Session) -> bool:
    """Take up the run in the folder where it was left; returns whether it is finished already.

    Raises:
        TrainingError: the folder's run was asked for something else; names the options.
        CheckpointError: its last.pt is damaged.
    """
    record = session.folder.read_config()
    before = record.config
    _refuse_other(before, session.config, FREE, f"{session.folder.path} was trained with", "--force starts over")
    if not session.folder.last.exists():
        _check_initial(record, session, session.folder.path)
        session.progress.note(f"{session.folder.path} has no last.pt yet: starting from the beginning.")
        return False
    payload = _read(session.folder.last)
    _check_data(payload, session, session.folder.path)
    _restore(session, payload, session.folder.last)
    take_up(session, session.folder)
    session.rewrap()
    if payload["finished"] and record.result is None and session.ranks.first:  # killed between the two files
        outcome = convert({**payload["metrics"], "epochs": payload["epoch"]}, RunResult, "last.pt", TrainingError)
        outcome = msgspec.structs.replace(outcome, bound=planted_bound(session))
        session.folder.write_config(msgspec.structs.replace(record, result=outcome))
    earlier = convert(payload["environment"], Environment, str(session.folder.last), CheckpointError)
    if difference := earlier.changed(environment(session.ranks)):
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
    _refuse_other(before, session.config, allowed, f"{path} was trained with", "a fork may differ in the schedule only")
    payload = _read(_state_at(path, epoch))
    if (payload["epoch"], payload["step"]) != (epoch, 0):
        raise TrainingError(
            f"{path} was kept after {payload['epoch']} epochs and {payload['step']} steps, not {epoch}."
        )
    _check_data(payload, session, path)
    _check_initial(record, session, path)
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
        _check_recasts(
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
            mine = session.folder.spectra(e)
            mine.parent.mkdir(exist_ok=True)
            atomic.write_json(mine, result)


@contextlib.contextmanager
def settings(config: TrainConfig, ranks: Ranks) -> Iterator[None]:
    """Threads and deterministic algorithms as the run asks; put back at the end."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        if config.threads:
            torch.set_num_threads(config.threads)
        if config.deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def _evaluation(images: Any, spec: InputSpec, config: TrainConfig, ranks: Ranks) -> Evaluation:
    hold = len(images) * spec.channels * spec.size[0] * spec.size[1] <= HELD // 4
    batch = max(1, min(512, 512 * 64 * 64 // (spec.size[0] * spec.size[1])))
    return Evaluation(images, spec, ranks.device, config.workers, batch, hold)


def _read(path: Path) -> dict[str, Any]:
    checkpoint = checkpoints.read(path)
    if checkpoint.format != "fourier-probe" or "finished" not in checkpoint.payload:
        raise CheckpointError(f"{path} is no state of a run: expected a file that `fourier-probe train` wrote.")
    needed = ("finished", "epoch", "step", "best", "conversions", "rows", "metrics", "environment", "optimizer")
    if absent := [name for name in needed if checkpoint.payload.get(name) is None]:
        raise CheckpointError(f"{path} has no {absent[0]}: it is no state of a run, and nothing to go on from.")
    return checkpoint.payload


def _restore(session: Session, payload: dict[str, Any], path: Path) -> None:
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
    kept = RunFolder(path).epoch(epoch)
    if kept.exists():
        return kept
    last = path / "last.pt"
    if last.exists() and checkpoints.read(last).epoch == epoch:
        return last
    have = ", ".join(sorted(file.name for file in path.glob("epoch-*.pt"))) or "none"
    raise TrainingError(
        f"{path} has no state after {epoch} epochs (it has: {have}): train it with --checkpoint-at {epoch}, or "
        "--checkpoint-every K. The state before its first switch is always kept."
    )


def _check_data(payload: dict[str, Any], session: Session, path: Path) -> None:
    if payload.get("data_digest") != session.splits.digest:
        raise TrainingError(
            f"{path} was trained on other images or labels than {session.config.data} holds now (the digests "
            "differ): point --data at the same set."
        )


def _check_initial(record: RunRecord, session: Session, path: Path) -> None:
    then, now = record.initial, session.initial
    if then is not None and now is not None and then.sha256 != now.record.sha256:
        raise TrainingError(
            f"{path} began from {then.source}, and --initial-checkpoint {now.record.source} holds something else now "
            "(the digests differ): name the same file."
        )


def _check_recasts(
    before: TrainConfig,
    schedule: ScheduleRecord,
    conversions: list[dict[str, Any]],
    session: Session,
    path: Path,
    advice: str,
) -> None:
    """Refuse a fork under which the layers that are converted already would have been recast or eased otherwise."""
    free = tuple(name for name in NAMES if name not in _AFTER_SWITCH)
    _refuse_other(before, session.config, free, f"{path} had switched layers by then, with", advice)
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


def _refuse_other(before: TrainConfig, now: TrainConfig, allowed: tuple[str, ...], what: str, advice: str) -> None:
    names = [name for name in before.differing(now) if name not in allowed]
    if "data" in names and Path(before.data).name == Path(now.data).name:
        names.remove("data")  # the same set in another place: `_check_data` compares what is in it
    if "initial_checkpoint" in names and Path(before.initial_checkpoint).name == Path(now.initial_checkpoint).name:
        names.remove("initial_checkpoint")  # `_check_initial` compares what is in it
    if names:
        listed = ", ".join(f"{flag_of(n)} {getattr(before, n)!r} (now {getattr(now, n)!r})" for n in names)
        raise TrainingError(f"{what} {listed}: {advice}.")

"""All that a run holds, made ready before its first step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import nn

from fourier_probe.data import InputSpec, off_scale
from fourier_probe.errors import TrainingError
from fourier_probe.io.decode import convert
from fourier_probe.models import zoo
from fourier_probe.runtime.accelerator import summing
from fourier_probe.runtime.distributed import Ranks
from fourier_probe.runtime.modes import keeping_random_state
from fourier_probe.runtime.versions import now, versions
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.folder import RunFolder
from fourier_probe.training.initial import Initial
from fourier_probe.training.inputs import HELD, Evaluation, Training, derived
from fourier_probe.training.optim import make_optimizer, make_scheduler
from fourier_probe.training.plan import Plan, make_model
from fourier_probe.training.progress import Progress
from fourier_probe.training.record import (
    ImageCounts,
    InputRecord,
    PlanRecord,
    RunRecord,
    ScheduleRecord,
    StepRow,
)
from fourier_probe.training.splits import Splits, fixed_images, open_splits
from fourier_probe.training.state import State, environment
from fourier_probe.training.steps import check_output
from fourier_probe.training.stop import Stop
from fourier_probe.training.timeleft import Clock

if TYPE_CHECKING:
    from timm.data import Mixup
    from torch.utils.tensorboard import SummaryWriter

_WEIGHTS = 0  # a stream of the seed of its own


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
            progress.note(initial.description())
        if odd := off_scale(splits.train, spec):
            progress.note(odd)
        dtype = getattr(torch, config.model_dtype)
        model = model.to(ranks.device, dtype)
        if config.channels_last:
            model = model.to(memory_format=torch.channels_last)
        check_output(model, spec, splits.classes, dtype)
        training = Training.of(config, splits.train, spec, ranks)
        if training.batch < config.batch_size:
            progress.note(
                f"steps have {training.batch} images, all there are, and the learning rate {config.lr:g}, that of "
                f"--batch-size {config.batch_size}: pass --batch-size {training.batch} for a rate of its own."
            )
        plan = Plan.of(config, model, spec, images=len(splits.train), available=splits.available, batch=training.batch)
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
            sums=torch.zeros(3, dtype=torch.float64, device=summing(ranks.device)),
            recent=torch.zeros(3, dtype=torch.float64, device=summing(ranks.device)),
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
            created=now(),
        )

    def input(self) -> dict[str, object]:
        """Size, mean and std as checkpoints carry them."""
        return {"size": list(self.spec.size), "mean": list(self.spec.mean), "std": list(self.spec.std)}

    def payload(self, metrics: dict[str, object], *, finished: bool = False) -> dict[str, object]:
        """The values of a checkpoint; every rank must call."""
        record = {**self.arch, "config": {**self.config.to_json(), "input": self.input()}}
        extra = {
            "finished": finished,
            "data_digest": self.splits.digest,
            "data_fingerprint": msgspec.to_builtins(self.splits.fingerprint),
        }
        return {**self.state.payload(self.ranks, record, metrics), **extra}


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

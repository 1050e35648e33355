"""How long a training will still take: the planned cost of each epoch, corrected by the time that went by.

An epoch after a switch costs more than one before. What it will cost is measured beforehand on a copy of the network,
as it is and with every layer converted; in between it goes by multiply-adds. Imports what the trainer imports.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from fourier_probe.runtime.accelerator import wait
from fourier_probe.runtime.distributed import Ranks
from fourier_probe.runtime.modes import keeping_random_state
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.convert import convert_
from fourier_probe.training.optim import make_optimizer
from fourier_probe.training.steps import Diverged, evaluate, train_step

if TYPE_CHECKING:
    from fourier_probe.training.session import Session

BACKWARD = 3  # forward passes that a training step takes as long as
STEPS = 3  # measured, after one to warm up
SLOW = 1.5  # seconds: of steps that take longer, one is measured, the first
SHORT = 15.0  # seconds of training under which a second network is not measured: it would take as long
PRIOR, PRIOR_ADDED = 0.01, 0.1  # of the whole, and of what switches add: weight of the plan against what is measured

RECENT = 0.05  # of the whole: after as much work what was measured before counts half for the speed of the machine now


class Cost(NamedTuple):
    """Of a step, or of an image evaluated: of the network before any switch, and what is added after all of them."""

    plain: float
    added: float

    def at(self, share: float, count: float = 1.0) -> Cost:
        """Of so many, where a share of what the switches add is there."""
        return Cost(self.plain * count, self.added * count * share)

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(self.plain + other.plain, self.added + other.added)


@dataclass(frozen=True)
class Work:
    """What a training has to do, in seconds, or in multiply-adds where nothing was measured.

    Attributes:
        steps: of an epoch.
        before: of each epoch, what its switches take before its first step.
        step: of each epoch, one step of it.
        after: of each epoch, validation and spectra.
        measured: how the costs are known, in words; empty where they are multiply-adds.
    """

    steps: int
    before: Sequence[Cost]
    step: Sequence[Cost]
    after: Sequence[Cost]
    measured: str = ""

    def done(self, epoch: int, step: int = 0) -> Cost:
        """Of all that lies before a step; at an epoch's step 0, before its switches."""
        if step == 0:
            return self._ends[epoch]
        return self._ends[epoch].plus(self.before[epoch]).plus(self.step[epoch].at(1.0, step))

    @property
    def total(self) -> Cost:
        """Of the training."""
        return self._ends[-1]

    @cached_property
    def _ends(self) -> Sequence[Cost]:
        epochs = [
            before.plus(step.at(1.0, self.steps)).plus(after)
            for before, step, after in zip(self.before, self.step, self.after, strict=True)
        ]
        return list(accumulate(epochs, Cost.plus, initial=Cost(0.0, 0.0)))


class Clock:
    """Time left, at any step of a training.

    The plan is stretched by two factors, one for what the network costs before any switch and one for what the switches
    add: attention and convolutions do not take the same time for a multiply-add. Until a converted layer has been
    trained the second is guessed from the first. Both are of all the time that went by; how fast the machine is now,
    which other programs may slow down for a while, is the ratio of the last seconds to what the factors make of them.

    Args:
        work: what there is to do.
        now: seconds, of any beginning.
    """

    def __init__(self, work: Work, now: Callable[[], float] = time.perf_counter) -> None:
        self.work, self._now = work, now
        self._seconds = {False: 0.0, True: 0.0}  # by whether a layer was converted
        self._costs = {False: Cost(0.0, 0.0), True: Cost(0.0, 0.0)}
        self._recent = (0.0, Cost(0.0, 0.0))  # seconds and cost, of which half is forgotten after RECENT
        self._at: tuple[float, Cost] | None = None

    def mark(self, epoch: int, step: int = 0) -> float | None:
        """Say that a step is about to begin; returns the seconds left, None where nothing is known yet."""
        time, cost = self._now(), self.work.done(epoch, step)
        if self._at is not None:
            passed = Cost(cost.plain - self._at[1].plain, cost.added - self._at[1].added)
            converted = passed.added > 0
            self._seconds[converted] += time - self._at[0]
            self._costs[converted] = self._costs[converted].plus(passed)
            weight = 0.5 ** (sum(passed) / (RECENT * sum(self.work.total) or 1.0))
            self._recent = (weight * self._recent[0] + time - self._at[0], self._recent[1].at(1.0, weight).plus(passed))
        self._at = (time, cost)
        return self.left(epoch, step)

    def left(self, epoch: int, step: int = 0) -> float | None:
        """Seconds from a step to the end."""
        factors = self._factors()
        if factors is None:
            return None
        done, total = self.work.done(epoch, step), self.work.total
        left = factors[0] * (total.plain - done.plain) + factors[1] * (total.added - done.added)
        return left * self._speed(*factors)

    def _speed(self, plain: float, added: float) -> float:
        """Seconds that the machine takes now, over what these factors expect: 1 where it is as it was all the time."""
        seconds, cost = self._recent
        expected = plain * cost.plain + added * cost.added
        trusted = PRIOR * (plain * self.work.total.plain + added * self.work.total.added)
        return (seconds + trusted) / (expected + trusted) if expected + trusted > 0 else 1.0

    def _factors(self) -> tuple[float, float] | None:
        """Seconds for a unit of the plan: of what is there without any switch, and of what switches add."""
        before, after = self._costs[False], self._costs[True]
        planned = PRIOR * sum(self.work.total) if self.work.measured else 0.0  # seconds, of a plan that is in seconds
        seconds, done = sum(self._seconds.values()), sum(before) + sum(after)
        if done + planned <= 0:
            return None
        both = (seconds + planned) / (done + planned)
        if not before.plain:
            return both, both
        plain = (self._seconds[False] + planned) / (before.plain + planned)
        # A machine that is busy stretches both; reading and writing files only what was there before.
        guess = math.sqrt(plain) if self.work.measured else plain
        trusted = PRIOR_ADDED * self.work.total.added
        added = (self._seconds[True] - plain * after.plain + guess * trusted) / max(after.added + trusted, 1e-12)
        return plain, max(added, plain / 10)


def work_of(session: Session, *, measure: bool) -> Work:
    """What a run has to do; measured, or in multiply-adds.

    Args:
        session: of the run; left as it was.
        measure: time a few steps on a copy of the network, on images of noise.
    """
    plan, config, world = session.plan, session.config, session.ranks.world
    extra = {layer.name: layer.multiply_adds_recast - layer.multiply_adds for layer in plan.layers}
    planned = {name: extra.get(name, 0) for name in plan.schedule}
    total = sum(planned.values())
    plain = session.plain.multiply_adds
    image, measured = Cost(plain, total), ""
    train = image.at(1.0, BACKWARD * session.training.batch / world)
    if measure:
        there = sum(planned[name] for name in session.state.converted) / total if total else 0.0
        train, image, measured = _measured(session, train, image, there)
    fixed, validated = len(session.fixed.images), 0 if session.val is None else len(session.val.images)
    validated *= 1 if session.state.ema is None else 2
    probed = BACKWARD * min(config.probe_images, validated or config.probe_images) if config.probe_every else 0
    before, step, after = [], [], []
    for epoch in range(plan.epochs):
        share = sum(planned[name] for name in plan.schedule.converted(epoch)) / total if total else 0.0
        switches = len(plan.schedule.due(epoch))
        evaluated = validated + (probed if probed and (epoch + 1) % config.probe_every == 0 else 0)
        if epoch + 1 == plan.epochs and config.test and session.splits.test is not None:
            evaluated += len(session.splits.test)
        before.append(image.at(share, fixed * (switches + 1) / world if switches else 0))
        step.append(train.at(share))
        after.append(image.at(share, evaluated / world))
    return Work(plan.steps, before, step, after, measured)


def _measured(session: Session, train: Cost, image: Cost, share: float) -> tuple[Cost, Cost, str]:
    """Seconds of a step, and for an image evaluated; as counted, and no words, where a copy cannot be run.

    Args:
        session: of the run.
        train: multiply-adds of a step.
        image: of an image evaluated.
        share: of what the switches add that is there already, in a run that goes on.
    """
    plan = session.plan
    with keeping_random_state(gpus=True):
        try:
            model: nn.Module | None = deepcopy(session.state.model).train()
        except (RuntimeError, TypeError):
            model = None
        first = _time(session, model)
        if not math.isfinite(first.step):
            return train, image, ""
        few = f"measured on {first.count} step{'s' * (first.count > 1)}"
        units = [s / (c.plain + share * c.added) for s, c in ((first.step, train), (first.image, image))]
        guessed = [Cost(unit * cost.plain, unit * cost.added) for unit, cost in zip(units, (train, image), strict=True)]
        if not image.added or share or sum(guessed[0]) * plan.epochs * plan.steps < SHORT:
            more = ", and by multiply-adds where layers convert" if image.added and share < 1 else ""
            return guessed[0], guessed[1], few + more
        if model is not None:
            convert_(list(plan.schedule), model, None, make_optimizer(model, session.config), session.config)
        last = _time(session, model)
    if not math.isfinite(last.step):
        return guessed[0], guessed[1], f"{few}, and by multiply-adds where layers convert"
    train, image = (Cost(t, max(late - t, 0.0)) for t, late in ((first.step, last.step), (first.image, last.image)))
    return train, image, f"{few} before the switches and {last.count} after"


class _Times(NamedTuple):
    """Mean seconds of a step, of an image evaluated, and how many steps were timed."""

    step: float
    image: float
    count: int  # type: ignore[assignment]  # hides tuple.count


def _time(session: Session, model: nn.Module | None) -> _Times:
    """Time a few training steps and an evaluation on noise, of the slowest rank; infinite where they fail."""
    config, spec, ranks = session.config, session.spec, session.ranks
    seconds: list[float] = []
    evaluation = 0.0
    try:
        if model is not None:
            optimizer = make_optimizer(model, config)
            like, count = next(model.parameters()), max(2, session.training.batch // ranks.world)
            images = torch.randn(count, spec.channels, *spec.size, device=ranks.device, dtype=like.dtype)
            if config.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            labels = torch.arange(count, device=ranks.device) % session.splits.classes
            scaler = torch.amp.GradScaler(ranks.device.type, enabled=config.amp == "fp16")
            while len(seconds) <= STEPS and (not seconds or seconds[-1] < SLOW):
                seconds.append(
                    seconds_of(lambda: try_step(model, images, labels, optimizer, scaler, config), ranks.device)
                )
            split = session.val or session.fixed
            size = min(split.batch_size, len(split.images))
            index = torch.arange(size, device=ranks.device) % count
            batch = [(images[index], labels[index])]
            for _ in range(2 if sum(seconds) < SLOW else 1):
                evaluation = (
                    seconds_of(lambda: evaluate(model, batch, config, Ranks(0, 1, ranks.device)), ranks.device) / size
                )
    except RuntimeError:  # too large for two of it
        seconds = []
    measured = seconds[1:] or seconds
    step, evaluation = ranks.largest(sum(measured) / len(measured) if measured else math.inf, evaluation)
    return _Times(step, evaluation, len(measured))


def try_step(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: TrainConfig,
) -> None:
    """A training step on noise, for its time."""
    try:
        train_step(model, images, labels, optimizer, scaler, config, check=False)
    except Diverged:  # noise may do that; it took its time all the same
        optimizer.zero_grad(set_to_none=True)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, the device done with it."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start

"""How long a study will take: from steps, evaluations and analyses that are really done, on images of noise."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from fourier_probe.errors import ProbeError
from fourier_probe.runtime.distributed import ranks
from fourier_probe.runtime.modes import evaluating, keeping_random_state
from fourier_probe.studies.layouts import Layout, Layouts
from fourier_probe.studies.tasks import Task
from fourier_probe.training.config import SCHEDULE_FIELDS, TrainConfig
from fourier_probe.training.convert import convert_
from fourier_probe.training.naming import content
from fourier_probe.training.optim import make_optimizer
from fourier_probe.training.plan import make_model
from fourier_probe.training.splits import FIXED
from fourier_probe.training.timeleft import seconds_of, try_step

STEPS = 5  # measured, after one to warm up
SECONDS = 2.0  # at most, unless a single step takes longer
LOOKED = 16  # images of a measured analysis
OVERHEAD = 6.0  # seconds per run, of starting a process and importing torch and timm
_FREE_OF = (
    *("seed", "data_seed", "data_scale", "train_images", "epochs", "steps", "val_every"),
    *("lr", "sched", "warmup_epochs", "warmup_steps", "cooldown_steps"),
)  # what a step's time does not depend on


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        epochs: of the whole run.
        steps: of the whole run.
        steps_left: without what it shares with another, or has done already.
        seconds: of what is left.
        error: why it will not start; then the rest is 0.
    """

    epochs: int = 0
    steps: int = 0
    steps_left: int = 0
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class _Times:
    """Seconds: of a step, of an image evaluated, of an image analyzed; before any conversion and after all."""

    step: tuple[float, float]
    image: tuple[float, float]
    evaluation: tuple[float, float]


def estimate(tasks: Sequence[Task], *, threads: int = 0) -> list[Estimate]:
    """What is left to do of each task, by a step measured here, once for each model, batch and input.

    The time between the first switch and the last is taken as linear in the number of converted layers. Writes nothing.

    Args:
        tasks: of `studies.run.prepare`.
        threads: of the CPU a run.
    """
    layouts = Layouts()
    measured: dict[str, _Times] = {}
    estimates = []
    for task in tasks:
        config = task.entry.config
        try:
            layout = layouts.of(config)
            plan = layout.plan
            if task.state in ("finished", "failed"):
                estimates.append(Estimate(plan.epochs, plan.epochs * plan.steps, error=task.error))
                continue
            key = json.dumps([_key(config, layout), layout.batch, layout.spec.size, layout.spec.channels])
            if key not in measured:
                measured[key] = _measure(config, layout, layouts, task.analysis is not None, threads)
            estimates.append(_estimate(task, layout, measured[key]))
        except ProbeError as error:
            estimates.append(Estimate(error=" ".join(str(error).split())))
    return estimates


def _estimate(task: Task, layout: Layout, times: _Times) -> Estimate:
    plan, config, layers = layout.plan, task.entry.config, len(layout.plan.schedule)
    begin = task.fork[1] if task.fork else 0
    if task.standing in ("resume", "analyze"):
        begin = task.epochs_done()

    def at(epoch: int, pair: tuple[float, float]) -> float:
        share = len(plan.schedule.converted(epoch)) / layers if layers else 0.0
        return pair[0] + share * (pair[1] - pair[0])

    seconds = OVERHEAD + layout.test * at(plan.epochs, times.image)
    probes = 0 if begin else 1
    for epoch in range(begin, plan.epochs):
        seconds += plan.steps * at(epoch, times.step)
        switches = len(plan.schedule.due(epoch))
        fixed = min(FIXED, plan.steps * layout.batch) * (switches + 1 if switches else 0)
        seconds += (layout.val + fixed) * at(epoch, times.image)
        probes += bool(config.probe_every and (epoch + 1) % config.probe_every == 0)
    if config.probe_every:
        seconds += probes * min(config.probe_images, layout.val or config.probe_images) * at(begin, times.evaluation)
    if task.analysis is not None:
        seconds += min(task.analysis.images, layout.test or layout.val) * at(plan.epochs, times.evaluation)
    total = plan.epochs * plan.steps
    return Estimate(plan.epochs, total, (plan.epochs - begin) * plan.steps, seconds)


def _key(config: TrainConfig, layout: Layout) -> dict[str, object]:
    """What the time of a step depends on: not when layers convert, but which."""
    apart = (
        *_FREE_OF,
        *(name for name in SCHEDULE_FIELDS if name not in ("recast_args", "content_stride", "content_maps")),
    )
    rest = {name: value for name, value in content(config).items() if name not in apart}
    return {**rest, "data": config.data, "converts": sorted(layout.plan.schedule)}


def _measure(config: TrainConfig, layout: Layout, layouts: Layouts, analyzed: bool, threads: int) -> _Times:
    from fourier_probe.results.analysis import analyze

    config = replace(config, pretrained=False)
    with _threads(config.threads or threads), ranks(config.device) as team, keeping_random_state():
        dtype = getattr(torch, config.model_dtype)
        model = make_model(config, layouts.splits(config))[0].to(team.device, dtype)
        if config.channels_last:
            model = model.to(memory_format=torch.channels_last)
        optimizer = make_optimizer(model, config)
        scaler = torch.amp.GradScaler(team.device.type, enabled=config.amp == "fp16")
        shape = (layout.batch, layout.spec.channels, *layout.spec.size)
        images = torch.randn(shape, device=team.device, dtype=dtype)
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.arange(layout.batch, device=team.device) % layout.classes

        step = functools.partial(try_step, model, images, labels, optimizer, scaler, config)

        @torch.inference_mode()
        def evaluate() -> None:
            with evaluating(model):
                model(images)

        def probe() -> None:
            analyze(model, [images[:LOOKED]], device=team.device)

        measured: list[tuple[float, float, float]] = []
        layers = list(layout.plan.schedule)
        for switch in (False, True) if layers else (False,):
            if switch:
                convert_(layers, model, None, optimizer, config)
            wanted = config.probe_every or analyzed
            once = _time(probe, team.device, 1) / len(images[:LOOKED]) if wanted else 0.0
            measured.append((_time(step, team.device), _time(evaluate, team.device) / layout.batch, once))
    first, last = measured[0], measured[-1]
    return _Times((first[0], last[0]), (first[1], last[1]), (first[2], last[2]))


def _time(work: Callable[[], None], device: torch.device, count: int = STEPS) -> float:
    """Median seconds of a few calls, after one that is not counted."""
    seconds: list[float] = []
    for _ in range(count + 1):
        seconds.append(seconds_of(work, device))
        if len(seconds) > 1 and sum(seconds) > SECONDS:
            break
    return statistics.median(seconds[1:])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        if count:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)

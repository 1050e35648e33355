"""Schedules by name: rules that say at which epoch each layer converts. Imports schedule and registry; no torch.

@register_schedule("my-rule")
def my_rule(request: ScheduleRequest) -> PRSSchedule:
"First line: what `--schedule my-rule` does."
return PRSSchedule({layer: 3 for layer in request.layers}, kind="my-rule")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fourier_probe.errors import TrainingError, suggest
from fourier_probe.registry import Registry
from fourier_probe.training.epochs import Epoch
from fourier_probe.training.schedule import PRSSchedule


@dataclass(frozen=True)
class ScheduleRequest:
    """What a rule may look at. Epochs are numbers, or fractions of the training.

    Attributes:
        layers: names in execution order.
        early: epoch of the first layer. late: epoch of the last layer; at most `early`.
        at: epoch of `constant`; null takes `linear`'s mean.
        epochs: length of the training; every conversion must come before its end.
        seed: of `random`.
        weights: parameters of each layer, where the mean is to be weighted by them.
        stages: layer -> stage.
        ramp: length of the ramps of `soft`.
        arguments: what `--schedule-arg KEY=VALUE` gave.

    >>> dict(build("constant", ScheduleRequest(["l1", "l2"], at=3)))
    {'l1': 3, 'l2': 3}
    """

    layers: Sequence[str]
    early: Epoch = 0.5
    late: Epoch = 1 / 6
    at: Epoch | None = None
    epochs: int | None = None
    seed: int = 0
    weights: Mapping[str, float] | None = None
    stages: Mapping[str, str] | None = None
    ramp: Epoch | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


Rule = Callable[[ScheduleRequest], PRSSchedule]
SCHEDULES: Registry[Rule] = Registry("schedule")
"""What `--schedule` takes."""

CUSTOM = "custom"
"""The schedule that `--switch LAYER=EPOCH` writes down, layer by layer."""


def register_schedule(name: str, *, summary: str = "") -> Callable[[Rule], Rule]:
    """A decorator that adds a schedule: a function from a `ScheduleRequest` to a `PRSSchedule`.

    Args:
        name: what `--schedule` takes.
        summary: one line on what it does; the first line of the docstring by default.

    Raises:
        RegistryError: the name is taken.

    >>> @register_schedule("all-at-2")
    ... def all_at_2(request):
    ...     return PRSSchedule({layer: 2 for layer in request.layers}, kind="all-at-2")
    >>> dict(build("all-at-2", ScheduleRequest(["l1", "l2"])))
    {'l1': 2, 'l2': 2}
    >>> SCHEDULES.discard("all-at-2")
    """
    return SCHEDULES.register(name, summary=summary)


def build(name: str, request: ScheduleRequest) -> PRSSchedule:
    """The schedule of this name.

    Raises:
        TrainingError: unknown name, no layers, early before late, an epoch outside the training, a layer that is not
            among those of the request.

    >>> layers = ["l1", "l2", "l3"]
    >>> dict(build("linear", ScheduleRequest(layers, early=10, late=4)))
    {'l1': 10, 'l2': 7, 'l3': 4}
    """
    if name not in SCHEDULES:
        raise TrainingError(f"unknown schedule {name!r}; known are {', '.join(SCHEDULES)}.{suggest(name, SCHEDULES)}")
    schedule = SCHEDULES.get(name)(request)
    if not isinstance(schedule, PRSSchedule):
        raise TrainingError(f"schedule {name!r} gave {type(schedule).__name__}: expected a PRSSchedule.")
    unknown = next((layer for layer in schedule if layer not in request.layers), None)
    if unknown is not None:
        raise TrainingError(
            f"schedule {name!r} converts {unknown!r}, which cannot convert.{suggest(unknown, request.layers)}"
        )
    last = schedule.last
    if last is not None and request.epochs is not None and last >= request.epochs:
        raise TrainingError(f"schedule {name!r} converts a layer at epoch {last}: expected 0 to {request.epochs - 1}.")
    return schedule


@register_schedule("none")
def none(request: ScheduleRequest) -> PRSSchedule:
    """Nothing converts: the plain CNN."""
    return PRSSchedule.none()


@register_schedule("linear")
def linear(request: ScheduleRequest) -> PRSSchedule:
    """Late layers first, evenly between --late-epoch and --early-epoch: PRS, our reading."""
    return PRSSchedule.linear(request.layers, request.early, request.late, epochs=request.epochs)


@register_schedule("reverse")
def reverse(request: ScheduleRequest) -> PRSSchedule:
    """Early layers first: linear's epochs backwards."""
    return PRSSchedule.reverse(request.layers, request.early, request.late, epochs=request.epochs)


@register_schedule("constant")
def constant(request: ScheduleRequest) -> PRSSchedule:
    """All layers at --at-epoch, or at linear's mean epoch."""
    at = request.at
    if at is None:
        at = math.floor(linear(request).mean(request.weights) + 0.5)
    return PRSSchedule.constant(request.layers, at, epochs=request.epochs)


@register_schedule("random")
def random(request: ScheduleRequest) -> PRSSchedule:
    """Linear's epochs in an order drawn from --schedule-seed."""
    return PRSSchedule.random(request.layers, request.early, request.late, request.seed, epochs=request.epochs)


@register_schedule("stage")
def stage(request: ScheduleRequest) -> PRSSchedule:
    """One step per stage, late stages first."""
    return PRSSchedule.stage(request.layers, request.early, request.late, stages=request.stages, epochs=request.epochs)


@register_schedule("stage-end")
def stage_end(request: ScheduleRequest) -> PRSSchedule:
    """The last layers of every stage first (Park & Kim 2022)."""
    return PRSSchedule.stage_end(
        request.layers, request.early, request.late, stages=request.stages, epochs=request.epochs
    )


@register_schedule("soft")
def soft(request: ScheduleRequest) -> PRSSchedule:
    """Linear's switches, each followed by a ramp of the gate."""
    return PRSSchedule.soft(request.layers, request.early, request.late, ramp=request.ramp, epochs=request.epochs)


@register_schedule(CUSTOM)
def custom(request: ScheduleRequest) -> PRSSchedule:
    """Every layer's epoch as --switch LAYER=EPOCH says."""
    switches = request.arguments.get("switches") or {}
    if not switches:
        raise TrainingError("--schedule custom needs its switches: --switch LAYER=EPOCH, repeated.")
    return PRSSchedule(switches, kind=CUSTOM, ends=request.arguments.get("ends") or {})

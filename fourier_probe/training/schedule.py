"""When each convolution becomes attention: `PRSSchedule`, layer name -> epoch.

Progressive Reparameterization Scheduling (Lee et al. 2022, arXiv 2210.01370) converts late layers "linearly faster".
Only the paper's abstract states this; the formula, the hard switch and every control below are our reading. With layers
l = 1..L in execution order and early >= late,

    linear:  e_l = late + (early - late) (L - l) / (L - 1),  to the nearest integer, ties up;  L = 1 -> late

An epoch may be given as a number, or as a part of the training (`epochs`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType

from fourier_probe.errors import TrainingError
from fourier_probe.training.epochs import Epoch, check_order, checked_epoch, nearest, whole_epoch, whole_length


class PRSSchedule(Mapping[str, int]):
    """An immutable mapping, layer name -> epoch at whose start it converts; layers in execution order.

    Args:
        epochs: layer -> epoch, at least 0.
        kind: what made it, for records and legends.
        ends: layer -> epoch at which a `soft` conversion ends, not before its start; layers without one switch hard.

    Raises:
        TrainingError: a negative or fractional epoch, an end without a layer or before its start.

    >>> schedule = PRSSchedule.linear(["a", "b", "c"], early=10, late=4)
    >>> dict(schedule), schedule.due(7), schedule.converted(7)
    ({'a': 10, 'b': 7, 'c': 4}, ('b',), ('b', 'c'))
    """

    __slots__ = ("_ends", "_epochs", "_kind")

    def __init__(
        self, epochs: Mapping[str, int], *, kind: str = "custom", ends: Mapping[str, int] | None = None
    ) -> None:
        checked = {layer: checked_epoch(epoch, f"layer {layer!r}") for layer, epoch in epochs.items()}
        finals = {layer: checked_epoch(epoch, f"the end of layer {layer!r}") for layer, epoch in (ends or {}).items()}
        for layer, end in finals.items():
            if layer not in checked:
                raise TrainingError(f"schedule: an end is given for {layer!r}, which is not scheduled.")
            if end < checked[layer]:
                raise TrainingError(
                    f"schedule: {layer!r} would end at epoch {end}, before its start, {checked[layer]}."
                )
        self._epochs: Mapping[str, int] = MappingProxyType(checked)
        self._ends: Mapping[str, int] = MappingProxyType(finals)
        self._kind = kind

    def __getitem__(self, layer: str) -> int:
        return self._epochs[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._epochs)

    def __len__(self) -> int:
        return len(self._epochs)

    def __repr__(self) -> str:
        span = f"epochs {self.first} to {self.last}" if self._epochs else "nothing converts"
        return f"PRSSchedule({self._kind}: {len(self)} layers, {span})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PRSSchedule):
            return (self._kind, self._epochs, self._ends) == (other._kind, other._epochs, other._ends)
        return NotImplemented if not isinstance(other, Mapping) else dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]  # equal to plain mappings, which have none

    def __reduce__(self) -> tuple[Callable[[dict[str, int]], PRSSchedule], tuple[dict[str, int]]]:
        return functools.partial(PRSSchedule, kind=self._kind, ends=dict(self._ends)), (dict(self._epochs),)

    @property
    def kind(self) -> str:
        """The name under which it is registered, or `custom`."""
        return self._kind

    @property
    def ends(self) -> Mapping[str, int]:
        """Layer -> epoch at which its `soft` conversion ends; empty for hard switches."""
        return self._ends

    @property
    def first(self) -> int | None:
        """The earliest epoch at which a layer converts; none if nothing does."""
        return min(self._epochs.values(), default=None)

    @property
    def last(self) -> int | None:
        """The latest epoch at which a layer converts; none if nothing does."""
        return max(self._epochs.values(), default=None)

    def due(self, epoch: int) -> tuple[str, ...]:
        """Layers that convert at the start of `epoch` (from 0), in execution order."""
        return tuple(layer for layer, start in self._epochs.items() if start == epoch)

    def converted(self, epoch: int) -> tuple[str, ...]:
        """Layers that are attention during `epoch`, in execution order: what to recast before resuming there."""
        return tuple(layer for layer, start in self._epochs.items() if start <= epoch)

    def progress(self, layer: str, epoch: float) -> float:
        """How far the conversion of `layer` is at time `epoch`, 0 to 1: a step, or the ramp of a `soft` schedule.

        `GPSAConv2d.anneal(gate=(1 - progress) * shift)` makes it a ramp of the logit lambda.
        """
        start = self._epochs[layer]
        end = self._ends.get(layer, start)
        if epoch < start:
            return 0.0
        return 1.0 if epoch >= end else (epoch - start) / (end - start)

    def mean(self, weights: Mapping[str, float] | None = None) -> float:
        """Mean epoch of conversion, plain or weighted (by parameters per layer, say).

        Raises:
            TrainingError: nothing converts, or a layer has no weight, or the weights are negative or all zero.
        """
        if not self._epochs:
            raise TrainingError("schedule: nothing converts, so there is no mean epoch.")
        if weights is None:
            return float(Fraction(sum(self._epochs.values()), len(self)))
        missing = [layer for layer in self if layer not in weights]
        if missing:
            raise TrainingError(f"schedule: no weight for layer {missing[0]!r} ({len(missing)} in all).")
        values = {layer: float(weights[layer]) for layer in self}
        total = math.fsum(values.values())
        if not (all(0 <= value < math.inf for value in values.values()) and total > 0):
            raise TrainingError("schedule: weights must be finite, not negative, and not all zero.")
        return math.fsum(values[layer] * epoch for layer, epoch in self.items()) / total

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, by the names of the arguments of this class."""
        return {"kind": self._kind, "epochs": dict(self._epochs), "ends": dict(self._ends)}

    @classmethod
    def none(cls) -> PRSSchedule:
        """Nothing converts: the plain CNN."""
        return cls({}, kind="none")

    @classmethod
    def linear(cls, layers: Sequence[str], early: Epoch, late: Epoch, *, epochs: int | None = None) -> PRSSchedule:
        """Late layers first: the first layer at `early`, the last at `late`, the others evenly between.

        >>> layers = ["l1", "l2", "l3", "l4", "l5", "l6", "l7", "l8"]
        >>> list(PRSSchedule.linear(layers, early=150, late=50).values())
        [150, 136, 121, 107, 93, 79, 64, 50]
        """
        names, steps = _names(layers), _steps(len(layers), early, late, epochs)
        return cls(dict(zip(names, steps, strict=True)), kind="linear")

    @classmethod
    def reverse(cls, layers: Sequence[str], early: Epoch, late: Epoch, *, epochs: int | None = None) -> PRSSchedule:
        """Early layers first: `linear`'s epochs backwards, the first layer at `late`, the last at `early`."""
        names, steps = _names(layers), _steps(len(layers), early, late, epochs)
        return cls(dict(zip(names, reversed(steps), strict=True)), kind="reverse")

    @classmethod
    def constant(cls, layers: Sequence[str], epoch: Epoch, *, epochs: int | None = None) -> PRSSchedule:
        """All layers at one epoch (nearest integer, ties up); 0 is the hybrid from scratch.

        Beside `linear`, take its `mean()`, plain to isolate the order of layers or weighted by their parameters.
        """
        return cls(dict.fromkeys(_names(layers), whole_epoch(epoch, "the epoch", epochs)), kind="constant")

    @classmethod
    def random(
        cls, layers: Sequence[str], early: Epoch, late: Epoch, seed: int, *, epochs: int | None = None
    ) -> PRSSchedule:
        """`linear`'s epochs in an order drawn from `seed`."""
        names, steps = _names(layers), _steps(len(layers), early, late, epochs)
        import torch  # the command line lists schedules without it

        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
        return cls({name: steps[place] for name, place in zip(names, order, strict=True)}, kind="random")

    @classmethod
    def stage(
        cls,
        layers: Sequence[str],
        early: Epoch,
        late: Epoch,
        *,
        stages: Mapping[str, str] | None = None,
        epochs: int | None = None,
    ) -> PRSSchedule:
        """A step per stage, late stages first: `linear` over stages in place of layers.

        Args:
            layers: names in execution order.
            early: epoch of the first stage.
            late: epoch of the last stage.
            stages: layer -> stage; by default `stages_by_name`.
            epochs: length of the training, for fractions.
        """
        names = _names(layers)
        stage_of = _stages(names, stages)
        order = list(dict.fromkeys(stage_of[name] for name in names))
        steps = dict(zip(order, _steps(len(order), early, late, epochs), strict=True))
        return cls({name: steps[stage_of[name]] for name in names}, kind="stage")

    @classmethod
    def stage_end(
        cls,
        layers: Sequence[str],
        early: Epoch,
        late: Epoch,
        *,
        stages: Mapping[str, str] | None = None,
        epochs: int | None = None,
    ) -> PRSSchedule:
        """The last layers of every stage first, later stages before earlier ones: attention at the ends of stages.

        After the advice of Park & Kim 2022 (arXiv 2202.06709). The epochs are `linear`'s, so the mean is too; layers
        are ordered by their distance from the end of their stage. Arguments as for `stage`.
        """
        names = _names(layers)
        stage_of = _stages(names, stages)
        from_end: dict[str, int] = {}
        seen: dict[str, int] = {}
        for name in reversed(names):
            from_end[name] = seen.get(stage_of[name], 0)
            seen[stage_of[name]] = from_end[name] + 1
        depth = {name: index for index, name in enumerate(names)}
        order = sorted(names, key=lambda name: (-from_end[name], depth[name]))  # the last to convert comes first
        steps = dict(zip(order, _steps(len(names), early, late, epochs), strict=True))
        return cls({name: steps[name] for name in names}, kind="stage-end")

    @classmethod
    def soft(
        cls,
        layers: Sequence[str],
        early: Epoch,
        late: Epoch,
        *,
        ramp: Epoch | None = None,
        epochs: int | None = None,
    ) -> PRSSchedule:
        """`linear`'s switches, each followed by a ramp of lambda from the convolution to the free gate (`progress`).

        Args:
            layers: names in execution order.
            early: epoch at which the first layer starts.
            late: epoch at which the last layer starts.
            ramp: epochs a ramp takes, any number; by default as long as the switches are spread over, at least 1.
            epochs: length of the training, for fractions; a ramp is cut off there.
        """
        starts = cls.linear(layers, early, late, epochs=epochs)
        spread = max(starts.values()) - min(starts.values())
        length = max(1, spread) if ramp is None else whole_length(ramp, "the ramp", epochs)
        ends = {layer: start + length for layer, start in starts.items()}
        if epochs is not None:
            ends = {layer: min(end, epochs) for layer, end in ends.items()}
        return cls(dict(starts), kind="soft", ends=ends)


def stages_by_name(layers: Sequence[str]) -> dict[str, str]:
    """Layer -> stage, from the name up to its first numbered part.

    >>> stages_by_name(["layer1.0.conv1", "blocks.2.0.conv_dw", "stages.3.blocks.1.conv_dw"])
    {'layer1.0.conv1': 'layer1', 'blocks.2.0.conv_dw': 'blocks.2', 'stages.3.blocks.1.conv_dw': 'stages.3'}
    """
    stages = {}
    for name in layers:
        parts = name.split(".")
        numbered = next((i for i, part in enumerate(parts) if any(c.isdigit() for c in part)), len(parts) - 1)
        stages[name] = ".".join(parts[: numbered + 1])
    return stages


def _names(layers: Sequence[str]) -> list[str]:
    if isinstance(layers, str):
        raise TrainingError(f"schedule: expected a list of layer names, got the string {layers!r}.")
    names = list(layers)
    if not names:
        raise TrainingError("schedule: there are no layers to convert; see --convert, or --schedule none.")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise TrainingError(f"schedule: layer {twice[0]!r} is listed twice.")
    return names


def _stages(names: Sequence[str], stages: Mapping[str, str] | None) -> Mapping[str, str]:
    if stages is None:
        return stages_by_name(names)
    missing = [name for name in names if name not in stages]
    if missing:
        raise TrainingError(f"schedule: layer {missing[0]!r} has no stage ({len(missing)} in all).")
    return stages


def _steps(count: int, early: Epoch, late: Epoch, epochs: int | None) -> list[int]:
    """e_1..e_count of the linear formula, exactly."""
    check_order(early, late, epochs)
    first, last = whole_epoch(early, "early", epochs), whole_epoch(late, "late", epochs)
    if count == 1:
        return [last]
    return [nearest(last + Fraction((first - last) * (count - 1 - i), count - 1)) for i in range(count)]

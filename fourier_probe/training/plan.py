"""What a config comes to on its data: the model, its length in steps, and the epoch at which each layer converts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from fourier_probe.data import ImageSet, InputSpec
from fourier_probe.errors import ModelError, TrainingError
from fourier_probe.models import zoo
from fourier_probe.models.gpsa.cost import multiply_adds
from fourier_probe.models.gpsa.layer import GPSAConv2d
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.epochs import Epoch
from fourier_probe.training.initial import Initial
from fourier_probe.training.layers import ConvLayer, convertible_layers
from fourier_probe.training.rules import CUSTOM, ScheduleRequest, build
from fourier_probe.training.schedule import PRSSchedule
from fourier_probe.training.splits import Splits, input_spec


@dataclass(frozen=True)
class Plan:
    """How a run will go.

    Attributes:
        epochs: in all; `--iso-steps` multiplies them. With `--steps` or `--val-every` a round counts as an epoch.
        steps: per epoch, or per round.
        schedule: layer -> epoch.
        layers: the layers that can convert, in execution order; empty for `none`.
        scale: epochs of this run for one of `--epochs`; every epoch given as a number is multiplied by it.
        unit: "epoch", or "round": `steps` steps between two validations.
        over_limit: layers that stay convolutions because their key grid is over `max_key_grid`.
    """

    epochs: int
    steps: int
    schedule: PRSSchedule
    layers: tuple[ConvLayer, ...]
    scale: float
    unit: str = "epoch"
    over_limit: tuple[ConvLayer, ...] = ()

    @classmethod
    def of(
        cls, config: TrainConfig, model: nn.Module, spec: InputSpec, *, images: int, available: int, batch: int
    ) -> Plan:
        """Lay out a run.

        Args:
            config: of the run.
            model: before any conversion.
            spec: its input.
            images: training images.
            available: training images at full data scale.
            batch: images per step.
        """
        steps = max(1, images // batch)
        epochs = config.epochs
        if config.iso_steps:
            epochs = max(1, round(config.epochs * max(1, available // config.batch_size) / steps))
        layers: tuple[ConvLayer, ...] = ()
        over_limit: tuple[ConvLayer, ...] = ()
        if config.schedule != "none":
            like = next(model.parameters())
            example = torch.zeros(1, spec.channels, *spec.size, dtype=like.dtype, device=like.device)
            patterns = tuple(config.switches) if config.schedule == CUSTOM else config.convert
            sizes: dict[str, Any] = {
                "content_stride": config.content_stride,
                "content_maps": config.content_maps or None,
            }
            layers = tuple(convertible_layers(model, example, convert=patterns, max_grid=config.max_key_grid, **sizes))
            single = next((layer for layer in layers if max(layer.keys) <= config.content_stride > 1), None)
            if single is not None:
                raise TrainingError(
                    f"--content-stride {config.content_stride}: {single.name} has keys of {single.keys[0]}x"
                    f"{single.keys[1]}, which would become one, and content attention over one key looks at nothing: "
                    f"give less than {max(single.keys)}, or leave the layer out of --convert."
                )
            if not patterns:
                every = convertible_layers(model, example, max_grid=None, **sizes)
                chosen = {layer.name for layer in layers}
                over_limit = tuple(layer for layer in every if layer.name not in chosen)
        scale, unit = epochs / config.epochs, "epoch"
        if config.steps or config.val_every:
            total, per_pass = config.steps or epochs * steps, steps
            steps = config.val_every or _twentieth(total)
            if total % steps:
                raise TrainingError(
                    f"--val-every {steps} does not divide the {total} steps of this training: choose one of "
                    f"{', '.join(map(str, _near_divisors(total, steps)))}."
                )
            epochs, scale, unit = total // steps, per_pass / steps, "round"
        counts = _Counts(epochs, steps, scale, unit)
        at = counts.switch("at", config.at_epoch, config.at_step)
        early: Epoch = 0
        late: Epoch = 0
        if config.schedule != "none" and not (config.schedule == "constant" and at is not None):
            early = counts.switch("early", config.early_epoch, config.early_step) or 0
            late = counts.switch("late", config.late_epoch, config.late_step) or 0
        request = ScheduleRequest(
            layers=[layer.name for layer in layers],
            early=early,
            late=late,
            at=at,
            epochs=epochs,
            seed=config.schedule_seed,
            weights={layer.name: float(layer.parameters) for layer in layers} if config.weighted_mean else None,
            stages={layer.name: layer.stage for layer in layers},
            ramp=_epoch(config.soft_epochs, scale) if config.soft_epochs else None,
            arguments={"switches": config.switches, "ends": config.switch_ends, **config.schedule_args},
        )
        schedule = build(config.schedule, request)
        return cls(epochs, steps, schedule, layers, scale, unit, over_limit)

    def warmup(self, config: TrainConfig) -> float:
        """Length of the warm-up, epochs or rounds."""
        return config.warmup_steps / self.steps if config.warmup_steps else config.warmup_epochs * self.scale

    def mixes(self, config: TrainConfig, time: float) -> bool:
        """Whether mixup and CutMix are on at `time` epochs."""
        off = config.mixup_off_epoch
        return not off or time < (off * self.epochs if off < 1 else off * self.scale)

    def mixes_differ(self, config: TrainConfig) -> bool:
        """Whether mixup and CutMix, where they end, end before the training does."""
        return not config.mixup_off_epoch or not self.mixes(config, self.epochs - 1 / max(self.steps, 1))

    def keeps(self, config: TrainConfig, epoch: int) -> bool:
        """Whether the state after this epoch or round is kept to fork from, by the options.

        Raises:
            TrainingError: `--checkpoint-at-step` is not where the run stops to validate.
        """
        for step in config.checkpoint_at_step:
            if step % self.steps:
                raise TrainingError(f"--checkpoint-at-step {step}: states are kept every {self.steps} steps here.")
        every = bool(config.checkpoint_every) and epoch % config.checkpoint_every == 0
        return every or epoch in config.checkpoint_at or epoch * self.steps in config.checkpoint_at_step

    def unconverted(self) -> str:
        """What stays convolution because of its key grid, and what converting it would cost; empty where nothing does.

        As a part of the multiply-adds of all layers that could convert, once they have.
        """
        parts = []
        now = sum(layer.multiply_adds_recast for layer in self.layers)
        for side in sorted({max(layer.keys) for layer in self.over_limit}):
            same = [layer for layer in self.over_limit if max(layer.keys) == side]
            extra = sum(layer.multiply_adds_recast - layer.multiply_adds for layer in same)
            names = f"{same[0].name} to {same[-1].name}" if len(same) > 1 else same[0].name
            parts.append(
                f"{names} ({len(same)} with keys of {side} per side, +{extra / 1e6:.1f} M multiply-adds per image)"
            )
        if not parts:
            return ""
        return (
            f"over the limit of --max-key-grid, and so not converted: {'; '.join(parts)}; the {len(self.layers)} that "
            f"convert take {now / 1e6:.1f} M."
        )

    def cost(self, model: nn.Module, plain: zoo.Stats) -> zoo.Stats:
        """Parameters of a model as it stands, and multiply-adds of an image, recast layers as they are used.

        Args:
            model: some of its layers may be converted.
            plain: what it cost before any was. (torch's counter would count the padding of fused attention.)
        """
        extra = 0
        for layer in self.layers:
            module = model.get_submodule(layer.name)
            if isinstance(module, GPSAConv2d):
                extra += multiply_adds(module, layer.keys) - layer.multiply_adds
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return zoo.Stats(parameters, plain.multiply_adds + extra)

    def eased(self, config: TrainConfig, layer: str, time: float) -> float:
        """Share of the annealing shift that `layer` still has at `time` epochs: 1 at its switch, 0 at the end."""
        if self.schedule.ends:
            return 1.0 - self.schedule.progress(layer, time)
        length = config.anneal_epochs
        length = length * self.epochs if length < 1 else length * self.scale
        if config.anneal_steps >= 0:
            length = config.anneal_steps / self.steps
        return max(0.0, 1.0 - (time - self.schedule[layer]) / length) if length else 0.0


def make_model(
    config: TrainConfig, splits: Splits, initial: Initial | None = None
) -> tuple[nn.Module, dict[str, object], InputSpec]:
    """The model for this data, the arguments it was made with, and its input.

    `num_classes`, `in_chans` and, for models of a fixed size, `img_size` come from the data unless given. What
    `--initial-checkpoint` names brings its own, `num_classes` aside, with its mean and std.

    Args:
        config: of the run.
        splits: its images.
        initial: what it begins from, if that was read already.

    Raises:
        ModelError: the model does not exist or does not take these arguments.
    """
    if config.initial_checkpoint and initial is None:
        initial = Initial.open(config)
    if initial is None:
        arguments: dict[str, Any] = {"in_chans": 1 if _grey(splits.train) else 3}
    else:
        arguments = {name: value for name, value in initial.arguments.items() if name != "num_classes"}
    arguments = {**arguments, "num_classes": splits.classes, **config.model_args}
    fixed: object = None
    if zoo.FACTORY.fullmatch(config.model):
        try:
            model = zoo.create(config.model, **arguments)
        except ModelError:  # a factory of our user's may know neither
            arguments = dict(config.model_args)
            model = zoo.create(config.model, **arguments)
    else:
        bones = zoo.skeleton(config.model, **arguments)
        spec = input_spec(config, splits.train, zoo.input_spec(bones))
        if (getattr(bones, "pretrained_cfg", None) or {}).get("fixed_input_size"):
            size = spec.size if initial is None or config.img_size else initial.size or zoo.input_spec(bones).size
            arguments.setdefault("img_size", list(size))
            fixed = arguments["img_size"]
        for name, value in (("drop_rate", config.drop), ("drop_path_rate", config.drop_path)):
            if value and name not in arguments and _takes(config.model, {**arguments, name: value}):
                arguments[name] = value
        model = zoo.create(config.model, pretrained=config.pretrained, **arguments)
    if initial is not None:
        initial.into(model, config)
    native = zoo.input_spec(model)
    if arguments.get("in_chans", native.channels) != native.channels:  # a model without convolutions does not say
        native = _channels(native, int(arguments["in_chans"]))
    spec = _chosen(config, input_spec(config, splits.train, native), initial)
    if fixed is not None and initial is not None:
        spec = replace(spec, size=tuple(fixed) if isinstance(fixed, list | tuple) else (fixed, fixed))
    return model, arguments, spec


def _chosen(config: TrainConfig, spec: InputSpec, initial: Initial | None) -> InputSpec:
    """The input with the mean and std that were given, or that the initial checkpoint was trained with."""
    record = None if initial is None else initial.record
    mean, std = config.mean or (record and record.mean) or spec.mean, config.std or (record and record.std) or spec.std
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, spec.channels):
            raise TrainingError(
                f"--{name} has {len(values)} numbers: expected 1, or one for each of the {spec.channels} channels."
            )
    repeated = (values * spec.channels if len(values) == 1 else values for values in (tuple(mean), tuple(std)))
    mean, std = repeated
    return replace(spec, mean=mean, std=std)


def _channels(spec: InputSpec, count: int) -> InputSpec:
    """The same input in `count` channels, with the mean of the statistics."""
    mean, std = sum(spec.mean) / spec.channels, sum(spec.std) / spec.channels
    return replace(spec, channels=count, mean=(mean,) * count, std=(std,) * count)


def _takes(name: str, arguments: dict[str, Any]) -> bool:
    try:
        zoo.skeleton(name, **arguments)
    except ModelError:
        return False
    return True


def _grey(images: ImageSet) -> bool:
    return images.pixels is not None and images.pixels.shape[3] == 1


@dataclass(frozen=True)
class _Counts:
    """How a run counts: in epochs, or in rounds of some steps."""

    epochs: int
    steps: int
    scale: float
    unit: str

    def switch(self, which: str, epoch: float, step: int) -> int | float | Fraction | None:
        """A switch from an option in epochs or one in steps, which comes first; None where neither is given."""
        if step >= 0:
            if step % self.steps:
                raise TrainingError(
                    f"--{which}-step {step}: layers can switch every {self.steps} steps here, at "
                    f"{step // self.steps * self.steps} or {-(-step // self.steps) * self.steps}; --val-every sets it."
                )
            return step // self.steps
        if epoch < 0:
            return None
        exact = epoch * self.scale
        if self.unit == "round" and epoch >= 1 and abs(exact - round(exact)) > 1e-9:
            raise TrainingError(
                f"--{which}-epoch {epoch:g} is step {exact * self.steps:g}, and layers can switch every {self.steps} "
                f"steps here: give --{which}-step, or another --val-every."
            )
        return _epoch(epoch, self.scale)


def _twentieth(total: int) -> int:
    """The divisor of a number of steps that is nearest to a twentieth of it."""
    return min(_divisors(total), key=lambda n: (abs(n - total / 20), n))


def _near_divisors(total: int, wanted: int) -> list[int]:
    return sorted(sorted(_divisors(total), key=lambda n: abs(n - wanted))[:4])


def _divisors(total: int) -> list[int]:
    return [n for n in range(1, total + 1) if total % n == 0]


def _epoch(value: float, scale: float) -> int | float | Fraction:
    """A fraction as it is; a number of epochs multiplied as `--epochs` is, exactly: the schedule rounds it."""
    if 0 < value < 1:
        return value
    exact = Fraction(str(value)) * Fraction(scale).limit_denominator(1_000_000)
    return int(exact) if exact.denominator == 1 else exact

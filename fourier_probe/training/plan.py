"""What a config comes to on its data: the model, its length in steps, and the epoch at which each layer converts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from fourier_probe.data import ImageSet, InputSpec
from fourier_probe.errors import ModelError
from fourier_probe.models import zoo
from fourier_probe.models.gpsa.recast import GPSAConv2d, multiply_adds
from fourier_probe.training import schedule as schedules
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.inputs import Splits, input_spec
from fourier_probe.training.layers import ConvLayer, convertible_layers
from fourier_probe.training.schedule import PRSSchedule


@dataclass(frozen=True)
class Plan:
    """How a run will go.

    Attributes:
        epochs: in all; `--iso-steps` multiplies them.
        steps: an epoch.
        schedule: layer -> epoch.
        layers: the layers that can convert, in execution order; empty for `none`.
        scale: epochs of this run for one of `--epochs`; every epoch given as a number is multiplied by it.
    """

    epochs: int
    steps: int
    schedule: PRSSchedule
    layers: tuple[ConvLayer, ...]
    scale: float

    @classmethod
    def of(cls, config: TrainConfig, model: nn.Module, spec: InputSpec, *, images: int, whole: int, batch: int) -> Plan:
        """Lay out a run.

        Args:
            config: of the run.
            model: before any conversion.
            spec: its input.
            images: training images.
            whole: training images at full data scale.
            batch: images a step.
        """
        steps = max(1, images // batch)
        epochs = config.epochs
        if config.iso_steps:
            epochs = max(1, round(config.epochs * max(1, whole // config.batch_size) / steps))
        layers: tuple[ConvLayer, ...] = ()
        if config.schedule != "none":
            like = next(model.parameters())
            example = torch.zeros(1, spec.channels, *spec.size, dtype=like.dtype, device=like.device)
            layers = tuple(convertible_layers(model, example, convert=config.convert, max_grid=config.max_key_grid))
        scale = epochs / config.epochs
        schedule = schedules.build(
            config.schedule,
            [layer.name for layer in layers],
            early=_epoch(config.early_epoch, scale),
            late=_epoch(config.late_epoch, scale),
            at=None if config.at_epoch < 0 else _epoch(config.at_epoch, scale),
            epochs=epochs,
            seed=config.schedule_seed,
            weights={layer.name: float(layer.parameters) for layer in layers} if config.weighted_mean else None,
            stages={layer.name: layer.stage for layer in layers},
            ramp=_epoch(config.soft_epochs, scale) if config.soft_epochs else None,
        )
        return cls(epochs, steps, schedule, layers, scale)

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
        return max(0.0, 1.0 - (time - self.schedule[layer]) / length) if length else 0.0


def make_model(config: TrainConfig, splits: Splits) -> tuple[nn.Module, dict[str, Any], InputSpec]:
    """The model for this data, the arguments it was made with, and its input.

    `num_classes`, `in_chans` and, for models of a fixed size, `img_size` come from the data unless given.

    Raises:
        ModelError: the model does not exist or does not take these arguments.
    """
    channels = int(config.model_args.get("in_chans", 1 if _grey(splits.train) else 3))
    arguments = {"num_classes": splits.classes, "in_chans": channels, **config.model_args}
    if zoo.FACTORY.fullmatch(config.model):
        try:
            model = zoo.create(config.model, **arguments)
        except ModelError:  # a factory of our user's may know neither
            arguments = dict(config.model_args)
            model = zoo.create(config.model, **arguments)
    else:
        bones = zoo.skeleton(config.model, **arguments)
        spec = input_spec(config, splits.train, zoo.input_spec(bones))
        if (getattr(bones, "pretrained_cfg", None) or {}).get("fixed_input_size") and "img_size" not in arguments:
            arguments["img_size"] = list(spec.size)
        for name, value in (("drop_rate", config.drop), ("drop_path_rate", config.drop_path)):
            if value and name not in arguments and _takes(config.model, {**arguments, name: value}):
                arguments[name] = value
        model = zoo.create(config.model, pretrained=config.pretrained, **arguments)
    native = zoo.input_spec(model)
    if arguments.get("in_chans", native.channels) != native.channels:  # a model without convolutions does not say
        native = _channels(native, int(arguments["in_chans"]))
    return model, arguments, input_spec(config, splits.train, native)


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


def _epoch(value: float, scale: float) -> int | float:
    """A fraction as it is; a number of epochs multiplied as `--epochs` is."""
    return value if 0 < value < 1 else round(value * scale)

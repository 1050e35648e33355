"""What each run of a study comes to on its data: epochs, steps, switches, image counts. Nothing trains."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

from fourier_probe.data import InputSpec
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.inputs import batch_of
from fourier_probe.training.naming import content
from fourier_probe.training.plan import Plan, make_model
from fourier_probe.training.splits import Splits, open_splits


@dataclass(frozen=True)
class Layout:
    """A run before it is one.

    Attributes:
        plan: epochs, steps, switches.
        spec: the model's input.
        classes: number of classes.
        batch: images per step.
        val: images looked at after each epoch.
        test: images looked at at the end.
    """

    plan: Plan
    spec: InputSpec
    classes: int
    batch: int
    val: int
    test: int

    @property
    def first_switch(self) -> float:
        """Epoch at which it stops being a plain convolutional run; infinite for `none`."""
        first = self.plan.schedule.first
        return math.inf if first is None else first


class Layouts:
    """Layouts of configs; what several runs share is worked out once."""

    def __init__(self) -> None:
        self._known: dict[str, Layout] = {}
        self._splits: tuple[str, Splits] | None = None  # of one source at a time: they hold its images

    def of(self, config: TrainConfig) -> Layout:
        """Open the data and make the model of a run.

        Raises:
            ProbeError: what would stop the run before its first step: no such data, nothing to convert.
        """
        known = {**content(config), "seed": 0, "data_seed": 0, "data": config.data, "model": config.model}
        key = json.dumps(known, sort_keys=True)
        if key not in self._known:
            splits = self.splits(config)
            model, _, spec = make_model(replace(config, pretrained=False), splits)
            images = len(splits.train)
            batch = batch_of(config, images)
            plan = Plan.of(config, model, spec, images=images, available=splits.available, batch=batch)
            val, test = (0 if split is None else len(split) for split in (splits.val, splits.test))
            self._known[key] = Layout(plan, spec, splits.classes, batch, val, test)
        return self._known[key]

    def splits(self, config: TrainConfig) -> Splits:
        """The images of a run."""
        key = json.dumps(
            [config.data, config.data_scale, config.train_images, config.data_seed, config.val_split, config.skip_bad]
        )
        if self._splits is None or self._splits[0] != key:
            self._splits = (key, open_splits(config))
        return self._splits[1]

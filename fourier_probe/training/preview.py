"""What a training would convert, when, and at what cost; nothing trains. Imports plan, inputs and what they import."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from fourier_probe.io import atomic
from fourier_probe.models import zoo
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.models.gpsa.sizes import architecture
from fourier_probe.results.filenames import SCHEDULE
from fourier_probe.results.text_table import TextTable
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.convert import options
from fourier_probe.training.layers import ConvLayer
from fourier_probe.training.plan import Plan, make_model
from fourier_probe.training.schedule import PRSSchedule
from fourier_probe.training.splits import open_splits

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PlannedLayer:
    """One convolution that can convert.

    Attributes:
        layer: module path.
        epoch: at whose start it converts; null if the schedule leaves it out.
        end: of a soft conversion, the epoch at which it is finished.
        stage: by name, or by key grid.
        keys, queries: (H, W) of its input and output.
        heads: taps of the kernel.
        parameters: of the convolution. added: that a recast adds.
        multiply_adds: for one image, as a convolution. multiply_adds_recast: as attention.
    """

    layer: str
    epoch: int | None
    end: int | None
    stage: str
    keys: tuple[int, int]
    queries: tuple[int, int]
    heads: int
    parameters: int
    added: int
    multiply_adds: int
    multiply_adds_recast: int


@dataclass(frozen=True)
class SchedulePlan:
    """How a training with a schedule would go.

    Attributes:
        model: its name. schedule: kind of schedule, and `switches`: layer -> epoch.
        epochs: in all. steps: per epoch. images: to train on.
        layers: that convert, in execution order.
        over_limit: that stay convolutions because their key grid is over `max_key_grid`, with what they would cost.
        unconverted: the same in a sentence.
        before, after: parameters and multiply-adds for one image, of the network without and with all conversions.
    """

    model: str
    schedule: str
    switches: PRSSchedule
    epochs: int
    steps: int
    images: int
    layers: tuple[PlannedLayer, ...]
    over_limit: tuple[PlannedLayer, ...]
    unconverted: str
    before: zoo.Stats
    after: zoo.Stats

    def __repr__(self) -> str:
        return (
            f"SchedulePlan({self.model}, {self.schedule}: {len(self.switches)} layers in {self.epochs} epochs of "
            f"{self.steps} steps, {self.before.multiply_adds / 1e6:.1f} -> {self.after.multiply_adds / 1e6:.1f} M "
            "multiply-adds)"
        )

    def to_json(self) -> dict[str, object]:
        """Plain values: what schedule.json holds."""
        lengths = {"epochs": self.epochs, "steps": self.steps, "images": self.images}
        layers, over_limit = (
            [{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(layer).items()} for layer in part]
            for part in (self.layers, self.over_limit)
        )
        costs = {"before": self.before._asdict(), "after": self.after._asdict()}
        return {"model": self.model, "schedule": self.schedule, **lengths, "layers": layers, "over_limit": over_limit,
                "cost": costs}  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """One row per layer."""
        import pandas as pd

        return pd.DataFrame([asdict(layer) for layer in self.layers])

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{self.to_frame().to_html(index=False)}"

    def tables(self) -> list[TextTable | str]:
        """What `fourier-probe schedule` prints: a row per layer, then the whole network."""
        rows = tuple(
            (
                row.layer,
                "-" if row.epoch is None else f"{row.epoch}" + (f"-{row.end}" if row.end else ""),
                row.stage,
                "x".join(map(str, row.keys)),
                f"{row.parameters:,}",
                f"+{row.added:,}",
                f"{row.multiply_adds / 1e6:.2f}",
                f"{row.multiply_adds_recast / 1e6:.2f}",
            )
            for row in self.layers
        )
        title = f"{self.model}, {self.schedule}, {self.epochs} epochs of {self.steps} steps"
        columns = ("layer", "epoch", "stage", "keys", "params", "new", "M mult-adds", "as attention")
        tables: list[TextTable | str] = [TextTable(title, columns, rows)]
        if not self.switches:
            return [*tables, "nothing converts"]
        weights = {layer.layer: float(layer.parameters) for layer in self.layers}
        return [
            *tables,
            *([self.unconverted] if self.unconverted else []),
            f"whole network: {self.before.parameters:,} -> {self.after.parameters:,} parameters, "
            f"{self.before.multiply_adds / 1e6:.1f} -> {self.after.multiply_adds / 1e6:.1f} M multiply-adds per image; "
            f"mean epoch of the switches {self.switches.mean():.2f}, weighted by parameters "
            f"{self.switches.mean(weights):.2f}",
        ]

    def plot(self) -> Figure:
        """Each layer's time as a convolution and as attention."""
        from fourier_probe.plots.schedule import schedule_figure

        names = [layer.layer for layer in self.layers]
        title = f"{self.model}, {self.schedule}"
        return schedule_figure(names, self.switches, self.epochs, ends=self.switches.ends, title=title)

    def save(self, folder: Path | str, *, force: bool = False) -> Path:
        """Write schedule.json and the drawing; returns the folder.

        Raises:
            OutputError: the folder cannot be written, or holds a plan already and `force` is not set.
        """
        from fourier_probe.plots.style import save

        folder = atomic.output_folder(folder, results=SCHEDULE, force=force)
        with atomic.staged(folder, SCHEDULE) as stage:
            atomic.write_json(stage / SCHEDULE[0], self.to_json())
            save(self.plot(), stage / "schedule")
        return folder


def lay_out(config: TrainConfig, model: nn.Module | None = None) -> SchedulePlan:
    """The plan of a config on its data.

    Args:
        config: of the training.
        model: a network of one's own in place of the config's; left as it was.

    Raises:
        DataError, ModelError, TrainingError: as `train` would.
    """
    splits = open_splits(config)
    name = config.model if model is None else type(model).__name__
    if model is None:
        model, _, spec = make_model(config, splits)
    else:
        spec = zoo.input_spec(model, img_size=config.img_size or None)
    plan = Plan.of(config, model, spec, images=len(splits.train), available=splits.available, batch=config.batch_size)
    after = copy.deepcopy(model)
    recast_(after, list(plan.schedule), **options(config))
    plain = zoo.stats(model, (spec.channels, *spec.size))
    layers = tuple(_planned(layer, plan.schedule) for layer in plan.layers)
    return SchedulePlan(
        model=name + architecture(config.content_stride, config.content_maps),
        schedule=config.schedule,
        switches=plan.schedule,
        epochs=plan.epochs,
        steps=plan.steps,
        images=len(splits.train),
        layers=layers,
        over_limit=tuple(_planned(layer, plan.schedule) for layer in plan.over_limit),
        unconverted=plan.unconverted(),
        before=plain,
        after=plan.cost(after, plain),
    )


def _planned(layer: ConvLayer, schedule: PRSSchedule) -> PlannedLayer:
    name = layer.name
    same = {field.name: getattr(layer, field.name) for field in fields(PlannedLayer) if hasattr(layer, field.name)}
    return PlannedLayer(layer=name, epoch=schedule.get(name), end=schedule.ends.get(name), **same)

"""`fourier-probe schedule`: what a training would convert, when, and at what cost; nothing trains."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fourier_probe.cli import options
from fourier_probe.cli.train import Sections, chosen, config_options
from fourier_probe.io import atomic
from fourier_probe.training.naming import run_name

if TYPE_CHECKING:
    from fourier_probe.training.config import TrainConfig
    from fourier_probe.training.plan import Plan

FILES = ("schedule.json", "schedule.pdf", "schedule.png")


@click.command(cls=Sections)
@config_options
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the drawing.  [default: results/NAME-plan]")
@click.option("--force", is_flag=True, help="Overwrite a drawing that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON instead of the table.")
def command(config_file: Path | None, out: Path | None, force: bool, as_json: bool, **flags: Any) -> None:
    """Print and draw the plan of `train` with the same flags: each layer's epoch, parameters and multiply-adds.

    A plan without --schedule is that of `linear`.

    \b
    fourier-probe schedule
    fourier-probe schedule --model resnet18 --data photos/ --epochs 90 --schedule stage
    fourier-probe schedule --schedule constant --weighted-mean --json
    """  # noqa: D301
    from fourier_probe.plots.schedule import schedule_figure
    from fourier_probe.plots.style import save
    from fourier_probe.training.config import TrainConfig

    config = TrainConfig.of({"schedule": "linear", **chosen(config_file, flags)})
    folder = out or Path("results") / f"{run_name(config)}-plan"
    atomic.output_folder(folder, results=FILES, force=force)
    plan, record = lay_out(config)
    names = [layer.name for layer in plan.layers]
    title = f"{config.model}, {config.schedule}"
    with atomic.staged(folder, FILES) as stage:
        atomic.write_json(stage / "schedule.json", record)
        figure = schedule_figure(names, plan.schedule, plan.epochs, ends=plan.schedule.ends, title=title)
        save(figure, stage / "schedule")
    if as_json:
        click.echo(json.dumps(record, allow_nan=False))
        return
    _print(plan, record, config)
    click.echo(f"written to {folder}: {', '.join(FILES)}")


def lay_out(config: TrainConfig) -> tuple[Plan, dict[str, Any]]:
    """The plan of a config on its data, and as plain values with the cost before and after."""
    from fourier_probe.models import zoo
    from fourier_probe.models.gpsa.recast import recast_
    from fourier_probe.training.convert import options
    from fourier_probe.training.inputs import open_splits
    from fourier_probe.training.plan import Plan, make_model

    splits = open_splits(config)
    model, _, spec = make_model(config, splits)
    plan = Plan.of(config, model, spec, images=len(splits.train), whole=splits.whole, batch=config.batch_size)
    after = copy.deepcopy(model)
    recast_(after, list(plan.schedule), **options(config))
    plain = zoo.stats(model, (spec.channels, *spec.size))
    costs = {"before": plain._asdict(), "after": plan.cost(after, plain)._asdict()}
    layers = [
        {
            "layer": layer.name,
            "epoch": plan.schedule.get(layer.name),
            "end": plan.schedule.ends.get(layer.name),
            "stage": layer.stage,
            "keys": list(layer.keys),
            "queries": list(layer.queries),
            "heads": layer.heads,
            "parameters": layer.parameters,
            "added": layer.added,
            "multiply_adds": layer.multiply_adds,
            "multiply_adds_recast": layer.multiply_adds_recast,
        }
        for layer in plan.layers
    ]
    lengths = {"epochs": plan.epochs, "steps": plan.steps, "images": len(splits.train)}
    return plan, {"model": config.model, "schedule": config.schedule, **lengths, "layers": layers, "cost": costs}


def _print(plan: Plan, record: dict[str, Any], config: TrainConfig) -> None:
    rows = [
        [
            each["layer"],
            "-" if each["epoch"] is None else f"{each['epoch']}" + (f"-{each['end']}" if each["end"] else ""),
            each["stage"],
            "x".join(map(str, each["keys"])),
            f"{each['parameters']:,}",
            f"+{each['added']:,}",
            f"{each['multiply_adds'] / 1e6:.2f}",
            f"{each['multiply_adds_recast'] / 1e6:.2f}",
        ]
        for each in record["layers"]
    ]
    title = f"{config.model}, {config.schedule}, {plan.epochs} epochs of {plan.steps} steps"
    columns = ["layer", "epoch", "stage", "keys", "params", "new", "M mult-adds", "as attention"]
    options.table(title, columns, rows)
    before, after = record["cost"]["before"], record["cost"]["after"]
    click.echo(
        f"whole network: {before['parameters']:,} -> {after['parameters']:,} parameters, "
        f"{before['multiply_adds'] / 1e6:.1f} -> {after['multiply_adds'] / 1e6:.1f} M multiply-adds an image; "
        f"mean epoch of the switches {plan.schedule.mean():.2f}, weighted by parameters "
        f"{plan.schedule.mean({layer.name: float(layer.parameters) for layer in plan.layers}):.2f}"
        if plan.schedule
        else "nothing converts"
    )

"""`fourier-probe schedule`: what a training would convert, when, and at what cost; nothing trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fourier_probe.cli import options
from fourier_probe.cli.train import Sections, chosen, config_options
from fourier_probe.io import atomic
from fourier_probe.training.naming import run_name

if TYPE_CHECKING:
    from fourier_probe.training.preview import SchedulePlan

FILES = ("schedule.json", "schedule.pdf", "schedule.png")


@click.command(cls=Sections)
@config_options
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the drawing.  [default: results/NAME-plan]")
@click.option("--force", is_flag=True, help="Overwrite a drawing that is there.")
@options.figure_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON instead of the table.")
def command(config_file: Path | None, out: Path | None, force: bool, as_json: bool, **flags: Any) -> None:
    """Print and draw the plan of `train` with the same flags: each layer's epoch, parameters and multiply-adds.

    A plan without --schedule is that of `linear`.

    \b
    fourier-probe schedule
    fourier-probe schedule --model resnet18 --data photos/ --epochs 90 --schedule stage
    fourier-probe schedule --schedule constant --weighted-mean --json
    """  # noqa: D301
    from fourier_probe.plots.style import save
    from fourier_probe.training.config import TrainConfig
    from fourier_probe.training.preview import lay_out

    config = TrainConfig.of({"schedule": "linear", **chosen(config_file, flags)})
    folder = out or Path("results") / f"{run_name(config)}-plan"
    atomic.output_folder(folder, results=FILES, force=force)
    plan = lay_out(config)
    with atomic.staged(folder, FILES) as stage:
        atomic.write_json(stage / "schedule.json", plan.to_json())
        save(plan.plot(), stage / "schedule")
    if as_json:
        click.echo(json.dumps(plan.to_json(), allow_nan=False))
        return
    _print(plan)
    options.say(f"written to {folder}: {', '.join(FILES)}")


def _print(plan: SchedulePlan) -> None:
    rows = [
        [
            each.layer,
            "-" if each.epoch is None else f"{each.epoch}" + (f"-{each.end}" if each.end else ""),
            each.stage,
            "x".join(map(str, each.keys)),
            f"{each.parameters:,}",
            f"+{each.added:,}",
            f"{each.multiply_adds / 1e6:.2f}",
            f"{each.multiply_adds_recast / 1e6:.2f}",
        ]
        for each in plan.layers
    ]
    title = f"{plan.model}, {plan.schedule}, {plan.epochs} epochs of {plan.steps} steps"
    columns = ["layer", "epoch", "stage", "keys", "params", "new", "M mult-adds", "as attention"]
    options.table(title, columns, rows)
    if not plan.switches:
        click.echo("nothing converts")
        return
    if plan.unconverted:
        click.echo(plan.unconverted)
    weights = {layer.layer: float(layer.parameters) for layer in plan.layers}
    click.echo(
        f"whole network: {plan.before.parameters:,} -> {plan.after.parameters:,} parameters, "
        f"{plan.before.multiply_adds / 1e6:.1f} -> {plan.after.multiply_adds / 1e6:.1f} M multiply-adds per image; "
        f"mean epoch of the switches {plan.switches.mean():.2f}, weighted by parameters "
        f"{plan.switches.mean(weights):.2f}"
    )

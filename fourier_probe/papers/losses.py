"""The loss around each switch, of finished runs. May import plots, results and training."""

from __future__ import annotations

from collections.abc import Sequence

from fourier_probe.papers.captions import caption
from fourier_probe.papers.exhibit import Exhibit, MissingRunsError
from fourier_probe.papers.registered import figure_kind
from fourier_probe.plots.losses import Losses, around, switches_figure, window
from fourier_probe.training.runs import Run

PANELS = 6  # runs, one row each


@figure_kind(tables=["conversions"])
def loss_at_switches(runs: Sequence[Run]) -> Exhibit:
    """Training loss by step, and around each switch, one row per run."""
    chosen = [run for run in runs if run.result is not None and run.conversions and run.steps]
    if not chosen:
        raise MissingRunsError(
            "loss-at-switches needs finished PRS runs with a steps.csv: train --schedule linear --log-interval 10."
        )
    drawn = chosen[:PANELS]
    curves: dict[str, tuple[Losses, Sequence[int]]] = {}
    rows, sides = [], []
    for run in drawn:
        losses = [(row.step, row.loss) for row in run.steps]
        switches = sorted({row.epoch * run.plan.steps for row in run.conversions})
        curves[run.path.name] = (losses, switches)
        named = {"run": run.path.name, "schedule": run.config.schedule, "seed": run.config.seed}
        for switch in switches:
            near = around(losses, switch, window(losses, switches))
            rows += [{**named, "switch": switch, "since": since, "loss": loss} for since, loss in near]
        sides += [
            {**named, "layer": row.layer, "step": row.epoch * run.plan.steps, "loss_before": row.loss_before,
             "loss_after": row.loss_after, "ratio": row.ratio, "images": row.images}
            for row in run.conversions
        ]  # fmt: skip
    largest = max((abs(row.ratio - 1) for run in drawn for row in run.conversions if row.ratio), default=0.0)
    text = (
        "Training loss by step (means over the steps of each row of steps.csv, in training mode, with augmentation), "
        "and around each switch. On the same fixed images, in eval mode, the loss changed by at most "
        f"{100 * largest:.2g} % at a switch."
    )
    more = len(chosen) - len(drawn)
    text += f" {more} more runs are not drawn." if more else ""
    return Exhibit(switches_figure(curves), rows, caption(drawn, text, over="", reading=True), {"conversions": sides})

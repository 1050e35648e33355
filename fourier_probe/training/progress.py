"""What a run says while it trains: to nobody, or drawn on stderr. Imports rich when it draws."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple


class Tick(NamedTuple):
    """One step that is done.

    Attributes:
        epoch: from 0.
        epochs: in all.
        step: done in this epoch.
        steps: an epoch.
        loss: mean training loss of the epoch so far, nats.
        accuracy: mean training accuracy so far, 0 to 1.
        rate: images a second in this epoch.
        unit: what an epoch is here: "epoch", or "round" of a run that is counted in steps.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    rate: float
    unit: str = "epoch"


class Progress:
    """Silent; subclass it to show something."""

    def step(self, tick: Tick) -> None:
        """A step is done; not called for every one of them on a GPU."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch is done; `row` is its line of metrics.csv."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something that may be wrong."""
        warnings.warn(text, UserWarning, stacklevel=3)


@contextlib.contextmanager
def drawn() -> Iterator[Progress]:
    """A progress bar on stderr where that is a terminal, and a line an epoch everywhere."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True, markup=False, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())

    class Drawn(Progress):
        def step(self, tick: Tick) -> None:
            said = f"loss {tick.loss:.3f}  acc {100 * tick.accuracy:.1f} %  {tick.rate:.0f} img/s"
            done, total = tick.epoch * tick.steps + tick.step, tick.epochs * tick.steps
            bar.update(
                task, completed=done, total=total, said=said, description=f"{tick.unit} {tick.epoch + 1}/{tick.epochs}"
            )

        def epoch(self, row: dict[str, Any]) -> None:
            text = f"epoch {row['epoch'] + 1}, step {row['step']}: train {row['train_loss']:.3f} nats"
            text += f", {100 * row['train_acc']:.1f} %"
            if "val_acc" in row:
                text += f"; val {row['val_loss']:.3f} nats, {100 * row['val_acc']:.1f} %"
            if "ema_val_acc" in row:
                text += f" (EMA {100 * row['ema_val_acc']:.1f} %)"
            if row["converted"]:
                text += f"; {row['converted']} layers are attention"
            bar.console.print(f"{text}; {row['seconds']:.1f} s", soft_wrap=True)

        def note(self, text: str) -> None:
            bar.console.print(f"note: {text}", soft_wrap=True)

        def warn(self, text: str) -> None:
            bar.console.print(f"warning: {text}", soft_wrap=True)

    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=None, said="")
        yield Drawn()

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
        rate: images per second in this epoch.
        unit: what an epoch is here: "epoch", or "round" of a run that is counted in steps.
        left: seconds to the end of the training; None while that is not known.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    rate: float
    unit: str = "epoch"
    left: float | None = None


class Outlook(NamedTuple):
    """How far a training is.

    Attributes:
        epoch: epochs, or rounds, that are done.
        epochs: in all.
        unit: "epoch" or "round".
        left: seconds to the end; None while that is not known.
        measured: before the first step, how that is known, in words.
    """

    epoch: int
    epochs: int
    unit: str
    left: float | None
    measured: str = ""


class Progress:
    """Silent; subclass it to show something.

    Attributes:
        measures: whether a few steps are timed before the first one, so that the time left is known from the start.
    """

    measures = False

    def outlook(self, outlook: Outlook) -> None:
        """How far the training is: said before the first step, and before each `epoch`."""

    def step(self, tick: Tick) -> None:
        """A step is done; not called for every one of them on a GPU."""

    def epoch(self, row: dict[str, object]) -> None:
        """An epoch is done; `row` is its line of metrics.csv."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something that may be wrong."""
        warnings.warn(text, UserWarning, stacklevel=3)


def spoken(seconds: float) -> str:
    """A length of time in words, to two digits or so.

    >>> spoken(8.4), spoken(100), spoken(700), spoken(9000)
    ('8 s', '1 min 40 s', '12 min', '2 h 30 min')
    """
    if seconds < 55:
        return f"{seconds:.0f} s"
    if seconds < 295:
        minutes, rest = divmod(round(seconds / 10), 6)
        return f"{minutes} min {10 * rest} s" if rest else f"{minutes} min"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours < 10 else f"{seconds / 3600:.0f} h"


@contextlib.contextmanager
def drawn() -> Iterator[Progress]:
    """A progress bar on stderr where that is a terminal, and a line per epoch everywhere."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True, markup=False, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))

    class Drawn(Progress):
        measures = True
        standing = Outlook(0, 0, "epoch", None)

        def outlook(self, outlook: Outlook) -> None:
            self.standing = outlook
            if outlook.measured and outlook.left is not None:
                todo = outlook.epochs - outlook.epoch
                self.note(f"{todo} {outlook.unit}s to train, about {spoken(outlook.left)} ({outlook.measured}).")

        def step(self, tick: Tick) -> None:
            text = f"loss {tick.loss:.3f}  acc {100 * tick.accuracy:.1f} %  {tick.rate:.0f} img/s"
            text += "" if tick.left is None else f"  {spoken(tick.left)} left"
            done, total = tick.epoch * tick.steps + tick.step, tick.epochs * tick.steps
            bar.update(
                task, completed=done, total=total, said=text, description=f"{tick.unit} {tick.epoch + 1}/{tick.epochs}"
            )

        def epoch(self, row: dict[str, Any]) -> None:
            now = self.standing
            text = f"{now.unit} {row['epoch'] + 1}/{now.epochs}, step {row['step']}: train {row['train_loss']:.3f} nats"
            text += f", {100 * row['train_acc']:.1f} %"
            if "val_acc" in row:
                text += f"; val {row['val_loss']:.3f} nats, {100 * row['val_acc']:.1f} %"
            if "ema_val_acc" in row:
                text += f" (EMA {100 * row['ema_val_acc']:.1f} %)"
            if row["converted"]:
                text += f"; {row['converted']} layer{'s are' if row['converted'] > 1 else ' is'} attention"
            text += f"; {row['seconds']:.1f} s"
            if now.left is not None and now.epoch < now.epochs:
                text += f", {spoken(now.left)} left"
            bar.console.print(text, soft_wrap=True)

        def note(self, text: str) -> None:
            bar.console.print(f"note: {text}", soft_wrap=True)

        def warn(self, text: str) -> None:
            bar.console.print(f"warning: {text}", soft_wrap=True)

    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=None, said="")
        yield Drawn()

"""Time left: from what is planned and what went by, with a simulated clock; and what is said of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fourier_probe.training import Progress, Tick, steps, timeleft, train, trainer
from fourier_probe.training.progress import Outlook
from fourier_probe.training.steps import Outcome
from fourier_probe.training.timeleft import Clock, Cost, Work

from .tiny import assert_same_run, stop_at, tiny

EPOCHS, STEPS = 20, 50


def planned(shares: list[float], plain: float, added: float, look: float, measured: str = "measured") -> Work:
    """Twenty epochs; the share of the layers that is converted in each."""
    step = [Cost(plain, added * share) for share in shares]
    after = [Cost(look * plain, look * added * share) for share in shares]
    before = [Cost(0.0, 0.0) for _ in shares]
    return Work(STEPS, before, step, after, measured)


LINEAR = [0.0] * 5 + [0.2, 0.4, 0.6, 0.8] + [1.0] * 11
CASES: dict[str, tuple[list[float], str, float, float]] = {
    # shares, how the plan is known, true seconds of a step over planned: before any switch, and what switches add
    "as measured": (LINEAR, "measured", 1.0, 1.0),
    "a machine that is busier": (LINEAR, "measured", 1.6, 1.6),
    "attention dearer than measured by a quarter": (LINEAR, "measured", 1.0, 1.25),
    "data that are slow to read": (LINEAR, "measured", 1.5, 1.0),
    "converted from the start": ([1.0] * EPOCHS, "measured", 1.3, 0.7),
    "nothing converts": ([0.0] * EPOCHS, "", 3e-9, 0.0),
    "in multiply-adds": (LINEAR, "", 3e-9, 3.5e-9),
}


@pytest.mark.parametrize("case", CASES)
def test_after_a_tenth_the_time_left_is_within_30_percent(case: str) -> None:
    shares, measured, true_plain, true_added = CASES[case]
    unit = 1.0 if measured else 1e7
    work = planned(shares, 0.02 * unit, 0.06 * unit, 4.0, measured)
    now, said = 0.0, {}
    clock = Clock(work, now=lambda: now)
    clock.mark(0)
    for epoch in range(EPOCHS):
        for step in range(STEPS):
            cost = work.step[epoch]
            now += (cost.plain * true_plain + cost.added * true_added) * (1.3 if (epoch * 7 + step) % 5 else 0.7)
            said[now] = clock.mark(epoch, step + 1)
        now += work.after[epoch].plain * true_plain + work.after[epoch].added * true_added
        said[now] = clock.mark(epoch + 1)
    checked = [(now - time, left) for time, left in said.items() if 0.1 * now < time < 0.99 * now]
    assert len(checked) > 700
    wrong = [(true, left) for true, left in checked if left is None or abs(left - true) > 0.3 * true]
    assert not wrong, f"{len(wrong)} of {len(checked)}, the first {wrong[0]}"
    assert said[now] == pytest.approx(0.0, abs=1e-6)


CHANGES: dict[str, list[tuple[float, float]]] = {
    # the share of the work from which on the machine is so many times slower than when it was measured
    "busy, then idle": [(0.0, 2.0), (0.4, 1.0)],
    "busy until the switches, then idle": [(0.0, 2.0), (0.1, 1.0)],
    "idle, then busy": [(0.0, 1.0), (0.5, 2.5)],
    "busy for a while": [(0.0, 1.0), (0.3, 3.0), (0.5, 1.0)],
}


@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize("shares", [LINEAR, [0.0] * EPOCHS], ids=["linear", "none"])
def test_a_machine_that_gets_busy_or_idle_is_believed_after_a_seventh_of_the_work(
    case: str, shares: list[float]
) -> None:
    """What other programs will do cannot be known, so what is left is compared with the truth at the present speed."""
    work = planned(shares, 0.02, 0.06, 4.0)
    whole, now, checked = sum(work.total), 0.0, 0
    clock = Clock(work, now=lambda: now)
    clock.mark(0)
    for epoch in range(EPOCHS):
        for step in range(STEPS):
            share = sum(work.done(epoch, step)) / whole
            since, slower = next(change for change in reversed(CHANGES[case]) if change[0] <= share)
            now += sum(work.step[epoch]) * slower * (1.3 if (epoch * 7 + step) % 5 else 0.7)
            left = clock.mark(epoch, step + 1)
            truth = (whole - sum(work.done(epoch, step + 1))) * slower * 1.18  # the mean of the two above
            if share > max(since + 1 / 7, 0.1) and truth > 0.01 * whole:
                assert left == pytest.approx(truth, rel=0.3), f"at {share:.0%} of the work"
                checked += 1
        now += sum(work.after[epoch]) * slower * 1.18
        clock.mark(epoch + 1)
    assert checked > 300


def test_epochs_that_count_the_same_would_be_wrong_by_far() -> None:
    """What the plan is for: without it the estimate at a tenth is a third of the truth."""
    work = planned(LINEAR, 0.02, 0.06, 4.0)
    even = planned([0.0] * EPOCHS, 0.02, 0.0, 4.0)
    truth, naive = sum(work.total), sum(even.total)
    assert naive < 0.4 * truth


class Listening(Progress):
    """Keeps all that it is told; asks for steps to be timed."""

    measures = True

    def __init__(self) -> None:
        self.outlooks: list[Outlook] = []
        self.ticks: list[Tick] = []

    def outlook(self, outlook: Outlook) -> None:
        self.outlooks.append(outlook)

    def step(self, tick: Tick) -> None:
        self.ticks.append(tick)


DEARER = {
    "layer1.0.conv1": 2.0, "layer1.0.conv2": 1.1, "layer2.0.conv1": 0.52, "layer2.0.conv2": 0.11,
    "layer3.0.conv1": 0.06, "layer3.0.conv2": 0.02,
}  # fmt: skip
"""What a converted layer adds, in steps before any switch: as multiply-adds have it, but for a third more or less."""


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A clock that only steps and evaluations move: 0.3 s per step, and more with each converted layer."""
    clock = {"now": 0.0}

    def dearer(net: torch.nn.Module) -> float:
        recast = {name for name, module in net.named_modules() if type(module).__name__ == "GPSAConv2d"}
        return 1 + sum(more for name, more in DEARER.items() if name in recast)

    def step(net: torch.nn.Module, *arguments: Any, **more: Any) -> Outcome:
        clock["now"] += 0.3 * dearer(net)
        return steps.train_step(net, *arguments, **more)

    def look(net: torch.nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *arguments: Any, **more: Any) -> Outcome:
        every = list(batches)
        clock["now"] += 0.01 * dearer(net) * sum(len(labels) for _, labels in every)
        return steps.evaluate(net, every, *arguments, **more)

    for module in (trainer, timeleft):
        monkeypatch.setattr(module, "train_step", step)
        monkeypatch.setattr(module, "evaluate", look)
    monkeypatch.setattr(timeleft.time, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(Clock.__init__, "__defaults__", (lambda: clock["now"],))
    return clock


def test_a_run_says_its_length_before_the_first_step_and_is_right_after_a_tenth(
    data: Path, tmp_path: Path, simulated: dict[str, float]
) -> None:
    times: list[float] = []

    class Timed(Listening):
        def step(self, tick: Tick) -> None:
            super().step(tick)
            times.append(simulated["now"])

    listener = Timed()
    train(
        tiny(data, schedule="linear", epochs=10, early_epoch=8, late_epoch=3, test=False),
        tmp_path / "run",
        progress=listener,
    )
    end = simulated["now"]
    start = times[0] - 0.3
    first = listener.outlooks[0]
    assert first.measured == "measured on 3 steps before the switches and 3 after"
    assert first.left == pytest.approx(end - start, rel=0.3)
    later = [(end - time, tick.left) for time, tick in zip(times, listener.ticks, strict=True)]
    later = [(true, left) for true, left in later if end - true > start + 0.1 * (end - start) and true > 0.5]
    assert len(later) > 20
    assert not [(true, left) for true, left in later if left != pytest.approx(true, rel=0.3)]


@pytest.mark.slow
def test_timing_steps_beforehand_changes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeleft, "SHORT", 0.0)  # the converted network too
    config = tiny(data, schedule="linear", epochs=4, drop=0.1, model_ema=True, mixup=0.4)
    train(config, tmp_path / "silent")
    train(config, tmp_path / "timed", progress=Listening())
    assert_same_run(tmp_path / "silent", tmp_path / "timed")
    stop_at(config, tmp_path / "resumed", (2, 2))
    listener = Listening()
    train(config, tmp_path / "resumed", resume=True, progress=listener)
    assert_same_run(tmp_path / "silent", tmp_path / "resumed")
    assert listener.outlooks[0].epoch == 2
    assert "by multiply-adds where layers convert" in listener.outlooks[0].measured


def test_a_network_that_cannot_be_copied_is_estimated_by_multiply_adds(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> object:
        raise TypeError("cannot be copied")

    monkeypatch.setattr(timeleft, "deepcopy", refuse)
    listener = Listening()
    train(tiny(data, epochs=2, schedule="linear", early_epoch=1, late_epoch=1), tmp_path / "run", progress=listener)
    assert (listener.outlooks[0].left, listener.outlooks[0].measured) == (None, "")
    assert all(tick.left is not None for tick in listener.ticks)


def test_without_a_terminal_each_line_has_epoch_and_time_left(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fourier_probe.verbs.train import train as train_verb

    train_verb(tiny(data, epochs=3), out=tmp_path / "run")
    said = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"note: 3 epochs to train, about \d+ s \(measured on \d steps?\)\.", said[0])
    assert re.match(r"epoch 2/3, step 6: train .* s, \d+ s left$", said[2])
    assert said[3].startswith("epoch 3/3, step 9: train") and not said[3].endswith("left")

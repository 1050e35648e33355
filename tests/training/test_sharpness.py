"""Sharpness-aware minimisation against a few lines of its own, and what its two passes may and may not change."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from fourier_probe.errors import TrainingError
from fourier_probe.runtime.distributed import Ranks
from fourier_probe.training import TrainConfig, train
from fourier_probe.training.optim import make_optimizer
from fourier_probe.training.sharpness import climbed
from fourier_probe.training.steps import Diverged, train_step

from .tiny import assert_same_run, last, stop_at, tiny

RHO = 0.1


class Net(nn.Module):
    """BatchNorm, and dropout that draws."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.drawn: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        features = F.dropout(F.relu(self.bn(self.conv(x))).mean((2, 3)), 0.5, self.training)
        self.drawn.append((features.detach() == 0).clone())
        scores: Tensor = self.fc(features)
        return scores


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 6, 6, generator=generator, dtype=torch.float64), torch.arange(8) % 3


def scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=False)


CONFIG = {"sched": "constant", "opt": "momentum", "lr": 0.05, "weight_decay": 0.01, "momentum": 0.9, "smoothing": 0.0}


def test_it_is_the_sam_of_a_few_lines() -> None:
    torch.manual_seed(1)
    ours = Net().double()
    theirs = copy.deepcopy(ours)
    config = TrainConfig(**CONFIG, sam_rho=RHO)  # type: ignore[arg-type]
    optimizer = make_optimizer(ours, config)
    decay = [p for p in theirs.parameters() if p.ndim > 1]
    rest = [p for p in theirs.parameters() if p.ndim <= 1]
    plain = torch.optim.SGD(
        [{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}], lr=0.05, momentum=0.9
    )
    for step in range(4):
        x, y = batch(step)
        torch.manual_seed(step)
        outcome = train_step(ours, x, y, optimizer, scaler(), config)
        # The independent one.
        torch.manual_seed(step)
        loss = F.cross_entropy(theirs(x), y)
        gradients = torch.autograd.grad(loss, list(theirs.parameters()))
        length = sum(g.square().sum() for g in gradients).sqrt()
        steps = [RHO * g / length for g in gradients]
        statistics = copy.deepcopy(theirs.bn.state_dict())
        with torch.no_grad():
            for p, e in zip(theirs.parameters(), steps, strict=True):
                p += e
        torch.manual_seed(step)
        F.cross_entropy(theirs(x), y).backward()
        theirs.bn.load_state_dict({**theirs.bn.state_dict(), **{k: v for k, v in statistics.items() if "running" in k
                                                                or "tracked" in k}})  # fmt: skip
        with torch.no_grad():
            for p, e in zip(theirs.parameters(), steps, strict=True):
                p -= e
        plain.step()
        plain.zero_grad()
        assert float(outcome.loss) == pytest.approx(8 * loss.item(), rel=1e-12)
        for (name, value), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-12, msg=name)


def test_the_second_pass_draws_the_same_and_leaves_the_statistics_alone() -> None:
    torch.manual_seed(0)
    net = Net().double()
    config = TrainConfig(**CONFIG, sam_rho=RHO)  # type: ignore[arg-type]
    once = copy.deepcopy(net)
    train_step(net, *batch(), make_optimizer(net, config), scaler(), config)
    assert len(net.drawn) == 2
    assert torch.equal(*net.drawn)
    torch.manual_seed(0)
    once.train()(batch()[0])
    assert torch.equal(net.bn.running_mean, once.bn.running_mean)
    assert int(net.bn.num_batches_tracked) == 1
    assert net.bn.track_running_stats


class Deep(nn.Module):
    """Stochastic depth over a convolution with BatchNorm; keeps what it drew and what its convolution gave."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.drop = DropPath(0.5)
        self.kept: list[Tensor] = []
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        maps = self.bn(self.conv(x))
        left = self.drop(torch.ones_like(maps)) * maps
        self.seen.append(maps.detach().clone())
        self.kept.append((left.detach() != 0).flatten(1).any(1))
        scores: Tensor = self.fc((x + left).mean((2, 3)))
        return scores


@pytest.mark.parametrize("amp", ["none", "bf16"])
def test_the_second_pass_drops_the_same_paths_and_sees_the_weights_that_were_climbed_to(amp: str) -> None:
    torch.manual_seed(3)
    net = Deep()
    config = TrainConfig(**CONFIG, sam_rho=1.0, amp=amp)  # type: ignore[arg-type]
    x, y = batch()
    before = copy.deepcopy(net.state_dict())
    train_step(net, x.float(), y, make_optimizer(net, config), scaler(), config)
    assert len(net.kept) == 2 and net.kept[0].any() and not net.kept[0].all()
    assert torch.equal(*net.kept)
    # Under autocast a weight cast in the first pass must not serve in the second.
    assert (net.seen[0] - net.seen[1]).abs().max() > 0.05
    assert net.conv.weight.dtype == torch.float32 and not torch.equal(net.conv.weight, before["conv.weight"])
    assert int(net.bn.num_batches_tracked) == 1


def test_the_average_takes_the_weights_after_the_step(data: Path, tmp_path: Path) -> None:
    """With a decay of 0 it is the weights themselves: neither those before the step nor those climbed to."""
    train(tiny(data, epochs=1, sam_rho=0.5, model_ema=True, model_ema_decay=0.0), tmp_path / "run")
    state = last(tmp_path / "run")
    for name, value in state["state_dict"].items():
        if value.is_floating_point():
            torch.testing.assert_close(state["state_dict_ema"][name], value, rtol=0, atol=0, msg=name)


class Wrapped(nn.Module):
    """Says, as DistributedDataParallel would, whether gradients of a pass are exchanged."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.alone, self.passes = inner, False, list[bool]()

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        self.alone = True
        yield
        self.alone = False

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append(not self.alone)
        scores: Tensor = self.inner(x)
        return scores


@pytest.mark.parametrize(
    ("more", "exchanged"),
    [({"sam_rho": RHO}, [False, True]), ({"grad_accum_steps": 3}, [False, False, True]), ({}, [True])],
)
def test_gradients_are_exchanged_in_the_last_pass_only(more: dict[str, Any], exchanged: list[bool]) -> None:
    net = Wrapped(Net().double())
    config, ranks = TrainConfig(**CONFIG, **more), Ranks(0, 2, torch.device("cpu"))
    train_step(net, *batch(), make_optimizer(net.inner, config), scaler(), config, ranks=ranks, batch=16)
    assert net.passes == exchanged


@pytest.mark.parametrize("gradient", [torch.nan, torch.inf, 0.0])
def test_a_gradient_that_gives_no_direction_moves_nothing(gradient: float) -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), gradient)
    with climbed(torch.optim.SGD([weight], lr=1.0), RHO):
        assert torch.equal(weight, torch.ones(3))


def test_the_weights_come_back_to_the_bit_even_where_the_second_pass_fails() -> None:
    weight = nn.Parameter(torch.rand(100))
    before = weight.detach().clone()
    weight.grad = torch.rand(100)
    with pytest.raises(ZeroDivisionError), climbed(torch.optim.SGD([weight], lr=1.0), 0.3):
        assert (weight - before).norm().item() == pytest.approx(0.3, rel=1e-5)
        raise ZeroDivisionError
    assert torch.equal(weight, before)


def test_a_loss_that_is_not_finite_stops_before_the_update() -> None:
    net = Net().double()
    config = TrainConfig(**CONFIG, sam_rho=RHO)  # type: ignore[arg-type]
    x, y = batch()
    with pytest.raises(Diverged):
        train_step(net, x * torch.nan, y, make_optimizer(net, config), scaler(), config)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1])
def test_a_length_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(TrainingError, match=r"--sam-rho is .*: expected 0 or more"):
        TrainConfig(sam_rho=value)


def test_it_is_refused_beside_parts_of_a_batch() -> None:
    with pytest.raises(TrainingError, match=r"--sam-rho needs the gradient of the whole batch .*choose one"):
        TrainConfig(sam_rho=0.05, grad_accum_steps=2)


@pytest.mark.slow
def test_a_run_with_it_converts_averages_and_resumes_exactly(data: Path, tmp_path: Path) -> None:
    more = {"schedule": "linear", "early_epoch": 1, "late_epoch": 1, "model_ema": True, "drop": 0.1}
    config = tiny(data, epochs=3, sam_rho=0.05, **more)
    train(config, tmp_path / "whole")
    stop_at(config, tmp_path / "stopped", (1, 2))
    train(config, tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    with pytest.raises(TrainingError, match=r"--sam-rho 0.05 \(now 0.1\)"):
        train(replace(config, sam_rho=0.1), tmp_path / "whole", resume=True)

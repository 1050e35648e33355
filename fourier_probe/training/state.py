"""Everything that a run's future depends on, to a checkpoint and back."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from fourier_probe.errors import TrainingError
from fourier_probe.runtime.accelerator import random_state, set_random_state, summing
from fourier_probe.runtime.distributed import Ranks
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.convert import convert_
from fourier_probe.training.inputs import derived
from fourier_probe.training.record import Environment

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3

_GLOBAL = 5  # a stream of the seed of its own


@dataclass
class State:
    """A run between two steps.

    Attributes:
        model: bare; on the device.
        optimizer: over its parameters.
        scheduler: timm's, of the learning rate.
        scaler: of fp16.
        ema: timm's average of the weights, if asked for.
        epoch: epochs that are done, or the one in progress, from 0.
        step: steps done in that epoch.
        sums: loss, correct, count of that epoch so far; (3,) float64.
        recent: likewise, since the last row of steps.csv.
        seconds: of training in that epoch so far, before a stop in it.
        converted: layers that are attention, in the order of their conversion.
        conversions: rows of conversions.csv, with the options of each recast.
        before: such rows of layers that were attention before the run, in an initial checkpoint.
        rows: of metrics.csv.
        best: best validation accuracy so far; below 0: none yet.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    sums: Tensor
    recent: Tensor
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    conversions: list[dict[str, Any]] = field(default_factory=list)
    before: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0

    @property
    def converted(self) -> list[str]:
        """Layers that are attention, in the order of their conversion."""
        return [row["layer"] for row in self.conversions]

    @property
    def average(self) -> nn.Module | None:
        """The averaged copy, if there is one."""
        return None if self.ema is None else self.ema.module

    @property
    def judged(self) -> nn.Module:
        """The weights that validation and test are about: the average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def payload(self, ranks: Ranks, record: dict[str, object], metrics: dict[str, object]) -> dict[str, object]:
        """The values of a checkpoint; every rank must call, for its random state.

        Args:
            ranks: of the run.
            record: `arch`, `model_args` and `config`.
            metrics: name -> number.
        """
        out = {
            **record,
            "state_dict": dict(self.model.state_dict()),
            "epoch": self.epoch,
            "step": self.step,
            "optimizer": _plain_groups(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "conversions": [*self.before, *self.conversions],
            "metrics": metrics,
            "rng": random_states(ranks),
            "rows": self.rows,
            "sums": _of_all(self.sums, ranks),
            "recent": _of_all(self.recent, ranks),
            "seconds": self.seconds,
            "best": self.best,
            "environment": msgspec.to_builtins(environment(ranks)),
        }
        if self.ema is not None:
            out["state_dict_ema"] = dict(self.ema.module.state_dict())
        return out

    def restore(self, payload: dict[str, Any], config: TrainConfig, ranks: Ranks) -> None:
        """Become the state that `payload` holds; this one must be fresh.

        Raises:
            TrainingError: the payload lacks what a run needs.
        """
        missing = [key for key in ("state_dict", "optimizer", "rng", "rows", "sums") if key not in payload]
        if missing:
            raise TrainingError(f"the checkpoint has no {missing[0]}: it is no run's last.pt; nothing to resume from.")
        own = [row for row in payload["conversions"] if not row.get("initial")]
        for row in own:
            convert_([row["layer"]], self.model, self.average, self.optimizer, config)
        self.model.load_state_dict(payload["state_dict"])
        if self.ema is not None:
            if "state_dict_ema" not in payload:
                raise TrainingError("the checkpoint has no averaged weights, and --model-ema asks for them.")
            self.ema.module.load_state_dict(payload["state_dict_ema"])
        self.optimizer.load_state_dict(payload["optimizer"])
        _align(self.optimizer)
        if payload["scaler"]:
            self.scaler.load_state_dict(payload["scaler"])
        self.epoch, self.step, self.best = payload["epoch"], payload["step"], payload["best"]
        self.conversions, self.rows = own, list(payload["rows"])
        self.sums = _own(payload["sums"], ranks)
        self.recent = _own(payload.get("recent", torch.zeros_like(payload["sums"])), ranks)
        self.seconds = payload.get("seconds", 0.0)
        restore_random(payload["rng"], ranks)


def _align(optimizer: torch.optim.Optimizer) -> None:
    """Move the state off the bytes of a file, which lie anywhere: kernels may add in another order there."""
    for state in optimizer.state.values():
        state.update({name: value.clone() for name, value in state.items() if isinstance(value, Tensor)})


def _of_all(sums: Tensor, ranks: Ranks) -> Tensor:
    """Sums of every rank, (world, 3): added up in another order they would not end in the same digits."""
    every = sums.new_zeros(ranks.world, 3)
    every[ranks.rank] = sums
    return ranks.sum(every).cpu()


def _own(every: Tensor, ranks: Ranks) -> Tensor:
    """This rank's sums; of other ranks than these the first one goes on from what all of them had."""
    sums = every.view(-1, 3)
    if len(sums) != ranks.world:
        sums = torch.cat([sums.sum(0, keepdim=True), sums.new_zeros(ranks.world - 1, 3)])
    return sums[ranks.rank].to(summing(ranks.device))


def environment(ranks: Ranks) -> Environment:
    """What exact repetition depends on beside the config."""
    return Environment(
        torch=str(torch.__version__),
        device=torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else ranks.device.type,
        threads=torch.get_num_threads(),
        world=ranks.world,
    )


@contextlib.contextmanager
def seeded(seed: int, ranks: Ranks) -> Iterator[None]:
    """Global generators as this rank's training needs them (timm draws from them); put back at the end."""
    saved = _here(ranks.device)
    draws = np.random.SeedSequence([_GLOBAL, seed, ranks.rank]).generate_state(2)
    random.seed(int(draws[0]))
    np.random.seed(draws[1])  # noqa: NPY002 - timm's Mixup draws from it
    torch.manual_seed(derived(_GLOBAL, seed, ranks.rank))
    try:
        yield
    finally:
        _there(saved, ranks.device)


def random_states(ranks: Ranks) -> list[dict[str, object]]:
    """The global generators of every rank, as plain values."""
    own = _here(ranks.device)
    if ranks.world == 1:
        return [own]
    every: list[dict[str, object]] = [own] * ranks.world
    torch.distributed.all_gather_object(every, own)
    return every


def restore_random(states: list[dict[str, object]], ranks: Ranks) -> None:
    """This rank's generators as they were; left alone where there were fewer ranks."""
    if ranks.rank < len(states):
        _there(states[ranks.rank], ranks.device)


def _here(device: torch.device) -> dict[str, object]:
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, numbers, following = random.getstate()
    state: dict[str, object] = {
        "torch": torch.get_rng_state(),
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "python": [version, list(numbers), following],
    }
    on_device = random_state(device)
    if on_device is not None:
        state[device.type] = on_device
    return state


def _there(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, numbers, following = state["python"]
    random.setstate((version, tuple(numbers), following))
    if device.type != "cpu" and device.type in state:
        set_random_state(state[device.type], device)


def _plain_groups(state: dict[str, Any]) -> dict[str, object]:
    """An optimizer's state with plain values only: a learning rate may come as a numpy number."""
    groups = [
        {key: float(value) if isinstance(value, np.floating) else value for key, value in group.items()}
        for group in state["param_groups"]
    ]
    return {**state, "param_groups": groups}

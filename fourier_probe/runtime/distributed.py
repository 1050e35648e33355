"""The processes of one run. Under torchrun each takes its share of every batch; alone, all of this does nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from fourier_probe.errors import DeviceError
from fourier_probe.runtime import launched
from fourier_probe.runtime.accelerator import has_float64

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among the others.

    Attributes:
        rank: 0 writes files and speaks; the others only train.
        world: number of processes.
        device: where this one trains.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all of them must ask."""
        if self.world == 1:
            return flag
        return bool(self.sum(torch.tensor([float(flag)], device=self.device)) > 0)

    def largest(self, *values: float) -> list[float]:
        """The largest of each value over all processes; all of them must ask."""
        if self.world == 1:
            return list(values)
        every = torch.tensor(values, device=self.device)
        torch.distributed.all_reduce(every, torch.distributed.ReduceOp.MAX)
        return [float(value) for value in every.tolist()]

    def share_buffers(self, model: nn.Module | None) -> None:
        """Give every rank the first one's running statistics, which each has updated from its own images."""
        if self.world > 1 and model is not None:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def barrier(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            self.sum(torch.zeros(1, device=self.device))

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model to call in training; averages gradients over processes. Wrap again when parameters come or go."""
        if self.world == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)


def rank_and_world() -> tuple[int, int]:
    """This process among those that have joined; (0, 1) where none have."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def of_first(value: T) -> T:
    """The first rank's value, plain data, on every rank; all of them must ask."""
    if rank_and_world()[1] == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box)
    return box[0]


def gathered(value: T) -> list[T]:
    """The values of all ranks, plain data, in their order, on every rank; all of them must ask."""
    world = rank_and_world()[1]
    if world == 1:
        return [value]
    values = [value] * world
    torch.distributed.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def joined(backend: str = "gloo") -> Iterator[tuple[int, int]]:
    """Join the processes that torchrun started, unless the caller did; leave them again. Yields rank and world."""
    if rank_and_world()[1] > 1 or launched.rank_and_world()[1] == 1:
        yield rank_and_world()
        return
    torch.distributed.init_process_group(backend)
    try:
        yield rank_and_world()
    finally:
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def ranks(device: str) -> Iterator[Ranks]:
    """Join the others, as `joined` does, each on its device.

    Raises:
        DeviceError: there is no such device (see `device_of`).
    """
    chosen = device_of(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    with joined("nccl" if chosen.type == "cuda" else "gloo") as (rank, world):
        yield Ranks(rank, world, chosen)


def device_of(name: str) -> torch.device:
    """The device of a name: auto, cpu, cuda, cuda:1, mps, xpu. auto takes a CUDA GPU where there is one.

    Of GPUs each rank takes its own, unless it is numbered.

    Raises:
        DeviceError: there is no such device, or several processes cannot use it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{launched.local_rank()}"
    expected = "Expected auto, cpu, cuda, cuda:1, mps or xpu."
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps", "xpu"):
            raise DeviceError(f"--device {name} cannot be used: nothing here was made for it. {expected}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise DeviceError(f"--device {name} cannot be used: {reason}. {expected}") from error
    if not has_float64(device) and launched.rank_and_world()[1] > 1:
        raise DeviceError(f"--device {name} serves one process: take cpu or cuda for several.")
    return device

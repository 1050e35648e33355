"""One device, one rank: who asks and how is all the same."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
import torch

from fourier_probe.cli import options
from fourier_probe.errors import DeviceError
from fourier_probe.runtime import launched
from fourier_probe.runtime.distributed import device_of, rank_and_world, ranks


def test_devices_are_named_or_refused() -> None:
    assert device_of("cpu") == torch.device("cpu")
    for name in ("abacus", "mps", "xpu", "meta", "cuda:77"):
        with pytest.raises(
            DeviceError, match=f"--device {name} cannot be used: .*auto, cpu, cuda, cuda:1, mps or xpu"
        ) as refused:
            device_of(name)
        with pytest.raises(click.UsageError) as said:
            options.device_of(name)
        assert said.value.message == str(refused.value)


@pytest.mark.skipif(torch.cuda.device_count() > 3, reason="it has that GPU")
def test_a_rank_takes_the_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(DeviceError, match="--device cuda:3 cannot be used"):
        device_of("cuda")


def test_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched.rank_and_world() == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launched.rank_and_world() == (2, 4)
    assert rank_and_world() == (0, 1)  # nobody has joined


def test_alone_nobody_is_joined() -> None:
    with ranks("cpu") as team:
        assert (team.rank, team.world, team.device.type) == (0, 1, "cpu")
    with options.ranks() as rank:
        assert rank == 0


def test_it_is_asked_without_torch() -> None:
    code = "import sys; from fourier_probe.cli import options; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

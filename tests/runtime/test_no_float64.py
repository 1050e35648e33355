"""MPS and XPU: every verb on a device without float64, pretended (`tests/pretended.py`); its numbers are the CPU's."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fourier_probe.runtime.accelerator import has_float64, summing, wide

SCRIPT = Path(__file__).with_name("no_float64.py")


def names() -> list[str]:
    """The checks of the script, read and not run."""
    tree = ast.parse(SCRIPT.read_text())
    table = next(node.value for node in tree.body if isinstance(node, ast.AnnAssign) and node.target.id == "CHECKS")  # type: ignore[union-attr]
    return [key.value for key in table.keys]  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def raised() -> dict[str, str]:
    """What each check raised, empty where nothing: in a process of its own, as torch keeps a device for good."""
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.slow
@pytest.mark.parametrize("check", names())
def test_nothing_needs_float64_on_the_device(check: str, raised: dict[str, str]) -> None:
    assert raised[check] == ""


def test_sums_are_made_where_float64_is() -> None:
    assert has_float64(torch.device("cpu")) and has_float64(torch.device("cuda:1"))
    assert not has_float64(torch.device("mps")) and not has_float64(torch.device("xpu"))
    assert summing(torch.device("mps")) == torch.device("cpu")
    assert summing(torch.device("cuda:1")) == torch.device("cuda:1")
    assert wide(torch.ones(2)).dtype == torch.float64

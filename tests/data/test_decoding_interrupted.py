"""Ctrl-C while image files are decoded in a thread: the command ends at once, and leaves nothing half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BATCH, IMAGES = 4, 120
CODE = """
import os, signal, sys
from fourier_probe import cli
from fourier_probe.data import images

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
decode, times, seen = images.decode, int(sys.argv.pop(1)), []

def interrupting(*args, **kwargs):
    seen.append(1)
    if 20 <= len(seen) < 20 + times:
        os.kill(os.getpid(), signal.SIGINT)
    return decode(*args, **kwargs)

images.decode = interrupting
try:
    cli.main()
finally:
    print(len(seen), file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_the_command_ends_at_once_and_writes_nothing(times: int, tmp_path: Path) -> None:
    """At the first the batch in hand is finished, at a second not even that; a few of 30 batches are read."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(IMAGES):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(photos / f"{number}.png")
    command = ["analyze", "timm:cifar_resnet8", "--data", str(photos), "--img-size", "32", "-b", str(BATCH)]
    command += ["--no-self-check", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(times), *command], capture_output=True, text=True, timeout=120
    )
    *said, decoded = done.stderr.strip().splitlines()
    assert done.returncode == 130 and said[-1] == "interrupted", done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert int(decoded) < 20 + 6 * BATCH

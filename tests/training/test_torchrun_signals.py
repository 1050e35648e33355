"""SIGTERM to a real torchrun: every rank has saved and ended well before torchrun kills them, 30 s later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fourier_probe.training import train

from .tiny import last, log, make_data, tiny

# A network that is slow in the mode that NAP names, and says when it has begun.
NET = """
import os, time
from pathlib import Path
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes, in_chans):
        super().__init__()
        self.fc = nn.Linear(in_chans, num_classes)
    def forward(self, x):
        if len(x) > 1 and os.environ.get("NAP") == ("train" if self.training else "eval"):
            Path(__file__).with_name("begun").touch()
            time.sleep(1)
        return self.fc(x.mean((2, 3)))
"""

RANK = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from fourier_probe.training import TrainConfig, train
config, out = sys.argv[1:]
try:
    train(TrainConfig.from_json(json.loads(config)), out)
except SystemExit as end:
    Path(out).with_name(f"code-{os.environ['RANK']}").write_text(str(end.code))
    raise
"""


def wait_for(files: list[Path], seconds: float, process: subprocess.Popen[bytes]) -> float:
    start = time.monotonic()
    while not all(file.exists() and (file.name == "begun" or file.read_text()) for file in files):
        assert time.monotonic() - start < seconds, f"{files} after {seconds} s"
        assert process.poll() is None or all(file.exists() for file in files), process.communicate()
        time.sleep(0.05)
    return time.monotonic() - start


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_sigterm_to_torchrun_saves_within_ten_seconds(mode: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "rank.py").write_text(RANK)
    # 20,480 images to evaluate are 20 batches of 512 a rank; 20 steps of training.
    data = make_data(tmp_path / "data.npz", train=40960 if mode == "eval" else 160, size=4)
    config = tiny(data, model=f"{tmp_path / 'net.py'}:Net", model_args={}, schedule="none", crop_padding=0, epochs=2,
                  val_split=0.5 if mode == "eval" else 0.0, batch_size=8192 if mode == "eval" else 8)  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
               "--nproc-per-node", "2", str(tmp_path / "rank.py"), json.dumps(config.to_json()),
               str(tmp_path / "run")]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "NAP": mode}
    )
    codes = [tmp_path / f"code-{rank}" for rank in range(2)]
    try:
        wait_for([tmp_path / "begun"], 90, process)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        seconds = wait_for(codes, 10, process)
        print(f"SIGTERM in {mode}: saved after {seconds:.1f} s")
        process.communicate(timeout=15)
    finally:
        process.kill()
        process.wait()
    assert [file.read_text() for file in codes] == ["143", "143"]
    state = last(tmp_path / "run")
    if mode == "train":
        assert (state["epoch"], 1 <= state["step"] <= 10) == (0, True)
    else:
        assert (state["epoch"], state["step"], state["rows"]) == (0, 2, [])  # the epoch is trained, not evaluated
    with pytest.warns(UserWarning, match="world 2 -> 1"):
        train(config, tmp_path / "run", resume=True)
    assert [row["epoch"] for row in log(tmp_path / "run")] == ["0", "1"]

"""What the command line prints of an error: names made safe, one exit code, whatever a model's code does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fourier_probe.cli import group


@pytest.mark.parametrize("name", ["red\x1b[31m.pt", "two\nerror: lines.pt", "turned\u202eround.pt", r"a$\frac{$b.pt"])
def test_the_name_of_a_file_in_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing of ours")
    done = CliRunner().invoke(group, ["points", str(tmp_path / name)])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ") and done.stderr.endswith("\n")
    assert all(line.isprintable() for line in done.stderr.splitlines())
    assert all(line.startswith("  ") for line in done.stderr.splitlines()[1:])


def test_the_name_of_a_tensor_in_an_error(tmp_path: Path) -> None:
    torch.save({"red\x1b[31m\nname": torch.zeros(1)}, tmp_path / "a.pt")
    done = CliRunner().invoke(group, ["points", str(tmp_path / "a.pt"), "--model", "cifar_resnet8"])
    assert done.exit_code == 1 and "red\\x1b[31m\\nname" in done.stderr and "\x1b" not in done.stderr


NET = (
    "import sys\nimport torch\nfrom torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n"
    "        super().__init__()\n        self.w = nn.Parameter(torch.zeros(1))\n"
    "    def forward(self, x):\n        sys.exit(0)\ndef make():\n    return Net()\n"
)


@pytest.mark.parametrize(
    "code",
    ["import sys\nsys.exit(0)\n", "import sys\ndef make():\n    sys.exit(0)\n", NET],
    ids=["import", "factory", "run"],
)
def test_a_model_that_calls_sys_exit(tmp_path: Path, code: str) -> None:
    (tmp_path / "nets.py").write_text(code)
    torch.save({"w": torch.zeros(1)}, tmp_path / "a.pt")
    done = CliRunner().invoke(group, ["points", str(tmp_path / "a.pt"), "--model", f"{tmp_path / 'nets.py'}:make"])
    assert done.exit_code == 1 and "sys.exit" in done.stderr, done.output


@pytest.mark.parametrize("verb", ["points", "analyze", "compare", "heatmap", "validate", "train"])
@pytest.mark.parametrize("error", ["MemoryError()", "torch.cuda.OutOfMemoryError('all gone')", "KeyError('pixels')"])
def test_what_a_forward_raises_is_no_traceback(tmp_path: Path, verb: str, error: str) -> None:
    (tmp_path / "nets.py").write_text(
        NET.replace("sys.exit(0)", f"raise {error}").replace("def make():", "def make(num_classes=10, in_chans=3):")
    )
    target = f"{tmp_path / 'nets.py'}:make"
    words = {"points": [], "train": ["--steps", "1", "--train-images", "8", "--batch-size", "8", "--out", "run"]}
    named = ["--model", target] if verb == "train" else [target] * (2 if verb == "compare" else 1)
    done = CliRunner().invoke(group, [verb, *named, "--img-size", "32", *words.get(verb, ["--images", "8"])])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    expected = "KeyError: 'pixels'" if "Key" in error else "memory ran out: "
    assert expected in done.stderr and ("Wrapper" if "Key" in error else "--batch-size") in done.stderr

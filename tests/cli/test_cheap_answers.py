"""What needs no model is answered without torch: lists, help, and names that lead nowhere."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fourier_probe.cli import COMMANDS

CODE = """
import sys, json
from fourier_probe.cli import group
try:
    group(json.loads(sys.argv[1]), prog_name="fourier-probe")
finally:
    heavy = sorted({"torch", "timm", "matplotlib", "pandas", "scipy", "seaborn"} & sys.modules.keys())
    print("imported", *heavy)
"""
CHEAP = {
    **{f"{verb} --help": ([verb, "--help"], 0, "Usage: fourier-probe") for verb in COMMANDS},
    "--help": (["--help"], 0, "Usage: fourier-probe"),
    "figures --list": (["figures", "--list"], 0, "schedule-table"),
    "a wrong figure": (["figures", "schedule-tabel"], 1, "Did you mean schedule-table"),
    "figures in the way": (["figures", "schedule-table", "--out", "file"], 1, "cannot write into"),
    "no runs": (["figures", "schedule-table", "--runs", "nowhere"], 1, "there is no run in nowhere"),
    "a wrong verb": (["analyse"], 2, "Did you mean analyze"),
    "report of nothing": (["report", "nowhere.json"], 1, "there is no file or folder nowhere.json"),
    "analyze of nothing": (["analyze", "nowhere.pt"], 1, "there is no file or folder nowhere.pt"),
    "points of nothing": (["points", "runs/nowhere.safetensors"], 1, "there is no file or folder"),
    "heatmap of nothing": (["heatmap", "nowhere.ckpt"], 1, "there is no file or folder nowhere.ckpt"),
    "compare of nothing": (["compare", "nowhere.pt", "nowhere/spectra.json"], 1, "there is no file or folder"),
    "a wrong plan": (["sweep", "nowhere.toml"], 2, "does not exist"),
    "--version": (["--version"], 0, "version"),
    "a wrong flag": (["analyze", "timm:resnet18", "--imagse", "3"], 2, "No such option"),
    "a wrong value": (["analyze", "timm:resnet18", "--images", "many"], 2, "not a valid integer"),
    "a wrong schedule": (["train", "--schedule", "linaer"], 2, "Did you mean linear"),
    "a wrong schedule to draw": (["schedule", "--schedule", "linaer"], 2, "Did you mean linear"),
    "a wrong model": (["analyze", "timm:resnet5O"], 1, "Did you mean resnet50"),
    "a wrong model of ours": (["points", "timm:cifar_resnet2O"], 1, "Did you mean cifar_resnet20"),
    "a wrong model of torchvision": (["heatmap", "torchvision:resnet5O"], 1, "Did you mean resnet50"),
    "a wrong model for a file": (["validate", "file", "--model", "resnet5O"], 1, "Did you mean resnet50"),
    "a wrong model to train": (["train", "--model", "cifar_resnet2O"], 1, "Did you mean cifar_resnet20"),
    "no model matches": (["models", "resnet5O*"], 1, "no model matches"),
    "a model without timm:": (["analyze", "resnet50"], 1, "Did you mean timm:resnet50"),
    "a factory of nothing": (["analyze", "nowhere.py:net"], 1, "no such file: nowhere.py"),
    "a wrong plug-in": (["--plugin", "nowhere.py", "models"], 1, "expected a Python file"),
    "a place that cannot be written": (["train", "--out", "file/x"], 1, "cannot write into"),
}


@pytest.mark.parametrize("name", CHEAP)
def test_it_is_answered_without_anything_heavy(name: str, tmp_path: object) -> None:
    arguments, code, says = CHEAP[name]
    with open("file", "w"):  # noqa: PTH123
        pass
    done = subprocess.run([sys.executable, "-c", CODE, json.dumps(arguments)], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "imported"

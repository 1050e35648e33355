"""Every verb on a device without float64 (`pretended`), each number beside the CPU's. Run by test_no_float64.

python tests/runtime/no_float64.py [WORD ...]     a line of JSON: what was run -> "", or what was raised
"""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import fourier_probe as fp
import fourier_probe.models
from fourier_probe import checkpoints
from fourier_probe.runtime import distributed

sys.path.insert(0, str(Path(__file__).parents[1]))
from pretended import DEVICE, NoFloat64Error, There, pretended
from training.tiny import make_data, tiny

OUTSIDE = {"device", "seconds", "created", "date", "images_per_second", "environment", "config", "command",
           "source", "label"}  # fmt: skip
"""Says where and how fast numbers were made."""


def convolutions() -> nn.Module:
    """A small ResNet, one layer of which is attention."""
    torch.manual_seed(0)
    model = timm.create_model("cifar_resnet8", width=4, num_classes=4).eval()
    fp.recast_(model, ["layer3.0.conv2"])
    return model


def tokens() -> nn.Module:
    """A small ConViT."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2}
    model: nn.Module = timm.create_model("convit_tiny", local_up_to_layer=1, num_classes=4, **sizes).eval()
    return model


def batches(size: tuple[int, int], count: int = 2) -> list[tuple[Tensor, Tensor]]:
    """Labelled noise."""
    draw = torch.Generator().manual_seed(0)
    return [(torch.rand(12, 3, *size, generator=draw), torch.arange(12) % 4) for _ in range(count)]


def on_both(verb: Callable[[str, Path], Any]) -> None:
    """Run on the CPU and there, and compare every number of every table and result written."""
    with tempfile.TemporaryDirectory() as root:
        here, there = Path(root) / "here", Path(root) / "there"
        verb("cpu", here)
        with pretended():
            verb(DEVICE, there)
        files = sorted(p.relative_to(here) for p in here.rglob("*") if p.suffix in (".json", ".csv"))
        assert files == sorted(p.relative_to(there) for p in there.rglob("*") if p.suffix in (".json", ".csv"))
        assert files
        for file in files:
            same(_read(here / file), _read(there / file), str(file))


def _read(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with path.open() as file:
        return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def same(here: Any, there: Any, where: str) -> None:
    """Raises AssertionError where two results differ by more than float32 rounds."""
    if isinstance(here, dict):
        assert here.keys() == there.keys(), where
        for key in here.keys() - OUTSIDE:
            same(here[key], there[key], f"{where}.{key}")
    elif isinstance(here, list):
        assert len(here) == len(there), where
        for index, (one, other) in enumerate(zip(here, there, strict=True)):
            same(one, other, f"{where}[{index}]")
    elif isinstance(here, float):
        assert np.isclose(here, there, rtol=1e-2, atol=1e-4, equal_nan=True), f"{where}: {here} and {there}"
    else:
        assert here == there, f"{where}: {here} and {there}"


def analyze(model: Callable[[], nn.Module], size: tuple[int, int], **options: Any) -> None:
    """`analyze`, on tensors."""
    on_both(lambda device, out: fp.analyze(model(), batches(size), device=device, label="net", **options).save(out))


def validate() -> None:
    """`validate`, with everything."""
    on_both(
        lambda device, out: fp.validate(
            convolutions(), batches((16, 16)), lesions=True, device=device, label="net", out=out
        )
    )


def heatmap(**options: Any) -> None:
    """`heatmap`, on tensors."""
    on_both(
        lambda device, out: fp.heatmap(tokens(), batches((32, 32), 1), device=device, label="net", out=out, **options)
    )


def training(**options: Any) -> None:
    """`train`, across a switch."""
    with tempfile.TemporaryDirectory() as root:
        data = make_data(Path(root) / "data.npz", channels=3)
        given = {"schedule": "linear", "epochs": 2, "early_epoch": 1, "late_epoch": 1, **options}
        on_both(lambda device, out: fp.train(tiny(data, **given, device=device), out=out))


def refused() -> None:
    """Float64 is what it says it is: not there; nor are two devices one."""
    with pretended() as device:
        there = torch.ones(2, device=device)
        for wrong in (there.double, lambda: torch.zeros(1, dtype=torch.float64, device=device)):
            with contextlib.suppress(NoFloat64Error):
                wrong()
                raise AssertionError("float64 was made")
        with contextlib.suppress(RuntimeError):
            _ = there + torch.ones(2)
            raise AssertionError("two devices were one")


CHECKS: dict[str, Callable[[], None]] = {
    "no float64": refused,
    "analyze, oblong maps": functools.partial(analyze, convolutions, (16, 12), tokens=True, maps=True),
    "analyze, Hann window": functools.partial(
        analyze, convolutions, (16, 16), window="hann", log="plain", maps=True, kernels=True, cka=True
    ),
    "analyze, reliance": functools.partial(analyze, convolutions, (16, 16), attention=True),
    "analyze, attention of tokens": functools.partial(analyze, tokens, (32, 32), attention=True, kernels=True),
    "validate": validate,
    "heat map": functools.partial(heatmap, eps=0.1, stride=8, points=["blocks.?"]),
    "bands": functools.partial(heatmap, bands=2, eps=0.1),
    "filters": functools.partial(heatmap, filters=True),
    "training": functools.partial(training, mixup=0.5),
    "training, SAM": functools.partial(training, sam_rho=0.05, reprob=0.5),
}


def main() -> None:
    """Run them."""
    known = distributed.device_of

    def device_of(name: str) -> torch.device:
        return torch.device(DEVICE) if name == DEVICE else known(name)

    save = checkpoints.save
    checkpoints.save = lambda path, payload: save(  # of plain tensors alone, as those of a device are
        path, tree_map_only(There, lambda there: there.numbers, payload)
    )
    for module in list(sys.modules.values()):
        if vars(module).get("device_of") is known:
            module.device_of = device_of  # type: ignore[attr-defined]
    with pretended():  # torch counts its devices before the first backward pass
        words, out = sys.argv[1:], {}
    for name, check in CHECKS.items():
        if words and not any(word in name for word in words):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check()
            out[name] = ""
        except Exception:
            out[name] = traceback.format_exc()
        print(name, out[name], f"{time.process_time():.1f} s", file=sys.stderr, flush=True)
    print(json.dumps(out))


if __name__ == "__main__":
    main()

"""Single-bit flips, cuts and changed types over checkpoints of every format: the right result, or an error of ours.

Zip files, ours among them, carry checksums: what is read is what was written, always. The older format and safetensors
carry none: there one flipped bit may come back as one flipped bit of one tensor, or as another word of what the file
says of itself, and as nothing else (docs/security.md).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from fuzzing import flipped, outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fourier_probe.checkpoints import Checkpoint, build, read, save
from fourier_probe.checkpoints.writing import digest
from fourier_probe.errors import ProbeError
from fourier_probe.models import create
from fourier_probe.targets import resolve

FORMATS = ("ours", "zip", "legacy", "safetensors")
CHECKED = ("ours", "zip")  # formats with checksums
STATE = {
    "conv.weight": torch.arange(54.0).view(2, 3, 3, 3),
    "conv.bias": torch.tensor([0.5, -0.25]),
    "half": torch.linspace(-1, 1, 5).half(),
    "count": torch.tensor(7),
}
SAYS = {"arch": "cifar_resnet8", "model_args": {"num_classes": 10, "width": 4}, "epoch": 3}


def examples(count: int) -> settings:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(derandomize=True, deadline=None, database=None, suppress_health_check=quiet, max_examples=count)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Format -> a small whole file."""
    folder = tmp_path_factory.mktemp("whole")
    config = {"data": "bundled", "seed": 1, "input": {"size": [32, 32], "mean": [0.5], "std": [0.25]}}
    save(folder / "ours", {**SAYS, "state_dict": STATE, "config": config, "metrics": {"top1": 0.5}})
    foreign = {**SAYS, "state_dict": STATE, "args": argparse.Namespace(lr=np.float64(0.1), out=Path("x"), tags={1})}
    torch.save(foreign, folder / "zip")
    torch.save(foreign, folder / "legacy", _use_new_zipfile_serialization=False)
    metadata = {"arch": "cifar_resnet8", "model_args": '{"num_classes": 10}', "epoch": "3"}
    safetensors.torch.save_file(STATE, folder / "safetensors", metadata=metadata)
    return {name: (folder / name).read_bytes() for name in FORMATS}


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def changed_bits(state: dict[str, Tensor]) -> int | None:
    """In how many bits the tensors differ from `STATE`; None if names, types or shapes do."""
    if state.keys() != STATE.keys():
        return None
    pairs = [(state[name], STATE[name]) for name in STATE]
    if any((one.dtype, one.shape) != (other.dtype, other.shape) for one, other in pairs):
        return None
    return sum(int(np.unpackbits(bits(a).numpy() ^ bits(b).numpy()).sum()) for a, b in pairs)


def check(kind: str, path: Path, whole: Checkpoint) -> None:
    """The right result or an error of ours."""
    result = outcome(lambda: read(path))
    if isinstance(result, ProbeError):
        return
    changed = changed_bits(result.state)
    if kind in CHECKED:
        assert changed == 0
        assert (result.arch, result.model_args, result.epoch, result.config, result.metrics, result.conversions) == (
            whole.arch, whole.model_args, whole.epoch, whole.config, whole.metrics, whole.conversions
        )  # fmt: skip
    else:
        assert changed in (None, 0, 1)


@examples(400)
@given(data=st.data())
@pytest.mark.parametrize("kind", FORMATS)
def test_a_flipped_bit(tmp_path: Path, contents: dict[str, bytes], kind: str, data: st.DataObject) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(contents[kind])
    whole = read(path)
    path.write_bytes(flipped(contents[kind], data.draw(st.integers(0, 8 * len(contents[kind]) - 1))))
    check(kind, path, whole)


@examples(60)
@given(data=st.data())
@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_file(tmp_path: Path, contents: dict[str, bytes], kind: str, data: st.DataObject) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(contents[kind][: data.draw(st.integers(0, len(contents[kind]) - 1))])
    assert isinstance(outcome(lambda: read(path)), ProbeError)


def leaves(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in nested dictionaries and lists, tensors aside."""
    if where:
        yield where
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        if not isinstance(each, Tensor):
            yield from leaves(each, (*where, key))


def replaced(value: Any, where: tuple[Any, ...], new: Any) -> Any:
    if not where:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[where[0]] = replaced(copy[where[0]], where[1:], new)
    return copy


OTHERS = [
    None, True, 0, 3, -1, 10**6, 10**30, 0.5, float("nan"), float("inf"), "", "x", "../x", "\x1b[31m\n", b"x", [], [[]],
    [1, 2], {}, {"a": 1}, ("x",), torch.zeros(2), torch.empty(0, device="meta"),
]  # fmt: skip


@pytest.fixture(scope="module")
def payload() -> dict[str, Any]:
    """A checkpoint of ours that can be built and probed, as values."""
    model = create("cifar_resnet8", num_classes=3, width=1)
    from fourier_probe.models.gpsa.recast import recast_

    recast_(model, ["layer3.0.conv1"], gate=2.0)
    values = {
        "state_dict": dict(model.state_dict()),
        "arch": "cifar_resnet8",
        "model_args": {"num_classes": 3, "width": 1},
        "epoch": 2,
        "step": 0,
        "config": {
            "data": "bundled", "data_scale": 1.0, "schedule": "linear", "seed": 1,
            "input": {"size": [32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
        },
        "conversions": [{"layer": "layer3.0.conv1", "epoch": 1.0, "options": {"gate": 2.0}}],
        "metrics": {"top1": 0.5},
    }  # fmt: skip
    return {**values, "digest": digest(values), "version": 1}


@examples(120)
@given(data=st.data())
def test_one_field_of_another_type(tmp_path: Path, payload: dict[str, Any], data: st.DataObject) -> None:
    """Read, built, and asked for its input: as `analyze` does."""
    where = data.draw(st.sampled_from(list(leaves(payload))))
    mutated = replaced(payload, where, data.draw(st.sampled_from(OTHERS)))
    if "state_dict" not in where and "digest" not in where:
        mutated["digest"] = digest({key: value for key, value in payload.items() if key == "state_dict"})
    path = tmp_path / "a.pt"
    torch.save(mutated, path)
    result = outcome(lambda: resolve(str(path)).input_spec())
    assert isinstance(result, ProbeError) or result.channels == 3


@examples(60)
@given(data=st.data())
def test_one_field_of_a_foreign_file_of_another_type(tmp_path: Path, data: st.DataObject) -> None:
    values = {
        "state_dict": dict(create("cifar_resnet8", num_classes=3, width=1).state_dict()),
        "arch": "cifar_resnet8", "epoch": 2, "metric": 0.5, "version": 2,
        "args": {"model_kwargs": {"width": 1}, "num_classes": 3, "gp": "avg", "img_size": 32, "input_size": [3, 32, 32],
                 "data": "x", "seed": 1},
    }  # fmt: skip
    where = data.draw(st.sampled_from(list(leaves(values))))
    buffer = io.BytesIO()
    torch.save(replaced(values, where, data.draw(st.sampled_from(OTHERS))), buffer)
    path = tmp_path / "a.pt"
    path.write_bytes(buffer.getvalue())
    result = outcome(lambda: build(read(path)))
    assert isinstance(result, ProbeError) or result.in_chans == 3

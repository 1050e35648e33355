"""The index of a sharded checkpoint names files: each wrong one is one clear error that says what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fourier_probe.errors import CheckpointError
from fourier_probe.targets import resolve

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
BESIDE = "expected the names of safetensors files beside it. Save the network anew"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of which the second holds a tensor of the first too, and what else an index may lead to."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    save_file({"a": torch.zeros(2)}, tmp_path / ONE)
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / TWO)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / ONE).read_bytes()[:-3])
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickled.bin")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        *(({"a": name}, BESIDE) for name in ("..", ".", "", "/etc/passwd", "../x.safetensors", "a/b", "a\0b")),
        *(({"a": value, "b": ONE}, BESIDE) for value in (3, None, ["x"], {}, True)),
        (
            {"a": "no.safetensors", "b": ONE},
            r"names no.safetensors, which is not there \(1 of 2 files.*copy or download",
        ),
        ({"a": "x" * 5000}, r"which is not there|File name too long"),
        *((value, "names no file: expected a weight_map") for value in ({}, [], None, 3, "x")),
        ({"a": "model.safetensors.index.json"}, "is not a checkpoint"),
        ({"a": ONE, "b": TWO}, f"{TWO} holds a, which another shard of .* holds too.*Save it anew"),
        ({"a": "folder"}, "is a folder"),
        ({"a": "loop"}, "cannot be read: Too many levels of symbolic links"),
        ({"a": "gone"}, "no such file"),
        ({"a": "fifo"}, "a FIFO"),
        ({"a": "pickled.bin"}, "is no safetensors file, whatever its name says"),
        ({"a": "cut.safetensors"}, "damaged or incomplete"),
    ],
)
def test_an_index_that_names_something_else(weight_map: Any, message: str, folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=message) as caught:
        resolve(str(folder))
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"weight_map": {"a": "\\ud800"}}', "[" * 10**5, '{"weight_map": NaN}']
)
def test_an_index_that_is_none(text: str, folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        resolve(str(folder))

"""A file that changes while it is read: said, never two files in one network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fourier_probe.checkpoints import files
from fourier_probe.errors import CheckpointError


def exchanged(path: Path) -> None:
    save_file({"w": torch.ones(3)}, path.with_name("new"))
    path.with_name("new").replace(path)


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))  # as a writer in the same bytes does


@pytest.mark.parametrize(("reader", "change"), [("_load_safetensors", exchanged), ("_load_safetensors", touched),
                                                ("_load_zip", touched)])  # fmt: skip
def test_a_change_is_said(
    reader: str, change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "a", getattr(files, reader)
    (torch.save if reader == "_load_zip" else save_file)({"w": torch.zeros(3)}, path)
    assert files.load(path).values["w"].tolist() == [0, 0, 0]

    def between(*arguments: Any) -> Any:
        change(path)  # after its SHA-256 was taken
        return real(*arguments)

    monkeypatch.setattr(files, reader, between)
    with pytest.raises(CheckpointError, match=r"a was changed while it was read: run again"):
        files.load(path)

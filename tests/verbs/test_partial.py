"""What an interrupted heat map leaves: taken up where it is whole, begun anew where it is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fourier_probe as fp
from fourier_probe.io.locks import LOCK, BusyError, held
from fourier_probe.probe.heatmap import Response
from fourier_probe.runtime.messages import listening
from fourier_probe.verbs.partial import STATE, Partial

ROWS = {0: Response(3, 1, 0, {"a": (1.5, 0.25), "b": None}), 7: Response(None, 0, 0, {})}


def left(folder: Path, change: Callable[[dict[str, Any]], object] | None = None) -> dict[int, Response]:
    """What is taken up of a file of `ROWS`, changed."""
    Partial.begin(folder, "key", 10).add(ROWS)
    if change is not None:
        state = json.loads((folder / STATE).read_text())
        change(state)
        (folder / STATE).write_text(json.dumps(state))
    return Partial.begin(folder, "key", 10).done


def test_what_is_whole_is_taken_up(tmp_path: Path) -> None:
    assert left(tmp_path) == ROWS


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["rows"][0]["response"].update(wrong=4),
        lambda s: s["rows"][0]["response"].update(change={}),
        lambda s: s["rows"][0].update(number=1),
        lambda s: s["rows"][1]["response"].update(wrong=0),
        lambda s: s["rows"][0]["response"]["change"].update(a=[1.5, float("nan")]),
        lambda s: s["rows"][0]["response"]["change"].update(a=[1e300, 1]),
        lambda s: s["rows"][0]["response"].update(wrong=2**70),
        lambda s: s["rows"][0]["response"].update(wrong=3.5),
        lambda s: s["rows"].pop(),
        lambda s: s.update(rows=3),
        lambda s: s.update(version=99),
        lambda s: s.update(key="another"),
        lambda s: s.pop("digest"),
    ],
)
def test_what_is_not_what_was_written_is_begun_anew(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    notes: list[str] = []
    with listening(notes.append):
        assert left(tmp_path, change) == {}
    assert any("begun anew" in note for note in notes), notes


@pytest.mark.parametrize("kind", ["cut", "empty", "binary", "fifo", "dangling link", "loop"])
def test_a_file_that_cannot_be_read_is_begun_anew_and_replaced(kind: str, tmp_path: Path) -> None:
    left(tmp_path)
    path, whole = tmp_path / STATE, (tmp_path / STATE).read_bytes()
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind in ("dangling link", "loop"):
        path.symlink_to(path if kind == "loop" else tmp_path / "elsewhere")
    else:
        path.write_bytes({"cut": whole[:-9], "empty": b"", "binary": b"\x80\x00" * 99}[kind])
    assert left(tmp_path) == ROWS
    assert path.is_file() and not path.is_symlink() and not (tmp_path / "elsewhere").exists()


def test_a_link_is_read_and_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    left(tmp_path / "other")
    before = (tmp_path / "other" / STATE).read_bytes()
    (tmp_path / STATE).symlink_to(tmp_path / "other" / STATE)
    partial = Partial.begin(tmp_path, "key", 10)
    assert partial.done == ROWS
    partial.add({1: Response(0)})
    Partial.remove(tmp_path)
    assert (tmp_path / "other" / STATE).read_bytes() == before


def test_files_and_folders_of_the_user_s_own_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "partial-notes.json").write_text("mine")
    (tmp_path / "partial-3.json").mkdir()
    assert left(tmp_path) == ROWS
    Partial.remove(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"partial-notes.json", "partial-3.json"}


def test_one_process_at_a_time_writes_a_heat_map(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 2))
    data = [(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))]
    with held(tmp_path, leave=False), pytest.raises(BusyError, match="another process is writing a heat map into"):
        fp.heatmap(network, data, bands=2, out=tmp_path)
    assert list(tmp_path.iterdir()) == []
    fp.heatmap(network, data, bands=2, out=tmp_path)
    assert (tmp_path / "heatmap.json").exists() and not (tmp_path / LOCK).exists()

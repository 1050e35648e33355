"""A file is written whole or not at all, and an output folder is claimed before any work."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from fourier_probe.errors import OutputError
from fourier_probe.io import atomic


def test_writes_replace_and_leave_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "one")
    atomic.write_text(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_an_error_while_writing_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")

    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OutputError, match=r"cannot write 3 bytes to .*a.txt: No space left .*ENOSPC.*intact"):
        atomic.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_files_take_their_places_together_or_not_at_all(tmp_path: Path) -> None:
    for name in ("a", "b", "mine"):
        (tmp_path / name).write_text("old")
    with pytest.raises(OutputError), atomic.staged(tmp_path, ("a", "b", "c")) as place:
        atomic.write_text(place / "a", "new")
        raise OutputError("the disk is full")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old", "b": "old", "mine": "old"}
    with atomic.staged(tmp_path, ("a", "b", "c")) as place:
        atomic.write_text(place / "a", "new")
        atomic.write_text(place / "c", "new")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "new", "c": "new", "mine": "old"}


def test_not_a_number_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    atomic.write_json(tmp_path / "a.json", {"x": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_json_has_its_numbers_on_one_line_and_reads_back(tmp_path: Path) -> None:
    value = {"a": [1.5, None, -2e-07, True], "b": [[1, 2], [3]], "c": ["[\n 1\n]", "x"], "d": [], "e": [{"f": [0.1]}]}
    atomic.write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == value
    assert '"a": [1.5, null, -2e-07, true]' in text


def test_strays_of_a_killed_process_are_swept_and_those_of_a_living_one_kept(tmp_path: Path) -> None:
    dead = tmp_path / ".fourier-probe-abc.999999999"
    living = tmp_path / f".fourier-probe-def.{os.getpid()}"
    for stray in (dead, living):
        stray.write_bytes(b"x")
    assert atomic.sweep(tmp_path) == [dead]
    assert living.exists()


def test_a_folder_is_made_with_its_first_file_and_goes_again_if_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / "a" / "b"
    assert atomic.output_folder(deep) == deep
    assert not (tmp_path / "a").exists()
    with pytest.raises(RuntimeError), atomic.staged(deep, ("x",)) as stage:
        atomic.write_text(stage / "x", "new")
        raise RuntimeError
    assert not (tmp_path / "a").exists()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _full)
        with pytest.raises(OutputError, match="ENOSPC"):
            atomic.write_text(deep / "x", "new")
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()  # somebody's own: it stays
    with pytest.raises(RuntimeError), atomic.made(deep):
        raise RuntimeError
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]
    atomic.write_text(deep / "x", "new")
    assert (deep / "x").read_text() == "new"


def test_a_message_names_the_file_and_not_where_it_is_staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OutputError) as caught, atomic.staged(tmp_path, ("x",)) as stage:
        atomic.write_text(stage / "x", "new")
    assert f"to {tmp_path / 'x'}:" in str(caught.value)


def test_a_folder_in_the_place_of_a_result_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "b" / "inside").mkdir(parents=True)
    (tmp_path / "a").write_text("old")
    with pytest.raises(OutputError, match=r"b is a folder and would be a file"):
        atomic.output_folder(tmp_path, results=("?",), force=True)
    with pytest.raises(OutputError, match=r"is a folder"), atomic.staged(tmp_path, ("a", "b")) as stage:
        atomic.write_text(stage / "a", "new")
        atomic.write_text(stage / "b", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_text_that_utf8_cannot_hold_is_written_as_an_escape(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "a", "ü\udcff")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "ü\\udcff"


@pytest.mark.parametrize("kind", ["file", "below a file", "read-only"])
def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("x")
    folder = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "x", "read-only": Path("/proc/x")}[kind]
    with pytest.raises(OutputError, match=r"cannot write into .*--out"):
        atomic.output_folder(folder)
    assert (tmp_path / "file").read_text() == "x"


def test_results_that_are_there_are_kept_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(OutputError, match=r"already holds a.json: pass --force"):
        atomic.output_folder(tmp_path, results=("*.json",))
    assert atomic.output_folder(tmp_path, results=("*.json",), force=True) == tmp_path
    assert atomic.output_folder(tmp_path / "new" / "deep", results=("*.json",)) == tmp_path / "new" / "deep"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/abs/path", "..", ".", "a/../../b", "C:\\x", "ü/ñ", "", ".hidden", "x" * 500]
)
def test_names_never_leave_their_folder(tmp_path: Path, name: str) -> None:
    safe = atomic.safe_name(name)
    assert safe
    assert (tmp_path / safe).resolve().parent == tmp_path.resolve()
    assert not safe.startswith(".")
    assert len(safe) <= 120


@pytest.mark.parametrize(
    "name",
    ["net.pt", "timm:resnet18", "cifar_resnet20-cifar100-10pc-seed1", "../../etc/passwd", "a b(1).pt", "x" * 120, ""],
)
def test_plain_names_stay_as_they_were(name: str) -> None:
    clean = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.")
    assert atomic.safe_name(name) == (re.sub(r"(\.\.)+-?", "", clean)[:120].strip("-.") or "unnamed")


def test_names_that_lose_characters_do_not_share_a_file() -> None:
    """Non-ASCII alone, over 300 characters, bytes that are no text, ANSI escapes, what cleaning leaves nothing of."""
    names = [
        *("ü.pt", "ä.pt", "ü", "ä", "日本", "日本語", "pt", "unnamed", "...", "///"),
        *("x" * 300, "x" * 301, "x" * 299 + "y", "ü" * 300, "\udcff.pt", "\udcfe.pt", "\x1b[31ma.pt", "\x1b[32ma.pt"),
        *("31ma.pt", "a\nb", "a\tb", "a-b"),
    ]
    safe = [atomic.safe_name(name) for name in names]
    assert len(set(safe)) == len(names)
    assert all(each.isascii() and each.isprintable() and "/" not in each and len(each) <= 120 for each in safe)
    assert safe == [atomic.safe_name(name) for name in names]
    assert [atomic.safe_name(each) for each in safe] == safe


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _full(_handle: int) -> None:
    raise OSError(28, "No space left on device")

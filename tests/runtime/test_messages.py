"""Notes are warnings in Python, lines on stderr under the command line."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from fourier_probe.runtime.messages import ProbeNote, note, printing, progress


def test_a_note_is_a_warning_at_the_callers_line() -> None:
    with pytest.warns(ProbeNote, match="two points are left out") as caught:
        note("two points are left out")
    assert caught[0].filename == __file__


def test_the_command_line_prints_notes_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with printing():
        note("two points")
        monkeypatch.setenv("RANK", "1")
        note("not said again")
    assert capsys.readouterr().err == "note: two points\n"


def test_a_note_survives_a_closed_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, _text: str) -> None:
            raise ValueError("I/O operation on closed file")

    monkeypatch.setattr("sys.stderr", Closed())
    with printing():
        note("nobody hears this")


def test_progress_in_a_notebook_without_widgets_is_a_line_that_is_written_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with progress("images", 3) as advance:
        advance(2)
        assert capsys.readouterr().err == "\rimages: 2 of 3"
        advance(1)
    assert capsys.readouterr().err.strip() == "" and not recwarn.list


def test_progress_draws_nothing_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("images", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")

"""What a run of a study says goes to log.txt in its own folder, and nowhere else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from fourier_probe.errors import OutputError
from fourier_probe.studies.child import Child
from fourier_probe.studies.tasks import LOG


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder"])
def test_a_log_that_is_no_file_is_left_alone_and_nothing_starts(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    run, precious = tmp_path / "run", tmp_path / "precious"
    run.mkdir()
    precious.write_text("mine")
    if kind == "fifo":
        os.mkfifo(run / LOG)
    elif kind == "folder":
        (run / LOG).mkdir()
    else:
        (run / LOG).symlink_to(precious if kind == "link" else tmp_path / "made")
    with pytest.raises(OutputError, match=r"cannot write .*log\.txt: a (link|FIFO|folder).* Remove it"):
        Child(run)
    assert precious.read_text() == "mine" and not (tmp_path / "made").exists()

"""A run folder is one process's at a time, and a process that is killed lets go of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fourier_probe.errors import OutputError
from fourier_probe.io.locks import LOCK, BusyError, held
from fourier_probe.training.folder import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from fourier_probe.io.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            with pytest.raises(BusyError, match="another process is training into"), held(tmp_path / "run"):
                pass
            with pytest.raises(BusyError), RunFolder.claim(tmp_path / "run", force=True):
                pass
        finally:
            process.send_signal(signal.SIGKILL)
    with held(tmp_path / "run"):  # a child killed in the middle leaves its file behind, and no lock
        pass


def test_the_lock_is_of_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    with held(tmp_path / "a"), held(tmp_path / "b"), pytest.raises(BusyError), held(tmp_path / "a"):
        pass
    with pytest.raises(ZeroDivisionError), held(tmp_path / "c"):
        _ = 1 / 0
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder"])
def test_a_lock_that_is_no_file_is_refused_and_what_it_leads_to_is_left_alone(kind: str, tmp_path: Path) -> None:
    precious, run = tmp_path / "precious", tmp_path / "run"
    run.mkdir()
    precious.write_text("mine")
    if kind == "folder":
        (run / LOCK).mkdir()
    else:
        (run / LOCK).symlink_to(precious if kind == "link" else tmp_path / "made")
    with pytest.raises(OutputError, match=r"would be the lock of .*remove it"), held(run):
        pass
    assert precious.read_text() == "mine" and not (tmp_path / "made").exists()


def test_a_lock_that_nobody_waits_for_goes_again(tmp_path: Path) -> None:
    with held(tmp_path, leave=False):
        (tmp_path / "result").touch()
        with (
            pytest.raises(BusyError, match="another process is writing a map into"),
            held(tmp_path, "writing a map into"),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["result"]

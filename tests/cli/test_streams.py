"""stdout and stderr that are closed, full, or a broken pipe; and encodings that lack our characters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIST = ("figures", "--list")


def shell(redirect: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = f'set -o pipefail; "{sys.executable}" -m fourier_probe {" ".join(arguments)} {redirect}'
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True)  # noqa: S607


@pytest.mark.parametrize(("redirect", "says"), [(">&-", "Bad file descriptor (EBADF)"), (">/dev/full", "ENOSPC")])
@pytest.mark.parametrize("arguments", [LIST, ("--help",), ("report", "--help"), ("--version",)], ids=" ".join)
def test_results_that_cannot_be_printed_are_an_error(redirect: str, says: str, arguments: tuple[str, ...]) -> None:
    done = shell(redirect, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot print to standard output: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("redirect", [">/dev/full", "<&- >&- 2>&-"])
def test_files_are_written_all_the_same(redirect: str, tmp_path: Path) -> None:
    done = shell(redirect, "schedule", "--model", "cifar_resnet8", "--out", "out")
    assert sorted(path.name for path in Path("out").iterdir()) == ["schedule.json", "schedule.pdf", "schedule.png"]
    assert (tmp_path / "out" / "schedule.json").read_text().startswith("{")  # not what was printed
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def test_a_pipe_that_closes_early_is_quiet() -> None:
    done = shell("| true", "schedule", "--help")
    assert done.returncode in (0, 1)  # the pipe may close before or after the writing
    assert done.stderr == ""
    closed = '"$0" -m fourier_probe figures --list | { exec <&-; sleep 3; }'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {closed}", sys.executable],  # noqa: S607
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "")


def test_remarks_that_cannot_be_printed_do_not_cost_the_results() -> None:
    whole = shell("", *LIST)
    for redirect in ("2>&-", "2>/dev/full"):
        done = shell(redirect, *LIST)
        assert (done.returncode, done.stdout) == (0, whole.stdout)
    assert shell("2>&-", "figures", "no-such").returncode == 1


def test_an_encoding_without_our_characters_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = shell("", "schedule", "--help")
    assert done.returncode == 0
    done = shell("", "figures", "ü")
    assert (done.returncode, "there is no figure" in done.stderr) == (1, True)

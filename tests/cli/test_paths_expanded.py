"""Names of files that begin with `~`, of users that are none, and links that go round in a circle."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fourier_probe.cli import group
from fourier_probe.errors import DataError
from fourier_probe.io.paths import expanded, resolved

NOBODY = "~nosuchuser/x"
READING = [
    ["report", NOBODY],
    ["analyze", NOBODY],
    ["analyze", f"{NOBODY}.pt=resnet18"],
    ["compare", NOBODY, NOBODY],
    ["validate", NOBODY],
    ["heatmap", NOBODY],
    ["points", NOBODY],
    ["--plugin", NOBODY, "models", "resnet18"],
    ["--plugin", "loop.py", "models", "resnet18"],
    ["train", "--initial-checkpoint", NOBODY, "--out", "run"],
]
WRITING = [
    ["report", "x", "-o"],
    ["analyze", "timm:resnet18", "--out"],
    ["compare", "a", "b", "--out"],
    ["figures", "--out"],
    ["demo", "--out"],
    ["train", "--out"],
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "loop.py").symlink_to("loop.py")


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_what_is_read_from_a_user_that_is_none(words: list[str]) -> None:
    done = CliRunner().invoke(group, words)
    assert isinstance(done.exception, SystemExit) and done.exit_code in (1, 2), done.exception
    assert "rror: " in done.stderr and ("nosuchuser" in done.stderr or "loop.py" in done.stderr)


@pytest.mark.parametrize("words", WRITING, ids=" ".join)
def test_where_results_go_is_expanded_by_every_verb(words: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(group, [*words, NOBODY])
    assert done.exit_code == 2 and "~nosuchuser is no user with a home folder" in done.stderr
    assert not list(tmp_path.glob("~*"))


def test_a_path_in_python(tmp_path: Path) -> None:
    assert expanded("~/a.pt") == tmp_path / "home" / "a.pt"
    assert resolved("loop.py") == tmp_path / "loop.py"
    from fourier_probe.data import open_data

    with pytest.raises(DataError):
        open_data(NOBODY)

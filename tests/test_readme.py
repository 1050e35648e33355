"""README's snippet and first command print what README shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"[-+]?\d+\.\d*")
SAME = 0.011
"""A unit in the last digit that is shown."""


def shown_after(code: str) -> list[list[str]]:
    """Each block of this language that a block of output follows, with that output: the prose between is skipped."""
    return [list(pair) for pair in re.findall(rf"```{code}\n(.*?)```\s+```text\n(.*?)```", TEXT, re.DOTALL)]


def printed(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def same(ours: str, shown: str) -> bool:
    """The same words, and numbers that differ by a unit of the last digit at most: other processors round otherwise."""
    numbers = [list(map(float, NUMBER.findall(text))) for text in (ours, shown)]
    return NUMBER.sub("#", ours).split() == NUMBER.sub("#", shown).split() and numbers[0] == pytest.approx(
        numbers[1], abs=SAME
    )


def test_the_snippet_prints_what_stands_below_it() -> None:
    snippets = shown_after("python")
    assert len(snippets) == 1
    for code, output in snippets:
        assert same(printed("-W", "ignore", "-c", code), output)


def test_the_first_command_prints_the_table_that_is_shown(tmp_path: Path) -> None:
    (block,) = re.findall(r"```text\n(what each step does.*?)```", TEXT, re.DOTALL)
    command = next(line for line in TEXT.replace("\\\n", " ").splitlines() if line.startswith("fourier-probe compare"))
    words = shlex.split(command)[1:]
    words[words.index("--out") + 1] = str(tmp_path / "real")
    out = printed("-m", "fourier_probe", *words)
    assert (tmp_path / "real" / "zigzag.png").exists()
    table = out[out.index("what each step does") :][: len(block) + 100]
    lines = [line.rstrip() for line in table.splitlines()]
    for line in block.splitlines():
        assert any(same(each, line) for each in lines), line


def test_another_output_is_seen() -> None:
    assert same("[ 0.   -1.87]\n", "[ 0. -1.88]") and not same("[0. -1.87]", "[0. -1.90]")
    assert not same("top-1 10.0%", "top-5 10.0%") and not same("4 points", "5 points")

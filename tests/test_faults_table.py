"""docs/faults.md: every test it names exists, and no fault and no option of `train` is without one."""

from __future__ import annotations

import re
from pathlib import Path

from fourier_probe.training.config import NAMES, flag_of

TESTS = Path(__file__).parent
TEXT = (TESTS.parent / "docs" / "faults.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in TEXT.splitlines() if line.startswith("| ")]
FAULTS = [row for row in ROWS if row[0].isdigit()]
OPTIONS = {row[0].strip("`"): row[1] for row in ROWS if len(row) == 2 and row[0].startswith("`")}


def named(cell: str) -> list[tuple[Path, str]]:
    """The tests of a cell: file and function."""
    return [(TESTS / file, test) for file, test in re.findall(r"`([\w/]+\.py)::(\w+)`", cell)]


def test_every_test_that_is_named_exists() -> None:
    tests = [each for row in FAULTS for each in named(row[-1])] + [e for cell in OPTIONS.values() for e in named(cell)]
    assert len(tests) > 150
    for file, test in tests:
        assert file.is_file() and re.search(rf"^def {test}\(", file.read_text(), re.MULTILINE), f"{file}::{test}"


def test_every_fault_has_a_test() -> None:
    assert [int(row[0]) for row in FAULTS] == list(range(1, len(FAULTS) + 1)) and len(FAULTS) >= 40
    assert all(named(row[-1]) and len(row) == 4 for row in FAULTS)


def test_every_option_of_train_has_one() -> None:
    assert list(OPTIONS) == list(NAMES)
    shared = (TESTS / "training" / "tiny.py").read_text() + (TESTS / "training" / "conftest.py").read_text()
    for name, cell in OPTIONS.items():
        (file, _), *_ = named(cell)
        assert re.search(rf"\b{name}\b|{flag_of(name)}\b", file.read_text() + shared), f"{file.name} never sets {name}"

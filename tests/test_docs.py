"""The documentation's own rules: a line fits on a screen unless it is a table, code or a link."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_prose_is_over_120_characters(page: Path) -> None:
    code, long = False, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        exempt = code or line.lstrip().startswith("|") or "](" in line or "://" in line
        if len(line) > 120 and not exempt:
            long.append(number)
    assert not long, f"{page.name}: lines over 120 characters: {long}"

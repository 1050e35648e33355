"""The table of docs/compatibility.md: enough networks, each once, none read wrongly without a word."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"


def test_no_network_is_read_wrongly_in_silence() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [line.split(" | ") for line in lines if line.count(" | ") == 8][1:]
    names = [(row[0], row[1]) for row in rows]
    assert len(names) >= 150 and len(set(names)) == len(names)
    verdicts = {row[-1].rstrip(" |") for row in rows}
    assert verdicts <= {"right", "right, flagged", "in part, said", "refused, said"}
    assert sum(row[-1].startswith("right") for row in rows) > 0.8 * len(rows)

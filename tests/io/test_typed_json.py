"""Names that are no Unicode in a JSON file are read as text."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from fourier_probe.io.typed import read_result


class _Named(msgspec.Struct):
    schema: str
    version: int
    name: str


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a\udcffb", r"a\udcffb"), ("\U0001f600", "\U0001f600"), (r"\udcff", r"\udcff"), ("ü\ud83d", "ü\\ud83d")],
)
def test_half_a_pair_of_surrogates_is_written_out(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"schema": "s", "version": 1, "name": name}))
    assert read_result(tmp_path / "a.json", _Named, schema="s", version=1, again="try again").name == expected

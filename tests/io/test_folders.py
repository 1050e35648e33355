"""Where results go by default: the same call the same folder, another call another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fourier_probe.io.folders import default_folder

OPTIONS: dict[str, object] = {"target": "a.pt", "data": "bundled", "images": 1000, "points": ("*",), "axis": "true"}


def test_the_same_call_finds_its_folder_again() -> None:
    folder = default_folder("analyze", "a.pt", OPTIONS)
    assert re.fullmatch(r"results/analyze-a\.pt-[0-9a-f]{6}", folder.as_posix())
    assert folder == default_folder("analyze", "a.pt", dict(reversed(OPTIONS.items())) | {"strict": None})
    assert folder == default_folder("analyze", "a.pt", OPTIONS | {"target": Path("a.pt"), "points": ["*"]})


@pytest.mark.parametrize(
    "change", [{"target": "b/a.pt"}, {"data": "x.npz"}, {"images": 999}, {"points": ("a", "b")}, {"strict": True}]
)
def test_another_target_data_or_option_has_another_folder(change: dict[str, object]) -> None:
    assert default_folder("analyze", "a.pt", OPTIONS | change) != default_folder("analyze", "a.pt", OPTIONS)


@pytest.mark.parametrize("label", ["", "ü.pt", "x" * 5000, "\udcff", "\x1b[31m", "../..", "a/b", "two\nlines", "$"])
def test_any_label_makes_one_folder_that_can_be_made(label: str, tmp_path: Path) -> None:
    folder = tmp_path / default_folder("analyze", label, {"target": label, "kinds": {"b", "a"}})
    folder.mkdir(parents=True)
    assert folder.parent == tmp_path / "results"
    assert len(folder.name) <= 120 and folder.name.isascii() and folder.name.isprintable()

"""Where each verb writes by default: another target, data or option has another folder, another speed has not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from fourier_probe.cli import group
from fourier_probe.io import atomic


class AskedError(Exception):
    """The folder that a command wants to write to."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    folders: list[Path] = []

    def output_folder(folder: Path, **_: object) -> Path:
        folders.append(folder)
        raise AskedError(folder)

    monkeypatch.setattr(atomic, "output_folder", output_folder)
    return folders


CALLS = [
    ("analyze", "--data", "planted"),
    ("analyze", "--untrained"),
    ("analyze", "--images", "7"),
    ("analyze", "--points", "a", "--points", "b"),
    ("validate",),
    ("validate", "--split", "val"),
    ("heatmap", "--images", "7"),
    ("heatmap", "--bands", "4"),
    ("heatmap", "--bands", "5"),
    ("compare", "--by", "schedule"),
    ("compare", "--axis", "paper"),
]


def test_every_call_has_a_folder_of_its_own(asked: list[Path]) -> None:
    for verb, *words in CALLS:
        for target in ("timm:cifar_resnet8", "timm:cifar_resnet20"):
            done = CliRunner().invoke(group, [verb, target, *words])
            assert isinstance(done.exception, AskedError), done.output
    assert len({str(folder) for folder in asked}) == len(asked) == 2 * len(CALLS)
    for folder, (verb, *_) in zip(asked[::2], CALLS, strict=True):
        assert re.fullmatch(rf"results/{verb}-timm-cifar_resnet8-[0-9a-f]{{6}}", folder.as_posix())


def test_what_only_changes_the_speed_changes_no_folder_and_a_label_names_it(asked: list[Path]) -> None:
    words = ["analyze", "timm:cifar_resnet8", "--data", "bundled"]
    for more in ([], ["--workers", "2"], ["--batch-size", "5"], ["--device", "cpu"], ["--label", "CNN one"]):
        CliRunner().invoke(group, [*words, *more])
    assert len({folder.name.rpartition("-")[2] for folder in asked}) == 1
    assert asked[-1].name.startswith("analyze-CNN-one-")

"""Where each verb writes by default: another target, data or option has another folder, another speed has not."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fourier_probe.cli import group
from fourier_probe.io import atomic
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.naming import run_name


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


def test_plans_of_other_flags_have_other_folders(asked: list[Path]) -> None:
    calls = [["--epochs", "4"], ["--epochs", "5"], ["--early-epoch", "0.3"], ["--schedule", "reverse"]]
    for words in [*calls, ["--epochs", "4", "--workers", "1"]]:
        done = CliRunner().invoke(group, ["schedule", "--model", "cifar_resnet8", *words])
        assert isinstance(done.exception, AskedError), done.output
    assert len({*asked[:-1]}) == len(calls) and asked[-1] == asked[0]


README = Path(__file__).parents[2] / "README.md"


def _calls() -> list[list[str]]:
    """The commands of README, each once; the arguments that stand in for a user's files are there."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`((?:analyze|compare|heatmap|validate|report) [^`]+)`", README.read_text())
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [line.removeprefix("fourier-probe ") for line in lines if line.startswith("fourier-probe ")]
    calls = [shlex.split(command, comments=True) for command in [*commands, *spans]]
    return [call for place, call in enumerate(calls) if call not in calls[:place]]


def test_no_two_calls_of_readme_have_one_folder(asked: list[Path], tmp_path: Path) -> None:
    """Two runs may not either; a call that names its folder has that."""
    for name in ("ckpt.pt", "a.pt", "b.pt", "photos", "results/a", "results/b", "runs/small"):
        (tmp_path / name).mkdir(parents=True)
    folders: dict[str, list[str]] = {}
    for call in _calls():
        if "--out" in call or "-o" in call:
            folders.setdefault(call[call.index("--out" if "--out" in call else "-o") + 1], []).append(" ".join(call))
        elif call[0] == "train":
            context = click.Context(group.get_command(click.Context(group), "train"))  # type: ignore[arg-type]
            values, *_ = context.command.make_parser(context).parse_args(call[1:])
            given = {name: value for name, value in values.items() if value is not None}
            folders.setdefault(run_name(TrainConfig.of(given)), []).append(" ".join(call))
        elif call[0] in ("analyze", "compare", "heatmap", "validate", "schedule"):
            done = CliRunner().invoke(group, [word for word in call if word != "--pretrained"])
            assert isinstance(done.exception, AskedError), (call, done.output)
            folders.setdefault(str(asked[-1]), []).append(" ".join(call))
    assert len(folders) > 12
    assert {folder: calls for folder, calls in folders.items() if len(calls) > 1} == {}

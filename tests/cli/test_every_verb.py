"""What holds for every verb of the command line, whichever there are."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import fourier_probe as fp
from fourier_probe import cli
from fourier_probe.cli import COMMANDS
from fourier_probe.targets import ModelOptions
from fourier_probe.verbs.models import describe_models
from fourier_probe.verbs.points import list_points

GROUP = cli.group
TARGET = {"target", "targets"}  # what the arguments that take a target are called
LINES = 80


def _command(verb: str) -> click.Command:
    command = GROUP.get_command(click.Context(GROUP), verb)
    assert command is not None
    return command


def _flags(verb: str) -> set[str]:
    return {flag for parameter in _command(verb).params for flag in parameter.opts}


@pytest.mark.parametrize("verb", COMMANDS)
def test_json_is_there(verb: str) -> None:
    assert "--json" in _flags(verb)


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_target_can_be_given_a_label(verb: str) -> None:
    takes = {parameter.name for parameter in _command(verb).params if isinstance(parameter, click.Argument)}
    assert ("--label" in _flags(verb)) == (bool(takes & TARGET) or verb == "report")


def test_targets_are_known_by_these_names() -> None:
    """Else the test above would pass by looking past a verb."""
    verbs = [verb for verb in COMMANDS if {p.name for p in _command(verb).params} & TARGET]
    assert set(verbs) == {"analyze", "compare", "heatmap", "points", "validate"}


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_verb_is_flags_a_call_and_printing(verb: str) -> None:
    module = inspect.getmodule(_command(verb).callback)
    assert module is not None and module.__name__ == f"fourier_probe.cli.{verb}"
    assert len(inspect.getsource(module).splitlines()) < LINES


def test_points_say_the_label() -> None:
    result = CliRunner().invoke(GROUP, ["points", "timm:cifar_resnet8", "--no-self-check", "--label", "mine"])
    assert result.stdout.startswith("mine: ")


def test_a_report_says_what_it_shows_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU())
    fp.analyze(net, [torch.rand(20, 3, 8, 8)], label="net", out=tmp_path / "a", self_check=False)
    result = CliRunner().invoke(GROUP, ["report", "a", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["page"] == "report.html" and said["about"].startswith("1 target")


# --- what a shell user can do, a Python user can do ---

TWINS: dict[str, list[Callable[..., object]]] = {
    "analyze": [fp.analyze],
    "points": [list_points, ModelOptions],
    "models": [describe_models],
    "compare": [fp.compare],
    "report": [fp.report],
    "figures": [fp.figures],
    "train": [fp.train, fp.TrainConfig],
    "validate": [fp.validate],
    "sweep": [fp.sweep],
    "schedule": [fp.preview, fp.TrainConfig],
    "heatmap": [fp.heatmap],
    "demo": [fp.demo],
}
OTHERWISE = {
    "as_json": ".to_json()", "figure_width": "figure_style", "figure_look": "figure_style",
    "listing": "FIGURES.entries()", "config_file": "read_config(path)",
}  # fmt: skip
"""Options that are no keyword, and where docs/api.md says how a Python user has them."""
NAMED = {"limit": "images"}
NOT_OF = {"heatmap": {"amp"}, "schedule": {"out", "force"}}  # refused there; of `SchedulePlan.save`
ARGUMENTS = {"heatmap": {"targets": "target"}}


def _keywords(verb: str) -> dict[str, inspect.Parameter]:
    return {name: each for twin in TWINS[verb][::-1] for name, each in inspect.signature(twin).parameters.items()}


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_flag_is_a_keyword_of_the_verb(verb: str) -> None:
    keywords = _keywords(verb)
    renamed = {**NAMED, **ARGUMENTS.get(verb, {})}
    names = {renamed.get(str(p.name), str(p.name)) for p in _command(verb).params}
    assert names - set(keywords) - set(OTHERWISE) - NOT_OF.get(verb, set()) == set()


@pytest.mark.parametrize("verb", [verb for verb in COMMANDS if verb not in ("train", "schedule")])
def test_defaults_are_the_same(verb: str) -> None:
    """But for `device` and `amp`, whose "auto" and "none" are None in Python, and `out`, where None writes nothing."""
    context, keywords = click.Context(_command(verb)), _keywords(verb)
    for parameter in _command(verb).params:
        name = NAMED.get(str(parameter.name), str(parameter.name))
        default = parameter.get_default(context)
        if not isinstance(default, bool | int | float | str | Path) or name in ("device", "amp", "out"):
            continue  # none, or another one in Python
        if name in keywords and keywords[name].default is not inspect.Parameter.empty:
            ours = keywords[name].default
            assert default == (Path(ours) if isinstance(default, Path) else ours), name


def test_the_table_of_the_docs_has_every_verb_and_what_is_otherwise() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    table = page[page.index("## What a shell user") : page.index("## Verbs")]
    assert [verb for verb in COMMANDS if f"| `{verb}" not in table] == []
    assert [word for word in OTHERWISE.values() if word.split("(")[0] not in table] == []

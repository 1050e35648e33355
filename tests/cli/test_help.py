"""Help of every command: it fits 80 columns, and every option says what it is, its default, its unit."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete, CompletionItem, ShellComplete

from fourier_probe.cli import COMMANDS, group
from fourier_probe.training.config import TrainConfig, flag_of

WIDTH = 80


def _context(verb: str) -> click.Context:
    parent = click.Context(group, info_name="fourier-probe", max_content_width=WIDTH, terminal_width=WIDTH)
    command = group.get_command(parent, verb)
    assert command is not None
    return click.Context(command, info_name=verb, parent=parent)


def _options(verb: str) -> list[click.Option]:
    return [each for each in _context(verb).command.params if isinstance(each, click.Option)]


def _help(verb: str, option: click.Option) -> str:
    record = option.get_help_record(_context(verb))
    assert record is not None
    return record[1]


@pytest.mark.parametrize("verb", [None, *COMMANDS])
def test_help_fits_a_terminal(verb: str | None) -> None:
    context = click.Context(group, terminal_width=WIDTH) if verb is None else _context(verb)
    assert [line for line in context.get_help().splitlines() if len(line) > WIDTH] == []


def _fault(text: str, option: click.Option) -> str | None:
    """What an option's help lacks: a sentence, its default, once, or that it may be repeated, for then it is none."""
    if len(re.sub(r"\[(default: |x[<>]=).*?\]", "", text).split()) < 2:
        return "no sentence"
    if "default: -" in text:
        return "a number below 0 stands for no number"
    if option.is_flag:
        return "its default twice" if text.count("[default") > 1 else None
    if option.multiple:
        return None if "repeat." in text else "not that it may be repeated"
    return None if text.count("[default") == 1 else "its default, once"


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_option_says_what_it_is_and_its_default(verb: str) -> None:
    faults = {option.opts[-1]: _fault(_help(verb, option), option) for option in _options(verb)}
    assert {name: fault for name, fault in faults.items() if fault} == {}


QUANTITIES = {
    r"epoch|mixup-off|probe-every": r"epoch",
    r"step|cooldown|val-every|log-interval": r"step|epoch",
    r"\blr$|-lr$|lr-mult|layer-decay": r"learning rate",
    r"img-size|crop-padding": r"pixel",
    r"\bmean\b|\bstd\b": r"\[0, 1\]",
    r"\bgrid\b|key-grid": r"token|position",
    r"batch-size|\bimages\b|limit|train-images|probe-images": r"image",
    r"data-scale": r"0 to 1",
    r"val-split|scale-min": r"share",
    r"hflip|reprob|-prob$|drop": r"probability",
    r"seed": r"seed|weights",
    r"threads": r"threads",
    r"workers": r"processes",
    r"\beps\b": r"L2 norm",
    r"floor": r"\|F\|",
    r"stride": r"cycles|pixels",
    r"axis": r"rad/sample",
    r"width": r"inches",
}
"""Options whose name says what is counted, and the unit that their help must have."""


def _unit(name: str) -> str | None:
    return next((unit for quantity, unit in QUANTITIES.items() if re.search(quantity, name)), None)


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_option_that_counts_something_says_its_unit(verb: str) -> None:
    valued = {option.opts[-1].lstrip("-"): option for option in _options(verb) if not option.is_flag}
    without = [
        name
        for name, option in valued.items()
        if (unit := _unit(name)) and not re.search(unit, _help(verb, option), re.IGNORECASE)
    ]
    unknown = [name for name, option in valued.items() if option.type is click.FLOAT and not _unit(name)]
    assert without == [] and set(unknown) <= UNITLESS


UNITLESS = {
    *("color-jitter", "mixup", "cutmix", "smoothing", "weight-decay", "momentum", "clip-grad", "sam-rho"),
    *("decay-rate", "model-ema-decay", "anneal-gate", "anneal-locality"),
}  # fmt: skip
"""Shares, factors, logits and norms, whose help says which."""


def test_the_default_of_a_training_option_is_that_of_its_field() -> None:
    for option in _options("train"):
        for field in fields(TrainConfig):
            plain = isinstance(field.default, int | float | str) and not isinstance(field.default, bool)
            if option.name == field.name and plain and field.default != "" and "shown" not in field.metadata:
                shown = f"{field.default:.3g}" if isinstance(field.default, float) else str(field.default)
                assert f"[default: {shown}" in _help("train", option), flag_of(field.name)


# --- completion ---


def _completed(*words: str) -> list[CompletionItem]:
    shell: ShellComplete = BashComplete(group, {}, "fourier-probe", "_FOURIER_PROBE_COMPLETE")
    return shell.get_completions(list(words[:-1]), words[-1])


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_shell_completes_verbs_flags_and_choices(verb: str) -> None:
    assert [item.value for item in _completed(verb)][:1] == [verb]
    for option in _options(verb):
        flag = next(flag for flag in option.opts if flag.startswith("--"))
        assert flag in [item.value for item in _completed(verb, flag)]
        if isinstance(option.type, click.Choice) and not option.multiple:
            assert {item.value for item in _completed(verb, flag, "")} == set(option.type.choices)
    assert [item.value for item in _completed("train", "--schedule", "lin")] == ["linear"]


FILES = {"TARGET", "TARGET...", "RUN_OR_RESULTS...", "D", "FILE", "RUN@EPOCH"}
"""Metavars of what most often is a file or folder."""


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_shell_completes_files_where_one_is_named(verb: str) -> None:
    context = _context(verb)
    for parameter in context.command.params:
        named = str(parameter.name) in ("target", "targets", "results", "plan") or parameter.metavar in FILES
        if named or isinstance(parameter.type, click.Path):
            assert [item.type for item in parameter.shell_complete(context, "ck")][:1] == ["file"], parameter.name


def test_nothing_of_a_line_is_run_while_it_is_completed() -> None:
    Path("plugin.py").write_text("open('ran', 'w').close()")
    assert [item.value for item in _completed("--plugin", "plugin.py", "analy")] == ["analyze"]
    assert [item.value for item in _completed("--plugin=plugin.py", "analyze", "--axis", "t")] == ["true"]
    assert not Path("ran").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_lines_of_the_docs_turn_completion_on(shell: str) -> None:
    """As docs/first-steps.md has them; the shell's own script is click's."""
    code = "from fourier_probe.cli import main; main()"
    environment = {**os.environ, "_FOURIER_PROBE_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "_fourier_probe_completion" in done.stdout and "fourier-probe" in done.stdout, done.stderr
    line = f"_FOURIER_PROBE_COMPLETE={shell}_source fourier-probe"
    assert line in (Path(__file__).parents[2] / "docs" / "first-steps.md").read_text()
    assert f"{shell}_source" in click.Context(group).get_help()


@pytest.mark.skipif(shutil.which("bash") is None, reason="a shell")
def test_bash_completes_by_that_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "fourier-probe"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fourier_probe "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    script = """
        eval "$(_FOURIER_PROBE_COMPLETE=bash_source fourier-probe)"
        COMP_WORDS=(fourier-probe compare --by ""); COMP_CWORD=3
        _fourier_probe_completion fourier-probe "" --by
        echo "${COMPREPLY[*]}"
    """
    bash = str(shutil.which("bash"))
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["model data-scale schedule epoch"], done.stderr

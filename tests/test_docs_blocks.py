"""Every block of the documentation is what it says: Python compiles, TOML loads, commands have their options.

Nothing is run: a prose paragraph that a formatter joined, or a comment without #, is found all the same.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import pytest

from fourier_probe.cli import group

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "checkpoints").rglob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
]
PROGRAMS = ("fourier-probe", "make", "pip", "python", "git", "torchrun", "eval", "source", ".", "benchmarks/")
PROSE = ("text", "bibtex")  # outputs, formulas, citations


@dataclass(frozen=True)
class Block:
    """Code of a page: its first line, its language, and its text."""

    line: int
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """Fenced and indented blocks; of an indented one the language is told by its first line."""
    lines, found, at = page.splitlines(), [], 0
    while at < len(lines):
        start, line = at, lines[at]
        at += 1
        if line.lstrip().startswith("```"):
            while not lines[at].lstrip().startswith("```"):
                at += 1
            words = line.strip()[3:].split()
            found.append(Block(start + 2, words[0] if words else "", "\n".join(lines[start + 1 : at])))
            at += 1
        elif line.startswith("    ") and line.strip() and (start == 0 or not lines[start - 1].strip()):
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            text = "\n".join(each[4:] for each in lines[start:at]).strip()
            found.append(Block(start + 1, language_of(text), text))
    return found


def language_of(text: str) -> str:
    """Of a block that does not say: a shell's by its first program, TOML by its first section, else Python."""
    if text.startswith(PROGRAMS):
        return "sh"
    return "toml" if re.match(r"\[+\w+\]", text) else "python"


def problem(block: Block) -> str | None:
    """What is wrong with a block."""
    if block.language in PROSE:
        return None
    if block.language == "sh":
        return next((fault for line in commands(block.text) if (fault := fault_of(line))), None)
    try:
        if block.language == "python":
            compile(block.text, "block", "exec")
        elif block.language == "toml":
            tomllib.loads(block.text)
        else:
            return f"a fence without a language that is checked ({block.language!r}): python, toml, sh or text"
    except (SyntaxError, ValueError) as error:
        return f"{block.language}: {error}"
    return None


def commands(text: str) -> list[str]:
    """Lines of a shell, continued ones as one, without comments."""
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def fault_of(line: str) -> str | None:
    """What a shell, or click, would say of one line."""
    if not re.match(r"(\w+=\S+ )?\S", line) or not line.startswith((*PROGRAMS, "_FOURIER_PROBE_COMPLETE")):
        return f"no command: {line!r}"
    words = shlex.split(re.sub(r"--plugin \S+", "", line), comments=True)  # any verb has it: the group takes it out
    return parsed(tuple(words[1:])) if words[0] == "fourier-probe" else None


@cache
def parsed(words: tuple[str, ...]) -> str | None:
    """What click says of the words after `fourier-probe`, without running any callback."""
    with click.Context(group, info_name="fourier-probe") as context:
        command = group.get_command(context, words[0]) if words else None
        if command is None:
            return f"no command {words[:1]}"
        with click.Context(command, info_name=words[0], parent=context) as inner:
            try:
                values, rest, _ = command.make_parser(inner).parse_args(list(words[1:]))
                for parameter in command.get_params(inner):
                    value = values.get(parameter.name)
                    if (
                        isinstance(parameter, click.Argument)
                        and parameter.required
                        and not (isinstance(value, str | tuple) and value)
                    ):
                        return f"{words[0]}: missing {parameter.name}"
                    if isinstance(parameter.type, click.Choice) and isinstance(value, str):
                        parameter.type.convert(value, parameter, inner)
            except click.UsageError as error:
                return f"{words[0]}: {error.format_message()}"
            return f"{words[0]}: stray words {rest}" if rest else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_the_documentation_parses(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    faults = [f"line {block.line}: {fault}" for block in blocks(text) if (fault := problem(block))]
    spans = re.findall(r"`(fourier-probe \S[^`\n]* [^`\n]+)`", text)  # with arguments, not a verb alone
    faults += [f"`{span}`: {fault}" for span in spans if (fault := parsed(tuple(shlex.split(span)[1:])))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("    fourier-probe train         on the bundled images", "stray words"),
        ("    fourier-probe analyze vit.pt --model-arg a=1 --model-arg\n    b=2", "requires an argument"),
        ("    fourier-probe train --out\n    runs/constant", "requires an argument"),
        ("    fourier-probe analyze a.pt --imags 3", "No such option"),
        ("    fourier-probe nothing", "no command"),
        ("    fourier-probe analyze", "missing target"),
        ("    fourier-probe compare a b --by weather", "is not one of"),
        ("    [analyze]    # of the run\n    folder images = 5", "toml: "),
        ("    spectra.table()  # its slope\n    slope spectra.to_frame()", "python: "),
        ("```\nwho = knows\n```", "without a language"),
        ("```sh\nruns/constant\n```", "no command"),
    ],
)
def test_what_a_reflowed_paragraph_breaks_is_found(text: str, fault: str) -> None:
    (block,) = blocks(text)
    assert fault in (problem(block) or "")

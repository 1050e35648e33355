"""What verbs print: tables on stdout, remarks and progress on stderr. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import click

from fourier_probe.errors import printable
from fourier_probe.results.text_table import TextTable
from fourier_probe.runtime.launched import rank_and_world


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, nothing where that is no terminal; yields a function to advance it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, as wide as the terminal, or as $COLUMNS or 80 where there is none.

    No cell is broken: what does not fit beside the first column follows below, in a table of its own.
    """
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table

    width = shutil.get_terminal_size((80, 24)).columns
    heads, cells = list(map(printable, columns)), [list(map(printable, row)) for row in rows]
    console = Console(file=sys.stdout, width=max(width, 40), markup=False, highlight=False)
    prose(title)
    for chosen in _fitting(heads, cells, console.width):
        sizes = _sizes(heads, cells)
        sizes[0] = min(sizes[0], console.width // 2)
        drawn = Table(box=Box(RULED, ascii=True), show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
        for index in chosen:
            justify: Literal["left", "right"] = "left" if index == 0 else "right"
            drawn.add_column(heads[index], justify=justify, overflow="fold", width=sizes[index])
        for row in cells:
            drawn.add_row(*(row[index] for index in chosen))
        with console.capture() as text:  # printed by click: it ends quietly where a pipe is closed, rich by sys.exit
            console.print(drawn)
        click.echo("\n".join(line.rstrip() for line in text.get().splitlines()))
    click.echo()


RULED = "    \n    \n -- \n    \n    \n    \n    \n    \n"  # a line under the headings, nothing else


def _fitting(heads: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Columns in groups that fit a width, each with the first column.

    >>> _fitting(["point", "a long heading", "x"], [["stem", "1.00", "2"]], 40)
    [[0, 1, 2]]
    >>> _fitting(["p", "a", "b"], [["1" * 30] * 3], 70)
    [[0, 1], [0, 2]]
    """
    sizes = _sizes(heads, cells)
    first = min(sizes[0], width // 2)
    groups: list[list[int]] = [[0]]
    used = first
    for index, size in enumerate(sizes[1:], 1):
        if len(groups[-1]) > 1 and used + 2 + size > width:
            groups.append([0])
            used = first
        groups[-1].append(index)
        used += 2 + size
    return groups


def _sizes(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    """Least widths of columns: no word of a heading and no cell is broken."""
    return [
        max([len(word) for word in head.split()] + [len(row[index]) for row in cells])
        for index, head in enumerate(heads)
    ]


def answer(as_json: bool, plain: Callable[[], object], lines: Callable[[], Iterable[TextTable | str]]) -> None:
    """What a verb found, on stdout: its JSON, or for people."""
    if as_json:
        click.echo(json.dumps(plain(), allow_nan=False))
    else:
        show(lines())


def show(tables: Iterable[TextTable | str]) -> None:
    """Tables with their captions, and lines between them."""
    for item in tables:
        if isinstance(item, str):
            say(item)
            continue
        if item.columns:
            table(item.title, item.columns, item.rows)
        if item.caption:
            prose(item.caption)


def prose(text: str) -> None:
    """Sentences on stdout, wrapped to the terminal."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 120)
    for line in printable(text, lines=True).split("\n"):
        click.echo("\n".join(textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)))


def say(text: str) -> None:
    """A line on stdout, whatever names are in it."""
    click.echo(printable(text, lines=True))


def note(text: str) -> None:
    """A remark on stderr, once a run even under torchrun."""
    if rank_and_world()[0] == 0:
        click.echo(f"note: {printable(text)}", err=True)

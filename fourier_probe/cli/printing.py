"""What verbs print: tables on stdout, remarks and progress on stderr. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Literal, TextIO

import click

from fourier_probe.errors import printable
from fourier_probe.results.text_table import TextTable
from fourier_probe.runtime.launched import rank_and_world

_results: ContextVar[TextIO | None] = ContextVar("results", default=None)


@contextlib.contextmanager
def results_alone() -> Iterator[None]:
    """Inside, stdout has what this module prints; whatever else is printed there, as by a network, goes to stderr."""
    token = _results.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _results.reset(token)


def echo(text: str = "") -> None:
    """A part of the results, on stdout."""
    click.echo(text, file=_results.get())


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

    No word is broken: what does not fit beside the first column follows below, in a table of its own, and a cell that
    is wider than the terminal goes on in the next line, after a space or a mark of a name.
    """
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table

    width = max(shutil.get_terminal_size((80, 24)).columns, 40)
    heads, cells = list(map(printable, columns)), [list(map(printable, row)) for row in rows]
    console = Console(file=_results.get() or sys.stdout, width=width, markup=False, highlight=False)
    sizes = _sizes(heads, cells, width)
    prose(title)
    for chosen in _fitting(sizes, width):
        drawn = Table(box=Box(RULED, ascii=True), show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
        for index in chosen:
            wrapped = any(len(row[index]) > sizes[index] for row in cells)
            justify: Literal["left", "right"] = "left" if index == 0 or wrapped else "right"
            head = "\n".join(_lines(heads[index], sizes[index]))
            drawn.add_column(head, justify=justify, overflow="fold", width=sizes[index])
        for row in cells:
            drawn.add_row(*("\n".join(_lines(row[index], sizes[index])) for index in chosen))
        with console.capture() as text:  # printed by click: it ends quietly where a pipe is closed, rich by sys.exit
            console.print(drawn)
        echo("\n".join(line.rstrip() for line in text.get().splitlines()))
    echo()


RULED = "    \n    \n -- \n    \n    \n    \n    \n    \n"  # a line under the headings, nothing else


def _fitting(sizes: Sequence[int], width: int) -> list[list[int]]:
    """Columns in groups that fit a width, each with the first column.

    >>> _fitting([5, 7, 1], 40), _fitting([30, 30, 30], 70)
    ([[0, 1, 2]], [[0, 1], [0, 2]])
    """
    groups: list[list[int]] = [[0]]
    used = sizes[0]
    for index, size in enumerate(sizes[1:], 1):
        if len(groups[-1]) > 1 and used + 2 + size > width:
            groups.append([0])
            used = sizes[0]
        groups[-1].append(index)
        used += 2 + size
    return groups


def _sizes(heads: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """Widths of columns, so that no word of a heading and no cell is broken, and each fits beside the first.

    >>> _sizes(["point", "a long heading"], [["stem", "1.00"]], 80), _sizes(["p", "q"], [["x" * 50, "y" * 50]], 80)
    ([5, 7], [40, 38])
    """
    sizes = [
        max([len(word) for word in head.split()] + [len(row[index]) for row in cells])
        for index, head in enumerate(heads)
    ]
    first = min(sizes[0], width if len(sizes) == 1 else width // 2)
    return [first, *(min(size, width - first - 2) for size in sizes[1:])]


def _lines(text: str, width: int) -> list[str]:
    """A cell in lines, broken after a space, else after a mark of a name, else where it must be.

    >>> _lines("vit_small_patch14_reg4_dinov2.lvd142m", 30), _lines("mean over images", 12)
    (['vit_small_patch14_reg4_dinov2.', 'lvd142m'], ['mean over', 'images'])
    """
    lines = []
    while len(text) > width:
        cut = text.rfind(" ", 0, width + 1)
        if cut <= 0:
            cut = max(text.rfind(mark, 0, width) for mark in ".,/-_:+=") + 1 or width
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return [*lines, text]


def answer(as_json: bool, plain: Callable[[], object], lines: Callable[[], Iterable[TextTable | str]]) -> None:
    """What a verb found, on stdout: its JSON, or for people."""
    if as_json:
        echo(json.dumps(plain(), allow_nan=False))
    else:
        show(lines())


def show(tables: Iterable[TextTable | str]) -> None:
    """Tables with their captions, and sentences between them; a line that names files stays one line, to be copied."""
    for item in tables:
        if isinstance(item, str):
            (say if item.startswith("written to ") else prose)(item)
            continue
        if item.columns:
            table(item.title, item.columns, item.rows)
        if item.caption:
            prose(item.caption)


def prose(text: str) -> None:
    """Sentences on stdout, wrapped to the terminal."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 120)
    for line in printable(text, lines=True).split("\n"):
        echo("\n".join(textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)))


@contextlib.contextmanager
def going_on(left: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM end the command with a word on what the same command then does.

    Args:
        left: whether there is something that it goes on from.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        code = 130 if isinstance(stop, KeyboardInterrupt) else stop.code
        if code not in (130, 143):
            raise
        click.echo(f"interrupted{': run the same command again to go on' if left() else ''}", err=True)
        click.get_current_context().exit(int(code))


def say(text: str) -> None:
    """A line on stdout, whatever names are in it."""
    echo(printable(text, lines=True))


def note(text: str) -> None:
    """A remark on stderr, once a run even under torchrun."""
    if rank_and_world()[0] == 0:
        click.echo(f"note: {printable(text)}", err=True)

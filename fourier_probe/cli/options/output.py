"""Where results go, and for which page figures are made. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from fourier_probe.cli.options.parsing import NAMED, Decorator, inches, together
from fourier_probe.io.folders import default_folder
from fourier_probe.io.paths import expanded

NO_MATTER = ("device", "workers", "batch_size", "channels_last")
"""Flags that decide how fast a result is there, and not what it is."""


def folder(verb: str, label: str, decides: Mapping[str, object]) -> Path:
    """The folder of results that were given none: another target, data or option has another one."""
    return default_folder(verb, label, {name: value for name, value in decides.items() if name not in NO_MATTER})


class _FilePath(click.Path):
    """A path, its leading `~` replaced as a shell does: also in quotes, and after `--out=`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = expanded(str(super().convert(value, param, ctx)))
        if str(path).startswith("~"):
            self.fail(f"{path.parts[0]} is no user with a home folder; ./{path} is a file of that name.", param, ctx)
        return path


FILE_PATH = _FilePath(path_type=Path)
"""Type of an option that names a file or folder to write or to read."""


def out_option(default: str, what: str = "Folder for the results.") -> Decorator:
    """`--out`, whose default depends on what is asked for."""
    return click.option("--out", type=FILE_PATH, help=f"{what}  [default: {default}]")


def force_option(what: str = "results that are there") -> Decorator:
    """`--force`: nothing is overwritten without it."""
    return click.option("--force", is_flag=True, help=f"Overwrite {what}.")


def json_option(what: str) -> Decorator:
    """`--json`: what stdout then holds."""
    return click.option("--json", "as_json", is_flag=True, help=what)


def figure_options(command: Callable[..., object]) -> Callable[..., object]:
    """For which page the figures of a command are made: it runs inside `plots.figure_style`."""

    @functools.wraps(command)
    def styled(*args: object, figure_width: str | float | None, figure_look: str | None, **given: object) -> object:
        with contextlib.ExitStack() as stack:
            if figure_width is not None or figure_look is not None:
                from fourier_probe.plots.style import figure_style

                stack.enter_context(figure_style(figure_width, figure_look))
            return command(*args, **given)

    return _FIGURE(styled)


_FIGURE = together(
    click.option(
        "--width",
        "figure_width",
        metavar="WIDTH",
        callback=inches,
        help="Width of figures: single (3.5 inches, a journal's column), double (7), or inches.  "
        "[default: as wide as each needs]",
    ),
    click.option(
        "--style",
        "figure_look",
        metavar="NAME",
        type=NAMED,
        help="A matplotlib style or a .mplstyle file, on top of the figures' own look.  [default: none]",
    ),
)

"""Options and output shared by several verbs. Nothing here imports torch."""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from fourier_probe.errors import CheckpointError, DeviceError, ModelError, printable, suggest
from fourier_probe.io.folders import default_folder
from fourier_probe.registry import Registry
from fourier_probe.runtime import model_names
from fourier_probe.runtime.launched import rank_and_world

if TYPE_CHECKING:
    from fourier_probe.targets import ModelOptions
    from fourier_probe.verbs.analyze import ProbeOptions
    from fourier_probe.verbs.opening import ImageOptions

if TYPE_CHECKING:
    from fourier_probe.data.trust import NamedData

Command = TypeVar("Command", bound=Callable[..., Any])


class Registered(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5
    """A name in a registry, plug-ins' entries among them."""

    name = "name"

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The names, as click shows a choice."""
        return f"[{'|'.join(self.registry)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name, if there is one; else near names."""
        if value not in self.registry:
            near = suggest(str(value), self.registry) or f" Names are {', '.join(self.registry)}."
            self.fail(f"there is no {self.registry.kind} {value!r}.{near} One of your own needs --plugin FILE.py.")
        return value


NO_MATTER = ("device", "workers", "batch_size")
"""Flags that decide how fast a result is there, and not what it is."""


def folder(verb: str, label: str, decides: Mapping[str, object]) -> Path:
    """The folder of results that were given none: another target, data or option has another one."""
    return default_folder(verb, label, {name: value for name, value in decides.items() if name not in NO_MATTER})


def key_values(_ctx: click.Context, _param: click.Parameter, pairs: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE options as a dictionary; a value is a Python literal where it reads as one, else a string."""
    out: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE")
        try:
            out[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            out[key] = text
    return out


def layer_values(_ctx: click.Context, _param: click.Parameter, pairs: Sequence[str]) -> dict[str, int]:
    """LAYER=NUMBER options as a dictionary."""
    out: dict[str, int] = {}
    for pair in pairs:
        layer, _, text = pair.rpartition("=")
        if not layer or not text.isdigit():
            raise click.BadParameter(f"{pair!r} is not LAYER=NUMBER, such as layer3.0.conv1=5")
        out[layer] = int(text)
    return out


def numbers(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Comma- or space-separated numbers, for --mean and --std."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of numbers") from error


def size(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """An image size in pixels: `224`, or height x width as `224x320`."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{text!r} is not a size: give pixels as 224, or height x width as 224x320")
    return int(parts[0]), int(parts[-1])


_FACTORY = re.compile(r"(?P<file>.+\.py):\w+")


def existing(_ctx: click.Context, _param: click.Parameter, named: Any) -> Any:
    """Refuse a target that is certainly none before torch is imported; a verb looks at the others."""
    for name in [named] if isinstance(named, str) else named or ():
        _refuse(name)
    return named


def _refuse(name: str) -> None:
    if _there(name):
        return
    factory = _FACTORY.fullmatch(name)
    if factory is not None and "=" not in name and not _there(factory["file"]):
        raise ModelError(f"no such file: {printable(factory['file'])}; expected path/to/file.py:factory.")
    if "=" not in name and ":" in name:
        model_names.check(name)
    elif "=" not in name:
        hint = (
            f"Did you mean timm:{name}?"
            if name in model_names.registered()
            else "A model of timm or ours is named timm:NAME."
        )
        raise CheckpointError(f"there is no file or folder {printable(name)}. {hint}")


def _there(name: str) -> bool:
    try:
        return os.path.lexists(Path(name).expanduser())
    except (OSError, RuntimeError, ValueError):  # no file can be named so: the verb says why
        return True


def model_name(_ctx: click.Context, _param: click.Parameter, name: str | None) -> str | None:
    """Refuse what is certainly no model before torch is imported; FILE=NAME and factories are for the verb."""
    if name is not None and "=" not in name:
        model_names.check(name)
    return name


def model_options(command: Command) -> Command:
    """How to make the model of a target."""
    for option in reversed(
        [
            click.option(
                "--model",
                metavar="NAME",
                callback=model_name,
                help="Architecture of files that do not say: timm, ours, torchvision:NAME or file.py:factory. "
                "Of one file: FILE=NAME.",
            ),
            click.option(
                "--model-arg",
                "model_args",
                metavar="KEY=VALUE",
                multiple=True,
                callback=key_values,
                help="Argument of the model; repeat.",
            ),
            click.option(
                "--pretrained",
                is_flag=True,
                help="Load published weights, for timm:NAME and torchvision:NAME (needs a network).",
            ),
            click.option(
                "--use-ema/--no-ema",
                default=None,
                help="Probe the EMA weights or the raw ones.  [default: EMA where the file has it]",
            ),
            click.option("--untrained", is_flag=True, help="Probe the same architecture before any training."),
            click.option("--key", metavar="KEY", help="Where in the file the weights are, such as ema.model."),
            click.option("--prefix", metavar="NAME.", help="Take the weights whose names begin so, without it."),
            click.option("--ignore-extra", is_flag=True, help="Leave out weights the network has no place for."),
            click.option(
                "--img-size", metavar="PX", callback=size, help="Input size: 224, or 224x320 (height x width)."
            ),
            click.option("--mean", metavar="R,G,B", callback=numbers, help="Channel mean in [0, 1]."),
            click.option("--std", metavar="R,G,B", callback=numbers, help="Channel standard deviation."),
        ]
    ):
        command = option(command)
    return command


def data_source(asked: str | None, named: NamedData | None) -> str:
    """The data to open: `--data`, else what a checkpoint names where that may be used (`data.trust`), else bundled."""
    from fourier_probe.data.trust import data_of

    return data_of(asked, named)


def records(given: dict[str, Any]) -> tuple[ModelOptions, ImageOptions, ProbeOptions]:
    """The flags of `model_options`, `image_options` and `analyze` as the records that verbs take."""
    from fourier_probe.probe.definition import Definition
    from fourier_probe.targets import ModelOptions
    from fourier_probe.verbs.analyze import ProbeOptions
    from fourier_probe.verbs.opening import ImageOptions

    computed = {name: given[name] for name in ("log", "floor", "window", "axis", "metrics") if name in given}
    listens = "points branches maps map_scale attention kernels tokens cka strict self_check grid"
    listen = {name: given[name] for name in listens.split() if name in given}
    return (
        ModelOptions(**{name: given[name] for name in ModelOptions.__dataclass_fields__}),
        ImageOptions(
            images=given["limit"],
            **{name: given[name] for name in ImageOptions.__dataclass_fields__ if name != "images"},
        ),
        ProbeOptions(definition=Definition(**computed), device=device_of(given["device"]), amp=given["amp"], **listen),
    )


def map_options(command: Command) -> Command:
    """Mean 2-D spectra, and how they are drawn."""
    scale = click.option(
        "--map-scale",
        type=click.Choice(["common", "panel"]),
        default="common",
        show_default=True,
        help="Colours of --maps: one scale for all panels, or one per panel.",
    )
    return click.option("--maps", is_flag=True, help="Also the mean 2-D log-amplitude of each point.")(scale(command))


cka_option = click.option("--cka", is_flag=True, help="Also how alike layers are: linear CKA of all pairs.")
grid_option = click.option(
    "--grid", metavar="HxW", callback=size, help="Grid of token sequences whose order cannot be learnt, as 14x14."
)


def coverage_options(command: Command) -> Command:
    """What to do about steps that cannot be read."""
    for option in reversed(
        [
            grid_option,
            click.option("--strict", is_flag=True, help="Stop where a step cannot be read or a map lies elsewhere."),
            click.option(
                "--self-check/--no-self-check",
                default=True,
                show_default=True,
                help="Change patches of an image to test where the maps lie.",
            ),
        ]
    ):
        command = option(command)
    return command


def image_options_of(images: int | None) -> Callable[[Command], Command]:
    """Which images to look at, and how; `images` of them by default, all where it is None."""

    def decorate(command: Command) -> Command:
        for option in reversed(_image_options(images)):
            command = option(command)
        return command

    return decorate


def _image_options(images: int | None) -> list[Callable[[Command], Command]]:
    return [
        click.option(
            "--data",
            metavar="D",
            help="bundled, planted[:VARIANT], a .npz, an image folder, or a timm data set name.  "
            "[default: what the checkpoint was trained on, else bundled]",
        ),
        click.option("--split", default="test", show_default=True, help="train, val or test."),
        click.option(
            "--images",
            "limit",
            type=click.IntRange(min=1),
            default=images,
            show_default=True if images else "all",
            help="At most this many, spread over the split and its classes; the first of a stream.",
        ),
        click.option(
            "-b",
            "--batch-size",
            type=click.IntRange(min=1),
            default=32,
            show_default=True,
            help="Images in a batch.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Processes that read image files.",
        ),
        click.option(
            "--skip-bad",
            is_flag=True,
            help="Leave unreadable images out (counted in the result) instead of stopping.",
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1."),
        click.option(
            "--amp",
            type=click.Choice(["none", "bf16", "fp16"]),
            default="none",
            show_default=True,
            help="Run the forward in half precision.",
        ),
    ]


image_options = image_options_of(1000)


def _inches(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | float | None:
    """`single`, `double`, or a number of inches."""
    if text is None or text in ("single", "double"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no width: give single, double, or inches such as 5.5") from error


def figure_options(command: Command) -> Command:
    """For which page the figures of a command are made: it runs inside `plots.figure_style`."""

    @functools.wraps(command)
    def styled(*args: Any, figure_width: str | float | None, figure_look: str | None, **given: Any) -> Any:
        with contextlib.ExitStack() as stack:
            if figure_width is not None or figure_look is not None:
                from fourier_probe.plots.style import figure_style

                stack.enter_context(figure_style(figure_width, figure_look))
            return command(*args, **given)

    for option in reversed(
        [
            click.option(
                "--width",
                "figure_width",
                metavar="WIDTH",
                callback=_inches,
                help="Width of figures: single (3.5 inches, a journal's column), double (7), or inches.  "
                "[default: as wide as each needs]",
            ),
            click.option(
                "--style",
                "figure_look",
                metavar="NAME",
                help="A matplotlib style or a .mplstyle file, on top of the figures' own look.",
            ),
        ]
    ):
        styled = option(styled)
    return styled  # type: ignore[return-value]


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


def device_of(name: str) -> str:
    """The device that `--device` names; `auto` takes a GPU where there is one, and under torchrun the rank's own."""
    from fourier_probe.runtime import distributed

    try:
        return str(distributed.device_of(name))
    except DeviceError as error:
        raise click.UsageError(str(error)) from error


@contextlib.contextmanager
def ranks() -> Iterator[int]:
    """Join the other processes where torchrun started several; yields this one's rank."""
    if rank_and_world()[1] == 1:  # without torch
        yield 0
        return
    from fourier_probe.runtime.distributed import joined

    with joined("gloo") as (rank, _):  # sums are gathered on the CPU, whatever the model runs on
        yield rank

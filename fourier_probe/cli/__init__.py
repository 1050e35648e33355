"""The command line: one module per verb, imported only when the verb is called. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import signal
import sys
import warnings
from typing import Any, NoReturn

import click

from fourier_probe.cli import streams
from fourier_probe.errors import OutputError, ProbeError, Terminated, first_line, printable, suggest
from fourier_probe.runtime import allocator, messages

COMMANDS = {
    "analyze": "Spectra of every layer of a checkpoint or timm model.",
    "points": "List the probe points of a model, with grid and channels.",
    "models": "List the models that can be created by name.",
    "compare": "Spectra and depth profiles of several targets side by side.",
    "report": "One self-contained HTML page of results: sortable table, spectra to pick and hover.",
    "figures": "The figures and tables of the papers from finished runs.",
    "train": "Train a model; --schedule makes it a PRS run.",
    "validate": "Top-1, top-5, per class and confusion of a target on labelled images.",
    "sweep": "Run a whole study from a plan file, and pick it up where it stopped.",
    "schedule": "Print and draw what a schedule would convert, and when.",
    "heatmap": "Top-1 error and feature change under noise of each frequency.",
    "demo": "A CNN, a PRS model and attention on a task that a convolution cannot learn, in one picture.",
}


class Verbs(click.Group):
    """A group that imports a command's module when it is called, and turns our errors into exit codes in one place."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb, from the module of its name; what a network prints in it is no result."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = copy.copy(importlib.import_module(f"fourier_probe.cli.{cmd_name}").command)
        if (run := command.callback) is not None:

            @functools.wraps(run)
            def alone(*args: object, **options: object) -> object:
                from fourier_probe.cli.printing import results_alone

                with results_alone():
                    return run(*args, **options)

            command.callback = alone
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click does, with near names for a verb that does not exist."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}.{suggest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Load the plug-ins that `--plugin FILE.py` names, wherever it stands: they add to what options take."""
        from fourier_probe.plugins import load_installed, load_plugin

        rest, files = _without_plugins(args)
        if ctx.resilient_parsing:  # a shell completes a line: nothing of it is run
            return super().parse_args(ctx, rest)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # a plug-in may print, and stdout is for results
                for file in files:
                    load_plugin(file)
                load_installed()
        except ProbeError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)
        return super().parse_args(ctx, rest)

    def invoke(self, ctx: click.Context) -> object:
        """Run; exit 1 on a `ProbeError`, 130 on Ctrl-C."""
        try:
            with messages.printing():
                return super().invoke(ctx)
        except click.UsageError as error:
            raise click.UsageError(printable(error.format_message(), lines=True), ctx=error.ctx) from error
        except ProbeError as error:
            lines = [printable(line).lstrip() for line in str(error).split("\n")]
            click.echo("error: " + "\n  ".join(lines), err=True)  # no line of it can pass for one of ours
            ctx.exit(1)
        except SystemExit as error:
            if error.code in (130, 143):  # a signal
                raise
            click.echo(f"error: code of the model, or of a plug-in, called sys.exit({error.code!r}).", err=True)
            ctx.exit(1)
        except Exception as error:
            if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":  # torch's
                raise
            click.echo(
                f"error: memory ran out: {first_line(error, 'no message')}. Give fewer images at a time with "
                "--batch-size, or smaller ones with --img-size.",
                err=True,
            )
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fourier-probe")
def group() -> None:
    """See what a vision model responds to, frequency by frequency and layer by layer.

    \b
    fourier-probe analyze timm:vit_tiny_patch16_224      an architecture
    fourier-probe analyze ckpt.pt --data photos/         a checkpoint, your images
    fourier-probe train --schedule linear                a PRS run, bundled images

    With --plugin FILE.py (repeatable, anywhere) a Python file of yours adds metrics, schedules, sources, readers, block
    rules and figures. It is run: name only files you trust.

    \b
    Completion, by a line in ~/.bashrc (for others zsh_source, fish_source):
    eval "$(_FOURIER_PROBE_COMPLETE=bash_source fourier-probe)"
    """  # noqa: D301


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, _terminate)
    streams.guard()
    allocator.tame()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # remarks on odd metadata; what is wrong with an image we say
    try:
        group(prog_name="fourier-probe")
    except OutputError as error:  # of --help and --version, which click prints before it runs anything
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


def _without_plugins(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of a command line without `--plugin FILE`, and those files.

    >>> _without_plugins(["--plugin", "a.py", "models", "--plugin=b.py"])
    (['models'], ['a.py', 'b.py'])
    """
    rest: list[str] = []
    files: list[str] = []
    after = iter(words)
    for word in after:
        if word == "--plugin":
            files.append(next(after, ""))
        elif word.startswith("--plugin="):
            files.append(word.removeprefix("--plugin="))
        else:
            rest.append(word)
    return rest, files


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise Terminated

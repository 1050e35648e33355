"""How the text of a flag becomes a value. Nothing here imports torch."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import click
from click.shell_completion import CompletionItem

from fourier_probe.errors import CheckpointError, ModelError, printable, suggest
from fourier_probe.io.paths import expanded
from fourier_probe.registry import Registry
from fourier_probe.runtime import model_names

Decorator = Callable[[Callable[..., object]], Callable[..., object]]
"""What click's options and arguments are."""


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, shown in this order."""

    def decorate(command: Callable[..., object]) -> Callable[..., object]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class Registered(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5
    """A name in a registry, plug-ins' entries among them."""

    name = "name"

    def __init__(self, registry: Registry[object]) -> None:
        self.registry = registry

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The names, as click shows a choice."""
        return f"[{'|'.join(self.registry)}]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """The name, if there is one; else near names."""
        if value not in self.registry:
            near = suggest(str(value), self.registry) or f" Names are {', '.join(self.registry)}."
            self.fail(f"there is no {self.registry.kind} {value!r}.{near} One of your own needs --plugin FILE.py.")
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so."""
        return [CompletionItem(name) for name in self.registry if name.startswith(incomplete)]


class Named(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5
    """Text that most often names a file or folder: a shell that completes it offers those."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Whatever files begin so."""
        return [CompletionItem(incomplete, type="file")]


NAMED = Named()
"""Type of a target, of data, of a result."""


def key_values(_ctx: click.Context, _param: click.Parameter, pairs: Sequence[str]) -> dict[str, object]:
    """KEY=VALUE options as a dictionary; a value is a Python literal where it reads as one, else a string."""
    out: dict[str, object] = {}
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


Targets = TypeVar("Targets", str, tuple[str, ...])


def existing(_ctx: click.Context, _param: click.Parameter, named: Targets) -> Targets:
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
        return os.path.lexists(expanded(name))
    except (OSError, RuntimeError, ValueError):  # no file can be named so: the verb says why
        return True


def model_name(_ctx: click.Context, _param: click.Parameter, name: str | None) -> str | None:
    """Refuse what is certainly no model before torch is imported; FILE=NAME and factories are for the verb."""
    if name is not None and "=" not in name:
        model_names.check(name)
    return name


def strength(_ctx: click.Context, _param: click.Parameter, eps: float | None) -> float | None:
    """An L2 norm of noise."""
    if eps is not None and not 0 < eps <= 1e6:
        raise click.BadParameter(f"{eps} is no strength of noise: give a number above 0 (4.0 suits 32 pixels)")
    return eps


def inches(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | float | None:
    """`single`, `double`, or a number of inches."""
    if text is None or text in ("single", "double"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no width: give single, double, or inches such as 5.5") from error

"""The flags of `train` and `schedule`: the fields of `TrainConfig`. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import click

from fourier_probe.cli.options.parsing import NAMED, Decorator, Registered, key_values, layer_values, numbers, together
from fourier_probe.registry import Registry
from fourier_probe.runtime import model_names
from fourier_probe.training.config import TrainConfig, checked, flag_of
from fourier_probe.training.config_files import read_config

_SCALARS = {"str": str, "int": int, "float": float}


def _option(field: Field[object]) -> Decorator:
    """The flag of one field. Its default is shown, not set, so that a config file can give another."""
    meta, kind = field.metadata, str(field.type)
    names = [flag_of(field.name), field.name]
    if "short" in meta:
        names.insert(0, meta["short"])
    default = None if field.default is MISSING or field.default in ("", ()) else field.default
    shown = meta.get("shown") or (f"{default:.3g}" if isinstance(default, float) else str(default))
    text = meta["help"]
    if kind != "bool" and default is not None:
        text += f"  [default: {shown}{', by recipe' if meta.get('recipe') else ''}]"
    more: dict[str, Any] = {"help": text, "default": None}
    if kind == "bool":
        return click.option(f"{names[0]}/--no-{names[0][2:]}", field.name, **more)
    if kind.startswith("dict"):
        read = layer_values if meta.get("layers") else key_values
        metavar = meta.get("metavar", "KEY=VALUE")
        return click.option(*names, multiple=True, metavar=metavar, callback=read, help=text)
    if meta.get("numbers"):
        return click.option(*names, metavar=meta.get("metavar"), callback=numbers, help=text)
    if kind.startswith("tuple"):
        return click.option(*names, multiple=True, type=meta["element"], metavar=meta.get("metavar"), help=text)
    if isinstance(meta.get("choices"), Registry):
        return click.option(*names, type=Registered(meta["choices"]), **more)
    if meta.get("choices"):
        return click.option(*names, type=click.Choice(meta["choices"]), **more)
    takes = NAMED if meta.get("metavar") in ("FILE", "D") else _SCALARS[kind]
    return click.option(*names, type=takes, metavar=meta.get("metavar"), **more)


class Sections(click.Command):
    """A command whose help groups its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections of `TrainConfig`, then the command's own options."""
        named: dict[str, str] = {field.name: field.metadata["section"] for field in fields(TrainConfig)}
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(named.get(param.name or "", "This command"), []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


def config_options(command: Callable[..., object]) -> Callable[..., object]:
    """A flag for every field of `TrainConfig`, unset unless given; and `-c FILE`."""
    path = click.Path(exists=True, dir_okay=False, path_type=Path)
    file = click.option(
        "-c", "--config", "config_file", type=path, help="YAML, TOML or JSON of flags; flags win.  [default: none]"
    )
    return together(file, *map(_option, fields(TrainConfig)))(command)


def chosen(config_file: Path | None, flags: dict[str, object]) -> dict[str, object]:
    """What the user gave: the config file's options under the flags that were set."""
    options = {} if config_file is None else read_config(config_file)
    for field in fields(TrainConfig):
        value = flags.pop(field.name)
        if value is not None and value != () and value != {}:
            options[field.name] = checked(field.name, value, flag_of(field.name))
    if "model" in options:
        model_names.check(options["model"])
    return options

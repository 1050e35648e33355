"""`fourier-probe train`: a model, images, and a schedule -> a run folder. Its flags are the fields of `TrainConfig`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import click

from fourier_probe.cli import options
from fourier_probe.io import atomic
from fourier_probe.registry import Registry
from fourier_probe.runtime import model_names
from fourier_probe.runtime.launched import rank_and_world
from fourier_probe.training.config import TrainConfig, checked, flag_of
from fourier_probe.training.config_files import read_config

_SCALARS = {"str": str, "int": int, "float": float}


def _option(each: Field[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The flag of one field. Its default is shown, not set, so that a config file can give another."""
    meta, kind = each.metadata, str(each.type)
    names = [flag_of(each.name), each.name]
    if "short" in meta:
        names.insert(0, meta["short"])
    default = None if each.default is MISSING or each.default in ("", ()) else each.default
    shown = f"{default:.3g}" if isinstance(default, float) else str(default)
    text = meta["help"]
    if kind != "bool" and default is not None:
        text += f"  [default: {shown}{', by recipe' if meta.get('recipe') else ''}]"
    more: dict[str, Any] = {"help": text, "default": None}
    if kind == "bool":
        return click.option(f"{names[0]}/--no-{names[0][2:]}", each.name, **more)
    if kind.startswith("dict"):
        read = options.layer_values if meta.get("layers") else options.key_values
        metavar = meta.get("metavar", "KEY=VALUE")
        return click.option(*names, multiple=True, metavar=metavar, callback=read, help=text)
    if meta.get("numbers"):
        return click.option(*names, metavar=meta.get("metavar"), callback=options.numbers, help=text)
    if kind.startswith("tuple"):
        return click.option(*names, multiple=True, type=meta["element"], metavar=meta.get("metavar"), help=text)
    if isinstance(meta.get("choices"), Registry):
        return click.option(*names, type=options.Registered(meta["choices"]), **more)
    if meta.get("choices"):
        return click.option(*names, type=click.Choice(meta["choices"]), **more)
    return click.option(*names, type=_SCALARS[kind], metavar=meta.get("metavar"), **more)


class Sections(click.Command):
    """A command whose help groups its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections of `TrainConfig`, then the command's own options."""
        named: dict[str, str] = {each.name: each.metadata["section"] for each in fields(TrainConfig)}
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(named.get(param.name or "", "This command"), []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for every field of `TrainConfig`, unset unless given; and `-c FILE`."""
    for each in reversed(fields(TrainConfig)):
        command = _option(each)(command)
    path = click.Path(exists=True, dir_okay=False, path_type=Path)
    given = click.option("-c", "--config", "config_file", type=path, help="YAML, TOML or JSON of flags; flags win.")
    return given(command)


def chosen(config_file: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """What the user gave: the config file's options under the flags that were set."""
    given = {} if config_file is None else read_config(config_file)
    for each in fields(TrainConfig):
        value = flags.pop(each.name)
        if value is not None and value != () and value != {}:
            given[each.name] = checked(each.name, value, flag_of(each.name))
    if "model" in given:
        model_names.check(given["model"])
    return given


@click.command(cls=Sections)
@config_options
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME]")
@click.option("--resume", is_flag=True, help="Continue the run in the folder, exactly; other flags may be left out.")
@click.option("--fork", metavar="RUN@EPOCH", help="Begin at the exact state of another run that shares its beginning.")
@click.option("--force", is_flag=True, help="Overwrite the run in the folder.")
@click.option("--json", "as_json", is_flag=True, help="Print config.json with the result on stdout.")
def command(
    config_file: Path | None, out: Path | None, resume: bool, fork: str | None, force: bool, as_json: bool, **flags: Any
) -> None:
    """Train a model; with --schedule its convolutions become attention, layer by layer (PRS).

    Without flags: cifar_resnet20 on the bundled images. Defaults marked "recipe" depend on the model's family. Losses
    are in nats; epochs below 1 are fractions of training. Exit codes: 1 error, 143 after SIGTERM and 130 after Ctrl-C,
    with the state saved for --resume.

    \b
    fourier-probe train
    fourier-probe train --schedule linear --early-epoch 0.5 --late-epoch 0.2
    fourier-probe train --model resnet18 --data photos/ --schedule linear --epochs 90
    fourier-probe train --schedule constant --fork runs/cifar_resnet20-linear@3
    fourier-probe train --out runs/mine --resume
    torchrun --nproc-per-node 2 -m fourier_probe train --model resnet50 --data photos/
    """  # noqa: D301
    given = chosen(config_file, flags)
    if resume and force:
        raise click.UsageError("--resume continues a run and --force overwrites it: choose one.")
    if out is not None and rank_and_world()[0] == 0:
        atomic.output_folder(out)  # before torch is imported: a place that cannot be written is said at once
    from fourier_probe.training.progress import drawn
    from fourier_probe.verbs.train import train

    with drawn() as progress:
        run = train(given, out=out, resume=resume, fork=fork, force=force, progress=progress)
    if rank_and_world()[0] == 0:
        _report(run.path, as_json)


def _report(folder: Path, as_json: bool) -> None:
    import msgspec

    from fourier_probe.training.record import read_record

    record = read_record(folder)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(record), allow_nan=False))
        return
    known = dict(record.result.numbers() if record.result else ())
    names = {"train": "training", "val": "validation", "ema_val": "validation, EMA", "test": "test (once)"}
    rows = [
        [label, f"{known[f'{name}_loss']:.3f}", f"{100 * known[f'{name}_acc']:.2f}"]
        for name, label in names.items()
        if f"{name}_loss" in known and f"{name}_acc" in known
    ]
    if (conflict := known.get("test_conflict_acc")) is not None:
        rows.append(["test, where cue and label conflict", "-", f"{100 * conflict:.2f}"])
    epochs = record.result.epochs if record.result else 0
    options.table(f"{record.arch}, {epochs} epochs", ["images", "loss, nats", "top-1, %"], rows)
    if record.result is not None and record.result.bound is not None:
        options.say(f"planted task: {record.result.bound}")
    best = ", best.pt" * (folder / "best.pt").exists()
    options.say(f"written to {folder}: config.json, metrics.csv, conversions.csv, last.pt{best}")

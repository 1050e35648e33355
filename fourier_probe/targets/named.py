"""Targets that are made, not read: `timm:NAME`, `torchvision:NAME`, file.py:factory. May import models and results."""

from __future__ import annotations

from torch import nn

from fourier_probe.checkpoints.record import Input
from fourier_probe.errors import ModelError
from fourier_probe.io.paths import expanded
from fourier_probe.models import fresh, torchvision_names, zoo
from fourier_probe.results.records import Provenance
from fourier_probe.runtime.model_names import TORCHVISION
from fourier_probe.runtime.modes import keeping_random_state
from fourier_probe.targets.options import ModelOptions
from fourier_probe.targets.target import Target


def open_timm(name: str, options: ModelOptions, own: str | None) -> Target:
    """A model of timm or ours, untrained or with the published weights."""
    _no_file(name, options)
    return _published(name, name.removeprefix("timm:"), options)


def open_torchvision(name: str, options: ModelOptions, own: str | None) -> Target:
    """A model of torchvision's, untrained or with the published weights."""
    _no_file(name, options)
    target = _published(name, name, options)
    target.label = name.removeprefix(TORCHVISION)
    wanted = torchvision_names.wanted(target.label)
    side = (options.model_args or {}).get("image_size")  # of its vision transformers
    if wanted is not None:
        size = (side, side) if isinstance(side, int) else wanted.size
        target.transform = Input(size=size, mean=wanted.mean, std=wanted.std)
    return target


def is_factory(name: str) -> bool:
    """Whether `name` is file.py:factory of a file that is there, or could be nothing else."""
    parts = zoo.FACTORY.fullmatch(name)
    return parts is not None and ("=" not in name or expanded(parts["file"]).exists())


def open_factory(name: str, options: ModelOptions, own: str | None) -> Target:
    """The network that a factory returns, with whatever weights it gives it. The user typed it, so it is run."""
    _no_file(name, options)
    if options.pretrained:
        raise ModelError(f"--pretrained is for timm:NAME and torchvision:NAME: {name} loads its weights itself.")
    arguments = options.model_args or {}
    model = fresh.untrained(name, **arguments) if options.untrained else _made(name, False, arguments)
    weights, seed = ("untrained", fresh.SEED) if options.untrained else ("raw", None)
    provenance = Provenance(source=name, arch=name, model_args=arguments, weights=weights, seed=seed)
    return Target(label=name.rpartition(":")[2], provenance=provenance, model=model.eval())


def _published(name: str, arch: str, options: ModelOptions) -> Target:
    arguments, pretrained = options.model_args or {}, options.pretrained and not options.untrained
    weights, seed = ("raw", None) if pretrained else ("untrained", fresh.SEED)
    provenance = Provenance(source=name, arch=arch, model_args=arguments, weights=weights, seed=seed)
    return Target(label=arch, provenance=provenance, model=_made(arch, pretrained, arguments))


def _made(name: str, pretrained: bool, arguments: dict[str, object]) -> nn.Module:
    with keeping_random_state(fresh.SEED):
        return zoo.create(name, pretrained=pretrained, **arguments).eval()


def _no_file(name: str, options: ModelOptions) -> None:
    flags = {"--use-ema": options.use_ema, "--key": options.key, "--prefix": options.prefix}
    if used := [flag for flag, value in flags.items() if value]:
        raise ModelError(f"{name} names an architecture, not a file; for files only: {', '.join(used)}.")

"""What a run is called: by what it is, so that the same content has the same name on every machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, fields
from pathlib import Path

from fourier_probe.io import atomic
from fourier_probe.io.paths import expanded
from fourier_probe.io.regular import open_regular
from fourier_probe.training.config import FREE, SCHEDULE_FIELDS, TrainConfig, checked

_TIMM = ("torch", "hfds", "wds")  # sources whose slashes are no path


def run_name(config: TrainConfig) -> str:
    """A folder name for a run: model, and what is not the default of data, scale, schedule, seed.

    >>> run_name(TrainConfig(schedule="linear", seed=3))
    'cifar_resnet20-linear-seed3'
    """
    parts = [Path(config.model.partition(":")[0]).stem if ".py:" in config.model else config.model]
    if config.data != "bundled":
        parts.append(Path(config.data.partition(":")[0]).stem)
    if config.initial_checkpoint:
        parts.append(f"from-{_begins(Path(config.initial_checkpoint))}")
    if config.data_scale != 1:
        parts.append(f"{100 * config.data_scale:g}pc")
    if config.schedule != "none":  # other architectures
        parts += [f"stride{config.content_stride}"] * (config.content_stride != 1)
        parts += [f"{config.content_maps}map"] * (config.content_maps != 0)
    parts += [config.schedule] * (config.schedule != "none") + [f"seed{config.seed}"] * (config.seed != 0)
    return atomic.safe_name("-".join(parts))


def content_name(config: TrainConfig) -> str:
    """`run_name`, and eight digits of the SHA-256 of `content`.

    >>> content_name(TrainConfig(data="/here/cifar100.npz")) == content_name(TrainConfig(data="there/cifar100.npz"))
    True
    """
    text = json.dumps(content(config), sort_keys=True, separators=(",", ":"))
    return f"{run_name(config)[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def content(config: TrainConfig) -> dict[str, object]:
    """What a run learns from: every option that is not at its default, without `FREE`.

    Left out are defaults, so that an option that a later version adds renames nothing; what a schedule of `none` does
    not read; and the folders of `data` and of a model's file, which differ between machines.
    """
    unread = () if config.schedule != "none" else tuple(name for name in SCHEDULE_FIELDS if name != "schedule")
    options: dict[str, object] = {}
    for option in fields(TrainConfig):
        value = getattr(config, option.name)
        default = option.default_factory() if option.default_factory is not MISSING else option.default
        if option.name in (*FREE, *unread) or value == default:
            continue
        typed = checked(option.name, value, "config")
        options[option.name] = list(typed) if isinstance(typed, tuple) else typed
    if config.initial_checkpoint:
        options["initial_checkpoint"] = _digest(config.initial_checkpoint)
    options["model"], options["data"] = placeless(config.model), placeless(config.data)
    return options


def placeless(source: str) -> str:
    """The last part of a path; the whole of a timm name.

    >>> placeless("/data/photos/"), placeless("torch/cifar100"), placeless("my/net.py:make")
    ('photos', 'torch/cifar100', 'net.py:make')
    """
    return source if source.partition("/")[0].lower() in _TIMM else source.rstrip("/").rpartition("/")[2] or source


def _begins(path: Path) -> str:
    return path.parent.name if path.stem in ("last", "best") and path.parent.name else path.stem or path.name


def _digest(source: str) -> str:
    """The SHA-256 of an initial checkpoint, as it may have any name; its name where it cannot be read."""
    hashed = hashlib.sha256()
    path = next((p for name in (source, source.rpartition("=")[0]) if (p := expanded(name)).exists()), None)
    if path is None:
        return placeless(source)
    with open_regular(path / "last.pt" if path.is_dir() else path) as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()

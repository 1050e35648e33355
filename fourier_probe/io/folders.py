"""Where results go that were given no folder, and what a run folder is. Imports errors, atomic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from fourier_probe.io import atomic
from fourier_probe.io.paths import expanded

RESULTS = Path("results")
_DIGITS = 6
_LABEL = 80  # characters of a label in the name of a folder


def default_folder(verb: str, label: str, options: Mapping[str, object]) -> Path:
    """`results/<verb>-<label>-<6 hex digits of target, data and options>`: the same call finds the same folder again.

    Args:
        verb: what was done, such as `analyze`.
        label: of what, such as a target's; any text.
        options: what decides the result: the target, the data and every option, by name; those that are None, and
            their order, do not matter. Paths, tuples and numbers are told apart by how they are written.

    >>> default_folder("analyze", "timm:resnet18", {"target": "timm:resnet18", "data": "bundled", "images": 1000})
    PosixPath('results/analyze-timm-resnet18-cba894')
    """
    known = {name: value for name, value in options.items() if value is not None}
    text = json.dumps(known, sort_keys=True, separators=(",", ":"), default=_hashable)  # ASCII: a surrogate is escaped
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
    return RESULTS / f"{verb}-{atomic.safe_name(label)[:_LABEL].strip('-.')}-{digest}"


def _hashable(value: object) -> object:
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return dict(value) if isinstance(value, Mapping) else str(value)


def is_run(name: Path | str) -> bool:
    """Whether a target is a run folder; else it is a checkpoint or a result, each of one epoch."""
    path = expanded(name)
    return (path / "config.json").exists() or (path / "spectra").is_dir()

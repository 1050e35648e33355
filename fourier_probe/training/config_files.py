"""Options of a training out of a YAML, TOML or JSON file. Imports nothing that imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fourier_probe.errors import TrainingError, suggest
from fourier_probe.io import decode
from fourier_probe.training.config import NAMES, checked


def read_config(path: Path) -> dict[str, Any]:
    """Options out of a YAML, TOML or JSON file, keys with dashes or underscores; a run's config.json works too.

    Raises:
        TrainingError: the file cannot be read, or names an option that does not exist.
    """
    values = read_values(path)
    if isinstance(values.get("config"), dict):  # a run's config.json
        values = values["config"]
    options = {key.replace("-", "_"): value for key, value in values.items()}
    unknown = [name for name in options if name not in NAMES]
    if unknown:
        raise TrainingError(
            f"{path} has an unknown option {decode.shown(unknown[0])}.{suggest(unknown[0][:80], NAMES)}"
        )
    return {name: checked(name, value, str(path)) for name, value in options.items()}


def read_values(path: Path) -> dict[str, Any]:
    """What a YAML, TOML or JSON file holds, which must be keys and values.

    Raises:
        TrainingError: the file cannot be read, or holds something else.
    """
    readers = {
        ".json": decode.read_json,
        ".toml": decode.read_toml,
        ".yaml": decode.read_yaml,
        ".yml": decode.read_yaml,
    }
    if path.suffix not in readers:
        raise TrainingError(f"{path}: expected a .yaml, .toml or .json file.")
    values = readers[path.suffix](path, TrainingError)
    if not isinstance(values, dict):
        raise TrainingError(f"{path} holds a {type(values).__name__}: expected options, a key each.")
    return values

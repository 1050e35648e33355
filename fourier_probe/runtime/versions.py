"""Which versions have a part in a result, and when it was made, for every file that says so. Imports plugins only."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fourier_probe import plugins

PACKAGES = ("torch", "timm", "numpy")


def own() -> str:
    """The version of this package; of a checkout that is not installed, that of its pyproject.toml and `+checkout`."""
    try:
        return version("fourier-probe")
    except PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        lines = project.read_text().splitlines() if project.is_file() else []
        number = next((line.partition('"')[2].rstrip('"') for line in lines if line.startswith("version = ")), "0")
        return f"{number}+checkout"


def now() -> str:
    """When a result was made: UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Name -> version of this package, of those that compute, of Python, and of every plug-in."""
    numbers = {"fourier-probe": own()}
    for name in PACKAGES:
        try:
            numbers[name] = version(name)
        except PackageNotFoundError:  # built from source
            numbers[name] = "unknown"
    return {**numbers, "python": platform.python_version(), **plugins.versions()}

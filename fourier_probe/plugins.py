"""Python files and packages that register what a user adds. Imports errors only.

A plug-in is named by the user, on the command line (`--plugin FILE.py`), in Python (`load_plugin`), or by installing a
package with the entry point group `fourier_probe.plugins`. Files that are read never name one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

from fourier_probe.errors import ProbeError
from fourier_probe.io.paths import resolved

VARIABLE = "FOURIER_PROBE_PLUGINS"
"""Environment variable that hands plug-in files on to child processes, separated as PATH is."""

GROUP = "fourier_probe.plugins"
_PREFIX = "plugin "
_loaded: dict[str, str] = {}  # plug-ins of this process: path or entry point -> SHA-256 of the file


class PluginError(ProbeError):
    """A plug-in that cannot be found or that fails when it is loaded."""


def module_name(file: Path) -> str:
    """What a Python file of the user's is called as a module, whether it is a plug-in, a target or both.

    A name of its own, so that pickling and dataclasses find the module and two files called model.py do not meet.
    """
    return f"fourier_probe_file_{hashlib.sha256(os.fsencode(resolved(file))).hexdigest()[:16]}"


def load_plugin(path: Path | str) -> None:
    """Run a Python file that registers something; once per process. Child processes load it too.

    Raises:
        PluginError: there is no such file, or it fails; names the file and what was raised.
    """
    file = resolved(path)
    if str(file) in _loaded:
        return
    if not file.is_file() or file.suffix != ".py":
        raise PluginError(f"--plugin {path}: expected a Python file (FILE.py) that exists.")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    name = module_name(file)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"--plugin {path}: it cannot be loaded as a Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ProbeError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(f"--plugin {path} fails when it is loaded: {type(error).__name__}: {error}") from error
    _loaded[str(file)] = digest
    os.environ[VARIABLE] = os.pathsep.join(name for name in _loaded if name.endswith(".py"))


def load_installed() -> None:
    """Load what installed packages offer, and what a parent process loaded."""
    for point in entry_points(group=GROUP):
        if point.value not in _loaded:
            try:
                point.load()
            except (Exception, SystemExit) as error:
                raise PluginError(
                    f"the plug-in {point.name!r} ({point.value}) fails: {type(error).__name__}: {error}. Mend it, or "
                    "uninstall it."
                ) from error
            _loaded[point.value] = ""
    for file in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        load_plugin(file)


def versions() -> dict[str, str]:
    """Plug-ins of this process as results record them beside versions: "plugin FILE.py" -> SHA-256."""
    return {f"{_PREFIX}{Path(name).name}": digest or "installed" for name, digest in _loaded.items()}


def differing(recorded: Mapping[str, str]) -> str:
    """What to say of plug-ins that a file was made with and that are not loaded, or have changed; empty if nothing.

    A file that is read never loads one: it is named here for the user to give.

    >>> differing({"torch": "2.10", "plugin gone.py": "00ff"})
    'made with the plug-in gone.py, which is not loaded: pass --plugin gone.py if you trust it'
    """
    now, parts = versions(), []
    for name, digest in recorded.items():
        file = name.removeprefix(_PREFIX)
        if file == name:
            continue
        if name not in now:
            how = f"pass --plugin {file} if you trust it" if file.endswith(".py") else "install it if you trust it"
            parts.append(f"made with the plug-in {file}, which is not loaded: {how}")
        elif now[name] != digest:
            parts.append(
                f"made with another version of the plug-in {file}: {digest[:12]}, now {now[name][:12]} (SHA-256)"
            )
    return "; ".join(parts)

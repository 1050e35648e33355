"""Registries and plug-ins: names, near names, and files that a user names."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fourier_probe import plugins
from fourier_probe.registry import Registry, RegistryError


def test_built_in_entries_are_imported_when_asked_for() -> None:
    registry: Registry[object] = Registry("thing", {"late": ("fourier_probe.errors:ProbeError", "an error")})
    assert registry.names() == ["late"] and registry.entries()[0].summary == "an error"
    assert registry.get("late").__name__ == "ProbeError"  # type: ignore[attr-defined]
    assert "late" in registry and len(registry) == 1 and list(registry) == ["late"]


def test_names_are_unique_across_modules() -> None:
    registry: Registry[object] = Registry("thing", {"late": ("fourier_probe.errors:ProbeError", "an error")})
    with pytest.raises(RegistryError, match="a thing 'late' already"):
        registry.register("late")(test_names_are_unique_across_modules)

    @registry.register("mine")
    def mine() -> None:
        """First line."""

    registry.register("mine")(mine)  # a module that is loaded again replaces its own
    assert registry.entries()[1].summary == "First line."


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setenv(plugins.VARIABLE, "")


@pytest.mark.usefixtures("_fresh")
def test_a_plugin_file_is_run_once_and_handed_on(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from pathlib import Path\nwith open('runs', 'a') as log: log.write('x')\n")
    plugins.load_plugin(file)
    plugins.load_plugin(str(file))
    assert Path("runs").read_text() == "x"
    assert plugins.versions()["plugin mine.py"] and os.environ[plugins.VARIABLE] == str(file)
    code = "from fourier_probe import plugins; plugins.load_installed(); print(*plugins.versions())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "plugin mine.py" and Path("runs").read_text() == "xx"


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("body", ["raise ValueError('no')", "import sys; sys.exit(0)", "def (", None])
def test_a_plugin_that_fails_is_named(tmp_path: Path, body: str | None) -> None:
    file = tmp_path / "bad.py"
    if body is not None:
        file.write_text(body)
    with pytest.raises(plugins.PluginError, match=r"bad\.py"):
        plugins.load_plugin(file)
    assert plugins.versions() == {}


def test_an_installed_plugin_that_exits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("quitter", "sys:exit", plugins.GROUP)
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda _: sys.exit(0))
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    with pytest.raises(plugins.PluginError, match=r"'quitter' .* fails: SystemExit"):
        plugins.load_installed()

"""What a result records of the packages that made it, installed or not."""

from __future__ import annotations

import importlib.metadata

import pytest

import fourier_probe
from fourier_probe.runtime import versions


def test_versions_name_what_computes() -> None:
    found = versions.versions()
    assert found["fourier-probe"] == fourier_probe.__version__ == importlib.metadata.version("fourier-probe")
    assert found["torch"] == importlib.metadata.version("torch") and found["python"].count(".") == 2


def test_a_checkout_that_is_not_installed_knows_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m fourier_probe` in a clone trains and analyzes too."""

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    installed = versions.own()
    monkeypatch.setattr(versions, "version", missing)
    assert versions.own() == f"{installed}+checkout"
    assert versions.versions()["torch"] == "unknown"

"""Every name that is exported has an example in its docstring; pytest runs them all (--doctest-modules)."""

from __future__ import annotations

import pytest

import fourier_probe as fp


@pytest.mark.parametrize("name", sorted(set(fp.__all__) - {"__version__"}))
def test_every_exported_name_has_an_example(name: str) -> None:
    assert ">>> " in (getattr(fp, name).__doc__ or ""), f"fp.{name} has no example in its docstring"

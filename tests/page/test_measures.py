"""Further measures on the report page: figure, table, how to read it; nothing where there is none."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from fourier_probe import analyze
from fourier_probe.page import Entry, measures, render
from fourier_probe.results.spectra import Spectra


def result(**options: bool) -> Spectra:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    images = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return analyze(model, [images], self_check=False, **options)  # type: ignore[arg-type]


def test_each_measure_has_its_figure_table_and_reading_once() -> None:
    spectra = result(maps=True, tokens=True, cka=True, kernels=True)
    html = render([Entry("a <net>", None, spectra), Entry("b", None, spectra)])
    assert html.count("data:image/png;base64,") == 8 and "a &lt;net&gt;" in html and "<net>" not in html
    for name in ("maps", "tokens", "cka", "kernels"):
        assert html.count(f'id="measure-{name}"') == 1
    assert html.count("<summary>Table</summary>") == 6  # maps have none
    assert 'href="#measures"' in html and render([Entry("a", None, spectra)]) == render([Entry("a", None, spectra)])
    assert len(html.encode()) < 1_000_000


def test_without_any_there_is_no_section_and_without_room_there_are_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "#measures" not in render([Entry("a", None, result())])
    monkeypatch.setattr(measures, "ROOM", 10)
    html = measures.section([Entry("a", None, result(tokens=True))])
    assert "data:image" not in html and "1 figures are in the result files alone" in html and "<table>" in html
    assert re.search(r"<td>input</td>", html)

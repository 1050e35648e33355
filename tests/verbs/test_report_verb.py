"""`fp.report`: results as paths and as objects, into a page that may be written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fourier_probe as fp
from fourier_probe.errors import OutputError, ResultError


@pytest.fixture(scope="module")
def spectra() -> fp.Spectra:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.Conv2d(3, 3, 3))
    return fp.analyze(network, torch.rand(6, 3, 12, 12).split(3), points=["*"])


def test_objects_and_paths_give_one_page(spectra: fp.Spectra, tmp_path: Path) -> None:
    spectra.save(tmp_path / "net")
    page = fp.report(spectra, title="A & B")
    assert (len(page.labels), page.about) == (1, f"1 target on 6 images of {spectra.images.source}")
    assert "<h1>A &amp; B</h1>" in page.html
    assert repr(page).startswith("Page(1 target on 6 images of ")
    assert page._repr_html_().startswith("<iframe srcdoc=")
    assert list(tmp_path.iterdir()) == [tmp_path / "net"]  # out=None writes nothing
    both = fp.report([spectra, tmp_path / "net", str(tmp_path / "net" / "spectra.json")], out="deep/page.html")
    assert len(set(both.labels)) == 2  # the path is named twice
    assert Path("deep/page.html").read_text(encoding="utf-8") == both.html
    assert both.save("other.html").exists()


def test_a_page_is_not_overwritten_and_a_bad_name_is_said(spectra: fp.Spectra, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(OutputError, match=r"already holds page.html: pass --force"):
        fp.report("nowhere.json", out="page.html")
    with pytest.raises(OutputError, match=r"is a folder: name a file"):
        fp.report(spectra, out=tmp_path)
    with pytest.raises(ResultError, match=r"there is no file or folder nowhere.json: name a spectra.json"):
        fp.report([spectra, "nowhere.json"], out="deep/page.html")
    with pytest.raises(ResultError, match=r"page.html is no saved result: run `fourier-probe analyze"):
        fp.report("page.html")
    with pytest.raises(ResultError, match=r"name at least one"):
        fp.report([])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html"]
    fp.report(spectra, out="page.html", force=True)
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")

"""`fp.report`: results as paths and as objects, into a page that may be written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import fourier_probe as fp
from fourier_probe.cli import group
from fourier_probe.errors import OutputError, ResultError
from fourier_probe.results.records import ImagesInfo


@pytest.fixture(scope="module")
def spectra() -> fp.Spectra:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.Conv2d(3, 3, 3))
    return fp.analyze(network, torch.rand(6, 3, 12, 12).split(3), points=["*"])


def test_objects_and_paths_give_one_page(spectra: fp.Spectra, tmp_path: Path) -> None:
    spectra.save(tmp_path / "net")
    page = fp.report(spectra, title="A & B")
    assert (len(page.labels), page.about) == (1, "1 target on 6 images of your own")
    assert "<h1>A &amp; B</h1>" in page.html
    assert repr(page).startswith("Page(1 target on 6 images of ")
    assert page._repr_html_().startswith("<iframe srcdoc=")
    assert list(tmp_path.iterdir()) == [tmp_path / "net"]  # out=None writes nothing
    both = fp.report([spectra, tmp_path / "net", str(tmp_path / "net" / "spectra.json")], out="deep/page.html")
    assert len(set(both.labels)) == 2  # the path is named twice
    assert Path("deep/page.html").read_text(encoding="utf-8") == both.html
    assert both.save("other.html").exists()


def test_labels_are_those_that_were_given(tmp_path: Path) -> None:
    """The label of an analysis is in its files: the page, a comparison and a repr have it; a page may have others."""
    nets = [torch.nn.Conv2d(3, 3, 3), torch.nn.Conv2d(3, 2, 3)]
    images = torch.rand(6, 3, 12, 12).split(3)
    first, second = (fp.analyze(net, images, points=["*"], label=name, out=tmp_path / name)
                     for net, name in zip(nets, ("mine", "theirs"), strict=True))  # fmt: skip
    assert repr(first).startswith("Spectra('mine', ") and fp.Spectra.load(tmp_path / "mine").label == "mine"
    assert first.plot("spectra").get_suptitle() or "mine" in first.plot("spectra").axes[0].get_title()
    assert fp.compare([first, tmp_path / "theirs"]).labels == ("mine", "theirs")
    page = fp.report([tmp_path / "mine", second], "page.html")  # its second argument is where it goes
    assert page.labels == ("mine", "theirs") and Path("page.html").exists()
    assert fp.report([first, second], labels=["A", "B"]).labels == ("A", "B")
    done = CliRunner().invoke(group, ["report", "mine", "theirs", "--label", "A", "--label", "B", "-o", "b.html"])
    assert done.exit_code == 0 and '"label": "A"' in Path("b.html").read_text(encoding="utf-8").replace('":"', '": "')
    with pytest.raises(ResultError, match="1 labels for 2 analyses"):
        fp.report([first, second], labels=["A"])
    with pytest.raises(ResultError, match="two labels are the same"):
        fp.report([first, second], labels=["A", "A"])


def test_images_of_the_caller_and_those_left_out_are_said(spectra: fp.Spectra) -> None:
    assert "6 images of your own" in repr(spectra) and "None" not in fp.report(spectra).about
    assert ImagesInfo(source="photos", n=20, skipped=3).text == "20 images of photos, 3 left out"


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

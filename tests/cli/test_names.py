"""Names of any kind, of files, tensors and layers: written, drawn and printed, and never the end of a result."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from matplotlib.figure import Figure

import fourier_probe as fp
from fourier_probe.cli import group
from fourier_probe.errors import printable
from fourier_probe.plots.schedule import schedule_figure
from fourier_probe.plots.style import save, short_title, wrapped_title

NAMES = [
    b"a$\\frac{$b", b"\xff\xfe", b"\x1b[31mred\x1b[0m", "ü".encode(), "写真😀".encode(), b"two\nlines\r", b"_hidden",
    b"<script>&amp;", b"x" * 240, b"[bold]x", b"a b,c;\"d'", "\u202egnp".encode(), b"{{title}}{% x %}",
]  # fmt: skip
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202e\ud800-\udfff]")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and its saved analysis."""
    folder = tmp_path_factory.mktemp("made")
    network = fp.create("cifar_resnet8", width=4)
    record = {"state_dict": network.state_dict(), "arch": "cifar_resnet8", "model_args": {"width": 4}}
    torch.save(record, folder / "net.pt")
    run("analyze", str(folder / "net.pt"), "--images", "4", "--out", str(folder / "result"))
    return folder / "net.pt", folder / "result"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(group, arguments)
    assert result.exit_code == 0, result.output
    assert not CONTROL.search(result.output)
    return result


@pytest.mark.parametrize("name", [b"a$\\frac{$b", b"\xff\x1b[31m\n"], ids=ascii)
def test_a_file_of_any_name_is_analyzed(name: bytes, made: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(name + b".pt")
    shutil.copy(made[0], file)
    run("analyze", str(file), "--points", "layer3*", "--images", "4", "--out", "out")
    written = {"spectra.json", "spectra.npz", "spectra.csv", "spectra.pdf", "spectra.png", "depth.pdf", "depth.png"}
    assert {path.name for path in Path("out").iterdir()} == written


@pytest.mark.parametrize("names", [NAMES[:7], NAMES[7:]], ids=["first", "second"])
def test_results_of_any_name_are_compared_and_reported(
    names: list[bytes], made: tuple[Path, Path], tmp_path: Path
) -> None:
    results = []
    for index, name in enumerate(names):
        results.append(str(tmp_path / f"{index}.json"))
        record = json.loads((made[1] / "spectra.json").read_text())
        record["target"]["source"] = record["target"]["data"] = os.fsdecode(name)
        Path(results[-1]).write_text(json.dumps(record))
    run("compare", *results, "--out", "both")
    assert {"compare.csv", "spectra.png", "depth.png"} <= {path.name for path in Path("both").iterdir()}
    assert Path("both/compare.csv").read_text(encoding="utf-8").startswith("label,")
    run("report", *results, "-o", "page.html")
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<script>&amp;" not in page
    assert not CONTROL.search(page)


@pytest.mark.parametrize("name", NAMES[:3], ids=ascii)
def test_outputs_of_any_name_are_written(name: bytes, made: tuple[Path, Path]) -> None:
    out = os.fsdecode(name)
    run("report", str(made[1]), "--title", out, "-o", f"{out}/page.html")
    assert [path.name for path in Path(out).iterdir()] == ["page.html"]
    assert not CONTROL.search(Path(out, "page.html").read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("error")
def test_every_name_is_drawn(tmp_path: Path) -> None:
    """As text: no formula, no missing glyph, no label that a legend leaves out."""
    names = [os.fsdecode(name) for name in NAMES]
    figure = Figure(figsize=(9, 9))
    ax = figure.subplots()
    for name in names:
        ax.plot([0, 1], label=short_title(name))
        assert ax.get_legend_handles_labels()[1][-1].replace(r"\$", "").count("$") == 0
    ax.set_title("\n".join(map(short_title, names)))
    ax.set_xlabel("\n".join(map(wrapped_title, names)))
    ax.legend()
    assert len(ax.get_legend_handles_labels()[1]) == len(names)
    save(figure, tmp_path / "names")
    save(schedule_figure(names, dict.fromkeys(names, 1), 2, title=names[0]), tmp_path / "schedule")


def test_layers_and_points_of_any_name_are_analyzed(tmp_path: Path) -> None:
    network = torch.nn.Sequential()
    for name in ("a$b", "\x1b[31mred", "two\nlines", "写", "[bold]", "not \udcff text", "ends in nothing\0"):
        network.add_module(name, torch.nn.Conv2d(3, 3, 3, padding=1))
    spectra = fp.analyze(network, torch.rand(4, 3, 8, 8).split(2), points=["*"])
    from fourier_probe.plots import depth_figure, spectra_figure

    spectra.save(tmp_path)
    written = [point.name.replace("\udcff", r"\udcff") for point in spectra.points]
    assert [point.name for point in fp.Spectra.load(tmp_path).points] == written
    for draw in (spectra_figure, depth_figure):
        save(draw([spectra], ["x"]), tmp_path / "figure")
    run("compare", str(tmp_path), str(tmp_path), "--out", "both")
    run("report", str(tmp_path), "-o", "page.html")


def test_errors_and_notes_are_printed_safely() -> None:
    result = CliRunner().invoke(group, ["analyze", "\x1b[31mno\nwhere.pt"])
    assert result.exit_code == 1
    assert r"\x1b[31mno" in result.stderr
    assert not CONTROL.search(result.stderr)
    for wrong in (["\x1b[31m"], ["points", "x", "--\x1b[31m"], ["analyze", "x", "--axis", "\x1b[31m"]):
        result = CliRunner().invoke(group, wrong)
        assert result.exit_code == 2
        assert not CONTROL.search(result.stderr)


def test_what_is_printable_stays() -> None:
    assert printable("ü 写真 ± [x]") == "ü 写真 ± [x]"
    assert printable("a\nb\tc", lines=True) == "a\nb\\tc"
    assert printable("\udcff\u202e\u2028\ud800") == r"\udcff\u202e\u2028\ud800"

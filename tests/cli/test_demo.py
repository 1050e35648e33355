"""The main job end to end, small: on the planted task, and on the bundled images."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import fourier_probe as fp
from fourier_probe import cli
from fourier_probe.results.spectra import Spectra
from fourier_probe.verbs import demo


def test_the_planted_demo_draws_its_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = {"val_every": 2, "train_images": 32}
    monkeypatch.setattr(demo, "ARMS", {name: {**arm, **small} for name, arm in demo.ARMS.items()})
    monkeypatch.setattr(demo, "LOOKED_AT", 20)
    result = CliRunner().invoke(cli.group, ["demo", "--steps", "4", "--out", "demo", "--device", "cpu"])
    assert result.exit_code == 2 and "20" in result.stderr  # too few to draw
    made = fp.demo("demo", steps=4, device="cpu")
    out = tmp_path / "demo"
    assert {path.name for path in out.iterdir()} == {"cnn", "prs", "attention", "demo.csv", "demo.pdf", "demo.png"}
    assert (out / "demo.png").stat().st_size > 10_000
    table = made.table()
    assert list(table.index) == ["cnn", "prs", "attention"]
    assert table["bound, %"].tolist()[0] == 87.5 and table["bound, %"].isna().tolist() == [False, True, True]
    assert made.runs["attention"].config.schedule == "constant" and not made.runs["cnn"].conversions
    relied = made.runs["prs"].reliance()
    assert relied is not None and len(relied.departures) == 2
    assert repr(made).startswith("Demo('demo', cnn ") and "prs" in made._repr_html_()
    refused = CliRunner().invoke(cli.group, ["demo", "--out", "demo"])
    assert refused.exit_code == 1
    assert "--force" in refused.stderr


def test_the_bundled_demo_trains_probes_and_compares(tmp_path: Path) -> None:
    arguments = ["demo", "--images", "bundled", "--epochs", "2", "--data-scale", "0.02", "--out", "demo"]
    result = CliRunner().invoke(cli.group, arguments)
    assert result.exit_code == 0, result.output
    out = tmp_path / "demo"
    for name in ("spectra.png", "spectra.pdf", "depth.png", "depth.pdf", "compare.csv"):
        assert (out / name).stat().st_size > 1000, name
    results = {name: Spectra.load(out / name) for name in ("cnn", "prs", "vit")}
    assert len({r.images.digest for r in results.values()}) == 1
    assert all(r.target.weights == "raw" and r.top1 is not None for r in results.values())
    assert len((out / "prs" / "conversions.csv").read_text().splitlines()) > 1
    assert len((out / "cnn" / "conversions.csv").read_text().splitlines()) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--epochs", "3"], "--steps"), (["--images", "bundled", "--steps", "40"], "--epochs")]
)
def test_options_of_the_other_demo_are_refused(arguments: list[str], message: str) -> None:
    refused = CliRunner().invoke(cli.group, ["demo", *arguments])
    assert refused.exit_code == 2 and message in refused.stderr

"""The main job end to end, small."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from fourier_probe import cli
from fourier_probe.results.spectra import Spectra


def test_the_demo_trains_probes_and_compares(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.group, ["demo", "--epochs", "3", "--data-scale", "0.02", "--out", "demo"])
    assert result.exit_code == 0, result.output
    out = tmp_path / "demo"
    for name in ("spectra.png", "spectra.pdf", "depth.png", "depth.pdf", "compare.csv"):
        assert (out / name).stat().st_size > 1000, name
    results = {name: Spectra.load(out / name) for name in ("cnn", "prs", "vit")}
    assert len({r.images.digest for r in results.values()}) == 1
    assert [r.images.n for r in results.values()] == [1000] * 3
    assert all(r.target.weights == "raw" and r.top1 is not None for r in results.values())
    conversions = (out / "prs" / "conversions.csv").read_text().splitlines()
    assert len(conversions) > 1
    assert len((out / "cnn" / "conversions.csv").read_text().splitlines()) <= 1
    refused = CliRunner().invoke(cli.group, ["demo", "--epochs", "3", "--out", "demo"])
    assert refused.exit_code == 1
    assert "--force" in refused.stderr

"""The result as an object and as a file of any version: what it shows, keeps, refuses, and finds by name."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import pandas as pd
import pytest
import torch
from torch import nn

from fourier_probe.errors import PointError, ProbeError, ResultError
from fourier_probe.probe.measuring import Listen
from fourier_probe.results.analysis import analyze
from fourier_probe.results.records import ImagesInfo, MetricInfo, Provenance
from fourier_probe.results.side_by_side import check_comparable, paired, summary
from fourier_probe.results.spectra import Spectra

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


def result(**target: object) -> Spectra:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    images = [torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))]
    source = ImagesInfo(source="noise")
    return analyze(
        model,
        images,
        listen=Listen(points=["*"]),
        source=source,
        target=Provenance.of({"source": "net<b>.pt", **target}),
    )


def test_a_notebook_shows_a_line_and_a_table() -> None:
    spectra = result()
    assert repr(spectra) == "Spectra('net<b>', 3 points, 20 images of noise)"
    assert repr(spectra["0"]).startswith("PointSpectrum('0', conv, depth 0.00, 8x8, 4 channels, delta ")
    html = spectra._repr_html_()
    assert "net&lt;b&gt;" in html and html.count("<tr") == 5 and "delta at 0.75 pi (nats)" in html
    table = spectra.table()
    assert table["point"].tolist() == ["input", "0", "1", "2"]
    table = table[1:].reset_index(drop=True)
    assert table["delta at 0.75 pi (nats)"][1] == pytest.approx(spectra["1"].delta[3])
    assert table["± 95 %"][1] == pytest.approx(2.093 * spectra["1"].stderr[3], rel=1e-3)
    assert table["HFD share"][1] == pytest.approx(spectra["1"].scalars["hfd_share"])


def test_the_frame_is_the_csv() -> None:
    spectra = result()
    frame = spectra.to_frame()
    assert len(frame) == 4 * (5 + 4 + 7)  # bins, rings, scalars
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(spectra.to_csv())).astype({"point": str}), frame)


def test_a_wrong_name_is_a_key_error_with_near_names() -> None:
    spectra = result()
    spectra.points[1].name = "blocks.3+attn"
    for kind in (KeyError, PointError, ProbeError):
        with pytest.raises(kind, match=r"^there is no point 'blocks.3\+atn' in this result. Did you mean blocks.3\+at"):
            spectra["blocks.3+atn"]
    with pytest.raises(KeyError, match="There are 0, blocks"):
        spectra["zzz"]


def changed(path: Path, change: Callable[[dict], object]) -> Path:  # type: ignore[type-arg]
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return path


def test_fields_nobody_knows_are_kept_and_a_scalar_nobody_registered_is_shown(tmp_path: Path) -> None:
    path = result().save(tmp_path)
    path.with_suffix(".npz").unlink()

    def add(value: dict) -> None:  # type: ignore[type-arg]
        value["target"]["cluster"], value["images"]["camera"] = "a", {"iso": 100}
        value["points"][1]["entropy"], value["points"][1]["stderr_of"]["entropy"] = 1.5, None
        value["scalars"]["entropy"] = {"label": "entropy of tokens", "unit": "nats"}

    spectra = Spectra.load(changed(path, add))
    assert spectra.target.extra == {"cluster": "a"} and spectra.images.extra == {"camera": {"iso": 100}}
    assert spectra.points[1].scalars["entropy"] == 1.5 and math.isnan(spectra.points[1].stderr_of["entropy"])
    assert spectra.table()["entropy of tokens (nats)"].tolist()[2] == 1.5
    again = Spectra.load(spectra.save(tmp_path / "again"))
    assert again.to_json() == spectra.to_json()
    assert again.scalars["entropy"] == MetricInfo("entropy of tokens", "nats")


def test_what_is_not_finite_is_refused_by_name_and_nothing_is_written(tmp_path: Path) -> None:
    spectra = result()
    spectra.points[2].depth = math.nan
    with pytest.raises(ResultError, match=r"`\$.points\[2\].depth` is nan"):
        spectra.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_utf8_does_not_lose_the_result(tmp_path: Path) -> None:
    name = b"net-\xff.pt".decode(errors="surrogateescape")
    assert Spectra.load(result(source=name).save(tmp_path)).target.source == "net-\\udcff.pt"


def test_a_record_names_the_field_of_another_type() -> None:
    with pytest.raises(ResultError, match=r"Provenance: Expected `int \| null`, got `str` - at `\$.epoch`"):
        Provenance.of({"epoch": "three"})


def test_shipped_results_of_version_1_are_read_and_compared_unpaired() -> None:
    files = sorted(CHECKPOINTS.glob("*/spectra.json"))[:2]
    assert len(files) == 2
    first, second = map(Spectra.load, files)
    assert json.loads(files[0].read_text())["version"] == 1
    assert (first.definition.grouping, first.coverage, first.input) == (None, None, None)
    step = next(point.step for point in first.points if point.step is not None)
    assert step.delta is None and len(step.log_amplitude.change) > 2
    assert "slope" in first.table().columns and first._repr_html_()
    check_comparable([first, second])
    assert not paired([first, second])
    row = summary([first, second], ["a", "b"])[1]
    assert not row["paired"] and row["hfd_share_difference_stderr"] > 0
    new = result()
    new.images = msgspec.structs.replace(new.images, digest=first.images.digest)
    assert not paired([new, first]) and summary([new, first], ["a", "b"])[1]["paired"] is False

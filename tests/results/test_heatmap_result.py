"""A heat map as a result: intervals against references, files read back with their types checked, what it shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from matplotlib.text import Text
from scipy import stats

from fourier_probe.errors import OutputError, ResultError
from fourier_probe.probe.heatmap import distinct_frequencies
from fourier_probe.results import intervals
from fourier_probe.results.heatmap import (
    HeatMap,
    ImagesRecord,
    NoiseDefinition,
    NoiseResponse,
    TargetRecord,
)


def heat(*, labelled: bool = True, points: tuple[str, ...] = ("stem",), label: str = "net") -> HeatMap:
    rows = [
        NoiseResponse(
            frequency=k,
            error=intervals.share(20 + 4 * i, 100) if labelled else None,
            increase=intervals.paired_increase(4 * i, 0, 100) if labelled else None,
            change={name: intervals.mean(10.0, 2.0, 100) for name in points},
        )
        for i, k in enumerate(distinct_frequencies((4, 4)))
    ]
    return HeatMap(
        target=TargetRecord(label=label, source="net.pt"),
        images=ImagesRecord(source="bundled", split="test", n=100, size=(4, 4), mean=[0.5], std=[0.2]),
        definition=NoiseDefinition(kind="frequencies", basis="cosines", eps=4.0, seed=0, stride=1),
        clean_error=intervals.share(20, 100) if labelled else None,
        points=list(points),
        responses=rows,
    )


def bands(*, labelled: bool = True) -> HeatMap:
    rows = [msgspec.structs.replace(heat(labelled=labelled).responses[i], frequency=None, band=(i / 2, (i + 1) / 2))
            for i in range(2)]  # fmt: skip
    definition = NoiseDefinition(kind="bands", basis="noise", eps=4.0, seed=0, bands=2)
    return msgspec.structs.replace(heat(labelled=labelled), definition=definition, responses=rows)


@pytest.mark.parametrize(("count", "n"), [(0, 20), (3, 20), (50, 100), (100, 100)])
def test_a_share_has_wilsons_interval(count: int, n: int) -> None:
    reference = stats.binomtest(count, n).proportion_ci(method="wilson")
    found = intervals.share(count, n)
    assert (found.low, found.high) == (pytest.approx(reference.low, abs=1e-6), pytest.approx(reference.high, abs=1e-6))


def test_paired_increases_and_means_cover_what_they_estimate() -> None:
    rng, n, hits = np.random.default_rng(0), 80, np.zeros(2)
    for _ in range(800):
        clean, noisy = rng.random((2, n)) < np.array([[0.2], [0.45]])
        noisy |= clean
        found = intervals.paired_increase(int((noisy & ~clean).sum()), int((clean & ~noisy).sum()), n)
        assert found.low is not None and found.high is not None
        hits[0] += found.low <= 0.8 * 0.45 <= found.high
        x = rng.exponential(size=n)
        found = intervals.mean(float(x.sum()), float((x**2).sum()), n)
        assert found.low is not None and found.high is not None
        hits[1] += found.low <= 1 <= found.high
    assert (hits / 800 > 0.92).all() and hits[0] / 800 < 0.98
    assert intervals.mean(5.0, 5.0, 19).low is None  # too few images for an interval


@pytest.mark.parametrize("make", [heat, bands])
def test_what_is_saved_is_read_back(tmp_path: Path, make: Callable[[], HeatMap]) -> None:
    path = make().save(tmp_path / "out")
    assert HeatMap.load(path) == HeatMap.load(tmp_path / "out") == make_equal(make(), path)
    table = "bands.csv" if make is bands else "heatmap.csv"
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"heatmap.json", table}
    with pytest.raises(OutputError, match="--force"):
        make().save(tmp_path / "out")
    record = json.loads(path.read_text())
    assert record["schema"] == "fourier-probe/heatmap" and record["version"] == 2
    assert "Wilson" in record["intervals"]


def make_equal(result: HeatMap, path: Path) -> HeatMap:
    return msgspec.structs.replace(result, created=json.loads(path.read_text())["created"])


def set_at(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: Any) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_at("schema", value="fourier-probe/spectra"), "schema 'fourier-probe/spectra'"),
        (set_at("version", value=3), "version 3 .* update fourier-probe"),
        (set_at("images", "n", value="100"), r"Expected `int`, got `str` - at `\$.images.n`"),
        (set_at("images", "size", value=[4]), r"\$.images.size"),
        (set_at("definition", "eps", value=-1), r"\$.definition.eps"),
        (set_at("responses", value=[]), r"\$.responses"),
        (set_at("responses", 2, "error", "value", value=None), r"\$.responses\[2\].error.value"),
        (set_at("responses", 2, "frequency", value=None), "holds no frequency"),
        (set_at("responses", 2, "frequency", value=[9, 0]), "outside the plane of 4x4"),
        (set_at("responses", 2, "change", value={}), "not of the points"),
        (set_at("responses", 2, "error", value=None), "must both be null"),
        (set_at("target", value=7), r"Expected `object`, got `int` - at `\$.target`"),
        (set_at("clean_error", value=float("nan")), "damaged"),
    ],
)
def test_a_field_that_cannot_be_is_named(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    path = heat().save(tmp_path)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(ResultError, match=message):
        HeatMap.load(path)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "\xff", '{"schema": 1}', "{}"])
def test_what_is_no_heat_map_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "heatmap.json").write_text(text, encoding="latin-1")
    with pytest.raises(ResultError, match="run `fourier-probe heatmap` again"):
        HeatMap.load(tmp_path)
    with pytest.raises(ResultError, match="there is no file"):
        HeatMap.load(tmp_path / "none")


def test_what_is_not_finite_is_never_written(tmp_path: Path) -> None:
    broken = msgspec.structs.replace(heat(), clean_error=intervals.Interval(float("nan")))
    with pytest.raises(ResultError, match="not finite"):
        broken.save(tmp_path / "out")
    assert not (tmp_path / "out" / "heatmap.json").exists()


def test_it_is_a_line_a_table_and_a_frame() -> None:
    result = heat(label="a<b>")
    assert repr(result).count("\n") == 0 and len(repr(result)) < 160
    assert "n = 100, eps = 4, clean error 20.0%" in repr(result)
    assert "a&lt;b&gt;" in result._repr_html_() and "<table" in result._repr_html_()
    frame = result.to_frame()
    assert len(frame) == 10 and {"ky", "kx", "radius", "error_low", "increase", "change:stem_high"} <= set(
        frame.columns
    )
    table = result.table()
    assert table["frequencies"].sum() == 10 and table.index[0] == "mean"
    assert result.plane("change:stem").shape == (4, 4)
    with pytest.raises(ResultError, match="Did you mean change:stem"):
        result.plane("change:sten")
    with pytest.raises(ResultError, match="bands"):
        bands().plane()


def test_it_is_drawn_with_title_and_units() -> None:
    figure = heat().plot()
    assert figure.get_suptitle() == "net: n = 100, eps = 4, clean error 20.0%"
    labels = {axes.get_ylabel() for ax in figure.axes for axes in (ax, *ax.child_axes)}  # a colour bar is a child
    assert "Top-1 error (share of images)" in labels
    assert any("relative change of features, |Δf| / |f|" in text.get_text() for text in figure.findobj(Text))
    for result in (bands(), bands(labelled=False), heat(labelled=False)):
        assert result.plot().get_suptitle().startswith("net: n = 100")
    own = heat().plot()
    assert heat().plot(ax=own.axes[0]) is own

"""Jackknife errors, step changes, and the three result files with what can go wrong with them."""

from __future__ import annotations

import csv
import json
import math
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fourier_probe.errors import OutputError, ResultError
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.fast import image_statistics
from fourier_probe.probe.sums import Sums, jackknife, quantile
from fourier_probe.results.estimates import add_steps, point_spectrum
from fourier_probe.results.point import PointSpectrum
from fourier_probe.results.profile import common_frequency, delta_view, profile
from fourier_probe.results.records import ImagesInfo, Provenance
from fourier_probe.results.side_by_side import check_comparable, summary
from fourier_probe.results.spectra import FILES, Spectra


def summed(features: torch.Tensor, definition: Definition, *, start: int = 0, maps: bool = False) -> Sums:
    sums = Sums(definition.groups)
    index = torch.arange(start, start + len(features))
    sums.update(image_statistics(features, definition, maps=maps), index % definition.groups)
    return sums


def spectrum_of(
    features: torch.Tensor, *, name: str = "p", depth: float = 0.0, op: str = "conv", maps: bool = False
) -> PointSpectrum:
    definition = Definition()
    count = np.bincount(np.arange(len(features)) % 20, minlength=20).astype(float)
    sums = summed(features, definition, maps=maps)
    grid, channels = tuple(features.shape[2:]), features.shape[1]
    meta = {"name": name, "kind": "residual", "op": op, "depth": depth, "grid": grid, "channels": channels}
    return point_spectrum(meta, {**sums.arrays(), "count": count}, sums.flat.numpy(), definition)


def result(*, images: int = 40, digest: str = "d", maps: bool = False) -> Spectra:
    generator = torch.Generator().manual_seed(0)
    points = [
        spectrum_of(torch.randn(images, 4, n, n, generator=generator) + 1, name=f"{i}", depth=i / 2, op=op, maps=maps)
        for i, (n, op) in enumerate([(8, "embed"), (8, "attention"), (7, "downsample")])
    ]
    add_steps(points)
    described = ImagesInfo(source="noise", n=images, size=[8, 8], mean=[0.5], std=[0.5], digest=digest)
    target = Provenance(source="model", weights="raw")
    return Spectra(target=target, images=described, definition=Definition(), points=points, top1=0.25)


# --- errors ---


def test_jackknife_of_a_ratio_agrees_with_a_direct_loop() -> None:
    rng = np.random.default_rng(0)
    sums = {"x": rng.random(20), "y": rng.random(20) + 1, "count": np.ones(20)}
    value, error = jackknife(lambda s: {"ratio": s["x"] / s["y"]}, sums)
    partial = np.array([np.delete(sums["x"], g).sum() / np.delete(sums["y"], g).sum() for g in range(20)])
    assert float(value["ratio"]) == pytest.approx(sums["x"].sum() / sums["y"].sum())
    assert float(error["ratio"]) == pytest.approx(math.sqrt(19 / 20 * ((partial - partial.mean()) ** 2).sum()))


def test_intervals_cover_at_their_nominal_rate() -> None:
    """delta and log_density of 400 simulated data sets of 60 images whose amplitude varies from image to image."""
    generator = torch.Generator().manual_seed(1)
    images, trials, t95 = 60, 400, quantile(20)
    noise = torch.randn(trials * images, 2, 6, 6, generator=generator)
    noise = noise * torch.exp(0.5 * torch.randn(len(noise), 1, 1, 1, generator=generator)) + 0.5
    features = noise + torch.roll(noise, 1, dims=2)  # some colour
    truth = spectrum_of(features)
    hits = {"delta": np.zeros(3), "log_density": np.zeros(2), "hfd_share": 0}
    for trial in range(trials):
        point = spectrum_of(features[trial * images : (trial + 1) * images])
        assert point.log_density is not None
        hits["delta"] += np.abs(point.delta - truth.delta)[1:] <= t95 * point.stderr[1:]
        hits["log_density"] += np.abs(point.log_density - truth.log_density)[:2] <= t95 * point.log_density_stderr[:2]
        gap = abs(point.scalars["hfd_share"] - truth.scalars["hfd_share"])
        hits["hfd_share"] += gap <= t95 * point.stderr_of["hfd_share"]
    for name, count in hits.items():
        assert np.all(np.abs(count / trials - 0.95) < 0.035), (name, count / trials)


def test_the_error_of_delta_is_paired_over_bins() -> None:
    """A common factor moves every bin of ln|F| alike and delta not at all, which separate errors would not see."""
    base = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2)) + 1
    scale = torch.exp(torch.linspace(-2, 2, 40))[:, None, None, None]
    point = spectrum_of(base * scale)
    assert point.stderr.max() < 1e-3


def test_merging_parts_is_the_whole() -> None:
    definition = Definition()
    features = torch.randn(30, 3, 7, 7, generator=torch.Generator().manual_seed(3)).double()
    whole, first = summed(features, definition), summed(features[:13], definition)
    first.merge(summed(features[13:], definition, start=13))
    for name, value in whole.arrays().items():
        assert np.allclose(first.arrays()[name], value, rtol=1e-12), name
    assert torch.equal(first.flat, whole.flat)


def test_fewer_images_than_groups_have_no_interval() -> None:
    point = spectrum_of(torch.randn(19, 2, 8, 8))
    assert np.isnan(point.stderr).all()
    assert np.isfinite(point.delta).all()


def test_non_finite_statistics_are_counted() -> None:
    features = torch.randn(4, 2, 8, 8)
    features[1, 0, 3, 3] = math.nan
    features[2, 1, 0, 0] = math.inf
    assert int(summed(features, Definition()).bad) >= 2


def test_step_change_is_the_difference_on_the_same_grid_with_a_paired_error() -> None:
    found = result()
    step = found.points[1].step
    assert step is not None and step.delta is not None and step.origin == "0"
    before, after = found.points[:2]
    assert step.log_amplitude.change == pytest.approx(after.log_amplitude - before.log_amplitude)
    assert step.delta.change == pytest.approx(after.delta - before.delta)
    assert step.delta.stderr[0] == 0 and step.log_amplitude.stderr[0] > 0  # relative to DC, which moves
    by_hand = {"count": after.sums["count"], "x": after.sums["log_amplitude"] - before.sums["log_amplitude"]}
    _, error = jackknife(lambda s: {"x": (s["x"][:, 2] - s["x"][:, 0]) / s["count"]}, by_hand)
    assert step.delta.stderr[2] == pytest.approx(float(error["x"]))
    assert found.points[2].step is None  # another grid
    same = [found.points[0], found.points[0]]
    add_steps(same)
    assert same[1].step.delta.stderr == pytest.approx(0, abs=1e-12)


# --- files ---


def test_save_and_load_give_the_same_result_byte_by_byte(tmp_path: Path) -> None:
    found = result(maps=True)
    path = found.save(tmp_path / "out")
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(FILES)
    again = Spectra.load(path)
    assert again.to_json() == found.to_json()
    assert np.array_equal(again.points[0].sums["ring"], found.points[0].sums["ring"])
    assert again.points[0].map.shape == (8, 8)
    assert Spectra.load(path.parent).created == found.created
    value = json.loads(path.read_text())
    assert value["schema"] == "fourier-probe/spectra"
    assert {"target", "images", "definition", "top1", "points", "versions", "created"} <= value.keys()
    assert value["points"][2]["slope"] is None  # three rings: JSON has null, never NaN


def test_csv_has_a_row_a_point_and_frequency(tmp_path: Path) -> None:
    found = result()
    found.save(tmp_path)
    rows = list(csv.DictReader((tmp_path / "spectra.csv").read_text().splitlines()))
    diagonal = [row for row in rows if row["profile"] == "diagonal"]
    assert len(diagonal) == 5 + 5 + 4
    assert len(rows) == len(diagonal) + 4 + 4 + 3 + 3 * 7  # rings, scalars
    assert float(diagonal[3]["delta"]) == pytest.approx(found.points[0].delta[3])
    assert [row["usable"] for row in diagonal[:5]] == ["1", "1", "1", "1", "0"]


def test_results_are_not_overwritten_unless_asked(tmp_path: Path) -> None:
    found = result()
    found.save(tmp_path)
    with pytest.raises(OutputError, match=r"already holds .*--force"):
        found.save(tmp_path)
    found.save(tmp_path, force=True)


def test_errors_survive_without_the_group_sums(tmp_path: Path) -> None:
    found = result()
    path = found.save(tmp_path)
    (tmp_path / "spectra.npz").unlink()
    again = Spectra.load(path)
    assert again.points[0].sums is None
    assert again.points[0].stderr == pytest.approx(found.points[0].stderr)
    view = delta_view(common_frequency([found]))
    assert profile(again, view).value == pytest.approx(profile(found, view).value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ('{"schema": "fourier-probe/spectra"', "is damaged"),
        ("[]", "Expected `object`, got `array`"),
        ('{"schema": "other", "version": 1}', "schema 'other'"),
        ('{"schema": "fourier-probe/spectra", "version": 99}', "version 99"),
        ('{"schema": "fourier-probe/spectra", "version": 1}', "missing required field `target`"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "spectra.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=message):
        Spectra.load(path)
    assert path.read_text() == text


def test_a_missing_result_and_foreign_sums_are_named(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="there is no file"):
        Spectra.load(tmp_path / "spectra.json")
    path = result().save(tmp_path)
    np.savez(tmp_path / "spectra.npz", names=np.array(["other"]))
    with pytest.raises(ResultError, match="belongs to another result"):
        Spectra.load(path)
    other = result(digest="another")
    other.points[0].sums["log_amplitude"] += 1
    other.save(tmp_path / "other")
    (tmp_path / "spectra.npz").write_bytes((tmp_path / "other" / "spectra.npz").read_bytes())
    with pytest.raises(ResultError, match="belongs to another result"):
        Spectra.load(path)
    (tmp_path / "spectra.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ResultError, match="damaged"):
        Spectra.load(path)


HEADERS = {
    "MemoryError": "{'descr':'<f8','fortran_order':False,'shape':(" + "-" * 9000 + "1,)}",
    "unhashable": "{[]:1}",
    "TokenError": "(" * 5000,
    "no dictionary": "{1,2}",
    "objects": "{'descr':'O','fortran_order':False,'shape':(1,)}",
    "no type": "{'descr':[1,2,3],'fortran_order':False,'shape':(1,)}",
    "huge": f"{{'descr':'<f8','fortran_order':False,'shape':(0,{10**30})}}",
    "negative": "{'descr':'<f8','fortran_order':False,'shape':(-1,-1)}",
    "infinite": "{'descr':'<f8','fortran_order':False,'shape':(1e400,)}",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_sums_with_a_damaged_header(tmp_path: Path, header: str) -> None:
    """Whatever numpy's and Python's parsers raise; the CRC of the member is right."""
    path = result().save(tmp_path)
    with zipfile.ZipFile(tmp_path / "spectra.npz") as archive:
        members = {entry: archive.read(entry) for entry in archive.namelist()}
    text = header.encode() + b"\n"
    members["0000/log_amplitude.npy"] = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
    with zipfile.ZipFile(tmp_path / "spectra.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ResultError, match=r"spectra.npz is damaged \(.+\): run the analysis again"):
        Spectra.load(path)


# --- compare ---


def test_the_common_frequency_is_the_highest_usable_of_the_coarsest_point() -> None:
    assert common_frequency([result()]) == pytest.approx(0.75)  # 8x8 ends at 0.75 below Nyquist, 7x7 at 6/7
    along = profile(result(), delta_view(0.75))
    assert along.value[0] == pytest.approx(result().points[0].delta[3])
    expected = np.interp(0.75, result().points[2].frequency, result().points[2].delta)
    assert along.value[2] == pytest.approx(expected)
    assert along.stderr[0] == pytest.approx(result().points[0].stderr[3])


def test_a_frequency_no_point_has_and_maps_without_any_are_errors() -> None:
    with pytest.raises(ResultError, match="beyond the usable bins of 0"):
        profile(result(), delta_view(0.9))
    single = result()
    single.points = [spectrum_of(torch.rand(20, 3, 1, 1) + 1)]
    with pytest.raises(ResultError, match="no probe point of model has a frequency"):
        common_frequency([single])


def test_results_of_other_images_or_definitions_are_not_compared() -> None:
    first, other = result(), result(digest="e")
    with pytest.raises(
        ResultError, match=r"cannot be compared: images 40 of noise \(pixels d\) and 40 of noise \(pixels e\)"
    ):
        check_comparable([first, other])
    other = result()
    other.definition = Definition(log="log1p")
    with pytest.raises(ResultError, match=r"logarithm ln\(\|F\|\+1e-6\) and ln\(1\+\|F\|\)"):
        check_comparable([first, other])


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (Definition(window="hann"), "window none and hann"),
        (Definition(axis="paper"), "axis true and paper"),
        (Definition(groups=10), "number of image groups 20 and 10"),
    ],
)
def test_another_window_axis_or_number_of_groups_is_refused(definition: Definition, message: str) -> None:
    first, other = result(), result()
    check_comparable([first, other])
    other.definition = definition
    with pytest.raises(ResultError, match=f"cannot be compared: {message}"):
        check_comparable([first, other])


def test_summary_says_first_and_last() -> None:
    row = summary([result()], ["name"])[0]
    assert (row["target"], row["first_grid"], row["last_grid"], row["points"]) == ("name", "8x8", "7x7", 3)
    assert row["last_hfd_share_white"] == pytest.approx(40 / 48)


def test_a_result_draws_itself_also_into_given_axes() -> None:
    import matplotlib.pyplot as plt
    from torch import nn

    from fourier_probe.results.analysis import analyze

    result = analyze(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()), [torch.randn(20, 1, 16, 16)])
    for name in ("spectra", "depth"):
        figure, ax = plt.subplots()
        assert result.plot(name, ax=ax, label="mine") is figure and ax.lines and ax.get_title() == "mine"
        plt.close(figure)
        assert result.plot(name).axes
    with pytest.raises(ResultError, match=r"no figure 'dept' .*Did you mean depth"):
        result.plot("dept")

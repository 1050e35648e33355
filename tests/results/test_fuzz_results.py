"""Damaged result files: every field of another type, flipped bits, cut files. The right result or an error of ours."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import flipped, outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fourier_probe.errors import ProbeError, ResultError
from fourier_probe.page import gather, render
from fourier_probe.probe.measuring import Listen
from fourier_probe.results.analysis import analyze
from fourier_probe.results.attention import AttentionErrors, AttentionRecord
from fourier_probe.results.cka import CkaRecord
from fourier_probe.results.information import InformationRecord
from fourier_probe.results.intervals import Interval
from fourier_probe.results.kernels import KernelRecord
from fourier_probe.results.parts import parts_of
from fourier_probe.results.records import Coverage, ImagesInfo, LeftOut, Provenance
from fourier_probe.results.reliance import DepartureRecord, LesionRecord, RelianceRecord
from fourier_probe.results.side_by_side import check_comparable, coordinates, summary
from fourier_probe.results.spectra import Spectra
from fourier_probe.results.steps import step_changes

pytestmark = pytest.mark.slow  # a load for each change

OTHERS: tuple[Any, ...] = ("x", 7, -1, 2.5, None, True, [], {}, [["x"]], {"x": 1})


def result() -> Spectra:
    """A result with something in every field."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2))
    target = Provenance(
        source="net.pt", sha256="0" * 64, arch="net", model_args={"width": 8}, weights="raw", data="bundled",
        data_scale=0.5, schedule="linear", seed=1, epoch=2,
    )  # fmt: skip
    source = ImagesInfo(source="noise", split="test", size=[8, 8], mean=[0.5], std=[0.5], asked={"images": 20})
    spectra = analyze(
        model, [torch.rand(20, 3, 8, 8)], target=target, source=source, listen=Listen(points=["*"], maps=True)
    )
    spectra.excluded = [LeftOut("a", "b")]
    spectra.coverage = Coverage(steps=3, read=2, unread=[LeftOut("c", "d")], evidence={"0": "hook"}, self_check="ok")
    spectra.input = copy.copy(spectra.points[0])
    spectra.attention = [
        AttentionRecord(
            name="a", grid=(4, 4), distance=[1.0, 2.0], diversity=0.5, uniform=2.0, frequency=[0.0, 0.5],
            response=[[1.0, 0.5], [1.0, 0.4]], gate=[0.5, 0.5], images=20, nmi=[0.5, 0.25],
            stderr_of=AttentionErrors(distance=[0.1, 0.1], nmi=[0.1, 0.1], diversity=[0.1], mean_nmi=[0.1]),
        )
    ]  # fmt: skip
    spectra.points[1].gate, spectra.top1 = [0.5], 0.25
    return spectra


def full() -> Spectra:
    """The same with every measure beside the spectra."""
    spectra = result()
    change = Interval(-0.25, -0.5, 0.0)
    spectra.reliance = RelianceRecord(
        images=20, training=20, top1=0.5,
        lesions=[LesionRecord(layer="a", half="content", test="exchanged", top1=0.25, loss=1.5, top1_change=change,
                              loss_change=Interval(0.5, 0.25, 0.75))],
        departures=[DepartureRecord(layer="a", gate=0.5, gate_least=0.25, gate_most=0.75, tap=0.5, displacement=1.5,
                                    locality=1.0, content=0.5)],
    )  # fmt: skip
    spectra.information = [
        InformationRecord(name="a", over="16 positions", queries=16, keys=16, nmi=[0.5, 0.25], stderr=[0.1, 0.1],
                          mean=0.375, mean_stderr=0.1, images=20)
    ]  # fmt: skip
    spectra.kernels = [
        KernelRecord(name="0", kind="dense", depth=0.0, size=(3, 3), stride=(1, 1), dilation=(1, 1), groups=1, inputs=3,
                     outputs=4, radius=[0.0, 1.0], log_power=[0.5, -0.5], stderr=[0.1, 0.1], tilt=-1.0, tilt_stderr=0.2,
                     norm=1.5)
    ]  # fmt: skip
    spectra.cka = CkaRecord(a="net", b="net", rows=["0", "1"], columns=["0", "1"], row_depth=[0.0, 1.0],
                            column_depth=[0.0, 1.0], value=[[1.0, 0.5], [0.5, 1.0]], stderr=[[0.0, 0.1], [0.1, 0.0]],
                            images=20, minibatch=20)  # fmt: skip
    return spectra


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result().save(tmp_path_factory.mktemp("results") / "whole")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full().save(tmp_path_factory.mktemp("results") / "full")


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field, and the first item of every list."""
    if here:
        yield here
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, (*here, key))


def replaced(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(record)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return changed


def use(path: Path, other: Spectra) -> Spectra:
    """Load, compare with another, and put on a page."""
    spectra = Spectra.load(path)
    repr(spectra)
    spectra.table()
    spectra.to_frame()
    check_comparable([other, spectra])
    summary([other, spectra], ["a", "b"])
    step_changes(spectra)
    coordinates([spectra], ["a"], other, spectra)
    render(gather([str(path)]))
    return spectra


def tables(path: Path, other: Spectra) -> Spectra:
    """Load, compare with another, and every table, of the measures too."""
    spectra = Spectra.load(path)
    repr(spectra)
    spectra.table()
    spectra.to_frame()
    summary([other, spectra], ["a", "b"])
    step_changes(spectra)
    for part in parts_of(spectra):
        for make in (part.frame, part.short):
            if make is not None:
                make(spectra)
    return spectra


def test_a_field_of_another_type_is_named_or_does_not_matter(saved: Path, tmp_path: Path) -> None:
    whole, record = Spectra.load(saved), json.loads(saved.read_text())
    path, count = tmp_path / "spectra.json", 0
    for index, field in enumerate(paths(record)):
        for other in (OTHERS[index % len(OTHERS)], OTHERS[(index * 3 + 1) % len(OTHERS)]):
            path.write_text(json.dumps(replaced(record, field, other)))
            found = outcome(lambda: Spectra.load(path))
            if isinstance(found, ProbeError):
                count += 1
                names = [str(key) for key in field if isinstance(key, str)]
                assert isinstance(found, ResultError) and any(name in str(found) for name in names[-2:]), (
                    field,
                    str(found),
                )
            else:
                outcome(lambda: use(path, whole))
    assert count > 150


IMPOSSIBLE: tuple[tuple[str, float], ...] = (
    ("attention.0.nmi.0", -1), ("attention.0.nmi.0", 1.5), ("attention.0.distance.0", -3), ("attention.0.gate.0", 2),
    ("attention.0.diversity", -1), ("attention.0.response.0.1", 40), ("attention.0.frequency.1", -0.5),
    ("attention.0.stderr_of.nmi.0", -1), ("attention.0.stderr_of.diversity.0", -1),
    ("points.0.hfd_share", 1e308), ("points.0.hfd_share_pooled", -0.1), ("points.0.token_cosine", -2),
    ("points.0.variance", -1), ("points.0.slope", 1e30), ("points.0.dead_channels", 1.5),
    ("points.0.dead_channels", -1), ("points.0.hfd_share_white", 3), ("points.0.depth", -0.5),
    ("points.0.delta.1", 1e300), ("points.0.stderr.1", -0.1),
    ("points.0.stderr_of.hfd_share", -1), ("points.0.frequency.1", 8), ("points.0.radial.radius.3", 20),
    ("points.0.radial.log_density.0", -1e9), ("points.1.gate.0", -1), ("input.hfd_share", 2), ("input.depth", 3),
    ("images.mean.0", 127.5), ("images.mean.0", -1), ("images.std.0", 0), ("images.std.0", 58), ("images.size.0", 0),
    ("target.data_scale", 4), ("target.epoch", -1), ("top1", 97.5),
    ("cka.row_depth.1", 12), ("cka.value.0.1", 1.7), ("cka.stderr.0.1", -1), ("cka.column_depth.0", -1),
    ("information.0.nmi.0", 1.1), ("information.0.stderr.0", -1), ("information.0.mean", -0.2),
    ("kernels.0.depth", 2), ("kernels.0.radius.1", 9), ("kernels.0.log_power.0", 1e6), ("kernels.0.norm", -1),
    ("kernels.0.tilt_stderr", -1), ("reliance.top1", 50), ("reliance.departures.0.gate", 4),
    ("reliance.departures.0.tap", -1), ("reliance.lesions.0.top1", -0.5), ("reliance.lesions.0.loss", -1),
    ("reliance.lesions.0.top1_change.value", -25), ("reliance.lesions.0.top1_change.low", 0.5),
)  # fmt: skip


@pytest.mark.parametrize(("field", "value"), IMPOSSIBLE)
def test_a_value_that_no_analysis_can_give_is_named(measured: Path, tmp_path: Path, field: str, value: float) -> None:
    keys = [int(key) if key.isdigit() else key for key in field.split(".")]
    record = replaced(json.loads(measured.read_text()), tuple(keys), value)
    (tmp_path / "spectra.json").write_text(json.dumps(record))
    with pytest.raises(ResultError) as caught:
        Spectra.load(tmp_path)
    named = [key for key in keys if isinstance(key, str)]
    assert any(key in str(caught.value) for key in named[-2:]) and len(str(caught.value)) < 500, str(caught.value)


def test_an_extreme_number_anywhere_is_refused_or_shown(measured: Path, tmp_path: Path) -> None:
    whole, record, path = Spectra.load(measured), json.loads(measured.read_text()), tmp_path / "spectra.json"
    refused, shown = 0, []
    for at, field in enumerate(paths(record)):
        value = record
        for key in field:
            value = value[key]
        if isinstance(value, int | float) and not isinstance(value, bool):
            path.write_text(json.dumps(replaced(record, field, (1e308, -1e308, 2**62)[at % 3])))
            found = outcome(lambda: tables(path, whole))
            refused += isinstance(found, ProbeError)
            shown += [field] * isinstance(found, Spectra)
    assert refused > 2 * len(shown), shown


def test_every_field_left_out(saved: Path, tmp_path: Path) -> None:
    whole, record = Spectra.load(saved), json.loads(saved.read_text())
    path = tmp_path / "spectra.json"
    for field in paths(record):
        changed = replaced(record, field, None)
        parent = changed
        for key in field[:-1]:
            parent = parent[key]
        del parent[field[-1]]
        path.write_text(json.dumps(changed))
        if not isinstance(outcome(lambda: Spectra.load(path)), ProbeError):
            outcome(lambda: use(path, whole))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_flipped_bits_and_cut_files(saved: Path, data: st.DataObject) -> None:
    """Of the sums one bit anywhere gives the same numbers or an error; of the JSON an error or some readable result."""
    folder = saved.parent.parent / "damaged"
    folder.mkdir(exist_ok=True)
    whole = Spectra.load(saved)
    kind = data.draw(st.sampled_from(["spectra.json", "spectra.npz"]))
    for name in ("spectra.json", "spectra.npz"):
        (folder / name).write_bytes((saved.parent / name).read_bytes())
    content = (saved.parent / kind).read_bytes()
    at = data.draw(st.integers(0, 8 * len(content) - 1))
    cut = data.draw(st.booleans())
    (folder / kind).write_bytes(content[: at // 8] if cut else flipped(content, at))
    found = outcome(lambda: use(folder / "spectra.json", whole))
    if kind == "spectra.npz" and isinstance(found, Spectra):
        for ours, theirs in zip(found.points, whole.points, strict=True):
            assert ours.sums is not None and theirs.sums is not None
            assert all(np.array_equal(ours.sums[name], value) for name, value in theirs.sums.items())


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"schema":' + "[" * 100_000])
def test_nesting_without_end_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "spectra.json").write_text(text)
    assert isinstance(outcome(lambda: Spectra.load(tmp_path)), ResultError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((20, 2))}, None),
        ({"log_amplitude": np.zeros((20, 2))}, r"log_amplitude is float64 \(20, 2\), expected float64 \(20, 5\)"),
        ({"ring": np.zeros((19, 4))}, "ring is float64"),
        ({"count": np.zeros((20,), dtype=np.float32)}, "count is float32"),
        ({"count": np.full(20, -1.0)}, "no numbers of images"),
        ({"x": np.zeros((20, 10**6))}, "declares .* bytes, and its result has no more than"),
    ],
)
def test_sums_of_other_shapes_are_refused(saved: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "spectra.json").write_bytes(saved.read_bytes())
    with np.load(saved.with_suffix(".npz")) as file:
        arrays = dict(file) | {f"0000/{name}": value for name, value in change.items()}
    np.savez_compressed(tmp_path / "spectra.npz", **arrays)
    if message is None:
        assert Spectra.load(tmp_path).points[0].sums is not None
    else:
        with pytest.raises(ResultError, match=message):
            Spectra.load(tmp_path)

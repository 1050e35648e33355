"""Damaged heatmap.json and validation.json: every field of another type or an extreme value; an error or an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fuzzing import outcome

from fourier_probe.errors import ProbeError, ResultError
from fourier_probe.results import intervals
from fourier_probe.results.heatmap import (
    HeatMap,
    ImagesRecord,
    NoiseDefinition,
    NoiseResponse,
    Sensitivity,
    TargetRecord,
)
from fourier_probe.results.heatmap_text import summary
from fourier_probe.results.intervals import Interval
from fourier_probe.results.records import ImagesInfo, LeftOut, Provenance, TopOneBound
from fourier_probe.results.text_table import TextTable
from fourier_probe.results.validation import ClassAnswers, Curvature, Lesion, PartAnswers, Validation
from fourier_probe.results.validation_tables import tables_of

OTHERS: tuple[Any, ...] = ("x", 7, -1, 2.5, None, True, [], {}, [["x"]], {"x": 1}, 1e308, -1e308, 2**62, "\udcff")


def heat_map() -> HeatMap:
    rows = [
        NoiseResponse(band=(at / 2, (at + 1) / 2), error=intervals.share(4, 20),
                      increase=intervals.paired_increase(2, 1, 20), change={"stem": intervals.mean(10.0, 9.0, 20)})
        for at in range(2)
    ]  # fmt: skip
    return HeatMap(
        target=TargetRecord(label="net", source="net.pt", model_args={"width": 4}, data_scale=0.5, seed=0, epoch=2),
        images=ImagesRecord(source="bundled", split="test", n=20, size=(4, 4), mean=[0.5], std=[0.2]),
        definition=NoiseDefinition(kind="bands", basis="noise", eps=4.0, seed=0, bands=2),
        clean_error=intervals.share(3, 20),
        points=["stem"],
        responses=rows,
        sensitivity=Sensitivity(radius=[0.5, 1.0], log_power=[Interval(0.5), Interval(-0.5, -1.0, 0.0)], images=20),
        notes=["said"],
    )


def validation() -> Validation:
    half = intervals.share(10, 20)
    return Validation(
        label="net",
        target=Provenance(source="net.pt", epoch=2),
        images=ImagesInfo(source="bundled", split="test", n=20, size=[4, 4], mean=[0.5], std=[0.2]),
        top1=half,
        top5=half,
        loss=Interval(1.5, 1.0, 2.0),
        classes=[ClassAnswers(name=name, images=10, predicted=10, top1=half) for name in ("a", "b")],
        answers=[(0, 0, 5), (0, 1, 5), (1, 0, 5), (1, 1, 5)],
        conflict=PartAnswers(images=8, top1=half),
        agreeing=PartAnswers(images=12, top1=half),
        bound=TopOneBound(variant="mixed", second_difference=0.0, top1=0.875),
        lesions=[Lesion(name="stem", op="conv", depth=0.5, top1=half, top1_change=Interval(-0.25), loss_change=None)],
        kept=[LeftOut("a", "b")],
        curvature=Curvature(batch_size=10, eigenvalues=[[2.0, 1.0], [3.0, 1.0]], largest=Interval(2.5), at=[-1.0, 1.0],
                            loss=[[1.0, 1.0], [1.0, 1.0]]),
        notes=["said"],
    )  # fmt: skip


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field, and the first item of every list."""
    if here:
        yield here
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*here, key))


def changed(record: Any, place: tuple[Any, ...], value: Any) -> str:
    copy = json.loads(json.dumps(record))
    parent = copy
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    return json.dumps(copy)


def use(result: HeatMap | Validation) -> None:
    repr(result)
    result.table()
    result.to_frame()
    if isinstance(result, Validation):
        result.confusion()
        _ = result.curvature and result.curvature.ranked()
    else:
        _ = result.title, [row.where for row in result.responses]


@pytest.mark.parametrize("kind", [heat_map, validation])
def test_any_field_of_another_kind(kind: Any, tmp_path: Path) -> None:
    whole = kind()
    record = json.loads(msgspec.json.encode(whole))
    path, refused, taken = tmp_path / "file.json", 0, 0
    for at, place in enumerate(places(record)):
        for other in (OTHERS[(at + turn * 5) % len(OTHERS)] for turn in range(3)):
            path.write_text(changed(record, place, other))
            found = outcome(lambda: type(whole).load(path))
            if isinstance(found, ProbeError):
                refused += 1
                names = [str(key) for key in place if isinstance(key, str)][-2:]
                assert isinstance(found, ResultError) and any(name in str(found) for name in names), (place, str(found))
            else:
                taken += 1
                outcome(partial(use, found))
    assert refused > 100 > taken


IMPOSSIBLE: tuple[tuple[Any, str, float], ...] = (
    (heat_map, "clean_error.value", 15), (heat_map, "responses.0.error.value", -0.25),
    (heat_map, "responses.0.error.low", 0.75), (heat_map, "responses.0.increase.value", 3),
    (heat_map, "responses.0.change.stem.value", -1), (heat_map, "responses.0.band.1", 0),
    (heat_map, "images.mean.0", 127), (heat_map, "images.size.0", 65536), (heat_map, "images.skipped", -1),
    (heat_map, "sensitivity.radius.0", 40), (heat_map, "sensitivity.log_power.0.value", 1e300),
    (validation, "top1.value", 50), (validation, "top5.low", 0.9), (validation, "loss.value", -1),
    (validation, "classes.0.top1.value", 1.5), (validation, "conflict.top1.value", -0.5),
    (validation, "lesions.0.depth", 2), (validation, "lesions.0.top1_change.value", -25),
    (validation, "bound.top1", 87.5), (validation, "images.std.0", 0),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "field", "value"), IMPOSSIBLE)
def test_a_value_that_no_measurement_can_give_is_named(kind: Any, field: str, value: float, tmp_path: Path) -> None:
    whole = kind()
    place = tuple(int(key) if key.isdigit() else key for key in field.split("."))
    (tmp_path / "file.json").write_text(changed(json.loads(msgspec.json.encode(whole)), place, value))
    with pytest.raises(ResultError) as caught:
        type(whole).load(tmp_path / "file.json")
    assert any(str(key) in str(caught.value) for key in place if isinstance(key, str)), str(caught.value)


def test_a_plane_of_many_frequencies_is_not_made_of_one(tmp_path: Path) -> None:
    """8,192 pixels a side would take half a gigabyte to draw."""
    record = json.loads(msgspec.json.encode(heat_map()))
    record["definition"] |= {"kind": "frequencies", "bands": None, "stride": 1}
    record["images"]["size"] = [8192, 8192]
    record["responses"] = [{**record["responses"][0], "frequency": [0, 1], "band": None}]
    (tmp_path / "file.json").write_text(json.dumps(record))
    with pytest.raises(ResultError, match="too few for a plane of 8192x8192"):
        HeatMap.load(tmp_path / "file.json")


def test_curvature_that_is_no_table(tmp_path: Path) -> None:
    record = json.loads(msgspec.json.encode(validation()))
    record["curvature"]["eigenvalues"] = [[1.0, 2.0], [1.0]]
    (tmp_path / "file.json").write_text(json.dumps(record))
    with pytest.raises(ResultError, match="eigenvalues"):
        Validation.load(tmp_path / "file.json")


def test_averaged_weights_are_said_by_every_verb() -> None:
    replace = msgspec.structs.replace
    heat = replace(heat_map(), target=replace(heat_map().target, weights="ema"))
    answers = replace(validation(), target=Provenance(source="net.pt", weights="ema"))
    assert "EMA weights" in summary(heat) and "EMA" not in summary(heat_map())
    (table, *_), (plain, *_) = tables_of(answers), tables_of(validation())
    assert isinstance(table, TextTable) and isinstance(plain, TextTable)
    assert "EMA weights" in table.title and "EMA" not in plain.title

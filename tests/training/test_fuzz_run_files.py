"""Damaged run folders and plans: always the right result or an error of ours, within 5 s."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fuzzing import outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fourier_probe.errors import ProbeError, TrainingError
from fourier_probe.io.tables import to_csv
from fourier_probe.papers import captions, selection
from fourier_probe.studies import SweepPlan
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.config_files import read_config
from fourier_probe.training.record import (
    CONVERSIONS,
    METRICS,
    STEPS,
    Environment,
    ImageCounts,
    InputRecord,
    PlanRecord,
    RunRecord,
    RunResult,
    ScheduleRecord,
    read_conversions,
    read_metrics,
    read_steps,
)
from fourier_probe.training.runs import Run

ROWS: list[dict[str, object]] = [
    {"epoch": e, "step": 3 * e + 3, "lr": 0.1 / (e + 1), "val_acc": e / 7, "parameters": 11_000, "seconds": 1.25}
    for e in range(3)
]
SWITCHES: list[dict[str, object]] = [{"layer": f"layer{i}", "epoch": i, "ratio": 1.0625, "images": 48} for i in (1, 2)]
TAKEN: list[dict[str, object]] = [
    {"step": 2 * at + 2, "lr": 0.1, "loss": 1.25 / (at + 1), "acc": at / 7, "images": 32, "converted": at}
    for at in range(3)
]
RECORD = RunRecord(
    config=TrainConfig(model_args={"width": 4}, schedule="linear", decay_milestones=(1, 2), convert=("layer*",)),
    arch="cifar_resnet8",
    model_args={"width": 4, "num_classes": 4},
    input=InputRecord((12, 12), (0.5,), (0.25,)),
    images=ImageCounts(train=48, val=16, test=16, digest="ab"),
    classes=4,
    plan=PlanRecord(epochs=3, steps=3, batch=16, schedule=ScheduleRecord("linear", {"layer1": 1, "layer2": 2})),
    environment=Environment("2.10", "cpu", 1, 1),
    versions={"torch": "2.10"},
    created="2026-11-26T00:00:00+00:00",
    result=RunResult(train_loss=1.5, val_acc=2 / 7, test_acc=0.25, epochs=3),
)
PLAN = """
[shared]
data = "bundled"
epochs = 2
lr = 5e-2
[axes]
model = ["cifar_resnet8", {model = "cifar_resnet20", epochs = 1}]
seed = [0, 1]
[[set]]
when = {model = "*20"}
convert = ["layer3.*"]
recast_args = {gate = 1.0}
[[exclude]]
seed = 1
model = "*20"
[analyze]
images = 8
"""
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["x" * 5000, "\udcff", "\x1b[31m", "1e-3", "nan"]),
    st.recursive(st.none() | st.integers(), lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v)),
)
FUZZ = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of three epochs and two switches, without weights."""
    (tmp_path / "config.json").write_text(json.dumps(msgspec.to_builtins(RECORD)))
    (tmp_path / "metrics.csv").write_text(to_csv(ROWS, METRICS))
    (tmp_path / "conversions.csv").write_text(to_csv(SWITCHES, CONVERSIONS))
    (tmp_path / "steps.csv").write_text(to_csv(TAKEN, STEPS))
    return tmp_path


def test_the_run_that_is_damaged_below_is_right(run: Path) -> None:
    found = Run.read(run)
    assert found.record == RECORD
    assert [row.epoch for row in found.metrics] == [0, 1, 2]
    assert [(row.layer, row.epoch, row.ratio) for row in found.conversions] == [
        ("layer1", 1, 1.0625),
        ("layer2", 2, 1.0625),
    ]
    assert repr(found) == f"Run({str(run)!r}, cifar_resnet20, linear, seed 0, 3 epochs, test_acc 0.2500)"


@pytest.mark.parametrize("name", ["metrics.csv", "conversions.csv"])
def test_a_table_cut_at_any_byte(name: str, run: Path) -> None:
    """Of a finished run every cut is found; of an unfinished one the rows are a beginning of what was there."""
    read: Callable[[Run], list[Any]] = lambda r: r.metrics if name == "metrics.csv" else r.conversions  # noqa: E731
    whole = (run / name).read_bytes()
    rows = read(Run.read(run))
    config = msgspec.to_builtins(RECORD)
    for result in (config["result"], None):
        (run / "config.json").write_text(json.dumps({**config, "result": result}))
        for size in range(len(whole)):
            (run / name).write_bytes(whole[:size])
            found = outcome(lambda: read(Run.read(run)))
            if isinstance(found, ProbeError):
                assert name in str(found)
            else:
                assert result is None and whole[:size].endswith(b"\n")
                assert found == rows[: len(found)]


def test_steps_cut_at_any_byte(run: Path) -> None:
    """Nothing says how many rows there were: what is read is a beginning of them, and no number is cut short."""
    rows = read_steps(run)
    whole = (run / "steps.csv").read_bytes()
    for size in range(len(whole)):
        (run / "steps.csv").write_bytes(whole[:size])
        found = outcome(lambda: read_steps(run))
        assert (isinstance(found, ProbeError) and "steps.csv" in str(found)) or found == rows[: len(found)]


IMPOSSIBLE: dict[str, tuple[str, str, str]] = {
    "an accuracy in percent": (
        "metrics.csv",
        "epoch,val_acc\n0,97.5\n",
        "line 2: val_acc is '97.5': expected a number <=",
    ),
    "an accuracy below 0": ("metrics.csv", "epoch,test_acc\n0,-0.5\n", "test_acc is '-0.5'"),
    "a negative rate": ("metrics.csv", "epoch,lr\n0,-0.5\n", "lr is '-0.5'"),
    "a negative time": ("metrics.csv", "epoch,seconds\n0,-1\n", "seconds is '-1'"),
    "a negative step": ("steps.csv", "step,lr,loss,acc,images\n-4,0.1,1,0.5,8\n", "step is '-4'"),
    "an accuracy of a step": ("steps.csv", "step,lr,loss,acc,images\n4,0.1,1,50,8\n", "acc is '50'"),
    "an epoch before the first": ("conversions.csv", "layer,epoch\na,-1\n", "epoch is '-1'"),
    "an accuracy of a switch": ("conversions.csv", "layer,epoch,acc_after\na,1,40\n", "acc_after is '40'"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_a_number_that_no_training_can_give_is_named(case: str, run: Path) -> None:
    name, text, message = IMPOSSIBLE[case]
    (run / name).write_text(text)
    read: dict[str, Callable[[Path], Any]] = {
        "metrics.csv": read_metrics, "steps.csv": read_steps, "conversions.csv": read_conversions,
    }  # fmt: skip
    with pytest.raises(TrainingError, match=message):
        read[name](run)


@pytest.mark.parametrize(("field", "value"), [("test_acc", 40), ("val_acc", -1), ("train_loss", -2), ("epochs", -1)])
def test_a_result_that_no_training_can_give_is_named(field: str, value: float, run: Path) -> None:
    record = msgspec.to_builtins(RECORD)
    record["result"][field] = value
    (run / "config.json").write_text(json.dumps(record))
    with pytest.raises(TrainingError, match=f"result.{field}"):
        Run.read(run)


@FUZZ
@given(st.data())
def test_a_table_with_damaged_bytes(run: Path, data: st.DataObject) -> None:
    """A value may be another one, which nothing can tell; it is never of another kind, and no row is lost."""
    name = data.draw(st.sampled_from(["metrics.csv", "conversions.csv", "steps.csv"]))
    table, columns = {
        "metrics.csv": (ROWS, METRICS), "conversions.csv": (SWITCHES, CONVERSIONS), "steps.csv": (TAKEN, STEPS),
    }[name]  # fmt: skip
    whole = to_csv(table, columns).encode()
    at = data.draw(st.integers(0, len(whole)))
    put = data.draw(st.binary(max_size=4) | st.sampled_from([b",", b"\n", b'"', b"\0", b"\r", b"nan", b"e9"]))
    skip = data.draw(st.integers(0, 4))
    (run / name).write_bytes(whole[:at] + put + whole[at + skip :])
    found = outcome(lambda: len(getattr(Run.read(run), name.removesuffix(".csv"))))
    assert isinstance(found, ProbeError) or found == len(table) or name == "steps.csv"
    (run / name).write_bytes(whole)


def fields(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of every value in nested lists and keyed values."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        yield from fields(inner, (*path, key))


PLACES = list(fields(json.loads(json.dumps(msgspec.to_builtins(RECORD)))))


@FUZZ
@given(st.sampled_from(PLACES), st.sampled_from(["replace", "delete", "rename"]), ODD)
def test_a_record_with_one_field_changed(run: Path, place: tuple[str | int, ...], how: str, odd: Any) -> None:
    record = json.loads(json.dumps(msgspec.to_builtins(RECORD)))
    holder = record
    for key in place[:-1]:
        holder = holder[key]
    last: Any = place[-1]
    if how == "replace":
        holder[last] = odd
    else:
        value = holder.pop(last)
        if how == "rename" and isinstance(holder, dict):
            holder[f"{last}s"] = value
    (run / "config.json").write_text(json.dumps(record))

    def use() -> Run:
        found = Run.read(run)
        assert repr(found).isprintable()
        _ = found.metrics, found.conversions, selection.label(found), captions.accuracy(found)
        _ = captions.hardware([found]), selection.switches(found), found.plan.epochs
        return found

    result = outcome(use)
    if isinstance(result, Run):  # then it is what the file says, and the rest is as it was
        again = json.loads(json.dumps(msgspec.to_builtins(result.record)))
        expected = json.loads(json.dumps(msgspec.to_builtins(RECORD)))
        changed = place[:-1] if how != "replace" and isinstance(last, int) else place  # a list that is shorter
        for path in PLACES:
            if path[: len(changed)] != changed and changed[: len(path)] != path:
                assert at(again, path) == at(expected, path)
        if how == "replace":
            assert at(again, place) == odd


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    """What is at a place; None also where nothing is, since what is None may be left out of a file."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else value[key]
    return value


@FUZZ
@given(st.data())
def test_a_plan_with_damaged_text(tmp_path: Path, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(PLAN)))
    put = data.draw(
        st.text(max_size=4)
        | st.sampled_from(
            ["[", "]", "{", "=", '"', "nan", "inf", "-", "1e999", "2020-01-01", "true", "\n[x]\n", "a.b = 1\n"]
        )
    )
    skip = data.draw(st.integers(0, 6))
    text = PLAN[:start] + put + PLAN[start + skip :]
    path = tmp_path / "plan.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    plan = outcome(lambda: SweepPlan.read(path))
    if isinstance(plan, SweepPlan):
        assert plan.entries and all(json.dumps(entry.config.to_json(), allow_nan=False) for entry in plan.entries)


@FUZZ
@given(st.sampled_from([each for each in fields(json.loads(json.dumps(TrainConfig().to_json())))]), ODD)
def test_an_option_of_another_kind(tmp_path: Path, place: tuple[str | int, ...], odd: Any) -> None:
    (tmp_path / "c.json").write_text(json.dumps({place[0]: odd}))
    options = outcome(lambda: read_config(tmp_path / "c.json"))
    if not isinstance(options, ProbeError):
        config = outcome(lambda: TrainConfig(**{**TrainConfig().to_json(), **options}))
        assert isinstance(config, ProbeError) or json.dumps(config.to_json(), allow_nan=False)

"""Files as typed values: each kind of damage is an error that names the file, and the line or the field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from fourier_probe.errors import ProbeError, ResultError
from fourier_probe.io import decode


@dataclass(frozen=True)
class Options:
    lr: float = 0.1
    epochs: int = 3
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.lr < 0:
            raise ProbeError("lr is below 0.")


class Plan(msgspec.Struct, forbid_unknown_fields=True):
    steps: int
    switches: dict[str, int] = {}


class Record(msgspec.Struct):
    config: Options = Options()
    plan: Plan | None = None
    note: str = ""


def test_absent_fields_take_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"config": {"lr": 1, "names": ["a"]}, "plan": {"steps": 2}, "of a later version": 1}')
    record = decode.decode_json(path, Record, ResultError)
    assert record == Record(Options(lr=1.0, names=("a",)), Plan(2))


def test_text_that_is_no_unicode_comes_back(tmp_path: Path) -> None:
    """A path of bytes is written as an escape of JSON, which msgspec's own parser refuses."""
    (tmp_path / "r.json").write_text('{"note": "\\udcff.npz"}')
    assert decode.decode_json(tmp_path / "r.json", Record, ResultError).note == "\udcff.npz"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"config": {"epochs": "3"}}', r"r.json: config.epochs: expected int, got str"),
        ('{"config": {"epochs": true}}', r"r.json: config.epochs: expected int, got bool"),
        ('{"config": {"names": ["a", 2]}}', r"r.json: config.names\[1\]: expected str, got int"),
        ('{"config": {"lr": -1}}', "r.json: lr is below 0"),
        ('{"config": {"epoch": 3}}', "r.json: unknown field 'config.epoch'. Did you mean epochs"),
        ('{"plan": {"steps": 1, "step": 3}}', "r.json: unknown field 'plan.step'. Did you mean steps"),
        ('{"plan": {}}', "r.json: plan: missing required field steps"),
        ('{"plan": {"steps": 1, "switches": {"a": 0.5}}}', "r.json: plan.switches.*expected int, got float"),
        ('{"config": {"lr": "\\udcff"}}', "r.json: text that is no Unicode"),
        ("[]", "r.json: expected keys and values, got array"),
        ('{"config": {"lr": NaN}}', "r.json holds NaN"),
        ('{"config": {"lr": 1e999}}', "r.json holds 1e999"),
        ('{"config":\n{"lr": 0.', "r.json, line 2: .*cut or damaged"),
        ("", "r.json, line 1"),
        ("[" * 100_000, "r.json is nested too deeply"),
        ('{"config": ' * 100_000, "r.json is nested too deeply"),
        ("[" * 500 + "]" * 500, "r.json is nested too deeply or too large"),
        ('{"config": {"lr": ' + "9" * 5000 + "}}", "cannot read .*r.json"),
    ],
)
def test_damaged_json(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ResultError, match=message):
        decode.decode_json(tmp_path / "r.json", Record, ResultError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 100_000, "p.toml is nested too deeply"),
        ("a = 1\nb = = 2", "p.toml.*line 2"),
        ("lr = nan", "p.toml: lr is nan: expected a finite number"),
        ("a = [1.0, inf]", r"p.toml: a\[1\] is inf"),
        ("when = 2020-01-01", "p.toml: when is a date or time"),
        (".".join("a" * 3000) + " = 1", "nested too deeply"),
    ],
)
def test_damaged_toml(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(ResultError, match=message):
        decode.read_toml(tmp_path / "p.toml", ResultError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- " * 5_000 + "a", "nested too deeply"),
        ("1: a", "the key 1 is no text"),
        ("a: !!python/object/apply:os.getpid []", "cannot read"),
        ("a: &a [x, x, x, x, x, x, x, x, x, x]\n"
         + "".join(f"{k}: &{k} [{', '.join([f'*{j}'] * 10)}]\n" for j, k in zip("abcdefgh", "bcdefghi", strict=True)),
         "too large"),
        ("a: &a [*a]", "nested too deeply"),
    ],
)  # fmt: skip
def test_hostile_yaml(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ResultError, match=message):
        decode.read_yaml(tmp_path / "p.yaml", ResultError)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / ("x" * 400), tmp_path / "a\0b"):
        with pytest.raises(ResultError, match="cannot read"):
            decode.read_text(path, ResultError)
    (tmp_path / "b").write_bytes(b"a\n\xffb")
    with pytest.raises(ResultError, match="b, line 2: expected UTF-8 text, got byte 0xff"):
        decode.read_text(tmp_path / "b", ResultError)


def test_what_json_cannot_hold_is_refused_by_name() -> None:
    decode.check_plain({"a": [1, "b", None, True, 0.5]}, "x", ProbeError)
    for value, message in (({"a": [math.nan]}, r"a\[0\] is nan"), ({"a": {1}}, "a is set"), ({1: 2}, "the key 1")):
        with pytest.raises(ProbeError, match=message):
            decode.check_plain(value, "x", ProbeError)

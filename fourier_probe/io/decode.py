"""Text files and what they hold, typed: a message names the file and the line or the field. Imports errors, regular."""

from __future__ import annotations

import datetime
import functools
import json
import math
import re
import reprlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from fourier_probe.errors import ProbeError, suggest
from fourier_probe.io.regular import read_regular

Value = TypeVar("Value")
DEPTH = 64  # levels of nesting that a file of ours or of a user's may have
VALUES = 1_000_000  # values in a file, where one that it refers to twice counts twice
_RANGE = re.compile(r" [<>]=? .*")  # of what msgspec expected
_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)


def read_text(path: Path, error: type[ProbeError]) -> str:
    """A file of UTF-8 text, a byte order mark left out.

    Raises:
        error: it cannot be read, or a line of it is no UTF-8 or holds a zero byte.
    """
    try:
        data = read_regular(path)
    except (OSError, ValueError) as problem:  # ValueError: a name with a zero in it
        raise error(f"cannot read {path}: {getattr(problem, 'strerror', None) or problem}.") from problem
    bad = data.find(b"\0")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        bad = problem.start if bad < 0 else min(bad, problem.start)
    if bad >= 0:
        line = data.count(b"\n", 0, bad) + 1
        raise error(f"{path}, line {line}: expected UTF-8 text, got byte 0x{data[bad]:02x}: the file is no text.")
    return text


def decode_json(path: Path, kind: type[Value], error: type[ProbeError]) -> Value:
    """A JSON file as an object of `kind`, such as a msgspec.Struct or a dataclass.

    Raises:
        error: it is no JSON (names the line), or a field of it is of another type (names the field).
    """
    return convert(read_json(path, error), kind, str(path), error)


def read_json(path: Path, error: type[ProbeError]) -> object:
    """Plain values out of a JSON file; raises `error` with its line. No NaN, no infinity, no deep nesting."""
    text = read_text(path, error)

    def refused(word: str) -> NoReturn:
        raise error(f"{path} holds {word}, which is no number of JSON.")

    def finite(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refused(digits[:40])

    return _parsed(path, lambda: json.loads(text, parse_constant=refused, parse_float=finite), error)


def read_toml(path: Path, error: type[ProbeError]) -> object:
    """Plain values out of a TOML file; raises `error` with its line."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    text = read_text(path, error)
    return _parsed(path, lambda: tomllib.loads(text), error)


def read_yaml(path: Path, error: type[ProbeError]) -> object:
    """Plain values out of a YAML file; raises `error` with its line."""
    import yaml  # type: ignore[import-untyped,unused-ignore]

    text = read_text(path, error)

    def load() -> object:
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as problem:
            raise ValueError(str(problem)) from problem

    return _parsed(path, load, error)


def _parsed(path: Path, parse: Callable[[], object], error: type[ProbeError]) -> object:
    """What a parser makes of a file, if it is made of plain values."""
    try:
        value = parse()
        check_plain(value, str(path), error)
    except RecursionError as problem:
        raise error(f"{path} is nested too deeply: expected at most {DEPTH} levels.") from problem
    except json.JSONDecodeError as problem:
        raise error(f"cannot read {path}, line {problem.lineno}: {problem.msg}: it is cut or damaged.") from problem
    except (ValueError, OverflowError) as problem:
        raise error(f"cannot read {path}: {_short(' '.join(str(problem).split()))}.") from problem
    return value


def check_plain(value: object, where: str, error: type[ProbeError]) -> None:
    """Raise `error` unless a value is made of text, finite numbers, true, false, null, lists and keyed values.

    This is what JSON can write and give back. The walk does not recurse, and is bounded.
    """
    waiting: list[tuple[object, str, int]] = [(value, "", 0)]
    count = 0
    while waiting:
        item, name, depth = waiting.pop()
        count += 1
        if depth > DEPTH or count > VALUES:
            limit = f"{DEPTH} levels" if depth > DEPTH else f"{VALUES} values"
            raise error(f"{where} is nested too deeply or too large: expected at most {limit}.")
        if isinstance(item, dict):
            for key, inner in item.items():
                if not isinstance(key, str):
                    raise error(f"{where}: the key {_short(repr(key))} is no text: put it in quotes.")
                waiting.append((inner, f"{name}.{key}" if name else key, depth + 1))
        elif isinstance(item, list | tuple):
            waiting += ((inner, f"{name}[{index}]", depth + 1) for index, inner in enumerate(item))
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise error(f"{where}: {_short(name) or 'the value'} is {item}: expected a finite number.")
        elif item is not None and not isinstance(item, str | int):  # bool is an int
            kind = "a date or time" if isinstance(item, datetime.date | datetime.time) else type(item).__name__
            raise error(f"{where}: {_short(name) or 'the value'} is {kind}: expected text, a number, true or false.")


def convert(value: object, kind: type[Value], where: str, error: type[ProbeError], *, text: bool = False) -> Value:
    """Plain values as an object of `kind`; what is absent takes its default.

    Args:
        value: lists, keyed values, text and numbers.
        kind: the type; its dataclasses, and its Structs with `forbid_unknown_fields`, refuse unknown keys.
        where: begins the message, such as a file's name.
        error: what is raised.
        text: numbers come as text, as in a table.

    Raises:
        error: names the field, what was expected and what came; near names for an unknown key.
    """
    for name, known in _unknown(value, _type_info(kind), ""):  # type: ignore[arg-type] # a class can be hashed
        raise error(f"{where}: unknown field {_short(name)!r}.{suggest(name.rpartition('.')[2], known)}")
    try:
        return msgspec.convert(value, kind, strict=not text)
    except msgspec.ValidationError as problem:
        match = _AT.match(str(problem))
        what, path = (match["what"], match["path"]) if match else (str(problem), None)
        what = what.replace("`", "").removeprefix("Object ").replace("object", "keys and values")
        what = what[:1].lower() + what[1:]
        name = (path or "").lstrip(".")
        if text and isinstance(value, dict) and name in value:
            number = "a whole number" if "int" in what else "a number"
            number += "".join(_RANGE.findall(what))
            raise error(f"{where}: {_short(name)} is {shown(value[name])}: expected {number}.") from problem
        raise error(f"{where}: {_short(name) + ': ' if name else ''}{what}.") from problem
    except UnicodeEncodeError as problem:  # msgspec cannot name such a text
        raise error(f"{where}: text that is no Unicode, {shown(problem.object)}, where none is expected.") from problem
    except ProbeError as problem:  # a value out of range, of a class that checks itself
        raise error(f"{where}: {problem}") from problem


@functools.cache
def _type_info(kind: type) -> msgspec.inspect.Type:
    return msgspec.inspect.type_info(kind)


def _unknown(value: object, kind: msgspec.inspect.Type, path: str) -> Iterator[tuple[str, list[str]]]:
    """Keys that `kind` does not have where it forbids them, with those that it has."""
    if isinstance(kind, msgspec.inspect.UnionType):
        for option in kind.types:
            yield from _unknown(value, option, path)
    elif isinstance(value, dict):
        if isinstance(kind, msgspec.inspect.DictType):
            for key, inner in value.items():
                yield from _unknown(inner, kind.value_type, f"{path}{key}.")
        elif isinstance(kind, msgspec.inspect.StructType | msgspec.inspect.DataclassType):
            fields = {field.encode_name: field.type for field in kind.fields}
            closed = isinstance(kind, msgspec.inspect.DataclassType) or kind.forbid_unknown_fields
            for key, inner in value.items():
                if key in fields:
                    yield from _unknown(inner, fields[key], f"{path}{key}.")
                elif closed:
                    yield f"{path}{key}", list(fields)
    elif isinstance(value, list) and isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        for index, inner in enumerate(value):
            yield from _unknown(inner, kind.item_type, f"{path}{index}.")


def _short(text: str) -> str:
    """At most so much of a text that a message can hold, without control characters."""
    clean = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:300])
    return clean if len(clean) <= 120 else clean[:100] + "..."


def shown(value: object) -> str:
    """A value for a message: like repr, bounded in length and depth."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = 80
    return _short(brief.repr(value))

"""spectra.json read and written: points to and from its structures (`forms`). Imports these, point, records, io.

Schema `fourier-probe/spectra`, version 2. A reader of version n reads 1 to n: what an older file lacks is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fourier_probe.errors import ResultError
from fourier_probe.io.typed import read_result
from fourier_probe.probe.definition import Definition
from fourier_probe.results.bounds import out_of_range
from fourier_probe.results.forms import ChangeForm, Numbers, PointForm, SpectraForm, StepForm
from fourier_probe.results.point import Array, Change, PointSpectrum, RadialProfile, Singular, Step
from fourier_probe.results.records import ImagesInfo, Provenance

SCHEMA, VERSION = "fourier-probe/spectra", 2
AGAIN = "run `fourier-probe analyze` again"


class _Open(msgspec.Struct):
    """What a form does not name: other fields of records, scalars of points."""

    target: dict[str, Any]
    images: dict[str, Any]
    points: list[dict[str, msgspec.Raw]]
    input: dict[str, msgspec.Raw] | None = None


class Read(msgspec.Struct):
    """spectra.json as read: the form, and of it what needs more than the form."""

    form: SpectraForm
    target: Provenance
    images: ImagesInfo
    definition: Definition
    points: list[Any]  # of PointSpectrum, which holds arrays
    input: Any


def read(path: Path) -> Read:
    """The contents of a spectra.json.

    Raises:
        ResultError: missing, damaged, of another schema, of a later version, or a field of another type or length.
    """
    form = read_result(path, SpectraForm, schema=SCHEMA, version=VERSION, again=AGAIN)
    rest = read_result(path, _Open, schema=SCHEMA, version=VERSION, again=AGAIN)
    try:
        points = [
            _point(f"points[{index}]", *pair) for index, pair in enumerate(zip(form.points, rest.points, strict=True))
        ]
        images = None if form.input is None or rest.input is None else _point("input", form.input, rest.input)
    except msgspec.ValidationError as error:
        raise ResultError(f"{path} is damaged, {error}: {AGAIN}.") from error
    return Read(
        form=form,
        target=Provenance.of(rest.target),
        images=ImagesInfo.of(rest.images),
        definition=Definition.from_json(msgspec.structs.asdict(form.definition)),
        points=points,
        input=images,
    )


def point_json(point: PointSpectrum) -> dict[str, object]:
    """A point as plain values; what is not finite (there is no such number) becomes null."""
    value: dict[str, object] = {
        name: plain(field)
        if isinstance(field := getattr(point, name), np.ndarray)
        else field  # NaN elsewhere is refused
        for name in "name kind op depth grid channels frequency usable log_amplitude delta stderr".split()
    }
    if point.radial is not None:
        value["radial"] = {name: plain(numbers) for name, numbers in vars(point.radial).items()}
    if point.singular is not None:
        value["singular"] = {"log_ratio": plain(point.singular.value), "stderr": plain(point.singular.stderr)}
    scalars = {name: _number(number) for name, number in point.scalars.items()}
    taken = scalars.keys() & {*PointForm.__struct_fields__}
    if taken:
        raise ResultError(f"a scalar of {point.name} has the name of a field, {', '.join(taken)}: rename the metric.")
    value |= scalars
    if point.profiles:
        value["profiles"] = {
            name: {"value": plain(profile.value), "stderr": plain(profile.stderr)}
            for name, profile in point.profiles.items()
        }
    value["stderr_of"] = {name: _number(point.stderr_of.get(name)) for name in scalars}
    value |= {"hfd_share_white": point.hfd_share_white, "dead_channels": point.dead_channels, "gate": point.gate}
    if point.step is not None:
        step = {"log_amplitude": point.step.log_amplitude, "delta": point.step.delta}
        changes = {
            name: None
            if changes_of is None
            else {"change": plain(changes_of.change), "stderr": plain(changes_of.stderr)}
            for name, changes_of in step.items()
        }
        value["step"] = {"from": point.step.origin} | changes
    return value


def _point(where: str, form: PointForm, fields: dict[str, msgspec.Raw]) -> PointSpectrum:
    """A point from its form, with the scalars beside it."""
    scalars: dict[str, float] = {}
    for name in form.stderr_of:
        try:
            scalars[name] = _nan(msgspec.json.decode(fields.get(name, b"null"), type=float | None))
            problem = out_of_range(name, scalars[name])
        except msgspec.ValidationError as error:
            problem = str(error)
        if problem:
            raise msgspec.ValidationError(f"{problem} - at `$.{where}.{name}`")
    radial, step = form.radial, form.step
    return PointSpectrum(
        name=form.name,
        kind=form.kind,
        op=form.op,
        depth=form.depth,
        grid=form.grid,
        channels=form.channels,
        frequency=_array(form.frequency),
        usable=form.usable,
        log_amplitude=_array(form.log_amplitude),
        delta=_array(form.delta),
        stderr=_array(form.stderr),
        radius=None if radial is None else _array(radial.radius),
        log_density=None if radial is None else _array(radial.log_density),
        log_density_stderr=None if radial is None else _array(radial.stderr),
        scalars=scalars,
        stderr_of={name: _nan(error) for name, error in form.stderr_of.items()},
        profiles={
            name: RadialProfile(_array(profile.value), _array(profile.stderr))
            for name, profile in (form.profiles or {}).items()
        },
        hfd_share_white=form.hfd_share_white,
        dead_channels=form.dead_channels,
        gate=form.gate,
        singular=None
        if form.singular is None
        else Singular(_array(form.singular.log_ratio), _array(form.singular.stderr)),
        step=None if step is None else _step(step, len(form.frequency)),
    )


def _step(form: StepForm, bins: int) -> Step:
    nothing: Numbers = [None] * bins
    first = form.log_amplitude or ChangeForm(form.change or nothing, form.stderr or nothing)
    delta = None if form.delta is None else Change(_array(form.delta.change), _array(form.delta.stderr))
    return Step(form.origin, Change(_array(first.change), _array(first.stderr)), delta)


def _array(numbers: Sequence[float | None]) -> Array:
    return np.array([_nan(number) for number in numbers], dtype=np.float64)


def _nan(number: float | None) -> float:
    return math.nan if number is None else float(number)


def _number(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(number)


def plain(value: object) -> object:
    """As JSON has it: arrays and tuples as lists, numbers that are not finite as null."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return _number(value) if isinstance(value, float) else value


def finite(value: dict[str, object]) -> dict[str, object]:
    """The same values, every string of which is text that JSON and UTF-8 can hold.

    Raises:
        ResultError: a number is not finite; its field is named. msgspec would write null in its place.
    """
    checked: dict[str, object] = _finite(value, "$")
    return checked


def _finite(value: object, where: str) -> Any:
    if isinstance(value, dict):
        return {text(str(key)): _finite(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ResultError(f"`{where}` is {value}, which a result cannot hold: it is not written.")
    return value


def text(name: str) -> str:
    """A name of a file that is no UTF-8, with escapes in place of its stray bytes."""
    return name.encode("utf-8", "backslashreplace").decode()

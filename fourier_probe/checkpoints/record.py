"""What a file says of itself, typed and bounded. Imports errors only.

A wrong type in a file of ours is refused by the name of its field. Files of others may hold anything: what is not of
the expected type is left out, with the reason. Arguments that a model is created with are plain and small, and no path.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from fourier_probe.errors import CheckpointError, printable
from fourier_probe.io.regular import read_regular

LARGEST = 65_536
"""The largest whole number that a file may give as an argument of a model; of classes there may be a million."""

_HUB_LIMIT = 1 << 20  # bytes of a config.json
_TEXT = re.compile(r"[\w.,+ -]{0,200}")  # names of layers and poolings; no path, no address
_NAME = re.compile(r"[A-Za-z_]\w{0,63}")

Scalar = bool | int | float | str | None
Side = Annotated[int, Meta(ge=1, le=65_536)]  # pixels
Count = Annotated[int, Meta(ge=0, le=1 << 40)]


class RecastOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `recast`, as a conversion used them; None where its default was used."""

    locality_strength: float | None = None
    gate: float | None = None
    head_dim: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    content_stride: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    content_maps: Annotated[int, Meta(ge=1, le=65_536)] | None = None

    @property
    def chosen(self) -> dict[str, Any]:
        """Those that are set, by name."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}


class Conversion(msgspec.Struct, frozen=True):
    """A layer that was recast as attention."""

    layer: Annotated[str, Meta(min_length=1, max_length=1000)]
    epoch: float | None = None
    options: RecastOptions = RecastOptions()


class Input(msgspec.Struct, frozen=True):
    """The images of a run: pixels (H, W), and mean and standard deviation per channel."""

    size: tuple[Side, Side] | None = None
    mean: Annotated[tuple[float, ...], Meta(max_length=1024)] | None = None
    std: Annotated[tuple[float, ...], Meta(max_length=1024)] | None = None


class Training(msgspec.Struct, frozen=True):
    """What results say of the run that a checkpoint comes from."""

    data: Annotated[str, Meta(max_length=4096)] | None = None
    data_scale: float | None = None
    train_images: Count | None = None
    schedule: str | None = None
    seed: int | None = None
    input: Input | None = None


class Record(msgspec.Struct, frozen=True):
    """The fields of a checkpoint of ours, weights and states of optimizer and generators aside."""

    version: Annotated[int, Meta(ge=1)]
    digest: str
    arch: Annotated[str, Meta(max_length=1000)] | None = None
    model_args: dict[str, Any] | None = None
    epoch: Count | None = None
    step: Count | None = None
    config: Training | None = None
    conversions: tuple[Conversion, ...] | None = None
    metrics: dict[str, Scalar] | None = None
    rows: list[dict[str, Scalar]] | None = None
    seconds: float | None = None
    best: float | None = None
    finished: bool | None = None
    data_digest: str | None = None
    environment: dict[str, Scalar] | None = None
    optimizer: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None


class HubConfig(msgspec.Struct, frozen=True):
    """timm's `config.json` beside weights from a hub."""

    architecture: Annotated[str, Meta(max_length=1000)]
    num_classes: int | None = None
    global_pool: str | None = None
    model_args: dict[str, Any] | None = None


_Typed = TypeVar("_Typed", bound=msgspec.Struct)


def typed(values: Mapping[object, object], kind: type[_Typed], path: Path) -> _Typed:
    """The fields of `kind` in `values`.

    Raises:
        CheckpointError: one is of another type or out of range; names it.
    """
    try:
        return _converted(values, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"{path}: {_reason(error)}. The file was changed, or another program wrote it."
        ) from error


def as_far_as_typed(values: Mapping[Any, object], kind: type[_Typed]) -> tuple[_Typed, list[str]]:
    """The fields of `kind` in `values` that have its types, and why the others are left out."""
    fields, reasons = {}, []
    for name in kind.__struct_fields__:
        try:
            _converted({name: values.get(name)}, kind)
        except msgspec.ValidationError as error:
            reasons.append(_reason(error))
        else:
            fields[name] = values.get(name)
    return _converted(fields, kind), reasons


def decoded(data: bytes | str, kind: type[_Typed] | None = None) -> tuple[Any, str]:
    """JSON, and why it is none; the other of the two is empty."""
    try:
        return msgspec.json.decode(data, type=kind or Any), ""
    except RecursionError:
        return None, "it is nested too deeply"
    except (msgspec.DecodeError, UnicodeError) as error:
        return None, _reason(error)


def hub_config(path: Path) -> tuple[HubConfig | None, str]:
    """What timm's config.json beside weights from a hub says, or why it says nothing."""
    file = path.with_name("config.json")
    if path.name not in ("model.safetensors", "pytorch_model.bin") or not file.is_file():
        return None, ""
    try:
        data = read_regular(file, _HUB_LIMIT)
    except OSError as error:
        return None, f"config.json beside it cannot be read: {error.strerror}"
    config, reason = decoded(data, HubConfig)
    return config, f"config.json beside it: {reason}" if reason else ""


def arguments(values: Mapping[Any, object], path: Path) -> dict[str, object]:
    """Arguments of a model that a file gives.

    Raises:
        CheckpointError: a value is no number, name or short list of these, or beyond what a network has; names it.
    """
    left = 10_000  # values in all

    def check(value: object, where: str, depth: int) -> None:
        nonlocal left
        left -= 1
        if isinstance(value, dict):
            wrong = next((key for key in value if not isinstance(key, str) or not _NAME.fullmatch(key)), None)
            problem = "" if wrong is None else f"has the name {printable(wrong, 80)!r}, expected a Python name"
            parts = [(f"{where}.{key}", item) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            problem, parts = "", [(f"{where}[{index}]", item) for index, item in enumerate(value)]
        else:
            limit = 1 << 20 if where.endswith("num_classes") else LARGEST
            problem, parts = _unfit(value, limit), []
        if not problem and (depth > 4 or left < len(parts)):
            problem = "is too long or nested too deeply"
        if problem:
            raise CheckpointError(
                f"{path}: {where} {problem}. If you trust it, give the model yourself: --model and --model-arg."
            )
        for name, item in parts:
            check(item, name, depth + 1)

    check(dict(values), "model_args", 0)
    return {str(name): value for name, value in values.items()}


def _unfit(value: object, limit: int) -> str:
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int):
        return "" if abs(value) <= limit else f"is beyond {limit}"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"is {value}, expected a finite number"
    if isinstance(value, str):
        return "" if _TEXT.fullmatch(value) else f"is {printable(value, 80)!r}, expected a plain name"
    return f"is a {type(value).__name__}, expected a number, a name, or a list of these"


def _converted(values: Mapping[Any, Any], kind: type[_Typed]) -> _Typed:
    return msgspec.convert({name: values[name] for name in kind.__struct_fields__ if name in values}, kind)


def _reason(error: Exception) -> str:
    """The message of msgspec, the field first.

    >>> _reason(ValueError("Expected `int`, got `str` - at `$.config.seed`"))
    'config.seed: expected int, got str'
    """
    text, _, where = printable(error, 300).replace("`", "").replace(" | ", " or ").partition(" - at ")
    text = text[:1].lower() + text[1:]
    return f"{where.removeprefix('$').removeprefix('.')}: {text}" if where.strip("$") else text

"""spectra.json as typed structures: what a field may hold, which lengths belong together. Imports bounds and records.

A wrong type is refused by the name of its field, by msgspec; `schema` makes results of these.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fourier_probe.results.attention import AttentionRecord
from fourier_probe.results.bounds import Count, Frequency, Nats, Radius, Share, Side, Size
from fourier_probe.results.cka import CkaRecord
from fourier_probe.results.information import InformationRecord
from fourier_probe.results.kernels import KernelRecord
from fourier_probe.results.records import Coverage, ImagesInfo, LeftOut, MetricInfo, Provenance
from fourier_probe.results.reliance import RelianceRecord

Numbers = list[float | None]  # null: there is no such number, as an interval of fewer images than groups
Logs = list[Nats | None]
Errors = list[Size | None]


class RadialForm(msgspec.Struct):
    """The radial profile of a point."""

    radius: list[Radius]
    log_density: Logs
    stderr: Errors

    def __post_init__(self) -> None:
        _same_length({name: getattr(self, name) for name in self.__struct_fields__})
        _ascending("radius", self.radius)


class ProfileForm(msgspec.Struct):
    """A further radial metric of a point, at the radii of `radial`."""

    value: Numbers
    stderr: Errors


class SingularForm(msgspec.Struct):
    """Singular values of tokens."""

    log_ratio: Annotated[Logs, Meta(min_length=1)]
    stderr: Errors

    def __post_init__(self) -> None:
        _same_length({name: getattr(self, name) for name in self.__struct_fields__})


class ChangeForm(msgspec.Struct):
    """A change of each bin."""

    change: Logs
    stderr: Errors


class StepForm(msgspec.Struct):
    """A step change; version 1 has `change` and `stderr`, which are of log_amplitude."""

    origin: str = msgspec.field(name="from")
    log_amplitude: ChangeForm | None = None
    delta: ChangeForm | None = None
    change: Logs | None = None
    stderr: Errors | None = None


class PointForm(msgspec.Struct, kw_only=True):
    """A point; its scalars stand beside these fields, named in `stderr_of`."""

    name: str
    kind: str
    op: str
    depth: Share
    grid: tuple[Side, Side]
    channels: Annotated[int, Meta(ge=1)]
    frequency: Annotated[list[Frequency], Meta(min_length=1)]
    usable: Count
    log_amplitude: Logs
    delta: Logs
    stderr: Errors
    radial: RadialForm | None = None
    profiles: dict[str, ProfileForm] | None = None
    singular: SingularForm | None = None
    stderr_of: dict[str, Size | None] = {}
    hfd_share_white: Share | None = None
    dead_channels: Share | None = None
    gate: list[Share] | None = None
    step: StepForm | None = None

    def __post_init__(self) -> None:
        bins = {name: getattr(self, name) for name in ("frequency", "log_amplitude", "delta", "stderr")}
        if self.step is not None:
            for name, form in (("log_amplitude", self.step.log_amplitude), ("delta", self.step.delta), ("", self.step)):
                parts = {"change": getattr(form, "change", None), "stderr": getattr(form, "stderr", None)}
                bins |= {f"step.{name}.{part}": numbers for part, numbers in parts.items() if numbers is not None}
        _same_length(bins)
        _ascending("frequency", self.frequency)
        short = min(self.grid)
        if len(self.frequency) not in (short // 2 + 1, (short + 1) // 2):
            raise ValueError(f"`frequency` has {len(self.frequency)} bins, which a grid of {self.grid} has not")
        if self.radial is not None and len(self.radial.radius) != short // 2:
            raise ValueError(
                f"`radial.radius` has {len(self.radial.radius)} rings, which a grid of {self.grid} has not"
            )
        for name, profile in (self.profiles or {}).items():
            for part, numbers in (("value", profile.value), ("stderr", profile.stderr)):
                if len(numbers) != short // 2:
                    raise ValueError(
                        f"`profiles.{name[:80]}.{part}` has {len(numbers)} values of {short // 2} rings of the grid"
                    )
        if self.usable > len(self.frequency):
            raise ValueError(f"`usable` is {self.usable} of {len(self.frequency)} bins of `frequency`")


class DefinitionForm(msgspec.Struct, kw_only=True):
    """`Definition`, its logarithm as a formula in `log`."""

    log_kind: Literal["floor", "log1p", "plain"]
    log: str = ""
    floor: Annotated[float, Meta(gt=0)] = 1e-6
    window: Literal["none", "hann"] = "none"
    axis: Literal["true", "paper"] = "true"
    metrics: Literal["all", "diagonal"] = "all"
    groups: Annotated[int, Meta(ge=2, le=1 << 20)] = 20
    grouping: Literal["permutation", "stream"] | None = None


class SpectraForm(msgspec.Struct, kw_only=True):
    """All of spectra.json."""

    schema: str
    version: int
    target: Provenance
    images: ImagesInfo
    definition: DefinitionForm
    points: list[PointForm]
    top1: Share | None = None
    excluded: list[LeftOut] = []
    selected: bool = False
    attention: list[AttentionRecord] = []
    reliance: RelianceRecord | None = None
    information: list[InformationRecord] = []
    kernels: list[KernelRecord] = []
    cka: CkaRecord | None = None
    coverage: Coverage | None = None
    input: PointForm | None = None
    scalars: dict[str, MetricInfo] | None = None
    profiles: dict[str, MetricInfo] | None = None
    versions: dict[str, str] = {}
    created: str = ""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for point in self.points:
            if point.name in seen:
                raise ValueError(f"`points` holds two of the name {point.name[:80]!r}")
            seen.add(point.name)


def _same_length(arrays: dict[str, Sequence[float | None]]) -> None:
    (name, first), *others = arrays.items()
    for other, numbers in others:
        if len(numbers) != len(first):
            raise ValueError(f"`{other}` has {len(numbers)} values and `{name}` {len(first)}")


def _ascending(name: str, values: Sequence[float]) -> None:
    if any(b <= a for a, b in itertools.pairwise(values)):
        raise ValueError(f"`{name}` does not ascend")

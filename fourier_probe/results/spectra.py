"""The result of one analysis: numbers with errors, its three files, and what a notebook shows of it.

spectra.json holds the numbers (`schema`), spectra.npz the group sums they come from (`groupsums`, for paired intervals
between results), spectra.csv a tidy row per point and frequency (`frame`). May import these, point, records and io.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from fourier_probe.errors import ResultError, UnknownPointError, suggest
from fourier_probe.io import atomic
from fourier_probe.io.paths import expanded
from fourier_probe.probe.cka import Pooled
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.sums import quantile
from fourier_probe.results import frame, groupsums, schema
from fourier_probe.results.attention import AttentionRecord
from fourier_probe.results.cka import CkaRecord
from fourier_probe.results.drawing import drawing
from fourier_probe.results.information import InformationRecord
from fourier_probe.results.kernels import KernelRecord
from fourier_probe.results.labels import name_of
from fourier_probe.results.point import INPUT, PointSpectrum
from fourier_probe.results.records import Coverage, ImagesInfo, LeftOut, MetricInfo, Provenance
from fourier_probe.results.reliance import RelianceRecord
from fourier_probe.results.shown import Shown, registered, shown
from fourier_probe.runtime.versions import now, versions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FILES", "PointSpectrum", "Spectra"]

FILES = ("spectra.json", "spectra.npz", "spectra.csv")
SHORT = ("hfd_share", "slope", "effective_rank")
"""Metrics of the short table; beside them those that are not of this package."""


@dataclass(repr=False)
class Spectra:
    """The result of one analysis; the fields are those of spectra.json (see docs/results.md).

    Attributes:
        target: which network. images: which images.
        definition: what was computed.
        points: in execution order.
        top1: share of correct predictions on these images, or None.
        excluded: points left out, for example because their features were not finite.
        selected: whether the points were chosen by name; then figures and tables show all of them.
        attention: of each attention layer over a grid, where asked for: distance, diversity, response, gates.
        reliance: what the network relies on of the halves of its gated attention, where asked for and measured.
        information: of every attention, where asked for: the mutual information of its queries and keys.
        kernels: responses of convolutions, and of attention maps as filters, where asked for.
        cka: similarity of every point to every other, where asked for.
        pooled: features of every image, a mean over positions, where CKA was asked for; never saved.
        coverage: how much of the network was read, or None where that is not known.
        input: the numbers of the images themselves, as the network saw them, or None; `spectra["input"]` too.
        scalars: label and unit of every scalar metric of the points, also of those nobody has registered.
        profiles: likewise of the radial metrics of the points beside the log density.

    >>> import torch
    >>> import fourier_probe as fp
    >>> layers = [torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU()]
    >>> fp.analyze(torch.nn.Sequential(*layers), [torch.rand(20, 3, 8, 8)])
    Spectra('Sequential', 1 points, 20 images of ...)
    """

    target: Provenance
    images: ImagesInfo
    definition: Definition
    points: list[PointSpectrum]
    top1: float | None = None
    excluded: list[LeftOut] = field(default_factory=list)
    selected: bool = False
    attention: list[AttentionRecord] = field(default_factory=list)
    reliance: RelianceRecord | None = None
    information: list[InformationRecord] = field(default_factory=list)
    kernels: list[KernelRecord] = field(default_factory=list)
    cka: CkaRecord | None = None
    pooled: Pooled | None = None
    coverage: Coverage | None = None
    input: PointSpectrum | None = None
    scalars: dict[str, MetricInfo] = field(default_factory=lambda: registered("scalar"))
    profiles: dict[str, MetricInfo] = field(default_factory=lambda: registered("radial"))
    versions: dict[str, str] = field(default_factory=versions)
    created: str = field(default_factory=now)

    def __getitem__(self, name: str) -> PointSpectrum:
        """The point of this name.

        Raises:
            UnknownPointError: there is none; names near ones. It is a KeyError too.
        """
        for point in self.points:
            if point.name == name:
                return point
        if name == INPUT and self.input is not None:
            return self.input
        names = [point.name for point in self.points]
        near = suggest(str(name), names) or f" There are {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}."
        raise UnknownPointError(f"there is no point {name!r} in this result.{near}")

    @property
    def stream(self) -> list[PointSpectrum]:
        """The stem and the residual stream, over which a depth profile is drawn; all points if chosen by name."""
        on_stream = [point for point in self.points if point.kind in ("stem", "residual")]
        return self.points if self.selected or not on_stream else on_stream

    @property
    def label(self) -> str:
        """What tables, figures and pages call it: the label that it was given, else what it is."""
        return name_of(self.target)

    @property
    def epoch(self) -> int:
        """Epochs of training behind the weights.

        Raises:
            ResultError: the result does not say.
        """
        if self.target.epoch is None:
            raise ResultError(
                f"a result of {self.target.source} names no epoch: remove it, or analyze a run or a checkpoint of one."
            )
        return self.target.epoch

    # --- to look at ---

    def __repr__(self) -> str:
        top1 = "" if self.top1 is None else f", top-1 {self.top1:.1%}"
        return f"Spectra({self.label!r}, {len(self.points)} points, {self.images.text}{top1})"

    def _repr_html_(self) -> str:
        table = self.table().to_html(index=False, float_format="{:.3f}".format, na_rep="")
        return f"<p>{escape(repr(self))}</p>{table}"

    def table(self) -> pd.DataFrame:
        """A row per point, the images first: delta, or the log density where grids differ, with its interval; more."""
        from fourier_probe.results.input_level import input_level
        from fourier_probe.results.profile import has_frequencies, profile

        values, heading = {}, "delta (nats)"
        if has_frequencies(self):
            along = profile(self)
            half = along.quantile * along.stderr
            heading = f"{along.view.heading} (nats)"
            values = {name: (float(v), float(h)) for name, v, h in zip(along.names, along.value, half, strict=True)}
            if (level := input_level(self, along.view)) is not None:
                values[INPUT] = (level.value, along.quantile * level.stderr)
        metrics = [metric for metric in self.metrics if metric.name in SHORT or not metric.ours]
        rows = self.points if self.input is None else [self.input, *self.points]
        return frame.short(rows, values, heading, metrics, quantile(self.definition.groups))

    @property
    def metrics(self) -> list[Shown]:
        """The metrics beside delta and the log density that the points hold: scalars, then radial ones."""
        return shown(self.points, self.scalars | self.profiles)

    def to_frame(self) -> pd.DataFrame:
        """A tidy row per point and frequency, diagonal and radial, and per point and scalar, as in spectra.csv."""
        return frame.tidy(self.target.source, self.points, self.input)

    def plot(
        self, name: str = "spectra", *, ax: Axes | None = None, label: str | None = None, **options: str
    ) -> Figure:
        """A figure of this result.

        Args:
            name: "spectra" (a curve per depth), "depth" (the profile), a metric of `metrics` over depth, or what was
                measured beside them: "metrics" (all that are not of this package), "maps",
                "tokens", "kernels", "attention", "cka", "reliance".
            ax: axes to draw into, for "spectra", "depth" and a metric; a figure of its own by default.
            label: title; what the target is called by default.
            **options: of "maps": scale="common" or "panel".

        Raises:
            ResultError: there is no such figure of this result.
        """
        from fourier_probe.results.parts import parts_of

        metrics = {metric.name: metric for metric in self.metrics}
        parts = {part.name: part for part in parts_of(self)}
        names = ["spectra", "depth", *parts, *metrics]
        if name not in names:
            near = suggest(name, names)
            raise ResultError(f"there is no figure {name!r} of this result: there are {', '.join(names)}.{near}")
        title = label or self.label
        if name in parts:
            return parts[name].draw(self, title, **options)
        if name in metrics:
            return drawing("one-metric")(self, metrics[name], title, ax=ax)
        return drawing(f"one-{name}")(self, title, ax=ax)

    # --- files ---

    def save(self, folder: Path | str, *, force: bool = False) -> Path:
        """Write the three files, each whole or not at all; returns the path of spectra.json.

        Raises:
            OutputError: the folder cannot be written, or holds a result already and `force` is not set.
            ResultError: a number that must be finite is not.
        """
        folder = atomic.output_folder(folder, results=FILES, force=force)
        value = self.to_json()
        with atomic.staged(folder, (*FILES[1:], FILES[0])) as stage:  # the last one's presence says: this is complete
            atomic.write_bytes(stage / "spectra.npz", groupsums.pack(self.points, self._identity(), self.input))
            atomic.write_text(stage / "spectra.csv", self.to_csv())
            atomic.write_json(stage / "spectra.json", value)
        return folder / "spectra.json"

    @classmethod
    def load(cls, path: Path | str) -> Spectra:
        """Read a result from spectra.json or its folder, with the group sums where spectra.npz lies beside it.

        Raises:
            ResultError: missing, damaged, of another schema or of a later version; a wrong type is named by its field.
        """
        path = expanded(path)
        path = path / "spectra.json" if path.is_dir() else path
        read = schema.read(path)
        form = read.form
        result = cls(
            target=read.target,
            images=read.images,
            definition=read.definition,
            points=read.points,
            top1=form.top1,
            excluded=form.excluded,
            selected=form.selected,
            attention=form.attention,
            reliance=form.reliance,
            information=form.information,
            kernels=form.kernels,
            cka=form.cka,
            coverage=form.coverage,
            input=read.input,
            scalars=form.scalars or {},
            profiles=form.profiles or {},
            versions=form.versions,
            created=form.created,
        )
        beside = path.with_suffix(".npz")
        if beside.exists():
            groupsums.attach(beside, result.points, result._identity(), result.definition.groups, result.input)
        return result

    def to_json(self) -> dict[str, object]:
        """What spectra.json holds; where there is no such number (an interval of 19 images) is null.

        Raises:
            ResultError: a number that must be finite is not.
        """
        import msgspec

        metrics = self.metrics
        value: dict[str, object] = {
            "schema": schema.SCHEMA,
            "version": schema.VERSION,
            "target": self.target.to_json(),
            "images": self.images.to_json(),
            "definition": self.definition.to_json(),
            "top1": self.top1,
            "excluded": self.excluded,
            "selected": self.selected,
            "coverage": self.coverage,
            "input": None if self.input is None else schema.point_json(self.input),
            "points": [schema.point_json(point) for point in self.points],
            "scalars": {metric.name: metric.info for metric in metrics if metric.kind == "scalar"},
            "profiles": {metric.name: metric.info for metric in metrics if metric.kind == "radial"},
            "attention": self.attention,
            "reliance": self.reliance,
            "information": self.information,
            "kernels": self.kernels,
            "cka": self.cka,
            "versions": self.versions,
            "created": self.created,
        }
        return schema.finite(msgspec.to_builtins(value, enc_hook=str))

    def to_csv(self) -> str:
        """What spectra.csv holds: `to_frame` as CSV."""
        return frame.csv(self.to_frame())

    def _identity(self) -> str:
        """What ties the .npz to its .json."""
        names = " ".join(point.name for point in self.points)
        return schema.text(f"{self.created} {self.images.digest} {names}").rstrip("\0")  # as numpy takes them off

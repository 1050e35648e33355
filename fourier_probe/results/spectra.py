"""The result: numbers with errors from sums, and its three files. May import sums, spectrum, atomic, errors.

spectra.json holds the numbers (schema `fourier-probe/spectra`, version 1), spectra.npz the group sums they come from
(for paired intervals between results), spectra.csv a tidy row per point and frequency.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import platform
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from fourier_probe.errors import ResultError
from fourier_probe.io import atomic
from fourier_probe.probe import metrics as spectrum
from fourier_probe.probe.metrics import DEAD, Definition
from fourier_probe.probe.sums import Array, Estimates, jackknife

SCHEMA, VERSION = "fourier-probe/spectra", 1
FILES = ("spectra.json", "spectra.npz", "spectra.csv")
SCALARS = ("hfd_share", "hfd_share_pooled", "slope", "variance", "ac_dc", "token_cosine", "white_delta")


@dataclass
class PointSpectrum:
    """The spectra of one probe point.

    Attributes:
        name, kind, op, depth, grid, channels: see `fourier_probe.probe.points.Point`.
        frequency: (K,) of the diagonal, pi rad/sample per axis, 0 first.
        usable: number of leading bins fit for comparison (Nyquist is not).
        log_amplitude: (K,) a(f), nats. delta: a(f) - a(0). stderr: jackknife standard error of delta over images.
        radius, log_density, log_density_stderr: (R,) radial profile, 0 nats for white noise on every grid.
        scalars: hfd_share, hfd_share_pooled, slope, variance, ac_dc, token_cosine, and white_delta, the delta of white
            noise with the mean and variance of each channel of this point.
        stderr_of: standard error of each scalar.
        hfd_share_white: HFD share of white noise on this grid. dead_channels: share of constant channels.
        step: change of log_amplitude from the point before on the same grid, or None.
        sums: (G, ...) group sums, "count" among them; None when read without the .npz.
        map: (H, W) mean 2-D log-amplitude, DC in the middle, where it was asked for.
        gate: of the halves of gated attention, the share of the positional half a head, 0 to 1.
    """

    name: str
    kind: str
    op: str
    depth: float
    grid: tuple[int, int]
    channels: int
    frequency: Array
    usable: int
    log_amplitude: Array
    delta: Array
    stderr: Array
    radius: Array | None = None
    log_density: Array | None = None
    log_density_stderr: Array | None = None
    scalars: dict[str, float] = field(default_factory=dict)
    stderr_of: dict[str, float] = field(default_factory=dict)
    hfd_share_white: float | None = None
    dead_channels: float | None = None
    step: dict[str, Any] | None = None
    sums: dict[str, Array] | None = None
    map: Array | None = None
    gate: list[float] | None = None

    @property
    def highest(self) -> float:
        """Highest usable frequency, pi rad/sample; 0 where the map has none."""
        return float(self.frequency[max(self.usable - 1, 0)])


@dataclass
class Spectra:
    """The result of one analysis; the fields are those of spectra.json (see docs/results.md).

    Attributes:
        target: {source, sha256, arch, model_args, weights, data, data_scale, schedule, seed, epoch}.
        images: {source, n, size, mean, std, digest, skipped}.
        definition: what was computed.
        points: in execution order.
        top1: share of correct predictions on these images, or None.
        excluded: [{name, reason}] points left out, for example because their features were not finite.
        selected: whether the points were chosen by name; then figures and tables show all of them.
        attention: of each attention layer, where asked for: name, grid, distance, diversity, frequency, response, gate,
            uniform, images; see `probe.attention.AttentionLayer`.
    """

    target: dict[str, Any]
    images: dict[str, Any]
    definition: Definition
    points: list[PointSpectrum]
    top1: float | None = None
    excluded: list[dict[str, str]] = field(default_factory=list)
    selected: bool = False
    attention: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=lambda: _versions())
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    def __getitem__(self, name: str) -> PointSpectrum:
        """The point of this name."""
        for point in self.points:
            if point.name == name:
                return point
        raise KeyError(name)

    @property
    def stream(self) -> list[PointSpectrum]:
        """The stem and the residual stream, over which a depth profile is drawn; all points if chosen by name."""
        on_stream = [point for point in self.points if point.kind in ("stem", "residual")]
        return self.points if self.selected or not on_stream else on_stream

    # --- files ---

    def save(self, folder: Path | str, *, force: bool = False) -> Path:
        """Write the three files, each whole or not at all; returns the path of spectra.json.

        Raises:
            OutputError: the folder cannot be written, or holds a result already and `force` is not set.
        """
        folder = atomic.output_folder(folder, results=FILES, force=force)
        atomic.write_bytes(folder / "spectra.npz", self._npz())
        atomic.write_text(folder / "spectra.csv", self.to_csv())
        atomic.write_json(folder / "spectra.json", self.to_json())  # last: its presence says that the result is whole
        return folder / "spectra.json"

    @classmethod
    def load(cls, path: Path | str) -> Spectra:
        """Read a result from spectra.json or its folder, with the group sums where spectra.npz lies beside it.

        Raises:
            ResultError: missing, damaged, of another schema or of a later version.
        """
        path = Path(path)
        path = path / "spectra.json" if path.is_dir() else path
        try:
            value = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise ResultError(f"there is no result {path}: `fourier-probe analyze` writes one.") from error
        except (OSError, ValueError) as error:
            raise ResultError(f"{path} is damaged or no JSON ({error}): run `fourier-probe analyze` again.") from error
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            found = value.get("schema") if isinstance(value, dict) else type(value).__name__
            raise ResultError(
                f"{path} has schema {found!r}, not {SCHEMA!r}: it is no result of `fourier-probe analyze`."
            )
        if value.get("version") != VERSION:
            raise ResultError(
                f"{path} is version {value.get('version')!r} of {SCHEMA} and this fourier-probe reads {VERSION}: "
                "update fourier-probe, or run `fourier-probe analyze` again."
            )
        try:
            result = cls._from_json(value)
        except (KeyError, TypeError, ValueError) as error:
            raise ResultError(f"{path} is damaged: {type(error).__name__} {error}; run the analysis again.") from error
        beside = path.with_suffix(".npz")
        if beside.exists():
            result._attach(beside)
        return result

    def to_json(self) -> dict[str, Any]:
        """What spectra.json holds; not-a-number becomes null."""
        value = {
            "schema": SCHEMA,
            "version": VERSION,
            "target": self.target,
            "images": self.images,
            "definition": self.definition.to_json(),
            "top1": self.top1,
            "excluded": self.excluded,
            "selected": self.selected,
            "points": [_point_json(point) for point in self.points],
            "attention": self.attention,
            "versions": self.versions,
            "created": self.created,
        }
        return _plain(value)  # type: ignore[no-any-return]

    @classmethod
    def _from_json(cls, value: dict[str, Any]) -> Spectra:
        return cls(
            target=value["target"],
            images=value["images"],
            definition=Definition.from_json(value["definition"]),
            points=[_point_from_json(point) for point in value["points"]],
            top1=value["top1"],
            excluded=value["excluded"],
            selected=value["selected"],
            attention=value.get("attention", []),
            versions=value["versions"],
            created=value["created"],
        )

    def _npz(self) -> bytes:
        arrays: dict[str, Any] = {"names": np.array([point.name for point in self.points], dtype=np.str_)}
        arrays["result"] = np.array(self._identity())
        for index, point in enumerate(self.points):
            arrays |= {f"{index:04d}/{name}": value for name, value in (point.sums or {}).items()}
            if point.map is not None:
                arrays[f"{index:04d}/mean_map"] = point.map
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    def _identity(self) -> str:
        """What ties the .npz to its .json."""
        return f"{self.created} {self.images.get('digest')} {' '.join(point.name for point in self.points)}"

    def _attach(self, path: Path) -> None:
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise ResultError(f"{path} is damaged ({error}): run the analysis again, or move it away.") from error
        if str(arrays.get("result")) != self._identity():
            raise ResultError(
                f"{path} belongs to another result than the spectra.json beside it: run the analysis again."
            )
        for index, point in enumerate(self.points):
            prefix = f"{index:04d}/"
            mine = {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
            point.map = mine.pop("mean_map", None)
            point.sums = mine or None

    def to_csv(self) -> str:
        """What spectra.csv holds: a row a point and frequency, diagonal and radial; empty where there is no value."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(
            "target index point kind op depth grid_h grid_w channels profile frequency usable "
            "log_amplitude delta log_density stderr".split()
        )
        for index, p in enumerate(self.points):
            head = [self.target.get("source"), index, p.name, p.kind, p.op, p.depth, *p.grid, p.channels]
            for k, frequency in enumerate(p.frequency):
                row = ["diagonal", frequency, int(k < p.usable), p.log_amplitude[k], p.delta[k], "", p.stderr[k]]
                writer.writerow(head + ["" if isinstance(v, float) and not math.isfinite(v) else v for v in row])
            if p.radius is not None and p.log_density is not None and p.log_density_stderr is not None:
                for radius, density, error in zip(p.radius, p.log_density, p.log_density_stderr, strict=True):
                    row = ["radial", radius, 1, "", "", density, error]
                    writer.writerow(head + ["" if isinstance(v, float) and not math.isfinite(v) else v for v in row])
        return buffer.getvalue()


# --- from sums to numbers --------------------------------------------------------------------------------------------


def estimates(sums: Mapping[str, Array], grid: tuple[int, int]) -> Estimates:
    """Everything reported of a point, from sums (M, ...) of image statistics; the leading axis is kept.

    Args:
        sums: "count" (M,) and the sums of `image_statistics`.
        grid: (H, W) of the maps.
    """
    count = sums["count"]
    amplitude = sums["log_amplitude"] / count[:, None]
    out: Estimates = {"log_amplitude": amplitude, "delta": amplitude - amplitude[:, :1]}
    if "power" in sums:
        mean_power = sums["power"] / max(grid[0] * grid[1] - 1, 1)
        density = np.log(sums["ring"] / mean_power[:, None])
        out |= {
            "log_density": density,
            "hfd_share": sums["share"] / sums["live"],
            "hfd_share_pooled": sums["high"] / sums["power"],
            "slope": _slope(np.asarray(spectrum.ring_radii(grid)), density),
            "variance": sums["variance"] / count,
            "ac_dc": np.sqrt(sums["ac"] / sums["dc"]),
            "token_cosine": sums["cosine"] / sums["pairs"],
            "white_delta": sums["white"] / count - amplitude[:, 0] + (0.0 if grid[0] * grid[1] > 1 else np.nan),
        }
    return out


def point_spectrum(
    meta: Mapping[str, Any], sums: dict[str, Array], flat: Array | None, definition: Definition
) -> PointSpectrum:
    """Numbers and errors of one point.

    Args:
        meta: name, kind, op, depth, grid, channels.
        sums: (G, ...) group sums with "count" (G,).
        flat: (C,) largest relative standard deviation of each channel.
        definition: as used in the sums.
    """
    grid = (int(meta["grid"][0]), int(meta["grid"][1]))
    total_map = sums.pop("map", None)
    value, error = jackknife(lambda s: estimates(s, grid), sums)
    frequency = np.asarray(spectrum.frequencies(grid, definition.axis))
    usable = len(frequency) if definition.axis == "paper" else spectrum.usable_bins(grid)
    point = PointSpectrum(
        **{**meta, "grid": grid},
        frequency=frequency,
        usable=usable,
        log_amplitude=value["log_amplitude"],
        delta=value["delta"],
        stderr=error["delta"],
        sums=sums,
        map=None if total_map is None else total_map.sum(0) / sums["count"].sum(),
    )
    if "log_density" in value:
        point.radius = np.asarray(spectrum.ring_radii(grid))
        point.log_density, point.log_density_stderr = value["log_density"], error["log_density"]
        point.scalars = {name: float(value[name]) for name in SCALARS}
        point.stderr_of = {name: float(error[name]) for name in SCALARS}
        point.hfd_share_white = spectrum.white_noise_hfd_share(grid)
    if flat is not None:
        point.dead_channels = float(np.mean(flat <= DEAD))
    return point


def add_steps(points: Sequence[PointSpectrum]) -> None:
    """Fill in `step`: log_amplitude less that of the point before on the stream, where both have the same grid.

    Does this attention, MLP or convolution raise or lower each frequency? The error is paired over image groups.
    """
    stream = [point for point in points if point.kind in ("stem", "residual")]
    for before, after in itertools.pairwise(stream):
        if before.grid != after.grid:
            continue
        change, error = after.log_amplitude - before.log_amplitude, np.full(len(after.frequency), np.nan)
        if before.sums is not None and after.sums is not None:
            sums = {"count": after.sums["count"], "x": after.sums["log_amplitude"] - before.sums["log_amplitude"]}
            value, errors = jackknife(lambda s: {"change": s["x"] / s["count"][:, None]}, sums)
            change, error = value["change"], errors["change"]
        after.step = {"from": before.name, "change": change, "stderr": error}


def _slope(radii: Array, density: Array) -> Array:
    """Least-squares slope (M,) of log_density (M, R) on ln r; NaN under 4 rings."""
    if len(radii) < 4:
        return np.full(len(density), np.nan)
    x = np.log(radii) - np.log(radii).mean()
    return np.asarray((density - density.mean(1, keepdims=True)) @ x / (x @ x))


# --- JSON ------------------------------------------------------------------------------------------------------------


def _point_json(point: PointSpectrum) -> dict[str, Any]:
    value: dict[str, Any] = {
        name: getattr(point, name)
        for name in "name kind op depth grid channels frequency usable log_amplitude delta stderr".split()
    }
    if point.radius is not None:
        stderr = point.log_density_stderr
        value["radial"] = {"radius": point.radius, "log_density": point.log_density, "stderr": stderr}
        value |= point.scalars | {"hfd_share_white": point.hfd_share_white, "stderr_of": point.stderr_of}
    if point.dead_channels is not None:
        value["dead_channels"] = point.dead_channels
    if point.step is not None:
        value["step"] = point.step
    if point.gate is not None:
        value["gate"] = point.gate
    return value


def _point_from_json(value: dict[str, Any]) -> PointSpectrum:
    def array(numbers: list[float | None]) -> Array:
        return np.array([math.nan if x is None else x for x in numbers], dtype=np.float64)

    def number(x: float | None) -> float:
        return math.nan if x is None else float(x)

    point = PointSpectrum(
        **{name: value[name] for name in ("name", "kind", "op", "depth", "channels", "usable")},
        grid=(value["grid"][0], value["grid"][1]),
        frequency=array(value["frequency"]),
        log_amplitude=array(value["log_amplitude"]),
        delta=array(value["delta"]),
        stderr=array(value["stderr"]),
    )
    if "radial" in value:
        radial = value["radial"]
        point.radius, point.log_density = array(radial["radius"]), array(radial["log_density"])
        point.log_density_stderr = array(radial["stderr"])
        point.scalars = {name: number(value[name]) for name in SCALARS}
        point.stderr_of = {name: number(x) for name, x in value["stderr_of"].items()}
        point.hfd_share_white = value["hfd_share_white"]
    point.dead_channels, point.gate = value.get("dead_channels"), value.get("gate")
    if step := value.get("step"):
        point.step = {"from": step["from"], "change": array(step["change"]), "stderr": array(step["stderr"])}
    return point


def _plain(value: Any) -> Any:
    """Values that JSON has: arrays become lists; what is no finite number (no power to take a logarithm of) null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    packages = {name: version(name) for name in ("fourier-probe", "torch", "timm", "numpy")}
    return {**packages, "python": platform.python_version()}

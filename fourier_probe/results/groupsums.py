"""spectra.npz: the group sums behind a result, checked before they are believed. May import point, errors."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fourier_probe.errors import ResultError
from fourier_probe.io.npy import read_member
from fourier_probe.io.regular import open_regular
from fourier_probe.results.point import Array, PointSpectrum

HEADER = 1 << 12  # bytes that a .npy may need beyond its numbers
PER_IMAGE = 32  # statistics of an image that are single numbers, with room for those of others
_DAMAGED = (OSError, ValueError, EOFError, KeyError, SyntaxError, RuntimeError, NotImplementedError, OverflowError)


def pack(points: Sequence[PointSpectrum], identity: str, images: PointSpectrum | None = None) -> bytes:
    """The file: names, which spectra.json it belongs to, the sums and maps of each point by its number; the images'."""
    arrays: dict[str, NDArray[np.float64] | NDArray[np.str_]] = {
        "names": np.array([point.name for point in points], dtype=np.str_),
        "result": np.array(identity),
    }
    for prefix, point in _by_prefix(points, images):
        arrays |= {f"{prefix}{name}": value for name, value in (point.sums or {}).items()}
        maps = {"mean_map": point.map, "stderr_map": point.map_stderr}
        arrays |= {f"{prefix}{name}": value for name, value in maps.items() if value is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def attach(
    path: Path, points: Sequence[PointSpectrum], identity: str, groups: int, images: PointSpectrum | None = None
) -> None:
    """Read the sums into the points.

    Args:
        path: of the .npz.
        points: of the spectra.json beside it.
        identity: what ties the two files together.
        groups: number of image groups G.
        images: the point of the images themselves, where the result has one.

    Raises:
        ResultError: damaged (sizes, CRC, types and shapes are checked), or of another result.
    """
    try:
        listed = _by_prefix(points, images)
        arrays = _arrays(path, [point for _, point in listed], groups)
        _check_identity(path, arrays, identity)
        for prefix, point in listed:
            sums = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
            maps = {name: sums.pop(name, None) for name in ("mean_map", "stderr_map")}
            point.sums = _checked(point, sums, groups) or None
            point.map, point.map_stderr = (
                None if value is None else _shaped(f"{prefix}{name}", value, point.grid) for name, value in maps.items()
            )
    except (*_DAMAGED, zipfile.BadZipFile, zlib.error) as error:
        raise ResultError(f"{path} is damaged ({error}): run the analysis again, or move it away.") from error


def _by_prefix(points: Sequence[PointSpectrum], images: PointSpectrum | None) -> list[tuple[str, PointSpectrum]]:
    """Each point with what the names of its arrays begin with."""
    listed = [(f"{index:04d}/", point) for index, point in enumerate(points)]
    return listed if images is None else [*listed, ("input/", images)]


def _arrays(path: Path, points: Sequence[PointSpectrum], groups: int) -> dict[str, NDArray[np.generic]]:
    """Every array of the file, once its declared size is known to be no more than its result can need."""
    numbers = sum(groups * (PER_IMAGE * (len(p.frequency) + PER_IMAGE)) + 2 * p.grid[0] * p.grid[1] for p in points)
    names = sum(len(point.name) for point in points) + max((len(point.name) for point in points), default=0)
    with open_regular(path) as opened, zipfile.ZipFile(opened) as archive:
        declared = sum(entry.file_size for entry in archive.infolist())
        most = 8 * numbers + 8 * (names + 4096) * (len(points) + 1) + HEADER * (PER_IMAGE * len(points) + 2)
        if declared > most:
            raise ValueError(f"it declares {declared} bytes, and its result has no more than {most}")
        broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"{broken} does not match its checksum")
        members = [entry.filename.removesuffix(".npy") for entry in archive.infolist()]
        return {name: read_member(archive, name) for name in members}


def _check_identity(path: Path, arrays: dict[str, NDArray[np.generic]], identity: str) -> None:
    if str(arrays.get("result")) != identity:
        raise ResultError(f"{path} belongs to another result than the spectra.json beside it: run the analysis again.")


def _checked(point: PointSpectrum, sums: dict[str, NDArray[np.generic]], groups: int) -> dict[str, Array]:
    """The group sums of a point, of the shapes that its grid has."""
    rings = 0 if point.radius is None else len(point.radius)
    shapes = {"log_amplitude": (groups, len(point.frequency)), "ring": (groups, rings)}
    checked = {name: _shaped(name, value, shapes.get(name, (groups, *value.shape[1:]))) for name, value in sums.items()}
    needed: Iterable[str] = ("count", "log_amplitude") if checked else ()
    missing = [name for name in needed if name not in checked]
    if missing:
        raise ValueError(f"the sums of {point.name} lack {', '.join(missing)}")
    if checked and (checked["count"].shape != (groups,) or not (checked["count"] >= 0).all()):
        raise ValueError(f"the counts of {point.name} are no numbers of images of {groups} groups")
    return checked


def _shaped(name: str, value: NDArray[np.generic], shape: tuple[int, ...]) -> Array:
    if value.dtype != np.float64 or value.shape != shape:
        raise ValueError(f"{name} is {value.dtype} {value.shape}, expected float64 {shape}")
    return value.astype(np.float64, copy=False)

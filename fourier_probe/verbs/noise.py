"""The measurement of a heat map: labels checked, clean error, row by row, with what was done saved on the way.

May import probe, results, checkpoints and verbs.partial.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

from fourier_probe.checkpoints.writing import digest
from fourier_probe.errors import DataError, first_line
from fourier_probe.probe.filters import image_filters
from fourier_probe.probe.frequency import ring_radii
from fourier_probe.probe.heatmap import NoiseProbe, Response, default_eps, distinct_frequencies
from fourier_probe.probe.logits import no_accuracy
from fourier_probe.probe.sensitivity import gradient_spectra
from fourier_probe.results import intervals
from fourier_probe.results.heatmap import (
    BASIS,
    HeatMap,
    ImagesRecord,
    NoiseDefinition,
    NoiseResponse,
    Sensitivity,
    TargetRecord,
)
from fourier_probe.runtime.distributed import gathered, rank_and_world
from fourier_probe.runtime.messages import note, progress
from fourier_probe.runtime.versions import versions
from fourier_probe.targets import Target
from fourier_probe.trace.calling import giving
from fourier_probe.verbs.partial import Partial
from fourier_probe.verbs.pixels import Pixels

CHUNK = 16  # rows between two saves, at least
FLAT = "the gradient of the loss is 0 beyond the mean of the images"
PARTS = 8  # of the radius from 0 to 1, for the cut-offs of filters


@dataclass(frozen=True)
class NoiseOptions:
    """Which noise: of `bands` bands, else of every `stride`-th frequency; its L2 norm `eps`, by default of the size.

    With `filters` the images are filtered instead, at cut-offs that are multiples of 1 / `bands`, 8 by default.
    """

    bands: int | None
    eps: float | None
    stride: int
    seed: int
    filters: bool = False

    def __post_init__(self) -> None:
        if self.eps is not None and not (isinstance(self.eps, int | float) and 0 < self.eps <= 1e6):
            raise DataError(f"eps is {self.eps}: expected a number above 0, the L2 norm of the noise per channel.")
        if self.bands is not None and not 2 <= self.bands <= 1 << 16:
            raise DataError(f"{self.bands} bands: expected at least 2.")
        if self.stride < 1:
            raise DataError(f"stride {self.stride}: expected at least 1.")
        if not 0 <= self.seed < 1 << 48:
            raise DataError(f"the seed is {self.seed}: expected a number from 0 to 2^48.")
        if self.filters and (self.eps is not None or self.stride != 1):
            raise DataError("filters take nothing but parts of the images away: eps and stride are for noise.")

    @property
    def kind(self) -> Literal["frequencies", "bands", "filters"]:
        """What is done to the images."""
        return "filters" if self.filters else "bands" if self.bands else "frequencies"


def measure(noise: NoiseProbe, target: Target, read: Pixels, options: NoiseOptions, folder: Path | None) -> HeatMap:
    """The whole heat map; with a folder, what is done is saved there every few rows.

    Under torch.distributed every rank has all images and does its share of the rows; all of them return the whole.
    """
    setting = _setting(noise, target, read, options)
    work = _work(noise, setting)
    partial = Partial.begin(folder, _key(noise, setting), setting.images.n)
    rank, world = rank_and_world()
    missing = [number for number in range(len(work.rows)) if number not in partial.done]
    if partial.done:
        done = len(work.rows) - len(missing)
        note(f"{done} of {len(work.rows)} {setting.definition.kind} are done already; going on.")
    own = missing[rank::world]
    with progress(f"heat map {target.label}", len(own)) as advance:
        while own:
            step = max(CHUNK, len(partial.own) // 50)  # the file is written whole each time
            partial.add(work.respond(own[:step], advance))
            own = own[step:]
    responses = {number: response for part in gathered(partial.done) for number, response in part.items()}
    rows = [setting.row(responses[number], **where) for number, where in enumerate(work.rows)]
    sensitivity = None if options.filters else _sensitivity(noise)
    return setting.heat_map(rows, sensitivity)


@dataclass(frozen=True)
class _Work:
    """Every row of a heat map, and how to measure some of them by number."""

    rows: list[dict[str, Any]]
    respond: Callable[[list[int], Callable[[int], None]], dict[int, Response]]


def _work(noise: NoiseProbe, setting: _Setting) -> _Work:
    definition = setting.definition
    eps, seed, parts = definition.eps or 0.0, definition.seed or 0, definition.bands or 0
    if definition.kind == "frequencies":
        wanted = distinct_frequencies(setting.images.size, definition.stride or 1)

        def of_frequencies(numbers: list[int], advance: Callable[[int], None]) -> dict[int, Response]:
            out = noise.frequencies([wanted[number] for number in numbers], eps, seed=seed, progress=advance)
            return {number: out[wanted[number]] for number in numbers}

        return _Work([{"frequency": frequency} for frequency in wanted], of_frequencies)
    if definition.kind == "bands":

        def of_bands(numbers: list[int], advance: Callable[[int], None]) -> dict[int, Response]:
            return noise.bands(parts, eps, seed=seed, only=numbers, progress=advance)

        return _Work([{"band": (band / parts, (band + 1) / parts)} for band in range(parts)], of_bands)
    filters = image_filters(parts)
    for image_filter in filters:
        image_filter.passes(setting.images.size)  # says what cannot be removed before anything is run

    def of_filters(numbers: list[int], advance: Callable[[int], None]) -> dict[int, Response]:
        out = noise.filtered([filters[number] for number in numbers], progress=advance)
        return {number: out[filters[number]] for number in numbers}

    return _Work(
        [
            {"filter": image_filter.kind}
            | ({"band": image_filter.band} if image_filter.kind == "removed" else {"cutoff": image_filter.cutoff})
            for image_filter in filters
        ],
        of_filters,
    )


def _sensitivity(noise: NoiseProbe) -> Sensitivity | None:
    """The sensitivity spectrum of the same images, shared out too; without labels none, and a note where it fails."""
    if noise.labels is None:
        return None
    rank, world = rank_and_world()
    reason, own = "", torch.zeros(0, 0)
    try:
        own = gradient_spectra(noise, torch.arange(rank, len(noise.pixels), world))
    except (RuntimeError, DataError, NotImplementedError) as error:
        reason = first_line(error)
    parts = gathered((reason, own))
    spectra = torch.cat([part for why, part in parts if not why and len(part)] or [torch.zeros(0, 0)])
    spectra = spectra[spectra.isfinite().all(1)] if spectra.numel() else spectra
    reason = next((why for why, _ in parts if why), "" if spectra.numel() else FLAT)
    if reason:
        note(f"the sensitivity spectrum is left out: {reason.rstrip('.')}.")
        return None
    n = len(spectra)
    sums = zip(spectra.sum(0).tolist(), spectra.square().sum(0).tolist(), strict=True)
    return Sensitivity(
        radius=ring_radii((noise.pixels.shape[2], noise.pixels.shape[3])),
        log_power=[intervals.mean(total, squares, n) for total, squares in sums],
        images=n,
    )


@dataclass(frozen=True)
class _Setting:
    """A heat map before its rows: everything but the responses."""

    target: TargetRecord
    images: ImagesRecord
    definition: NoiseDefinition
    clean_error: intervals.Interval | None
    points: tuple[str, ...]
    notes: tuple[str, ...]

    def row(self, response: Response, **where: Any) -> NoiseResponse:
        """What one noise did, with its intervals."""
        n = self.images.n
        sums = {name: response.change.get(name) for name in self.points}
        error = None if response.wrong is None else intervals.share(response.wrong, n)
        return NoiseResponse(
            error=error,
            increase=None if error is None else intervals.paired_increase(response.broken, response.mended, n),
            change={name: None if pair is None else intervals.mean(*pair, n) for name, pair in sums.items()},
            **where,
        )

    def heat_map(self, responses: list[NoiseResponse], sensitivity: Sensitivity | None) -> HeatMap:
        """The result."""
        return HeatMap(
            target=self.target,
            images=self.images,
            definition=self.definition,
            clean_error=self.clean_error,
            points=list(self.points),
            responses=responses,
            sensitivity=sensitivity,
            notes=list(self.notes),
            versions=versions(),
        )


def _setting(noise: NoiseProbe, target: Target, read: Pixels, options: NoiseOptions) -> _Setting:
    """Provenance, definition and clean error; labels that cannot be the model's are taken away, and it is said."""
    remarks = _labels_checked(noise, target, read)
    clean = noise.clean().wrong
    error = None if clean is None else intervals.share(clean, read.record.n)
    remarks += [] if error is None else _chance(noise, error)
    for remark in remarks:
        note(remark)
    known = {name: getattr(target.provenance, name, None) for name in TargetRecord.__struct_fields__}
    known |= {"label": target.label, "source": str(known["source"]), "digest": digest(dict(noise.model.state_dict()))}
    kind = options.kind
    added = "" if options.filters else ", unit L2 norm per image and channel, times eps; the sum is clamped to [0, 1]"
    eps = default_eps(read.record.size) if options.eps is None else float(options.eps)
    definition = NoiseDefinition(
        kind=kind,
        basis=f"{BASIS[kind]}{added}",
        eps=None if options.filters else eps,
        seed=None if options.filters else options.seed,
        stride=options.stride if kind == "frequencies" else None,
        bands=options.bands or (PARTS if options.filters else None),
    )
    record = msgspec.convert(json.loads(json.dumps(known, default=str)), TargetRecord)
    return _Setting(record, read.record, definition, error, tuple(p.name for p in noise.points), tuple(remarks))


def _labels_checked(noise: NoiseProbe, target: Target, read: Pixels) -> list[str]:
    """Take labels away that cannot be the model's; what to say of it.

    Raises:
        DataError: nothing is left to measure then.
    """
    with giving(noise.model, noise.pixels[:1]):
        scores = noise.scores(min(noise.batch_size, len(noise.pixels)))
    reason = "the images have no labels"
    if noise.labels is not None:
        reason = no_accuracy(scores, noise.labels, classes=read.classes)
    if not reason:
        return []
    noise.labels = None
    if not noise.points:
        raise DataError(
            f"there is no error of {target.label} on {read.record.source or 'these images'} to map: {reason}. "
            "Name probe points with --points to see how features change, or with --data images of its classes."
        )
    return [f"top-1 error is left out: {reason}."]


def _chance(noise: NoiseProbe, error: intervals.Interval) -> list[str]:
    """A remark where the clean accuracy cannot be told from guessing."""
    scores = noise.scores(1)
    if scores is None or error.high is None or error.low is None or 1 - error.high > 1 / scores.shape[1]:
        return []
    return [
        f"top-1 without noise is {1 - error.value:.1%} (95 %: {1 - error.high:.1%} to {1 - error.low:.1%}) on "
        f"{len(noise.pixels)} images, no better than chance over {scores.shape[1]} classes: the error under noise says "
        "nothing. The labels may be of other classes, or the network is not trained."
    ]


def _key(noise: NoiseProbe, setting: _Setting) -> str:
    """What a partial result must agree in: network, images, labels, noise, points."""
    labels = None if noise.labels is None else noise.labels.tolist()
    target = msgspec.structs.replace(setting.target, label="", source="")  # the digest says which
    values = [msgspec.to_builtins(record) for record in (target, setting.images, setting.definition)]
    return hashlib.sha256(json.dumps([values, labels, setting.points]).encode()).hexdigest()

"""The measurement of a heat map: labels checked, clean error, noise by noise, with what was done saved on the way.

May import probe, results, checkpoints and verbs.partial.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from fourier_probe.checkpoints.writing import digest
from fourier_probe.errors import DataError
from fourier_probe.probe.heatmap import NoiseProbe, Response, default_eps, distinct_frequencies
from fourier_probe.probe.logits import no_accuracy
from fourier_probe.results import intervals
from fourier_probe.results.heatmap import (
    BASIS,
    HeatMap,
    ImagesRecord,
    NoiseDefinition,
    NoiseResponse,
    TargetRecord,
)
from fourier_probe.runtime.messages import note, progress
from fourier_probe.runtime.versions import versions
from fourier_probe.targets import Target
from fourier_probe.trace.forward import giving
from fourier_probe.verbs.partial import Partial
from fourier_probe.verbs.pixels import Pixels

CHUNK = 16  # frequencies between two saves


@dataclass(frozen=True)
class NoiseOptions:
    """Which noise: of `bands` bands, else of every `stride`-th frequency; its L2 norm `eps`, by default of the size."""

    bands: int | None
    eps: float | None
    stride: int
    seed: int

    def __post_init__(self) -> None:
        if self.eps is not None and not (isinstance(self.eps, int | float) and 0 < self.eps <= 1e6):
            raise DataError(f"eps is {self.eps}: expected a number above 0, the L2 norm of the noise per channel.")
        if self.bands is not None and not 2 <= self.bands <= 1 << 16:
            raise DataError(f"{self.bands} bands: expected at least 2.")
        if self.stride < 1:
            raise DataError(f"stride {self.stride}: expected at least 1.")
        if not 0 <= self.seed < 1 << 48:
            raise DataError(f"the seed is {self.seed}: expected a number from 0 to 2^48.")


def measure(noise: NoiseProbe, target: Target, read: Pixels, options: NoiseOptions, folder: Path | None) -> HeatMap:
    """The whole heat map; with a folder, what is done is saved there every few frequencies."""
    setting = _setting(noise, target, read, options)
    return setting.heat_map(_bands(noise, setting) if options.bands else _frequencies(noise, setting, folder))


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
        labelled = response.wrong is not None
        return NoiseResponse(
            error=intervals.share(response.wrong, n) if response.wrong is not None else None,
            increase=intervals.paired_increase(response.broken, response.mended, n) if labelled else None,
            change={name: None if pair is None else intervals.mean(*pair, n) for name, pair in sums.items()},
            **where,
        )

    def heat_map(self, responses: list[NoiseResponse]) -> HeatMap:
        """The result."""
        return HeatMap(
            target=self.target,
            images=self.images,
            definition=self.definition,
            clean_error=self.clean_error,
            points=list(self.points),
            responses=responses,
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
    kind: Literal["frequencies", "bands"] = "bands" if options.bands else "frequencies"
    definition = NoiseDefinition(
        kind=kind,
        basis=f"{BASIS[kind]}, unit L2 norm per image and channel, times eps; the sum is clamped to [0, 1]",
        eps=default_eps(read.record.size) if options.eps is None else float(options.eps),
        seed=options.seed,
        stride=None if options.bands else options.stride,
        bands=options.bands,
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


def _frequencies(noise: NoiseProbe, setting: _Setting, folder: Path | None) -> list[NoiseResponse]:
    definition = setting.definition
    wanted = distinct_frequencies(setting.images.size, definition.stride or 1)
    partial = Partial.begin(folder, _key(noise, setting), setting.images.n)
    missing = [frequency for frequency in wanted if frequency not in partial.done]
    if partial.done:
        note(f"{len(wanted) - len(missing)} of {len(wanted)} frequencies are done already; going on.")
    with progress("heat map", len(missing)) as advance:
        for first in range(0, len(missing), CHUNK):
            chunk = missing[first : first + CHUNK]
            partial.add(noise.frequencies(chunk, definition.eps, seed=definition.seed, progress=advance))
    return [setting.row(partial.done[frequency], frequency=frequency) for frequency in wanted]


def _bands(noise: NoiseProbe, setting: _Setting) -> list[NoiseResponse]:
    definition = setting.definition
    bands = definition.bands or 2
    with progress("bands", bands) as advance:
        responses = noise.bands(bands, definition.eps, seed=definition.seed, progress=advance)
    edges = {band: (band / bands, (band + 1) / bands) for band in responses}
    return [setting.row(response, band=edges[band]) for band, response in responses.items()]


def _key(noise: NoiseProbe, setting: _Setting) -> str:
    """What a partial result must agree in: network, images, labels, noise, points."""
    labels = None if noise.labels is None else noise.labels.tolist()
    target = msgspec.structs.replace(setting.target, label="", source="")  # the digest says which
    values = [msgspec.to_builtins(each) for each in (target, setting.images, setting.definition)]
    return hashlib.sha256(json.dumps([values, labels, setting.points]).encode()).hexdigest()

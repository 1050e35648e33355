"""Images in memory as pixels from 0 to 1, of a source or of the caller's own batches. May import data, results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fourier_probe.data import ImageSet, InputSpec, batches, image_digest
from fourier_probe.errors import DataError
from fourier_probe.results.heatmap import ImagesRecord
from fourier_probe.runtime.messages import note


@dataclass(frozen=True)
class Pixels:
    """Pixels (n, C, H, W) in [0, 1], their labels (n,), the number of classes where known, and where they come from."""

    pixels: Tensor
    labels: Tensor | None
    classes: int | None
    record: ImagesRecord


def pixels_of_source(chosen: ImageSet, spec: InputSpec, batch_size: int, workers: int) -> Pixels:
    """The chosen images of a source, as the model sees them before they are normalised."""
    read = list(batches(chosen, spec, batch_size=batch_size, workers=workers))
    back, shift = (torch.tensor(list(value)).view(1, -1, 1, 1) for value in (spec.std, spec.mean))
    labels = [batch.labels for batch in read if batch.labels is not None]
    return Pixels(
        pixels=(torch.cat([batch.images for batch in read]) * back + shift).clamp_(0, 1),
        labels=torch.cat(labels) if labels else None,
        classes=None if chosen.classes is None else len(chosen.classes),
        record=ImagesRecord(
            source=chosen.source,
            split=chosen.split,
            n=len(chosen),
            size=spec.size,
            mean=list(spec.mean),
            std=list(spec.std),
            skipped=chosen.skipped,
            digest=_hex(sum(batch.digest.sum(0) for batch in read)),
        ),
    )


def pixels_of_batches(
    batches: Iterable[object], count: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Pixels:
    """Batches of the caller's own; the first `count` images of them."""
    pixels: list[Tensor] = []
    labels: list[Tensor] = []
    for turn, item in enumerate(batches):
        both = item if isinstance(item, tuple | list) else (item, None)
        batch, classes = both[0], both[1] if len(both) > 1 else None
        if not isinstance(batch, Tensor) or batch.ndim != 4 or not batch.is_floating_point():
            came = f"{batch.dtype} {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
            raise DataError(f"expected batches of images, floating (B, C, H, W), got {came} in batch {turn}.")
        room = count - sum(map(len, pixels))
        pixels.append(batch.detach().cpu().float()[:room])
        if classes is not None:
            labels.append(torch.as_tensor(classes).cpu().reshape(len(batch), -1)[:room, 0].long())
        if room <= len(batch):
            if room < len(batch) or (isinstance(batches, Sized) and len(batches) > turn + 1):
                note(f"the data are a stream: their first {count} images are used, in whatever order they have.")
            break
    if not sum(map(len, pixels)):
        raise DataError("there are no images to disturb: the data are empty. Give at least one image.")
    stacked = torch.cat(pixels)
    channels = stacked.shape[1]
    used_mean, used_std = list(mean or [0.0] * channels), list(std or [1.0] * channels)
    if len(used_mean) != channels or len(used_std) != channels:
        raise DataError(
            f"mean and std have {len(used_mean)} and {len(used_std)} values, the images {channels} channels."
        )
    restored = stacked * torch.tensor(used_std).view(1, -1, 1, 1) + torch.tensor(used_mean).view(1, -1, 1, 1)
    low, high = float(restored.min()), float(restored.max())
    if not (low >= -0.02 and high <= 1.02):
        raise DataError(
            f"the images run from {low:.2f} to {high:.2f}, and noise is added to pixels from 0 to 1: give "
            "the mean= and std= that they were normalised with."
        )
    raw = stacked.contiguous().view(torch.uint8).numpy()  # the digest is that of `fp.analyze` on the same batches
    total = sum(torch.from_numpy(image_digest(index, image)) for index, image in enumerate(raw))
    return Pixels(
        pixels=restored.clamp_(0, 1),
        labels=torch.cat(labels) if labels and sum(map(len, labels)) == len(stacked) else None,
        classes=None,
        record=ImagesRecord(
            source=None,
            split=None,
            n=len(stacked),
            size=(stacked.shape[2], stacked.shape[3]),
            mean=used_mean,
            std=used_std,
            digest=_hex(total),
        ),
    )


def _hex(total: Any) -> str:
    return str(total.numpy().astype("<i8").tobytes().hex())

"""Batches of the caller's own, numbered and dealt out to the ranks. Imports loading, runtime and errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from fourier_probe.data.loading import Batch, image_digest
from fourier_probe.errors import DataError
from fourier_probe.runtime.distributed import rank_and_world


def numbered(images: Iterable[object]) -> Iterator[Batch]:
    """This rank's batches. A `Batch` is taken as it comes; anything else is numbered and dealt out in turn."""
    rank, world = rank_and_world()
    start = 0
    for turn, item in enumerate(images):
        if isinstance(item, Batch):
            yield item
            continue
        batch, labels = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
        if not isinstance(batch, Tensor) or batch.ndim != 4 or not batch.is_floating_point():
            kind = f"{batch.dtype} {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
            raise DataError(
                f"expected batches of normalised images, floating (B, C, H, W), got {kind} in batch {turn}."
            )
        index = torch.arange(start, start + len(batch))
        start += len(batch)
        if turn % world == rank and len(batch):
            raw = batch.detach().cpu().contiguous().view(torch.uint8).numpy()
            digest = torch.from_numpy(np.stack([image_digest(int(i), x) for i, x in zip(index, raw, strict=True)]))
            yield Batch(batch, None if labels is None else _labels(labels, len(batch), turn), index, digest)


def _labels(labels: object, count: int, turn: int) -> Tensor:
    """Class indices (B,) from (B,) or (B, 1)."""
    classes = torch.as_tensor(labels).cpu()
    if classes.shape == (count, 1):
        classes = classes[:, 0]
    if classes.shape != (count,) or classes.is_floating_point():
        raise DataError(
            f"labels of batch {turn} are {classes.dtype} {tuple(classes.shape)}: expected class indices, ({count},)."
        )
    return classes.long()

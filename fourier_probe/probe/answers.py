"""What a classifier answers on labelled images: its class, whether the truth is among five, its loss. Imports data.

Labels that cannot be the model's end it: a number would say nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourier_probe.data.numbered import numbered
from fourier_probe.errors import DataError
from fourier_probe.probe.logits import class_scores, no_accuracy
from fourier_probe.runtime.modes import evaluating
from fourier_probe.trace.calling import eager, run


@dataclass(frozen=True)
class Answers:
    """Of n images, in the order in which they came.

    Attributes:
        truth, predicted: (n,) class indices. among_five: (n,) whether the truth is among the five largest scores.
        loss: (n,) nats, float64. index: (n,) positions in the source.
        classes: of the model. size: (H, W) of the images, pixels. digest: of the raw pixels in order, hexadecimal.
    """

    truth: Tensor
    predicted: Tensor
    among_five: Tensor
    loss: Tensor
    index: Tensor
    classes: int
    size: tuple[int, int]
    digest: str


def answers(
    model: nn.Module,
    images: Iterable[object],
    *,
    classes: int | None = None,
    device: torch.device | str | None = None,
    amp: torch.dtype | None = None,
    progress: Callable[[int], None] | None = None,
) -> Answers:
    """Run a classifier, in eval mode, over batches with labels.

    Args:
        model: left as and where it was.
        images: as `results.analysis` takes them.
        classes: number of classes the labels are of, where known.
        device: where to run; where the model is by default.
        amp: run the forward under autocast to this dtype.
        progress: called after each batch with the number of images in it.

    Raises:
        DataError: no images, no labels, or labels that cannot be the model's.
    """
    model = eager(model)
    like = next(model.parameters(), torch.zeros(()))
    home, where = like.device, like.device if device is None else torch.device(device)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []
    digest = torch.zeros(4, dtype=torch.int64)
    count, size = 0, (0, 0)
    autocast = torch.autocast(where.type, amp) if amp is not None else contextlib.nullcontext()
    try:
        model.to(where)
        with evaluating(model), torch.inference_mode(), autocast:
            for batch in numbered(images):
                output = run(model, batch.images.to(where, like.dtype, copy=True))
                scores = None if getattr(model, "num_classes", None) == 0 else class_scores(output)
                if batch.labels is None:
                    raise DataError("the images have no labels: there is nothing to compare answers with.")
                reason = no_accuracy(scores, batch.labels, classes=classes)
                if scores is None or reason:
                    raise DataError(
                        f"there is no top-1 to tell: {reason}. Name images of the model's classes with --data, or the "
                        "model that these images are for."
                    )
                count, size = scores.shape[1], (batch.images.shape[2], batch.images.shape[3])
                ranked, truth = scores.float().cpu(), batch.labels
                best = ranked.topk(min(5, count), dim=1).indices
                loss = F.cross_entropy(ranked.double(), truth, reduction="none")
                parts.append((truth, ranked.argmax(1), (best == truth[:, None]).any(1), loss, batch.index))
                digest += batch.digest.sum(0)
                if progress is not None:
                    progress(len(truth))
    finally:
        model.to(home)
    if not parts:
        raise DataError("there are no images to validate on: the source is empty. Give at least one image.")
    truth, predicted, five, loss, index = (torch.cat(column) for column in zip(*parts, strict=True))
    return Answers(truth, predicted, five, loss, index, count, size, digest.numpy().astype("<i8").tobytes().hex())

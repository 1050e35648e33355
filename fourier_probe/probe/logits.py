"""Which numbers of an output rank the classes, and whether labels can be of these classes. Imports torch alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from torch import Tensor

NOT_FINITE = "the model's scores are not finite"
_FEATURES = ("pooler", "pooled", "embed", "feature", "hidden", "loss", "attention")
"""Parts of the names under which libraries return vectors (B, K) that rank nothing."""


def class_scores(output: object) -> Tensor | None:
    """The logits (B, K) in whatever a model returns; None where there are none.

    A tensor is taken as it is. Else an attribute or key `logits` decides; without one, the first floating tensor (B, K)
    of a mapping, a sequence or a dataclass that is not named as features.

    >>> import torch
    >>> scores = class_scores({"loss": torch.zeros(()), "logits": torch.zeros(2, 10)})
    >>> None if scores is None else tuple(scores.shape)
    (2, 10)
    >>> class_scores({"pooler_output": torch.zeros(2, 768)}) is None
    True
    """
    if isinstance(output, Tensor):
        return output if output.ndim == 2 and output.shape[1] > 1 and output.is_floating_point() else None
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if named is not None:
        return class_scores(named) if isinstance(named, Tensor) else None
    return next((scores for part in _parts(output) if (scores := class_scores(part)) is not None), None)


def _parts(output: object) -> Iterator[object]:
    if isinstance(output, Mapping):
        items = list(output.items())
    elif isinstance(output, tuple | list):
        items = list(zip(getattr(output, "_fields", [""] * len(output)), output, strict=True))
    elif dataclasses.is_dataclass(output):
        items = list(vars(output).items())
    else:
        return
    yield from (part for name, part in items if not any(word in str(name).lower() for word in _FEATURES))


def no_accuracy(scores: Tensor | None, labels: Tensor, *, classes: int | None = None) -> str:
    """Why the share of correct answers cannot be told; empty where it can.

    Args:
        scores: from `class_scores`.
        labels: (B,) class indices.
        classes: number of classes the labels are of, where known.

    >>> import torch
    >>> no_accuracy(torch.zeros(1, 10), torch.tensor([98]))
    'the largest label is 98 and the model has 10 classes, 0 to 9'
    """
    reason = no_classes(scores, labels, classes=classes)
    if reason or scores is None:
        return reason
    return "" if bool(scores.isfinite().all()) else NOT_FINITE


def no_classes(scores: Tensor | None, labels: Tensor, *, classes: int | None = None) -> str:
    """The same, but for scores that are not finite: nothing that a GPU is to be waited for."""
    if scores is None:
        return "the model returns no scores of classes, (images, classes)"
    ours = scores.shape[1]
    if classes not in (None, ours):
        return f"the labels are of {classes} classes and the model has {ours}"
    numbers = labels.cpu().numpy()
    if numbers.size and numbers.max() >= ours:
        return f"the largest label is {numbers.max()} and the model has {ours} classes, 0 to {ours - 1}"
    if numbers.size and numbers.min() < 0:
        return f"the smallest label is {numbers.min()} and classes begin at 0"
    return ""

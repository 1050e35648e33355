"""What `validate` adds on request: the lesion profile, the curvature of the loss. May import verbs.opening, probe."""

from __future__ import annotations

import msgspec
import torch

from fourier_probe.data.numbered import numbered
from fourier_probe.errors import ModelError, ProbeError
from fourier_probe.probe.answers import Answers, answers
from fourier_probe.probe.hessian import Minibatch, landscape, top_eigenvalues
from fourier_probe.probe.lesions import Removable, removable_steps, without
from fourier_probe.results import intervals
from fourier_probe.results.records import LeftOut
from fourier_probe.results.validation import Curvature, Lesion, Validation
from fourier_probe.runtime.messages import note, progress
from fourier_probe.targets import Target
from fourier_probe.verbs.opening import Data, ImageOptions, open_stream

MINIBATCHES, EIGENVALUES, GRID = 20, 5, 11


def with_lesions(
    result: Validation,
    intact: Answers,
    target: Target,
    data: Data | None,
    images: ImageOptions,
    *,
    device: torch.device | str | None,
    amp: torch.dtype | None,
) -> Validation:
    """The result with the answers of the network without each residual step, on the same images."""
    model = target.model
    if model is None:
        raise ModelError(f"{target.label} is a saved result.")
    first = next(iter(numbered(open_stream(target, data, images).batches)))
    like = next(model.parameters(), torch.zeros(()))
    steps, left = removable_steps(model, first.images[:1].to(like.device, like.dtype))
    rows: list[Lesion] = []
    with progress(f"lesions of {target.label}", len(steps)) as advance:
        for step in steps:
            stream = open_stream(target, data, images)
            try:
                with without(model, step):
                    seen = answers(model, stream.batches, classes=stream.classes, device=device, amp=amp)
            except ProbeError as error:
                left[step.name] = str(error).rstrip(".")
            else:
                rows.append(_lesion(step, seen, intact))
            advance(1)
    for name, reason in list(left.items())[:3]:
        note(f"the step {name} is not taken out: {reason}.")
    if len(left) > 3:
        note(f"{len(left) - 3} more steps are not taken out; validation.json names them under kept.")
    if not rows:
        note("there is no lesion profile: no residual step of this network can be taken out.")
    remaining = [LeftOut(name, reason) for name, reason in left.items()]
    return msgspec.structs.replace(result, lesions=rows, kept=remaining)


def _lesion(step: Removable, seen: Answers, intact: Answers) -> Lesion:
    n = len(seen.truth)
    right, before = seen.predicted == seen.truth, intact.predicted == intact.truth
    change = seen.loss - intact.loss
    finite = bool(change.isfinite().all())
    return Lesion(
        name=step.name,
        op=step.op,
        depth=step.depth,
        top1=intervals.share(int(right.sum()), n),
        top1_change=intervals.paired_increase(int((right & ~before).sum()), int((before & ~right).sum()), n),
        loss_change=intervals.mean(float(change.sum()), float(change.square().sum()), n) if finite else None,
    )


def with_curvature(
    result: Validation, target: Target, data: Data | None, images: ImageOptions, *, device: torch.device | str | None
) -> Validation:
    """The result with eigenvalues of the Hessian on some minibatches, and the loss along two directions."""
    model = target.model
    if model is None:
        raise ModelError(f"{target.label} is a saved result.")
    like = next(model.parameters(), torch.zeros(()))
    where = like.device if device is None else torch.device(device)
    batches: list[Minibatch] = []
    for batch in numbered(open_stream(target, data, images).batches):
        full = not batches or len(batch.images) == len(batches[0][1])
        if batch.labels is not None and full:
            batches.append((batch.images.to(where, like.dtype), batch.labels.to(where)))
        if len(batches) == MINIBATCHES:
            break
    try:
        model.to(where)
        with progress(f"eigenvalues of {target.label}", len(batches)) as advance:
            values = top_eigenvalues(model, batches, EIGENVALUES, progress=advance)
        with progress(f"landscape of {target.label}", GRID * GRID) as advance:
            at, loss = landscape(model, batches[:1], steps=GRID, progress=advance)
    except ModelError as error:
        note(f"the curvature of the loss is left out: {str(error).rstrip('.')}.")
        return result
    finally:
        model.to(like.device)
    largest = torch.tensor([row[0] for row in values], dtype=torch.float64)
    curvature = Curvature(
        batch_size=len(batches[0][1]),
        eigenvalues=values,
        largest=intervals.mean(float(largest.sum()), float(largest.square().sum()), len(largest)),
        at=at,
        loss=loss,
    )
    return msgspec.structs.replace(result, curvature=curvature)

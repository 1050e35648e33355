"""One optimizer step, and one pass of evaluation."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fourier_probe.data import InputSpec, normalise, random_erase
from fourier_probe.errors import ModelError, TrainingError
from fourier_probe.runtime.accelerator import summing, wide
from fourier_probe.runtime.distributed import Ranks
from fourier_probe.runtime.modes import evaluating, keeping_random_state
from fourier_probe.runtime.sync_batchnorm import synchronised
from fourier_probe.trace.calling import giving
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.inputs import Step
from fourier_probe.training.optim import clip, cross_entropy, loss_of
from fourier_probe.training.sharpness import climbed, draws_of, statistics_frozen

if TYPE_CHECKING:
    from timm.data import Mixup

_MIX = 6  # a stream of the step's seed of its own
AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Outcome(NamedTuple):
    """What a step, or a pass, adds up to, sums over images in float64, on the device if it has that."""

    loss: Tensor  # nats
    correct: Tensor
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which no one misses

    @property
    def means(self) -> tuple[float, float]:
        """Loss and accuracy (0 to 1)."""
        loss, correct, count = torch.stack(self).tolist()
        return loss / count, correct / count


class Diverged(Exception):  # noqa: N818 - an outcome of a step, which the trainer explains
    """The loss or the gradient is not finite; the weights have not been touched."""


def autocast(config: TrainConfig, device: torch.device) -> Any:
    """The precision of a forward pass."""
    return torch.autocast(device.type, AMP[config.amp]) if config.amp in AMP else contextlib.nullcontext()


def prepare(
    step: Step,
    config: TrainConfig,
    spec: InputSpec,
    mixup: Mixup | None,
) -> tuple[Tensor, Tensor]:
    """The images of a step as the model takes them in training: scaled, erased, mixed.

    Returns:
        Images (B, C, H, W) in the model's type; labels (B,), or mixed targets (B, classes).
    """
    inputs = normalise(step.images, spec.mean, spec.std).to(getattr(torch, config.model_dtype))
    if config.reprob:
        inputs = random_erase(inputs, step.generator, config.reprob, share=step.share)
    targets = step.labels
    if mixup is not None:
        with keeping_random_state():
            np.random.seed(np.random.SeedSequence([_MIX, step.generator.initial_seed()]).generate_state(4))  # noqa: NPY002
            inputs, targets = mixup(inputs, step.labels)
    if config.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return inputs, targets


def train_step(
    net: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: TrainConfig,
    *,
    check: bool = True,
    ranks: Ranks | None = None,
    batch: int | None = None,
) -> Outcome:
    """Forward, backward, clip, update: in parts with `--grad-accum-steps`, twice with `--sam-rho`.

    Args:
        net: in training mode, wrapped as the ranks need it.
        inputs: (B, C, H, W).
        targets: labels (B,) or probabilities (B, classes).
        optimizer: whose gradients are None before and after.
        scaler: of fp16; does nothing otherwise.
        config: precision, smoothing, clipping.
        check: look whether loss and gradient are finite before the update; makes the host wait for a GPU.
        ranks: whose batch statistics are one with `--sync-bn`.
        batch: images of the step over all ranks, which count equally however they are shared; default: of this one's.

    Raises:
        Diverged: they are not.
        TrainingError: BatchNorm is left with one value per channel.
    """
    # Gradients are averaged over ranks: a rank counts by its images.
    share = 1.0 if ranks is None or batch is None else len(targets) * ranks.world / batch
    backward = functools.partial(_backward, net, inputs, targets, config, scaler, ranks, share)
    if config.sam_rho:
        draws = draws_of(inputs.device)
        loss, logits = backward(exchange=False)
        with climbed(optimizer, config.sam_rho), statistics_frozen(net), draws:
            optimizer.zero_grad(set_to_none=True)
            backward()
    else:
        loss, logits = backward()
    scaler.unscale_(optimizer)
    # NaN in one gradient would spread to all by clipping, so the norm is looked at first; it is cheap.
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    good = torch.isfinite(loss) & (torch.isfinite(norm) | scaler.is_enabled())
    if check and not bool(good):
        raise Diverged
    clip(optimizer, net, norm, config)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        truth = targets.argmax(1) if targets.ndim == 2 else targets
        # A loss that went wrong unchecked turns the sum into NaN, which the next look finds.
        seen = wide(torch.where(good, loss.detach(), torch.nan)) * len(truth)
        count = torch.full((), len(truth), dtype=torch.float64, device=seen.device)
        return Outcome(seen, wide((logits.argmax(1) == truth).sum()), count)


def _backward(
    net: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    config: TrainConfig,
    scaler: torch.amp.GradScaler,
    ranks: Ranks | None,
    share: float,
    *,
    exchange: bool = True,
) -> tuple[Tensor, Tensor]:
    """Add up the gradient of a batch, in parts if asked; returns its mean loss and its logits.

    Args:
        net: as `train_step` has it, and so on.
        inputs: images.
        targets: labels, or probabilities.
        config: parts, precision, loss.
        scaler: of fp16.
        ranks: the processes.
        share: by which the loss counts.
        exchange: average the gradient over ranks, at the last part.
    """
    several = ranks is not None and ranks.world > 1
    together = synchronised(ranks) if config.sync_bn and ranks is not None else contextlib.nullcontext()
    count = config.grad_accum_steps
    parts = [(inputs, targets)]
    if count > 1:
        parts = list(zip(inputs.tensor_split(count), targets.tensor_split(count), strict=True))
    losses, scores = [], []
    for index, (images, truth) in enumerate(parts):
        alone = several and not (exchange and index + 1 == len(parts))
        with net.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]  # DistributedDataParallel
            with autocast(config, inputs.device), together:
                logits = _logits(net, images)
            loss = loss_of(logits, truth, config)
            weight = share * len(truth) / len(targets)
            scaler.scale(loss * weight if weight != 1 else loss).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach() * (len(truth) / len(targets)) if len(parts) > 1 else loss.detach())
        scores.append(logits.detach())
    if len(parts) == 1:
        return losses[0], scores[0]
    return torch.stack(losses).sum(), torch.cat(scores)


def _logits(net: nn.Module, images: Tensor) -> Tensor:
    with giving(net, images, advise=False):
        try:
            logits: Tensor = net(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise TrainingError(
                f"BatchNorm has one value per channel to normalise over: {len(images)} image at a time on this "
                "process, and maps of 1 x 1. Give a larger --batch-size or --img-size, or fewer processes, fewer "
                "--grad-accum-steps or --sync-bn."
            ) from error
    return logits


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    config: TrainConfig,
    ranks: Ranks,
    *,
    interrupted: Callable[[], None] = lambda: None,
) -> Outcome:
    """Loss (without smoothing) and accuracy over all ranks, in eval mode; the mode is put back.

    Args:
        model: bare, not wrapped.
        batches: this rank's images, normalised, and labels.
        config: precision.
        ranks: whose sums are added.
        interrupted: called after each batch; may raise.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=summing(ranks.device))
    with evaluating(model):
        for images, labels in batches:
            inputs = images.to(getattr(torch, config.model_dtype))
            if config.channels_last:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with autocast(config, ranks.device):
                logits = model(inputs)
            loss = cross_entropy(logits, labels) * len(labels)
            correct = (logits.argmax(1) == labels).sum()
            sums += torch.stack([wide(loss), wide(correct), wide(torch.full_like(loss, len(labels)))])
            interrupted()
    ranks.sum(sums)
    return Outcome(*sums)


@torch.no_grad()
def check_output(model: nn.Module, spec: InputSpec, classes: int, dtype: torch.dtype) -> None:
    """Run one blank image: the model must give a score for each class, before the first step (fault 7).

    Raises:
        ModelError: it gives something else; names both numbers.
    """
    parameter = next(model.parameters())
    blank = torch.zeros(1, spec.channels, *spec.size, dtype=dtype, device=parameter.device)
    with giving(model, blank), evaluating(model), keeping_random_state():
        scores = model(blank)
    name = type(model).__name__
    if not isinstance(scores, Tensor):
        raise ModelError(
            f"{name} returns {type(scores).__name__}: a network to be trained returns the scores (B, {classes}) alone. "
            f"Wrap it: class Wrapper(torch.nn.Module) with the {name} as self.model, whose forward takes them out of "
            "self.model(images)."
        )
    shape = tuple(scores.shape)
    if shape != (1, classes):
        answer = f"{shape[1]} classes" if len(shape) == 2 else f"an output of {shape}"
        raise ModelError(
            f"{name} has {answer}, but the data has {classes} classes: leave num_classes to the data, "
            f"or pass --model-arg num_classes={classes}."
        )

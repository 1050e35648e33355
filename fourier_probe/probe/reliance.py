"""What a network with recast layers relies on: how much it loses without one half. Imports models.gpsa, errors.

A gate is no measure of reliance: a layer can leave its convolution through its positions while its gate stays, and a
lesion of one half shifts what BatchNorm expects. So (ours, docs/training.md), per layer and for all layers together,
since layers that do the same work hide each other:

- exchanged: the half's output is taken from another image of the batch, which keeps its distribution. Primary.
- off: the gate is set to 0 or 1 and BatchNorm's statistics are estimated again on training images.
- off_raw: the same without that; a diagnostic, it also measures the shift of BatchNorm.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourier_probe.errors import DataError, ModelError
from fourier_probe.models.gpsa.attention import gated
from fourier_probe.models.gpsa.layer import GPSAConv2d
from fourier_probe.models.gpsa.sizes import taps
from fourier_probe.trace.calling import run

Half = Literal["content", "positional"]
Test = Literal["exchanged", "off", "off_raw"]
HALVES: tuple[Half, ...] = ("content", "positional")
ALL = "all layers"
ESTIMATED_ON = 1000
"""Training images on which BatchNorm's statistics are estimated again."""

_SHUT = 40.0  # logit of a gate that is 0 or 1 in float32


@dataclass(frozen=True)
class Reliance:
    """What happens without one half of one layer's attention, or of all layers' together.

    Attributes:
        layer: module path, or "all layers".
        half: which half was taken away.
        test: "exchanged", "off" or "off_raw", see the top of this module.
        images: how many.
        top1: share of correct answers without the half.
        loss: cross-entropy without it, nats.
        top1_change, loss_change: that minus the intact network's on the same images.
        top1_stderr, loss_stderr: standard errors of the changes over images, paired; NaN under 20 images.
    """

    layer: str
    half: Half
    test: Test
    images: int
    top1: float
    loss: float
    top1_change: float
    loss_change: float
    top1_stderr: float
    loss_stderr: float


def reliance(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    training: Tensor | None = None,
    batch_size: int = 256,
    tests: Sequence[Test] = ("exchanged", "off"),
    progress: Callable[[int], None] | None = None,
) -> list[Reliance]:
    """How much a classifier loses without the content or the positional half of its gated attention.

    Args:
        model: with recast convolutions or ConViT's gated attention; a copy is examined, in eval mode.
        images: (N, C, H, W), normalised for the model, on its device.
        labels: (N,).
        training: images on which BatchNorm's statistics are estimated again, for `off`; 1,000 of the training set.
        batch_size: images of a forward; exchanges are within a batch.
        tests: which to make.
        progress: called with 1 after each of them.

    Returns:
        One row for each layer, half and test, then those of all layers together; empty without gated attention.

    Raises:
        DataError: under two images; or `off` with BatchNorm in the model and no training images.
        ModelError: the model does not return one score for each class.
    """
    if len(images) < 2 or len(images) != len(labels):
        raise DataError(f"reliance needs at least two images, each with a label, got {len(images)} and {len(labels)}.")
    model = copy.deepcopy(model).eval()
    names = gated_layers(model)
    has_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if "off" in tests and has_norm and training is None:
        raise DataError("reliance: this model has BatchNorm: give training images to estimate its statistics again.")
    intact = _answers(model, images, labels, batch_size)
    rows = []
    groups = [[name] for name in names] + ([names] if len(names) > 1 else [])
    for group in groups:
        for half in HALVES:
            for test in tests:
                if test == "exchanged":
                    with exchanged(model, group, half):
                        answers = _answers(model, images, labels, batch_size)
                else:
                    lesioned = without(model, group, half)
                    if test == "off" and training is not None:
                        estimate_norms_(lesioned, torch.split(training, batch_size))
                    answers = _answers(lesioned, images, labels, batch_size)
                rows.append(_row(group[0] if len(group) == 1 else ALL, half, test, answers, intact))
                if progress is not None:
                    progress(1)
    if len(names) == 1:
        rows += [Reliance(**{**vars(row), "layer": ALL}) for row in rows]
    return rows


def gated_layers(model: nn.Module) -> list[str]:
    """Module paths of the layers with a content and a positional half, in the order of the model's modules."""
    return [name for name, module in model.named_modules() if gated(module) is not None]


@contextlib.contextmanager
def exchanged(model: nn.Module, layers: Iterable[str], half: Half) -> Iterator[None]:
    """Inside, the half of these layers' output comes from another image of the batch, drawn anew for each layer."""
    generator = torch.Generator().manual_seed(0)

    def listen(layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def replace(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            part: Tensor = gated(layer).halves(inputs[0])[HALVES.index(half)]
            return output + (part[_others(len(part), generator).to(part.device)] - part).to(output.dtype)

        return layer.register_forward_hook(replace)

    handles = [listen(model.get_submodule(name)) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def without(model: nn.Module, layers: Iterable[str], half: Half) -> nn.Module:
    """A copy of the model with the gates of these layers shut so that `half` is off."""
    lesioned = copy.deepcopy(model)
    logit = _SHUT if half == "content" else -_SHUT
    for name in layers:
        layer = lesioned.get_submodule(name)
        gate = getattr(layer, "gate", None)
        gate = gate if isinstance(gate, nn.Parameter) else getattr(layer, "gating_param", None)
        if not isinstance(gate, nn.Parameter):
            raise ModelError(f"reliance: {name} ({type(layer).__name__}) has no gate parameter to set.")
        with torch.no_grad():
            gate.fill_(logit)
    return lesioned


@torch.no_grad()
def estimate_norms_(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set BatchNorm's running statistics to the mean over these batches; nothing else is in training mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    for batch in batches:
        run(model, batch)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@dataclass(frozen=True)
class Departure:
    """How far a recast layer has left its convolution, by its parameters.

    Attributes:
        name: of the module.
        gate: mean of sigmoid(lambda) over heads; 1 is positional.
        gate_range: its smallest and largest head.
        locality: mean alpha, nats per squared pixel.
        displacement: mean distance of the attention centres from the kernel's taps, pixels.
        tap: mean over heads of gate x positional mass on the head's own tap: 1 is the convolution; null without images.
        content: norm of the content half over that of the output minus bias, on the images given; null without images.
    """

    name: str
    gate: float
    gate_range: tuple[float, float]
    locality: float
    displacement: float
    tap: float | None
    content: float | None


@torch.no_grad()
def departures(model: nn.Module, images: Tensor | None = None) -> list[Departure]:
    """Gate, positions and, given images, what they leave of the convolution, for every recast layer.

    The model runs once on `images` as it stands (set `eval()` first).
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, GPSAConv2d)}
    content: dict[str, float] = {}
    tap: dict[str, float] = {}

    def listen(name: str, layer: GPSAConv2d) -> torch.utils.hooks.RemovableHandle:
        def heard(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            maps = inputs[0][None] if inputs[0].dim() == 3 else inputs[0]
            parts = layer.halves(maps)
            total = torch.linalg.vector_norm(parts[0] + parts[1])
            content[name] = float(torch.linalg.vector_norm(parts[0]) / total) if total > 0 else 0.0
            tap[name] = float((layer.gates() * layer.tap_mass(maps.shape[2], maps.shape[3])).mean())

        return layer.register_forward_pre_hook(heard)

    if images is not None:
        handles = [listen(name, layer) for name, layer in layers.items()]
        try:
            run(model, images)
        finally:
            for handle in handles:
                handle.remove()
    return [_departure(name, layer, tap.get(name), content.get(name)) for name, layer in layers.items()]


def _departure(name: str, layer: GPSAConv2d, tap: float | None, content: float | None) -> Departure:
    gates = layer.gates()
    moved = layer.attention_centre.detach().cpu().double() - taps(layer)
    return Departure(
        name=name,
        gate=float(gates.mean()),
        gate_range=(float(gates.min()), float(gates.max())),
        locality=float((layer.locality_strength + layer.locality_shift).mean()),
        displacement=float(torch.linalg.vector_norm(moved, dim=1).mean()),
        tap=tap,
        content=content,
    )


@dataclass(frozen=True)
class _Answers:
    correct: Tensor  # (N,) float64
    loss: Tensor  # (N,) nats, float64


@torch.no_grad()
def _answers(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> _Answers:
    parts = []
    for batch in _even(images, batch_size):
        scores = run(model, batch)
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            raise ModelError(f"reliance: {type(model).__name__} returns no scores (B, classes).")
        parts.append(scores.float())
    scores, truth = torch.cat(parts), labels.to(parts[0].device)
    loss = F.cross_entropy(scores, truth, reduction="none")
    return _Answers((scores.argmax(1) == truth).cpu().double(), loss.cpu().double())


def _even(images: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Batches of about one size: a last batch of a single image would have nothing to exchange with."""
    return torch.tensor_split(images, max(1, min(math.ceil(len(images) / batch_size), len(images) // 2)))


def _others(count: int, generator: torch.Generator) -> Tensor:
    """A random permutation that leaves nothing in its place."""
    order = torch.randperm(count, generator=generator)
    shift = int(torch.randint(1, max(count, 2), (), generator=generator))
    other = torch.empty_like(order)
    other[order] = order.roll(shift)
    return other


def _row(layer: str, half: Half, test: Test, answers: _Answers, intact: _Answers) -> Reliance:
    top1, loss = answers.correct - intact.correct, answers.loss - intact.loss

    def error(change: Tensor) -> float:
        return float(change.std() / math.sqrt(len(change))) if len(change) >= 20 else math.nan

    return Reliance(
        layer=layer,
        half=half,
        test=test,
        images=len(top1),
        top1=float(answers.correct.mean()),
        loss=float(answers.loss.mean()),
        top1_change=float(top1.mean()),
        loss_change=float(loss.mean()),
        top1_stderr=error(top1),
        loss_stderr=error(loss),
    )

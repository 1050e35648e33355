"""Curvature of the loss: top eigenvalues of its Hessian per minibatch, and the loss along two directions.

Park & Kim (2202.06709): eigenvalues of the training loss without weight decay, by Lanczos (ARPACK) on Hessian-vector
products, each the gradient of a gradient. Not curvlinops (3.0.1): it takes torch's jvp of jacrev, which
is wrong behind a LayerNorm (torch 2.14: 4 to 7 % off on a small ViT in float64, with fused attention or plain; right
without the norm), where these products agree with the exact Hessian to 1e-9: tests/probe/test_hessian.py has both. The
directions are normalised per filter (Li et al., 1712.09913), norms and biases left out. In eval mode: BatchNorm uses
its running statistics. Fused attention has no second derivative on the CPU, so attention runs as plain mathematics.
May import logits, runtime, errors, trace.calling.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fourier_probe.errors import DataError, ModelError, first_line
from fourier_probe.models.gpsa.attend import second_derivatives
from fourier_probe.probe.logits import class_scores
from fourier_probe.runtime.accelerator import summing, wide
from fourier_probe.runtime.modes import evaluating, keeping_random_state
from fourier_probe.trace.calling import run

Array = NDArray[np.float64]
Minibatch = tuple[Tensor, Tensor]
"""Images (B, C, H, W), normalised, and labels (B,), where the network is."""


def top_eigenvalues(
    model: nn.Module,
    batches: Sequence[Minibatch],
    count: int,
    *,
    progress: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """The largest eigenvalues of the Hessian of the mean cross-entropy of each minibatch, the largest first.

    Args:
        model: a classifier; runs in eval mode and is left as it was.
        batches: each has a Hessian of its own.
        count: how many eigenvalues, fewer than the network has parameters.
        progress: called with 1 after each minibatch.

    Raises:
        ModelError: the network has no second derivative.

    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch...>
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> values = top_eigenvalues(net, [(torch.rand(8, 1, 2, 2), torch.arange(8) % 3)], 2)
    >>> len(values), values[0][0] >= values[0][1] > 0
    (1, True)
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    out: list[list[float]] = []
    with twice_differentiable(model) as parameters:
        size = sum(parameter.numel() for parameter in parameters)
        wanted = min(count, size - 1)
        if wanted < 1:
            raise ModelError(f"the network has {size} parameters that can be trained: expected at least two.")
        start = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
        for images, labels in batches:
            try:
                product = hessian_product(model, parameters, images, labels)
                linear = LinearOperator((size, size), matvec=product, dtype=np.float64)
                values = eigsh(linear, k=wanted, which="LA", v0=start, return_eigenvectors=False)
            except (RuntimeError, NotImplementedError) as error:
                name = type(model).__name__
                raise ModelError(f"the loss of {name} has no second derivative here: {first_line(error)}.") from error
            out.append(sorted(map(float, values), reverse=True))
            if progress is not None:
                progress(1)
    return out


def landscape(
    model: nn.Module,
    batches: Sequence[Minibatch],
    *,
    steps: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[float], list[list[float]]]:
    """Mean cross-entropy at w + a u + b v, for a and b on one grid, and u, v random with the norm of each filter.

    Args:
        model: a classifier; runs in eval mode and is left as it was.
        batches: on which the loss is taken, all together.
        steps: of the grid from -1 to 1, odd, so that the network itself is in the middle.
        progress: called with 1 after each point of the grid.

    Returns:
        The values of a and b, and the losses, nats: a row per a.
    """
    generator = torch.Generator().manual_seed(0)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    first, second = ({name: _like(value, generator) for name, value in weights.items()} for _ in range(2))
    at = torch.linspace(-1, 1, steps, dtype=torch.float64).tolist()
    losses: list[list[float]] = []
    with torch.no_grad(), evaluating(model), keeping_random_state(gpus=True):
        for a in at:
            row = []
            for b in at:
                moved = {name: value + a * first[name] + b * second[name] for name, value in weights.items()}
                total, seen = 0.0, 0
                for images, labels in batches:
                    scores = class_scores(torch.func.functional_call(model, moved, (images,)))
                    if scores is None:
                        raise DataError("the model returns no scores of classes")
                    total += float(F.cross_entropy(wide(scores), labels.to(summing(scores.device)), reduction="sum"))
                    seen += len(labels)
                row.append(total / seen)
                if progress is not None:
                    progress(1)
            losses.append(row)
    return at, losses


def hessian_product(
    model: nn.Module, parameters: Sequence[Tensor], images: Tensor, labels: Tensor
) -> Callable[[Array], Array]:
    """The product of the Hessian of the mean cross-entropy with a vector over all parameters."""
    scores = class_scores(run(model, images))
    if scores is None:
        raise DataError("the model returns no scores of classes")
    loss = F.cross_entropy(scores, labels)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    if _once_only(gradients):
        raise RuntimeError("a function of it is marked as differentiable once")
    used = [(index, gradient) for index, gradient in enumerate(gradients) if gradient is not None]
    sizes = [parameter.numel() for parameter in parameters]

    def product(vector: Array) -> Array:
        parts = torch.split(torch.from_numpy(np.array(vector, np.float64).reshape(-1)), sizes)
        along = [(g, parts[i].view_as(g).to(g)) for i, g in used if g.requires_grad]
        rows = torch.autograd.grad(
            [g for g, _ in along], parameters, [part for _, part in along], retain_graph=True, allow_unused=True
        )
        flat = [torch.zeros(n) if row is None else row.flatten().cpu() for n, row in zip(sizes, rows, strict=True)]
        return np.asarray(torch.cat([row.double() for row in flat]).numpy())

    return product


def _once_only(gradients: Sequence[Tensor | None]) -> bool:
    """Whether a part of the graph of gradients ends in torch's `once_differentiable`.

    torch raises only where it is run through; since nothing lies behind it, the part would be left out in silence.
    """
    left = [gradient.grad_fn for gradient in gradients if gradient is not None and gradient.grad_fn is not None]
    seen: set[object] = set()
    while left:
        node = left.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.name().endswith("Error"):
            return True
        left += [following for following, _ in node.next_functions if following is not None]
    return False


def _like(weight: Tensor, generator: torch.Generator) -> Tensor:
    """A random direction with the norm of each filter of a weight; 0 for norms, biases and single numbers."""
    if weight.ndim < 2 or not weight.is_floating_point():
        return torch.zeros_like(weight)
    drawn = torch.randn(weight.shape, generator=generator).to(weight)
    norms = [value.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1)) for value in (weight, drawn)]
    direction: Tensor = drawn * norms[0] / norms[1].clamp_min(1e-12)
    return direction


@contextlib.contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Eval mode, gradients for every floating parameter, attention as plain mathematics; all as before afterwards."""
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    before = [parameter.requires_grad for parameter in parameters]
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        sdpa_kernel(SDPBackend.MATH),
        second_derivatives(),
        evaluating(model),
        keeping_random_state(gpus=True),
    ):
        try:
            for parameter in parameters:
                parameter.requires_grad_(True)
            yield parameters
        finally:
            for parameter, needs in zip(parameters, before, strict=True):
                parameter.requires_grad_(needs)

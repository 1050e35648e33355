"""Sensitivity spectrum: which frequencies of an image its loss answers to, to first order. Imports heatmap, frequency.

The power spectrum of d loss / d image, pixels in [0, 1], summed over channels: for noise with a random sign per channel
it is the mean square of the first-order change of the loss. It costs one backward pass where the heat map has 514
forward passes.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from fourier_probe.errors import DataError
from fourier_probe.probe.frequency import half_plane, ring_radii
from fourier_probe.probe.heatmap import NoiseProbe
from fourier_probe.probe.logits import class_scores
from fourier_probe.runtime.accelerator import wide
from fourier_probe.runtime.modes import evaluating, keeping_random_state
from fourier_probe.trace.calling import call


def gradient_spectra(noise: NoiseProbe, index: Tensor) -> Tensor:
    """Logarithm of the mean power over each ring of the gradient of the loss, (images, rings), float64.

    Args:
        noise: the network, images and labels.
        index: (n,) which of its images.

    Returns:
        Rings as `metrics.ring_radii` has them, without the mean; -inf where the gradient is 0.

    Raises:
        DataError: no labels, or no scores of classes.
    """
    if noise.labels is None:
        raise DataError("it needs labels of the model's classes")
    rows = []
    mean, std = (torch.tensor(list(value)).view(1, -1, 1, 1) for value in (noise.mean, noise.std))
    dtype = next((p.dtype for p in noise.model.parameters() if p.is_floating_point()), torch.float32)
    with torch.inference_mode(False), torch.enable_grad(), evaluating(noise.model), keeping_random_state(gpus=True):
        for some in torch.split(index, noise.batch_size):
            pixels = noise.pixels[some].clone().requires_grad_()
            with warnings.catch_warnings():  # of networks that look at their input, as plain numbers
                warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True")
                scores = class_scores(call(noise.model, ((pixels - mean) / std).to(noise.device, dtype)))
            if scores is None:
                raise DataError("the model returns no scores of classes")
            # In double precision the gradient of a sure answer is small and not 0.
            logits = wide(scores)
            loss = F.cross_entropy(logits, noise.labels[some].to(logits.device), reduction="sum")
            (gradient,) = torch.autograd.grad(loss, pixels)
            rows.append(ring_power(gradient).log())
    size = (noise.pixels.shape[2], noise.pixels.shape[3])
    return torch.cat(rows) if rows else torch.zeros(0, len(ring_radii(size)), dtype=torch.float64)


def ring_power(images: Tensor) -> Tensor:
    """(B, rings) mean of |FFT2|^2, summed over channels, over the bins of each ring, float64.

    >>> ring_power(torch.eye(4)[None, None]).shape
    torch.Size([1, 2])
    """
    H, W = images.shape[2], images.shape[3]
    power = torch.fft.rfft2(wide(images.detach())).abs().square().sum(1).flatten(1).cpu()
    times, ring, _ = half_plane((H, W))
    weight, where = torch.tensor(times, dtype=torch.float64), torch.tensor(ring)
    rings = len(ring_radii((H, W)))
    inside = (where >= 1) & (where <= rings) & (weight > 0)
    total = torch.zeros(len(power), rings + 1, dtype=torch.float64)
    total.index_add_(1, where[inside], (power * weight)[:, inside])
    count = torch.zeros(rings + 1, dtype=torch.float64).index_add_(0, where[inside], weight[inside])
    return (total / count)[:, 1:]

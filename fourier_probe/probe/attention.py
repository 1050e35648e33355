"""What attention maps look like: distance, diversity, spectral response, gates. May import points, capture, models.

The map of a head is A (N, N), rows summing to one; class and register tokens are taken off and the rows made to sum to
one again. Definitions (r_i the position of token i in pixels):

- distance of a head: mean over queries of sum_j A_ij |r_j - r_i|, pixels (as in Raghu et al. 2021, arXiv 2108.08810);
- head diversity of a layer: standard deviation of that over its heads;
- NMI of a head: normalised mutual information I(q; k) / sqrt(H(q) H(k)) between query and key positions, uniform over
  queries (Park et al. 2023, arXiv 2305.00729): 0 where the map does not depend on the query, 1 where each query has
  a key of its own. Also of attention over windows, channels or learned queries, which has no distance;
- effective filter: the map as a function of the offset from query to key, a mean over queries and images; its response
  is that of a kernel (`kernels`);
- spectral response of a head: R(f) = |1/N sum_ij A_ij exp(-2 pi i f . (r_j - r_i))|, along the diagonal of frequencies,
  R(0) = 1: the gain of the head as a filter.

`attention_sums` takes the maps where they are made; `attention_maps` has the maths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fourier_probe.errors import DataError, PointError
from fourier_probe.models.gpsa.attention import gated
from fourier_probe.probe.attention_maps import map_measures
from fourier_probe.probe.attention_sums import Array, LayerSums, Listener, NMISums
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.groups import group_of
from fourier_probe.probe.kernels import GROUPS, KernelResponse, attention_response
from fourier_probe.probe.points import Point, find_points
from fourier_probe.probe.sums import Estimates, jackknife
from fourier_probe.trace.calling import eager
from fourier_probe.trace.forward import trace


@dataclass
class AttentionLayer:
    """One attention layer, means over images.

    Attributes:
        name: of the module.
        grid: (H, W) of the tokens.
        distance: (heads,) pixels.
        diversity: standard deviation of `distance` over heads, pixels.
        frequency: (K,) pi rad/sample per axis of the token grid.
        response: (heads, K), 1 at frequency 0.
        gate: (heads,) share of the positional half, for gated layers.
        uniform: distance of attention that is the same everywhere, pixels.
        nmi: (heads,) normalised mutual information of queries and keys, 0 to 1.
        stderr_of: of distance and nmi (heads,), of diversity and of mean_nmi (1,): over images, a jackknife; NaN under
            20.
        filter: what the layer's maps do as a filter, as a function of the offset.
    """

    name: str
    grid: tuple[int, int]
    distance: Array
    diversity: float
    frequency: Array
    response: Array
    gate: Array | None
    uniform: float
    nmi: Array
    stderr_of: dict[str, Array]
    filter: KernelResponse


@dataclass(frozen=True)
class Information:
    """What queries of one attention say of its keys.

    Attributes:
        name: of the module. over: what it runs over, in words. queries, keys: their number.
        nmi, stderr: (heads,) mean over images (and windows), and its error; NaN under 20 images.
        mean, mean_stderr: over heads.
    """

    name: str
    over: str
    queries: int
    keys: int
    nmi: Array
    stderr: Array
    mean: float
    mean_stderr: float


@dataclass(frozen=True)
class Observed:
    """All of the attention of a network.

    Attributes:
        layers: those whose tokens lie on a grid.
        information: of every attention that has a map, those among them, in execution order.
        left_out: for each that is not in `layers`, the reason.
        images: how many were looked at.
    """

    layers: list[AttentionLayer]
    information: list[Information]
    left_out: dict[str, str]
    images: int


def attention_layers(model: nn.Module, images: Iterable[object]) -> tuple[list[AttentionLayer], dict[str, str]]:
    """The measures of every self-attention layer whose tokens lie on a grid.

    Args:
        model: any module; it runs in eval mode without gradients and is left as it was.
        images: batches (B, C, H, W) normalised for the model, or pairs with labels, or `Batch`es.

    Returns:
        The layers in the order in which they run, and for each left out the reason.

    Raises:
        DataError: no images. PointError: no layer has attention over a grid.

    >>> from timm import create_model
    >>> layers, _ = attention_layers(create_model("vit_tiny_patch16_224", depth=1), [torch.zeros(1, 3, 224, 224)])
    >>> layers[0].name, layers[0].grid, layers[0].distance.shape
    ('blocks.0.attn', (14, 14), (3,))
    """
    seen = observe(model, images)
    if not seen.layers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(seen.left_out.items())[:2])
        raise PointError(f"no layer has self-attention over a grid of tokens{f' ({reasons})' if reasons else ''}.")
    return seen.layers, seen.left_out


def observe(model: nn.Module, images: Iterable[Any], *, total: int | None = None) -> Observed:
    """Every attention of a model.

    Args:
        model: as for `attention_layers`.
        images: likewise.
        total: how many images there are, where that is known; it decides the groups of the errors (`groups`).

    Raises:
        DataError: no images.
    """
    model = eager(model)
    like = next(model.parameters(), torch.zeros(()))
    sums: dict[str, LayerSums] = {}
    information: dict[str, NMISums] = {}
    left_out: dict[str, str] = {}
    points: list[Point] = []
    count = 0
    counts = np.zeros(GROUPS)
    for item in images:
        batch = (item[0] if isinstance(item, tuple | list) else item).to(like)
        points = points or find_points(model, batch[:1])
        group = group_of(np.arange(count, count + len(batch)), total, GROUPS)
        listener = Listener(model, points, sums, information, left_out, batch, group)
        with Capture(model, [], lambda _point, _maps: None), torch.no_grad(), listener.own_layers():
            trace(model, batch if len(batch) > 1 else batch.repeat(2, 1, 1, 1), hear=listener.hear)
        count += len(batch)
        counts += np.bincount(group, minlength=GROUPS)
    if not count:
        raise DataError("there are no images to look at attention with: the source is empty.")
    modules = dict(model.named_modules())
    layers = [
        _layer(name, sums_of, counts, _gate(modules[sums_of.module]), _depth(name, at, len(sums), points))
        for at, (name, sums_of) in enumerate(sums.items())
    ]
    return Observed(
        layers, [_information(name, sums_of, counts) for name, sums_of in information.items()], left_out, count
    )


def _depth(name: str, at: int, count: int, points: list[Point]) -> float:
    """Of the step that an attention leads to: the first point of the stream around it; its order where none is."""
    around = [
        point.depth
        for point in points
        if point.kind in ("stem", "residual") and name.startswith(f"{point.name.partition('+')[0]}.")
    ]
    return min(around, default=at / max(count - 1, 1))


def _information(name: str, total: NMISums, counts: Array) -> Information:
    def means(s: Mapping[str, Array]) -> Estimates:
        nmi = s["nmi"] / s["count"][:, None]
        return {"nmi": nmi, "mean": nmi.mean(1)}

    value, error = jackknife(means, {"nmi": total.nmi, "count": counts})
    return Information(
        name, total.over, total.queries, total.keys,
        value["nmi"], error["nmi"], float(value["mean"]), float(error["mean"]),
    )  # fmt: skip


def _layer(name: str, total: LayerSums, counts: Array, gate: Array | None, depth: float) -> AttentionLayer:
    def means(s: Mapping[str, Array]) -> Estimates:
        out = {
            key: s[key] / s["count"].reshape(-1, *[1] * (s[key].ndim - 1)) for key in ("distance", "nmi", "response")
        }
        return {**out, "diversity": out["distance"].std(1), "mean_nmi": out["nmi"].mean(1)}

    value, error = jackknife(means, {**total.sums, "count": counts})
    distance = value["distance"]
    n = math.prod(total.grid)
    uniform, _, _ = map_measures(torch.ones(1, 1, n, n), total.grid, total.step)
    return AttentionLayer(
        name=name,
        grid=total.grid,
        distance=distance,
        diversity=float(distance.std()),
        frequency=total.frequency,
        response=value["response"],
        gate=gate,
        uniform=float(uniform),
        nmi=value["nmi"],
        stderr_of={key: np.atleast_1d(error[key]) for key in ("distance", "nmi", "diversity", "mean_nmi")},
        filter=attention_response(name, total.sums["filter"], counts, depth=depth),
    )


def _gate(module: nn.Module) -> Array | None:
    layer = gated(module)
    return None if layer is None else layer.gates().cpu().double().numpy()

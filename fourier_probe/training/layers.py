"""Which convolutions of a network can become attention, in the order they run.

Ours: the K x K (K > 1) plain `nn.Conv2d` of the residual blocks, by default those whose key grid (their input) is at
most 16 x 16. Stem, 1x1 and shortcut convolutions stay; so do subclasses of `nn.Conv2d` and other padding than zeros.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from torch import Tensor, nn

from fourier_probe.errors import TrainingError, suggest
from fourier_probe.models.gpsa.cost import multiply_adds
from fourier_probe.models.gpsa.layer import GPSAConv2d, refusal
from fourier_probe.models.gpsa.sizes import default_head_dim
from fourier_probe.trace.layouts import run_forward
from fourier_probe.trace.residual import residual_blocks
from fourier_probe.training.schedule import stages_by_name

MAX_GRID = 16
"""Default largest key grid, pixels a side: the content map has heads N^2 entries an image, 0.6 M at 16 x 16."""

_SHORTCUT = re.compile(r"(^|[._])(downsample|down_sample|shortcut|skip|identity)([._]|\d*$|\d*\.)")


@dataclass(frozen=True)
class ConvLayer:
    """One convolution that the forward runs.

    Attributes:
        name: of the module.
        keys: (H, W) of its input, the grid attention looks at.
        queries: (H', W') of its output.
        channels: (in, out).
        heads: taps of its kernel, one head each.
        stage: `layer3`, `blocks.4`, ... by name, or the key grid (`8x8`) in a network without numbered stages.
        parameters: of the convolution.
        added: parameters that a recast adds, with the default width of queries and keys.
        multiply_adds: an image, as a convolution.
        multiply_adds_recast: an image, as GPSA.
        skipped: why it does not convert; empty for those that do.
    """

    name: str
    keys: tuple[int, int]
    queries: tuple[int, int]
    channels: tuple[int, int]
    heads: int
    stage: str
    parameters: int
    added: int
    multiply_adds: int
    multiply_adds_recast: int
    skipped: str = ""


def convertible_layers(
    model: nn.Module,
    example: Tensor,
    *,
    convert: Sequence[str] = (),
    max_grid: int | None = MAX_GRID,
    content_stride: int = 1,
    content_maps: int | None = None,
) -> list[ConvLayer]:
    """The convolutions to convert, in execution order: those of `survey_layers` that nothing excludes.

    Raises:
        TrainingError: there is none, with the reasons; or a pattern of `convert` fits no layer that can convert.
    """
    surveyed = survey_layers(
        model, example, convert=convert, max_grid=max_grid, content_stride=content_stride, content_maps=content_maps
    )
    chosen = [layer for layer in surveyed if not layer.skipped]
    if not chosen:
        reasons = dict.fromkeys(layer.skipped for layer in surveyed)
        why = f" Reasons: {'; '.join(list(reasons)[:4])}." if reasons else " It runs no convolution."
        raise TrainingError(
            f"{type(model).__name__} has no convolution to convert at input {tuple(example.shape)}.{why} "
            "Name layers with --convert, or allow larger grids with --max-key-grid."
        )
    return chosen


def survey_layers(
    model: nn.Module,
    example: Tensor,
    *,
    convert: Sequence[str] = (),
    max_grid: int | None = MAX_GRID,
    content_stride: int = 1,
    content_maps: int | None = None,
) -> list[ConvLayer]:
    """Every convolution that a forward of `example` runs, in order, and why those that stay do.

    The residual blocks are those whose sums the probe reads (docs/points.md). In a network without any (VGG), every
    K x K convolution but the first counts.

    Args:
        model: any network; runs once, in eval mode, without gradients, and is left as it was.
        example: (B, C, H, W) input.
        convert: glob patterns over names. If given, exactly the layers that match convert, whatever their place or
            grid; what cannot be recast at all stays skipped.
        max_grid: pixels a side; key grids of at most max_grid^2 pixels convert. None sets no limit.
        content_stride: of a recast, for its costs.
        content_maps: of a recast, likewise.

    Raises:
        TrainingError: a pattern matches nothing, or only what cannot be recast; `max_grid` is not positive.
    """
    if max_grid is not None and max_grid < 1:
        raise TrainingError(f"max_grid must be at least 1 pixel, got {max_grid}.")
    trace = _run(model, example)
    content = content_stride, content_maps or None
    layers = [_describe(name, module, trace.grids[name], content) for name, module in trace.convolutions.items()]
    if convert:
        layers = _by_pattern(layers, trace, convert)
    else:
        limit = None if max_grid is None else max_grid * max_grid
        layers = [_by_rule(layer, trace.convolutions[layer.name], layers, trace.blocks, limit) for layer in layers]
    return _with_stages(layers)


def _describe(
    name: str, module: nn.Module, grids: tuple[tuple[int, int], tuple[int, int]], content: tuple[int, int | None]
) -> ConvLayer:
    """Sizes and costs; `skipped` if it cannot be recast at all."""
    keys, queries = grids
    if not isinstance(module, nn.Conv2d | GPSAConv2d):
        raise TypeError(type(module).__name__)
    heads = module.kernel_size[0] * module.kernel_size[1]
    positions = queries[0] * queries[1]
    if isinstance(module, GPSAConv2d):
        added = module.added_parameters()
    else:
        added = heads * 4 + (content[1] or heads) * 2 * default_head_dim(module) * module.in_channels
    own = [module.weight] + ([module.bias] if module.bias is not None else [])
    return ConvLayer(
        name=name,
        keys=keys,
        queries=queries,
        channels=(module.in_channels, module.out_channels),
        heads=heads,
        stage="",
        parameters=sum(parameter.numel() for parameter in own),
        added=added,
        multiply_adds=positions * heads * (module.in_channels // module.groups) * module.out_channels,
        multiply_adds_recast=multiply_adds(module, keys, content_stride=content[0], content_maps=content[1]),
        skipped=refusal(module),
    )


def _by_pattern(layers: list[ConvLayer], trace: _Trace, convert: Sequence[str]) -> list[ConvLayer]:
    for pattern in convert:
        matched = [layer for layer in layers if fnmatchcase(layer.name, pattern)]
        if not matched:
            known = [layer.name for layer in layers]
            raise TrainingError(f"--convert {pattern!r} matches no convolution.{suggest(pattern, known)}")
        if all(layer.skipped for layer in matched):
            raise TrainingError(f"--convert {pattern!r}: {matched[0].name} cannot convert: {matched[0].skipped}.")
    return [
        layer
        if layer.skipped or any(fnmatchcase(layer.name, pattern) for pattern in convert)
        else replace(layer, skipped="not asked for")
        for layer in layers
    ]


def _by_rule(
    layer: ConvLayer, module: nn.Module, layers: list[ConvLayer], blocks: set[str], limit: int | None
) -> ConvLayer:
    """The default choice: in a residual block, no shortcut, no head, key grid within the limit."""
    if layer.skipped:
        return layer
    wide = [other.name for other in layers if other.heads > 1]
    inside = [name for name in wide if _within(name, blocks)] if blocks else wide[1:]
    why = ""
    if _SHORTCUT.search(layer.name):
        why = "a shortcut or downsampling convolution"
    elif layer.name not in inside:
        before = not inside or wide.index(layer.name) < wide.index(inside[0])
        why = "the stem" if before else "outside the residual blocks"
    elif layer.queries == (1, 1) and layer.keys == _reach(module):
        why = "it covers its whole input, as a fully connected layer"
    elif limit is not None and layer.keys[0] * layer.keys[1] > limit:
        why = f"its key grid, {layer.keys[0]} x {layer.keys[1]}, is over the limit"
    return replace(layer, skipped=why)


def _reach(module: nn.Module) -> tuple[int, int]:
    """(H, W) that the kernel spans; (0, 0) where padding lets it reach outside."""
    if not isinstance(module, nn.Conv2d) or (module.padding not in ("valid", (0, 0))):
        return 0, 0
    y, x = (d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True))
    return y, x


def _with_stages(layers: list[ConvLayer]) -> list[ConvLayer]:
    chosen = [layer.name for layer in layers if not layer.skipped]
    stages = stages_by_name([layer.name for layer in layers])
    used = {stages[name] for name in chosen}
    if len(chosen) > 1 and len(used) in (1, len(chosen)):  # `features.24`, or one list of blocks: no stages in names
        stages = {layer.name: f"{layer.keys[0]}x{layer.keys[1]}" for layer in layers}
    return [replace(layer, stage=stages[layer.name]) for layer in layers]


def _within(name: str, blocks: set[str]) -> bool:
    return any(name.startswith(f"{block}.") for block in blocks)


@dataclass
class _Trace:
    """What one forward did."""

    convolutions: dict[str, nn.Module]
    grids: dict[str, tuple[tuple[int, int], tuple[int, int]]]
    blocks: set[str]


def _run(model: nn.Module, example: Tensor) -> _Trace:
    forward = run_forward(model, example)
    recorded = _Trace({}, {}, {block.name for block in residual_blocks(forward)})
    for call in forward.trace.calls:
        if isinstance(call.module, nn.Conv2d | GPSAConv2d) and call.inputs and call.output:
            recorded.convolutions.setdefault(call.name, call.module)
            recorded.grids.setdefault(call.name, (_grid(call.inputs), _grid(call.output)))
    return recorded


def _grid(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[-2], shape[-1]

"""Where to listen: the probe points of any model, in execution order, or those that are named.

Found from one traced forward (`trace`) by rules on what it computes (`stream`). May import all four of grid, trace,
layouts and stream, and models.gpsa for what is gated.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from fourier_probe.errors import PointError, suggest
from fourier_probe.models.gpsa.attention import gated
from fourier_probe.runtime.messages import note
from fourier_probe.trace.calling import eager
from fourier_probe.trace.coverage import Coverage
from fourier_probe.trace.events import Call, Value
from fourier_probe.trace.grid import PREFIX_LIMIT, Layout
from fourier_probe.trace.layouts import Forward, Unread, run_forward
from fourier_probe.trace.op import operation
from fourier_probe.trace.residual import is_map
from fourier_probe.trace.stream import Stream, stream

PARTS = ("content", "positional")


@dataclass(frozen=True)
class Point:
    """A place to listen.

    Attributes:
        name: unique and stable: the module's path, with `+attn`, `+mlp` or `+conv` for the residual stream after that
            part of a block, `stem` for what the first block takes in, `+content` and `+positional` for the halves of
            gated attention, and `#2` for a second call.
        module, side: the hook: "output" of the module at this path, "input", or "sum", an addition of its own forward.
        call: which of several calls of the module in one forward.
        kind: "stem", "residual" (on the main stream, after attention too; in plain networks the trunk), "branch".
        op: what the step to this point did: "embed", "attention", "mlp", "conv", "downsample".
        depth: index of the residual step over their number, 0 to 1.
        layout: how its features lie in memory.
        part: "content" or "positional" where that half of the module's output is read, else empty.
        addition: of a "sum", its index among the additions of this layout in that call, and their number.

    >>> import torch
    >>> point = find_points(nn.Conv2d(3, 4, 3, padding=1), torch.rand(1, 3, 8, 8))[0]
    >>> point.kind, point.layout.grid, point.layout.channels
    ('stem', (8, 8), 4)
    """

    name: str
    module: str
    side: Literal["output", "input", "sum"]
    call: int
    kind: str
    op: str
    depth: float
    layout: Layout
    part: str = ""
    addition: tuple[int, int] | None = None


@dataclass(frozen=True)
class Survey:
    """Where to listen, and how much of the forward that covers.

    Attributes:
        points: in execution order, branches and what was selected among them.
        own: the points of the stream, whatever was selected.
        coverage: of the stream.
    """

    points: list[Point]
    own: list[Point]
    coverage: Coverage


def find_points(
    model: nn.Module,
    example: Tensor,
    *,
    select: Sequence[str] = (),
    branches: bool = True,
    grid: tuple[int, int] | None = None,
) -> list[Point]:
    """The probe points of a model.

    Args:
        model: any module; runs once, in eval mode without gradients, and is left as it was. Of a compiled one, the
            model inside.
        example: (B, C, H, W) images of the size to be analyzed; only the first is used.
        select: globs of module names, or of names of the model's own points, to listen at instead.
        branches: also the branches of the model's mixers: convolution and attention of EIT, the content and the
            positional half of gated attention (ConViT, recast convolutions). The halves are computed anew, which costs
            the layer once more.
        grid: (H, W) of token sequences whose order cannot be learnt from the forward.

    Returns:
        Points in execution order.

    Raises:
        ModelError: the model does not take images of this size.
        PointError: nothing was found, a glob matches nothing, a named module was never called, its features cannot
            be laid out as maps, or no tokens lie on the grid; names the point, its shape, and near names.

    >>> import torch
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    >>> [(point.name, point.op, point.layout.grid) for point in find_points(model, torch.zeros(1, 3, 8, 8))]
    [('1', 'embed', (8, 8)), ('2', 'downsample', (4, 4))]
    """
    return locate(model, example, select=select, branches=branches, grid=grid).points


def locate(
    model: nn.Module,
    example: Tensor,
    *,
    select: Sequence[str] = (),
    branches: bool = True,
    grid: tuple[int, int] | None = None,
) -> Survey:
    """The probe points of a model, as `find_points`, and how much of its forward they cover."""
    model = eager(model)
    forward = run_forward(model, example, grid)
    seen = stream(forward)
    own = points = _numbered(_with_depth(seen))
    if grid is not None and not any(point.layout.grid == grid for point in own):
        _no_such_grid(forward, grid)
    if branches and (points or select):
        points = sorted([*_branches(forward, points), *points], key=_order(forward))
    if select:
        points = _selected(model, forward, points, select)
    elif not points:
        raise PointError(_nothing(model, forward, seen))
    coverage = Coverage(
        steps=len(own) + len(seen.unread),
        read=len(own),
        unread=tuple(seen.unread),
        evidence={point.name: point.layout.evidence for point in points},
    )
    return Survey(points, own, coverage)


def _no_such_grid(forward: Forward, grid: tuple[int, int]) -> None:
    """A grid that no tokens lie on is an error; in a network without tokens, one of several, it is not used."""
    batch = forward.trace.batch
    shapes = [addition.shape for addition in forward.trace.sums if len(addition.shape) == 3]
    lengths = sorted({shape[1] if shape[0] == batch else shape[0] for shape in shapes})
    H, W = grid
    if lengths:
        raise PointError(
            f"--grid {H}x{W}: no tokens that are read lie on it. The forward has sequences of "
            f"{', '.join(map(str, lengths[:5]))}; a grid of {H * W} positions fits {H * W} tokens, or up to "
            f"{PREFIX_LIMIT} more before them, and nothing whose order was learnt."
        )
    note(f"--grid {H}x{W} is not used: {type(forward.trace.calls[0].module).__name__} has no sequences of tokens.")


def _nothing(model: nn.Module, forward: Forward, seen: Stream) -> str:
    """Why there is no point at all."""
    if isinstance(model, torch.jit.ScriptModule):
        return (
            f"{type(model).__name__} is a scripted module, which runs no Python and cannot be listened to: give the "
            "module that was scripted or traced."
        )
    lost = next((s for s in forward.trace.sums if s.kind == "add" and not is_map(forward, s)), None)
    why = ""
    if lost is not None:
        layout = forward.read_sum(lost)
        reason = layout.reason if isinstance(layout, Unread) else "it fits no grid"
        why = f" The stream in {lost.owner!r} has shape {lost.shape} for two images: {reason}."
    return (
        f"no probe point was found in {type(model).__name__}: it gives no feature maps that can be laid out on a "
        f"grid seen in its forward.{why} Name modules with --points GLOB, or with --grid HxW the grid of tokens that "
        "lie row by row."
    )


def _with_depth(seen: Stream) -> list[Point]:
    """Steps as points: the first is the stem, one that reaches a new, smaller grid is a subsampling.

    Steps that were not read count in the depth, so that a part of a network does not look like the whole.
    """
    points = []
    smallest = math.inf  # positions; of several streams of different resolution (HRNet, CrossViT) each counts once
    total = len(seen.steps) + len(seen.unread)
    for index, step in enumerate(seen.steps):
        positions = math.prod(step.layout.grid)
        op = "downsample" if positions < smallest else step.op
        smallest = min(smallest, positions)
        before = index + sum(unread.when < step.when for unread in seen.unread)
        points.append(
            Point(
                name=_call_name(step.name, step.call.index) if step.own_name else step.name,
                module=step.call.name,
                side=step.side,
                call=step.call.index,
                kind="residual" if before else "stem",
                op=op if before else "embed",
                depth=before / max(total - 1, 1),
                layout=step.layout,
                addition=(step.addition.index, step.addition.count) if step.addition else None,
            )
        )
    return points


def _branches(forward: Forward, own: list[Point]) -> Iterator[Point]:
    """What runs side by side in the model's mixers: modules that one names in `probe_branches`, halves of a gate."""
    mixers = {
        f"{c.name}.{part}": c.start for c in forward.trace.calls for part in getattr(c.module, "probe_branches", ())
    }
    for call in forward.trace.calls:
        parts = [""] if call.name in mixers else list(PARTS) if gated(call.module) is not None else []
        layout = forward.read_output(call) if parts else None
        if isinstance(layout, Unread):
            note(f"what runs side by side in {call.name} is not read: {layout.reason}.")
        elif layout is not None:
            depth = _depth(forward, own, call)
            for part in parts:
                name = _call_name(f"{call.name}+{part}" if part else call.name, call.index)
                op = "attention" if part else operation(forward, [call], call.start, call.end)
                yield Point(name, call.name, "output", call.index, "branch", op, depth, layout, part)


def _depth(forward: Forward, own: list[Point], call: Call) -> float:
    """How far the stream has come when a call begins."""
    when = _order(forward)
    return max((p.depth for p in own if when(p) <= call.start), default=0.0)


def _numbered(points: list[Point]) -> list[Point]:
    """Unique names: a second point of one name is `name#2`."""
    seen: dict[str, int] = {}
    out = []
    for point in points:
        seen[point.name] = seen.get(point.name, 0) + 1
        count = seen[point.name]
        out.append(point if count == 1 else replace(point, name=f"{point.name}#{count}"))
    return out


# --- points by name --------------------------------------------------------------------------------------------------


def _selected(model: nn.Module, forward: Forward, own: list[Point], select: Sequence[str]) -> list[Point]:
    """The points that globs name, in execution order: of the model's own, and of any module's output."""
    by_name = {point.name: point for point in own}
    modules = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    again = [_call_name(call.name, call.index) for call in forward.trace.calls if call.index]
    known = dict.fromkeys([*by_name, *modules, *again])
    chosen: dict[tuple[str, str, int, str, tuple[int, int] | None], Point] = {}
    for glob in select:
        names = fnmatch.filter(known, glob)
        if not names:
            raise PointError(f"--points {glob!r} matches no probe point and no module.{suggest(glob, known)}")
        mapped: list[Point] = []
        for name in names:
            exact = name == glob or len(names) == 1
            mapped += [by_name[name]] if name in by_name else _module_points(model, forward, own, name, exact=exact)
        if not mapped:
            raise PointError(f"--points {glob!r} matches {len(names)} modules, and none of them has a map of its own.")
        for point in mapped:
            chosen.setdefault((point.module, point.side, point.call, point.part, point.addition), point)
    return sorted(chosen.values(), key=_order(forward))


def _module_points(model: nn.Module, forward: Forward, own: list[Point], name: str, *, exact: bool) -> Iterator[Point]:
    """A point for each call of a named module; the model's own point where that is read there.

    Of many that a glob matches those are left out that have no map, or give the very values that they take (identities,
    dropout in eval mode): they would be the point before once more.
    """
    path, _, number = name.partition("#")
    module = model.get_submodule(path)
    calls = [c for c in forward.trace.calls if c.module is module and (not number or c.index == int(number) - 1)]
    if not calls and exact:
        raise PointError(f"module {name!r} is never called in the forward of {type(model).__name__}.")
    for call in calls:
        layout = forward.of_output(call)
        if not exact and (layout is None or _changes_nothing(call)):
            continue
        if layout is None:
            raise PointError(
                f"point {name}: its output of shape {_shown(call.output)} for two images cannot be laid out as maps "
                "(B, C, H, W): no grid that was seen before it fits. Leave it out of --points."
            )
        same = [p for p in own if (p.module, p.call, p.side, p.part) == (call.name, call.index, "output", "")]
        depth = _depth(forward, own, call)
        label = _call_name(path, call.index)
        op = operation(forward, [call], call.start, call.end)
        new = Point(label, call.name, "output", call.index, "branch", op, depth, layout)
        yield same[0] if same else new


DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def _changes_nothing(call: Call) -> bool:
    """Whether a module gives the very values that it takes, as dropout does in eval mode, if in a copy."""
    return isinstance(call.module, DROPOUTS) or (call.takes is not None and call.returns is call.takes)


def _order(forward: Forward) -> Callable[[Point], int]:
    """When a point is reached, as a key to sort by."""
    calls = {(call.name, call.index): call for call in forward.trace.calls}

    def when(point: Point) -> int:
        call = calls[point.module, point.call]
        if point.addition:
            value = value_at(forward, point)
            return value.when if value is not None else call.end
        return call.end if point.side == "output" else call.start

    return when


def value_at(forward: Forward, point: Point) -> Value | None:
    """What is read at a point of this forward."""
    call = next(c for c in forward.trace.calls if (c.name, c.index) == (point.module, point.call))
    if point.addition:
        alike = [a for a in forward.trace.additions if a.call is call and point.layout.fits_shape(a.shape)]
        return alike[point.addition[0]].value
    return call.returns if point.side == "output" else call.takes


def _call_name(name: str, index: int) -> str:
    return f"{name}#{index + 1}" if index else name


def _shown(shape: tuple[int, ...] | None) -> str:
    return "no tensor" if shape is None else str(shape)

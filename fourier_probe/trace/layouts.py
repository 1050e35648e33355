"""A traced forward and the layout of everything in it, from evidence. May import grid and trace."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from fourier_probe.trace.forward import Call, Trace, Value
from fourier_probe.trace.grid import Grid, Kind4D, Layout, infer_layout

READS_NCHW = re.compile(r"conv2d|batchnorm|norm2d|groupnorm|pool2d|pool(ing)?$|gpsaconv", re.IGNORECASE)
READS_NHWC = re.compile(r"^(linear|layernorm|rmsnorm)$", re.IGNORECASE)


class Forward:
    """A trace with the questions the rules ask of it."""

    def __init__(self, found: Trace, image: Grid, declared: Iterable[Grid]) -> None:
        self.trace, self.image = found, image
        self.grids: list[tuple[int, Grid]] = [(-1, grid) for grid in [*declared, image]]  # certain, and when seen
        self.users: dict[tuple[Value | None, tuple[int, ...] | None], set[Kind4D]] = {}
        for call in found.calls:
            self._learn(call)
        self.grids.sort(key=lambda seen: seen[0])

    def _learn(self, call: Call) -> None:
        """A convolution or pooling knows its grid; so does a layer that works on the last of four dimensions."""
        kind = reads(call.module)
        for shape, value, when in (
            (call.inputs, call.takes, call.start),
            (call.output, call.returns, call.end),
        ):
            if kind and shape and len(shape) == 4 and shape[0] == self.trace.batch:
                self.users.setdefault((value, shape), set()).add(kind)
                grid = (shape[2], shape[3]) if kind == "nchw" else (shape[1], shape[2])
                if kind == "nchw" or self._looks_like_the_image(grid):
                    self.grids.append((when, grid))

    def _looks_like_the_image(self, grid: Grid) -> bool:
        """Whether a grid has the image's proportions, up to rounding; (blocks, tokens of a block) has not."""
        (H, W), (h, w) = self.image, grid
        return abs(h * W - w * H) <= max(H, W)

    def layout(self, shape: tuple[int, ...] | None, when: int, evidence: Kind4D | None = None) -> Layout | None:
        """Layout of features of this shape at this moment of the forward."""
        if not shape or shape[0] != self.trace.batch:
            return None
        known = [grid for seen, grid in self.grids if seen <= when]
        found = infer_layout(shape, known, evidence=evidence)
        return None if found and found.kind == "nhwc" and not self._looks_like_the_image(found.grid) else found

    def of_output(self, call: Call) -> Layout | None:
        """Layout of what a call returns."""
        evidence = reads(call.module) or self._beside(call.returns, call.output) or self._inside(call, call.output)
        return self.layout(call.output, call.end, evidence)

    def of_input(self, call: Call) -> Layout | None:
        """Layout of what a call takes in."""
        evidence = reads(call.module) or self._beside(call.takes, call.inputs) or self._inside(call, call.inputs)
        return self.layout(call.inputs, call.end, evidence)

    def _beside(self, value: Value | None, shape: tuple[int, ...] | None) -> Kind4D | None:
        """How the layers that made or took in this very tensor lay it out, where they agree."""
        kinds = self.users.get((value, shape), set())
        return next(iter(kinds)) if len(kinds) == 1 else None

    def _inside(self, call: Call, shape: tuple[int, ...] | None) -> Kind4D | None:
        """How the layers inside a call lay out maps of this shape, where they agree."""
        inside = [c for c in self.trace.calls if call.holds(c)]
        kinds = {kind for c in inside if shape in (c.inputs, c.output) and (kind := reads(c.module))}
        return kinds.pop() if len(kinds) == 1 else None


def reads(module: nn.Module) -> Kind4D | None:
    """The layout a layer reads and writes 4-D maps in, where its class says so."""
    name = type(module).__name__
    if READS_NCHW.search(name) or isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm):
        return "nchw"
    return "nhwc" if READS_NHWC.search(name) else None


def declared_grids(model: nn.Module, image: Grid) -> list[Grid]:
    """Grids that timm's `feature_info` declares, for models that cut patches without a convolution."""
    info = getattr(model, "feature_info", None)
    strides = [each["reduction"] for each in info if "reduction" in each] if isinstance(info, list) else []
    return [(-(-image[0] // s), -(-image[1] // s)) for s in dict.fromkeys(strides)]

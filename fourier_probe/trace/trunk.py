"""A network without sums or concatenations: the trunk of plain layers. May import coverage, layouts, op, steps."""

from __future__ import annotations

import math
from dataclasses import replace

from fourier_probe.trace.coverage import UnreadStep
from fourier_probe.trace.layouts import Forward
from fourier_probe.trace.op import operation
from fourier_probe.trace.steps import Step


def trunk(forward: Forward) -> tuple[list[Step], list[UnreadStep]]:
    """Plain layers: every convolution, linear map or pooling with the layers without weights that follow it.

    Only those on the one way from the image to the last of the coarsest maps (a network that goes up again has skips);
    layers side by side are no stream and are named as unread.
    """
    steps: list[Step] = []
    beside: list[UnreadStep] = []
    units = [
        (call, layout)
        for call in forward.trace.calls
        if (not list(call.module.children()) or any(True for _ in call.module.parameters(recurse=False)))
        and (layout := forward.of_output(call)) is not None
    ]
    coarse = [(call, layout) for call, layout in units if layout.grid != (1, 1)] or units
    smallest = min((math.prod(layout.grid) for _, layout in coarse), default=0)
    end = next((call.returns for call, layout in reversed(coarse) if math.prod(layout.grid) == smallest), None)
    for call, layout in units:
        if any(s.call.start < call.start and call.end < s.call.end for s in steps[-1:]):
            continue
        if layout.grid == (1, 1) and steps and steps[-1].layout.grid != (1, 1):
            continue  # pooled to one position: a gate, or the classifier
        if steps and math.prod(layout.grid) > math.prod(steps[-1].layout.grid):
            break  # made larger again: a tail that makes an image
        weights = [p for p in call.module.parameters() if p.ndim >= 2]
        pool = not weights and bool(steps) and layout.grid != steps[-1].layout.grid
        if weights or pool:
            if call.returns is None or not forward.trace.passes(call.returns, end):
                beside.append(UnreadStep(call.name, _SIDE_BY_SIDE, call.end))
                continue
            op = "downsample" if pool else operation(forward, [call], call.start, call.end)
            steps.append(Step(call.end, call.name, call, "output", op, layout))
        elif steps and layout == steps[-1].layout and call.returns and forward.trace.passes(call.returns, end):
            steps[-1] = replace(steps[-1], when=call.end, name=call.name, call=call)
    return steps, beside


_SIDE_BY_SIDE = "nothing is added or concatenated to a stream, and it is one of several layers side by side"

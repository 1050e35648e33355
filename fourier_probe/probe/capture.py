"""Hooks on a model that give each point's maps to a function, and leave no trace.

May import additions, points, trace and gpsa.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from fourier_probe.errors import PointError
from fourier_probe.models.gpsa.attention import gated
from fourier_probe.probe.additions import Additions
from fourier_probe.probe.points import PARTS, Point
from fourier_probe.runtime.modes import evaluating, keeping_random_state
from fourier_probe.trace.tensors import pick


class Capture(contextlib.AbstractContextManager["Capture"]):
    """Listen at probe points while the caller runs the model.

    Inside the block the model is in eval mode; each time a probe point is reached its features are laid out as
    (B, C, H, W) and given to `reduce` within the hook: on the model's device, before any in-place operation can touch
    them, and without keeping them. Afterwards the hooks are gone, and train/eval mode of every module and the state of
    the random generators are what they were, also when the forward or `reduce` raised.

    Args:
        model: any module.
        points: from `find_points`.
        reduce: called with the point and its maps, a view that must not be modified.

    >>> import torch
    >>> from fourier_probe.probe.points import find_points
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    >>> image, shapes = torch.zeros(2, 3, 8, 8), []
    >>> with Capture(model, find_points(model, image), lambda point, maps: shapes.append(tuple(maps.shape))) as capture:
    ...     _ = model(image)
    ...     capture.check()
    """

    def __init__(self, model: nn.Module, points: Sequence[Point], reduce: Callable[[Point, Tensor], None]) -> None:
        self.model = model
        self.points = list(points)
        self.reduce = reduce
        self.calls: Counter[str] = Counter()  # forwards of each listened module side since the model's forward began
        self._reached: set[str] = set()
        sums = [point for point in self.points if point.side == "sum"]
        self._additions = Additions(model, sums, self._hear) if sums else None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Capture:
        modules = dict(self.model.named_modules(remove_duplicate=False))
        with contextlib.ExitStack() as stack:
            stack.enter_context(evaluating(self.model))
            stack.enter_context(keeping_random_state(gpus=True))
            if self.points:
                stack.callback(self.model.register_forward_pre_hook(self._begin).remove)
            listeners: dict[tuple[str, str, bool], list[Point]] = {}
            for point in self.points:
                if point.module not in modules:
                    raise PointError(f"probe point {point.name}: the model has no module {point.module!r}.")
                if point.side == "sum":
                    continue
                listeners.setdefault((point.module, point.side, bool(point.part)), []).append(point)
            for (name, side, halves), points in listeners.items():
                listen = self._listen_to_halves if halves else self._listen
                stack.callback(listen(modules[name], f"{name}:{side}{halves}", side, points).remove)
            if self._additions is not None:
                stack.enter_context(self._additions)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self) -> None:
        """Raise unless every point was reached in the last forward.

        Raises:
            PointError: names the points that were not, which means they are not part of this forward.
        """
        missing = [point.name for point in self.points if point.name not in self._reached]
        if missing:
            raise PointError(
                f"{len(missing)} of {len(self.points)} probe points were never called in this forward: "
                f"{', '.join(missing[:5])}. Choose others with --points; `fourier-probe points` lists them."
            )

    def _begin(self, _module: nn.Module, _inputs: object) -> None:
        self.calls.clear()
        self._reached.clear()

    def _hear(self, point: Point, maps: Tensor) -> None:
        with self._additions.pause() if self._additions is not None else contextlib.nullcontext():
            self.reduce(point, point.layout(maps.detach(), name=point.name))
        self._reached.add(point.name)

    def _listen(self, module: nn.Module, key: str, side: str, points: list[Point]) -> Any:
        def heard(features: object) -> None:
            call = self.calls[key]
            self.calls[key] += 1
            for point in points:
                if point.call == call:
                    maps = pick(features, point.layout.fits)
                    if maps is None:
                        raise PointError(f"probe point {point.name} gave {type(features).__name__}, no tensor.")
                    self._hear(point, maps)

        if side == "output":
            return module.register_forward_hook(lambda _m, _inputs, output: heard(output))
        return module.register_forward_pre_hook(lambda _m, inputs, kwargs: heard([inputs, kwargs]), with_kwargs=True)

    def _listen_to_halves(self, module: nn.Module, key: str, _side: str, points: list[Point]) -> Any:
        layer = gated(module)
        if layer is None:
            raise PointError(f"probe point {points[0].name}: {type(module).__name__} is no gated attention any more.")

        def heard(_module: nn.Module, inputs: Any, _output: object) -> None:
            call = self.calls[key]
            self.calls[key] += 1
            wanted = [point for point in points if point.call == call]
            if wanted:
                with self._additions.pause() if self._additions is not None else contextlib.nullcontext():
                    halves = dict(zip(PARTS, layer.halves(inputs[0]), strict=True))
                for point in wanted:
                    self._hear(point, halves[point.part])

        return module.register_forward_hook(heard)

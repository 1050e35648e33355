"""Hears what a module's own forward adds up to, where no hook reaches. Imports torch, errors, and of probe, points."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from fourier_probe.errors import PointError
from fourier_probe.probe.points import Point
from fourier_probe.trace.forward import ADD, ONTO


class Additions(TorchDispatchMode):
    """Inside, `hear` gets each point of side "sum" with what was added up, right after the operation.

    Every operation of the forward passes through Python meanwhile, some microseconds each.

    Args:
        model: the module whose forwards the caller runs.
        points: of side "sum" only.
        hear: called with a point and the sum, outside of this mode.
    """

    supports_higher_order_operators = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """What a layer compiles for itself, as flex_attention does, is one operation."""
        return True

    def __init__(self, model: nn.Module, points: Sequence[Point], hear: Callable[[Point, Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model, self.points, self.hear = model, points, hear
        self.paused = False
        self.calls: dict[str, int] = {}
        self.running: list[tuple[list[Point], dict[str, int]]] = []  # what is wanted of a call, and additions so far
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Additions:
        with contextlib.ExitStack() as stack:
            for name, module in self.model.named_modules():
                stack.callback(module.register_forward_pre_hook(self._before(name)).remove)
                stack.callback(module.register_forward_hook(self._after).remove)
            super().__enter__()  # type: ignore[no-untyped-call]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.close()
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Inside, additions are not counted: a hook computes something of its own."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def _before(self, name: str) -> Callable[[nn.Module, object], None]:
        here = [point for point in self.points if point.module == name]

        def hook(module: nn.Module, _args: object) -> None:
            if module is self.model:
                self.calls.clear()
                self.running.clear()
            index = self.calls.get(name, 0)
            self.calls[name] = index + 1
            self.running.append(([point for point in here if point.call == index], {}))

        return hook

    def _after(self, _module: nn.Module, _args: object, _output: object) -> None:
        points, counts = self.running.pop()
        for point in points:
            made, traced = counts.get(point.name, 0), point.addition[1] if point.addition else 0
            if made != traced:
                raise PointError(
                    f"probe point {point.name}: {point.module or 'the model'} makes {made} additions of this shape in "
                    f"this forward and made {traced} when it was traced, so which one is the point is unknown. Choose "
                    "other points with --points."
                )

    def __torch_dispatch__(self, function: OpOverload, types: object, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        points, counts = self.running[-1] if self.running else ([], {})
        if (
            points
            and not self.paused
            and isinstance(result, Tensor)
            and getattr(function, "overloadpacket", None) in ADD | ONTO
        ):
            for point in points:
                if point.layout.fits(result):
                    index = counts.get(point.name, 0)
                    counts[point.name] = index + 1
                    if point.addition is not None and index == point.addition[0]:
                        self.hear(point, result)
        return result

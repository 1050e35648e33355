"""What is known of the tensors of a running forward: what their axes run over, and which value they hold.

Imports torch, axes and events. Views share memory, so that a value is known by the memory it was written to.
"""

from __future__ import annotations

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fourier_probe.trace import axes as ax
from fourier_probe.trace.axes import Axes
from fourier_probe.trace.events import Value


class Known:
    """Axes and values of tensors, and the clock of events.

    Attributes:
        images: the value of the images. clock: how many events there were.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = Value(0, owner="")
        self.clock = 0
        # Memory -> what was last written there. Memory that is freed and used again is written by another operation
        # first, so nothing needs to be kept alive.
        self._written: dict[int, tuple[Value, int]] = {}
        self._axes = WeakTensorKeyDictionary()
        self._axes[images] = ax.of_images(images.shape)
        self._written[_memory(images)] = (self.images, images.numel())

    def run_over(self, tensor: Tensor, axes: Axes) -> None:
        """Remember what the axes of a tensor run over."""
        self._axes[tensor] = axes

    def write(self, tensor: Tensor, value: Value) -> None:
        """Give the memory of a tensor a value."""
        self._written[_memory(tensor)] = (value, tensor.numel())

    def write_in_place(self, tensor: Tensor, axes: Axes, value: Value) -> None:
        """The same for memory that held something; a part of it may be written, and the positions then lie there."""
        size = tensor.numel()
        if _memory(tensor) in self._written:
            size = max(size, self._written[_memory(tensor)][1])
            self._place(tensor, axes)
        self._written[_memory(tensor)] = (value, size)

    def value(self, tensor: Tensor) -> Value:
        """The value in the memory of a tensor; one from before the forward where nothing was written."""
        memory = _memory(tensor)
        if memory not in self._written:
            self._written[memory] = (Value(self.tick()), tensor.untyped_storage().nbytes() // tensor.element_size())
        return self._written[memory][0]

    def is_whole(self, tensor: Tensor) -> bool:
        """Whether a tensor is all that was written, not a slice of it."""
        written = self._written.get(_memory(tensor))
        return written is None or tensor.numel() >= written[1]

    def axes(self, tensor: Tensor) -> Axes:
        """What the axes of a tensor run over."""
        axes: Axes | None = self._axes.get(tensor)  # type: ignore[no-untyped-call]
        if axes is not None and len(axes) == tensor.ndim:
            return axes
        written = self._written.get(_memory(tensor))
        if written is not None and written[0].owner is not None:
            return tuple(ax.lost(size) for size in tensor.shape)
        return ax.plain(tensor.shape)

    def tick(self) -> int:
        """The next moment."""
        self.clock += 1
        return self.clock

    def _place(self, part: Tensor, axes: Axes) -> None:
        """Positions written into a part of a tensor that has none lie there: tokens behind a class token."""
        base = part._base
        if base is None or base.ndim != part.ndim or base.stride() != part.stride():
            return
        where = [dim for dim in range(part.ndim) if part.shape[dim] != base.shape[dim]]
        known = list(self.axes(base))
        if len(where) != 1 or any(map(ax.has_positions, known)) or not any(map(ax.has_positions, axes)):
            return
        at = where[0]
        first = int(part.storage_offset() - base.storage_offset()) // int(base.stride(at))
        sizes = [first, int(part.shape[at]), int(base.shape[at]) - first - int(part.shape[at])]
        self._axes[base] = (
            *axes[:at],
            ax.joined([ax.features(sizes[0]), axes[at], ax.features(sizes[2])], sizes),
            *axes[at + 1 :],
        )


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

"""One operation as the dispatcher gives it, and the tensors in what modules and operations take and return.

Imports torch only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket

Arguments: TypeAlias = dict[str, Any]
"""What an operation is called with, by the names in its schema: each rule knows the types of its own."""


@dataclass(frozen=True)
class Operation:
    """One call of one operation."""

    function: OpOverload
    args: tuple[Any, ...]
    kwargs: Arguments

    @property
    def packet(self) -> OpOverloadPacket:
        """The operation whatever the types of its arguments."""
        packet: OpOverloadPacket = self.function.overloadpacket
        return packet

    @property
    def takes(self) -> list[str]:
        """The names of all that it could be called with."""
        return [argument.name for argument in self.function._schema.arguments]

    @property
    def named(self) -> Arguments:
        """What it is called with."""
        return dict(zip(self.takes, self.args, strict=False)) | self.kwargs

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors it is called with."""
        return tensors_of([self.args, self.kwargs])


def tensors(value: object) -> Iterator[Tensor]:
    """The tensors of a module's input or output, looking into sequences, mappings and dataclasses.

    Inside of `torch.vmap` they are of one image and have no memory: there is nothing to listen to.
    """
    if isinstance(value, Tensor):
        if not torch._C._functorch.is_functorch_wrapped_tensor(value):
            yield value
        return
    items: Iterable[object] = ()
    if isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, tuple | list):
        items = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = vars(value).values()
    for item in items:
        yield from tensors(item)


def pick(value: object, fits: Callable[[Tensor], bool]) -> Tensor | None:
    """The first tensor of a module's input or output that fits, else the first of all."""
    present = list(tensors(value))
    return next((tensor for tensor in present if fits(tensor)), present[0] if present else None)


def tensors_of(value: object) -> list[Tensor]:
    """The tensors among an operation's arguments."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in tensors_of(item)] if isinstance(value, list | tuple) else []

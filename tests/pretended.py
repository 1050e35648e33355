"""An accelerator without float64, pretended: real numbers on the CPU that say they lie on `pretend:0`.

In a process of its own, since torch takes such a device once and for good. Within `pretended()` tensors are made there
and moved there and back. What fails there as it does on the hardware: any tensor in float64 or complex128, and any
operation on tensors of two devices but for zero-dimensional ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = "pretend:0"
WIDE = (torch.float64, torch.complex128)


class NoFloat64Error(TypeError):
    """What the hardware says."""


class There(Tensor):
    """A tensor on the pretended device; `numbers` are on the CPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> There:
        if numbers.dtype in WIDE:
            raise NoFloat64Error(f"{DEVICE} has no {numbers.dtype}.")
        there: There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, numbers.size(), strides=numbers.stride(), storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype, layout=numbers.layout, device=torch.device(DEVICE),
        )  # fmt: skip
        there.numbers = numbers
        return there

    def __repr__(self, **_: Any) -> str:
        return f"There({self.numbers})"

    def tolist(self) -> Any:
        """Numbers on the host, which torch does not give of such a tensor."""
        return self.numbers.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation on the numbers, with its result where the device would have it."""
    aten = torch.ops.aten
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    there = {id(leaf.numbers): leaf for leaf in tensors if isinstance(leaf, There)}
    asked = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
    if not there and (asked is None or asked.type == "cpu"):
        return func(*args, **kwargs)
    moves = func.overloadpacket in (aten._to_copy, aten.copy_, aten.to)
    here = [leaf for leaf in tensors if not isinstance(leaf, There) and leaf.ndim]
    if there and here and not moves:
        raise RuntimeError(f"{func}: expected all tensors on {DEVICE}, one of {tuple(here[0].shape)} is on the CPU.")
    arguments, options = tree_map_only(There, lambda leaf: leaf.numbers, (args, kwargs))
    arguments, options = tree_map_only(torch.device, lambda _: torch.device("cpu"), (arguments, options))
    with torch.inference_mode(False):  # no view of a normal tensor is one of inference
        out = func(*arguments, **options)
        if func is aten.copy_.default:
            return args[0]
        if asked is not None and asked.type == "cpu":
            return out
        return tree_map_only(Tensor, lambda leaf: there[id(leaf)] if id(leaf) in there else There(leaf), out)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Module(backend_registration._DummyBackendModule):
    """What `torch.mps` and `torch.xpu` have."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: object) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: object) -> None:
        torch.set_rng_state(state)


@contextlib.contextmanager
def pretended() -> Iterator[torch.device]:
    """Inside, the device is there."""
    if "pretend" not in torch._C._get_privateuse1_backend_name():
        backend_registration._setup_privateuseone_for_python_backend("pretend", _Module())
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device=)` makes its tensor on the CPU, and moves it
    try:
        with _Mode():
            yield torch.device(DEVICE)
    finally:
        torch._C._set_only_lift_cpu_tensors(before)

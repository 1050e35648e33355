"""What is a block, by rules that users add; they are asked before the tracer's own. Imports registry and errors only.

The tracer's own rules are in `stream`: modules that add two maps of one shape, else those that concatenate, else the
trunk of plain layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fourier_probe.errors import PointError, ProbeError, suggest
from fourier_probe.registry import Registry

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class BlockRequest:
    """What a block rule may look at.

    Attributes:
        model: the network.
        called: the modules that its forward called, by path, in the order in which they were first called.
        adds: paths of those whose own forward adds two maps of one shape.

    >>> from torch import nn
    >>> layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> request = BlockRequest(layers, dict(layers.named_modules()))
    >>> [path for path, module in request.called.items() if isinstance(module, nn.Conv2d)]
    ['0']
    """

    model: nn.Module
    called: Mapping[str, nn.Module]
    adds: frozenset[str] = frozenset()


Rule = Callable[[BlockRequest], "Sequence[str] | None"]
BLOCKS: Registry[Rule] = Registry("block rule")
"""The rules that users added, in that order; the first that names blocks of a network is taken."""


def register_blocks(name: str, *, summary: str = "") -> Callable[[Rule], Rule]:
    """A decorator that adds a block rule: a function from a `BlockRequest` to paths of modules, or None.

    Args:
        name: what messages call it.
        summary: one line on what it is; the first line of the docstring by default.

    Raises:
        RegistryError: the name is taken.

    >>> @register_blocks("mixers")
    ... def mixers(request):
    ...     return [path for path, module in request.called.items() if type(module).__name__ == "Mixer"]
    >>> BLOCKS.names()
    ['mixers']
    >>> BLOCKS.discard("mixers")
    """
    return BLOCKS.register(name, summary=summary)


def named_blocks(request: BlockRequest) -> tuple[str, list[str]]:
    """The first rule that knows this network, and the paths of its blocks; "" and none where no rule does.

    Raises:
        PointError: a rule fails, or names what is no module of this forward; says which rule.
    """
    for rule in BLOCKS:
        try:
            answer = BLOCKS.get(rule)(request)
        except ProbeError:
            raise
        except Exception as error:
            raise PointError(f"block rule {rule!r} fails: {type(error).__name__}: {error}.") from error
        if not answer:
            continue
        if isinstance(answer, str) or not all(isinstance(name, str) for name in answer):
            raise PointError(f"block rule {rule!r} gave {answer!r:.80}: expected a list of paths of modules.")
        unknown = next((name for name in answer if name not in request.called), None)
        if unknown is not None:
            near = suggest(unknown, request.called)
            raise PointError(f"block rule {rule!r} names {unknown!r}, which this forward does not call.{near}")
        return rule, list(answer)
    return "", []

"""Formats of checkpoints by name: how each is recognised, and how it says what it holds. Imports registry and errors.

Readers see plain values only: `files` has refused by then whatever would run.

@register_reader("my-lab", recognise=lambda values: "net" in values)
def my_lab(values: Mapping[str, Any]) -> CheckpointContents:
"First line: who writes this layout."
return CheckpointContents(values["net"], arch="resnet18")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fourier_probe.errors import CheckpointError, ProbeError, printable
from fourier_probe.registry import Registry, RegistryError

Values = Mapping[str, object]


@dataclass(frozen=True)
class CheckpointContents:
    """What a reader found in a file; every tensor is checked afterwards, as those of any file are.

    Attributes:
        state_dict: name -> tensor; None where there are averaged weights only.
        arch: name of the architecture, if the file gives one.
        model_args: arguments it was created with: `{"num_classes": 10}`.
        state_dict_ema: averaged weights, if there are any.
        epoch: as the file counts.
        config: of the training run.
        metrics: name -> number.

    >>> CheckpointContents({}, arch="resnet18").values()
    {'state_dict': {}, 'arch': 'resnet18'}
    """

    state_dict: Mapping[str, Tensor] | None
    arch: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    state_dict_ema: Mapping[str, Tensor] | None = None
    epoch: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def values(self) -> dict[str, object]:
        """The same as the plain values that `formats.read` goes on from; what is empty is left out."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in named.items()}
        return {name: value for name, value in plain.items() if name == "state_dict" or value not in (None, {})}


Read = Callable[[Values], CheckpointContents]


class Reader:
    """A function that reads a layout, with what tells that layout from others.

    >>> Reader(print, lambda values: "net" in values).recognise({"net": {}})
    True
    """

    def __init__(
        self, read: Callable[[Values], CheckpointContents | None], recognise: Callable[[Values], bool]
    ) -> None:
        self.read, self.recognise = read, recognise
        self.__module__, self.__doc__ = read.__module__, read.__doc__  # the origin of the entry, its summary


READERS: Registry[Reader] = Registry("checkpoint reader")
"""Layouts that users added; they are asked before the general rules of `formats`, never for files of this package."""

RESERVED = ("fourier-probe", "timm", "torchvision", "lightning", "safetensors", "pytorch")
"""Names of the layouts that `formats` reads by itself."""


def register_reader(name: str, summary: str = "", *, recognise: Callable[[Values], bool]) -> Callable[[Read], Read]:
    """A decorator that adds a layout of checkpoints: a function from a file's plain values to `CheckpointContents`.

    Args:
        name: who writes it: what `Checkpoint.format` says.
        summary: one line on it; the first line of the docstring by default.
        recognise: whether a file's values have this layout.

    Raises:
        RegistryError: the name is taken.

    >>> import fourier_probe as fp
    >>> @fp.register_reader("doc-lab", recognise=lambda values: "doc_net" in values)
    ... def doc_lab(values):
    ...     "Files with the weights under doc_net."
    ...     return fp.CheckpointContents(values["doc_net"], arch=values["doc_name"])
    """
    if name in RESERVED:
        raise RegistryError(f"there is a checkpoint reader {name!r} already: choose another name.")

    def add(read: Read) -> Read:
        READERS.register(name, summary=summary)(Reader(read, recognise))
        return read

    return add


def read_with_plugins(values: dict[str, object]) -> tuple[str, dict[str, object]] | None:
    """Name of the first reader that recognises the values, and what it says they hold; None where none does.

    Raises:
        CheckpointError: a reader fails, or gives something else; names the reader.
    """
    for entry in READERS.entries():
        reader = entry.load()
        try:
            contents = reader.read(values) if reader.recognise(values) else None
        except ProbeError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"checkpoint reader {entry.name!r} fails: {type(error).__name__}: {printable(error, 200)}"
            ) from error
        if contents is None:
            continue
        if not isinstance(contents, CheckpointContents):
            raise CheckpointError(
                f"checkpoint reader {entry.name!r} gave {type(contents).__name__}: expected CheckpointContents."
            )
        return entry.name, contents.values()
    return None

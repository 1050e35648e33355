"""Names for what users may add: metrics, schedules, block rules, readers, sources, figures. Imports errors only.

Built-in entries are declared as name -> "module:attribute" and imported when first asked for, so that listing names
costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from fourier_probe.errors import ProbeError, suggest

T = TypeVar("T")


class RegistryError(ProbeError):
    """A name that is not registered, or that is registered already."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing.

    Attributes:
        name: what users call it.
        summary: one line on what it is, for lists and docs.
        origin: the module it comes from.
    """

    name: str
    summary: str
    origin: str
    _value: T | None = None

    def load(self) -> T:
        """The thing itself; a built-in one is imported now."""
        if self._value is not None:
            return self._value
        module, _, attribute = self.origin.partition(":")
        value: T = getattr(importlib.import_module(module), attribute)
        return value


class Registry(Generic[T]):
    """Entries by name, in the order they were added.

    Args:
        kind: what one entry is, for messages: "metric".
        builtin: name -> ("package.module:attribute", summary).

    >>> colours: Registry[int] = Registry("colour")
    >>> @colours.register("red", summary="the longest waves")
    ... def red() -> int:
    ...     return 1
    >>> colours.names(), colours.get("red")()
    (['red'], 1)
    >>> colours.get("rad")
    Traceback (most recent call last):
    fourier_probe.registry.RegistryError: there is no colour 'rad'. Did you mean red?
    """

    def __init__(self, kind: str, builtin: Mapping[str, tuple[str, str]] | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {
            name: Entry(name, summary, origin) for name, (origin, summary) in (builtin or {}).items()
        }

    def register(self, name: str, *, summary: str = "", origin: str = "") -> Callable[[T], T]:
        """A decorator that adds what it decorates.

        Args:
            name: what users call it.
            summary: the first line of the docstring by default.
            origin: the module it comes from; by default that of the thing itself.

        Raises:
            RegistryError: the name is taken by something from another module.
        """

        def add(value: T) -> T:
            module = origin or str(getattr(value, "__module__", ""))
            taken = self._entries.get(name)
            if taken is not None and taken.origin.partition(":")[0] != module:
                raise RegistryError(
                    f"there is a {self.kind} {name!r} already, from {taken.origin}: choose another name."
                )
            lines = (summary or getattr(value, "__doc__", None) or "").strip().splitlines()
            self._entries[name] = Entry(name, lines[0] if lines else "", module, value)
            return value

        return add

    def discard(self, name: str) -> None:
        """Forget an entry, if there is one of this name."""
        self._entries.pop(name, None)

    def get(self, name: str) -> T:
        """The thing of this name.

        Raises:
            RegistryError: there is none; names near ones.
        """
        if name not in self._entries:
            known = suggest(name, self._entries) or f" There are {', '.join(self._entries) or 'none'}."
            raise RegistryError(f"there is no {self.kind} {name!r}.{known}")
        return self._entries[name].load()

    def names(self) -> list[str]:
        """All names, in the order they were added."""
        return list(self._entries)

    def entries(self) -> list[Entry[T]]:
        """All entries, in the order they were added; nothing is imported."""
        return list(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._entries)

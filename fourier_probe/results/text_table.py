"""A table as a terminal or a notebook shows it, and a number in it. Imports nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextTable:
    """Cells are text; `caption` says what they mean, alone where there are no columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def plus_minus(value: float | None, half: float | None, form: str = "{:+.2f}") -> str:
    """A value and half of its interval in the same digits, the half where it is known; "-" where there is no value.

    >>> plus_minus(0.5, 0.25), plus_minus(0.5, float("nan")), plus_minus(None, None)
    ('+0.50 ± 0.25', '+0.50', '-')
    """
    if value is None or value != value:
        return "-"
    known = half is not None and half == half
    return form.format(value) + (f" ± {form.replace('+', '').format(half)}" if known else "")

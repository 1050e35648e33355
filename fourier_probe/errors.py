"""The errors a user can meet: one base class, a leaf per room of the house.

A message says what was expected, what came, where, and what to do about it.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


class ProbeError(Exception):
    """Base of every error this package raises on purpose; the command line exits 1 on it.

    >>> issubclass(DataError, ProbeError) and issubclass(UnknownPointError, KeyError)
    True
    """


class DataError(ProbeError):
    """Images or labels that cannot be read or used.

    >>> import fourier_probe as fp
    >>> fp.open_data("bundle")
    Traceback (most recent call last):
    fourier_probe.errors.DataError: ...
    """


class ModelError(ProbeError):
    """An architecture that is unknown or cannot be built as asked.

    >>> import fourier_probe as fp
    >>> fp.create("resnet5O")
    Traceback (most recent call last):
    fourier_probe.errors.ModelError: unknown model 'resnet5O': ... Did you mean resnet50...
    """


class CheckpointError(ProbeError):
    """A checkpoint that is unsafe, damaged, or does not fit its model.

    >>> import fourier_probe as fp
    >>> fp.open_target("gone.pt")
    Traceback (most recent call last):
    fourier_probe.errors.CheckpointError: ...
    """


class PointError(ProbeError):
    """A probe point that does not exist, was never called, or cannot be laid out on a grid.

    >>> import torch
    >>> import fourier_probe as fp
    >>> fp.find_points(torch.nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8), select=["blocks.*"])
    Traceback (most recent call last):
    fourier_probe.errors.PointError: ...
    """


class UnknownPointError(PointError, KeyError):
    """A point that a result does not hold; it is a KeyError too."""

    __str__ = Exception.__str__  # a KeyError shows its message in quotes


class ResultError(ProbeError):
    """A saved result that cannot be read or compared.

    >>> import fourier_probe as fp
    >>> fp.Definition(floor=0)
    Traceback (most recent call last):
    fourier_probe.errors.ResultError: floor=0 must be positive and finite; use log='plain' for ln|F| without one.
    """


class OutputError(ProbeError):
    """A place that cannot be written to.

    >>> from fourier_probe.io import atomic
    >>> atomic.output_folder("/dev/null/results", results=())
    Traceback (most recent call last):
    fourier_probe.errors.OutputError: ...
    """


class TrainingError(ProbeError):
    """A training run that cannot start, continue or resume.

    >>> import fourier_probe as fp
    >>> fp.TrainConfig.of(epochs=0)
    Traceback (most recent call last):
    fourier_probe.errors.TrainingError: ...
    """


class DeviceError(ProbeError):
    """A device that does not exist here, or cannot be used."""


class Terminated(SystemExit):
    """SIGTERM has come: exit code 143. Told apart from a user's file that calls `sys.exit`."""

    def __init__(self) -> None:
        super().__init__(143)


def suggest(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """End of a message about an unknown name: its nearest neighbours, or nothing.

    >>> suggest("resnet5O", ["resnet50", "resnet18", "vgg16"], limit=1)
    ' Did you mean resnet50?'
    >>> suggest("zzz", ["resnet50"])
    ''
    """
    near = difflib.get_close_matches(name, list(known), n=limit, cutoff=0.6)
    return f" Did you mean {', '.join(near)}?" if near else ""


def first_line(error: BaseException, otherwise: str = "", *, limit: int = 500) -> str:
    r"""The first line of what an exception says, safe for a terminal and without a full stop; else its type.

    >>> first_line(ValueError("no such file.\nat line 3")), first_line(KeyError()), first_line(KeyError(), "nothing")
    ('no such file', 'KeyError', 'nothing')
    """
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # a message that fails itself
        lines = []
    return printable(lines[0] if lines else otherwise or type(error).__name__, limit).rstrip(".")


def printable(text: object, limit: int | None = None, *, lines: bool = False) -> str:
    r"""Text out of a file, or a file's name, made safe for a terminal: one line, no control or invisible characters.

    Control characters (ANSI escapes, line ends), formatting ones (which reverse text) and bytes that are no UTF-8 are
    written as escapes; what is longer than `limit` loses its middle. With `lines` line ends stay: they are ours.

    >>> printable("a\x1b[31mred\nb\udcff"), printable("layer." * 100, 20)
    ('a\\x1b[31mred\\nb\\udcff', 'layer.laye...r.layer.')
    """
    text = str(text)
    if limit is not None and len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-(limit - limit // 2 - 2) :]}"
    return text.translate(_LINES if lines else _LINE)


class _Escapes(dict[int, "int | str"]):
    """What `str.translate` makes of each code point; filled as they come."""

    def __missing__(self, code: int) -> int | str:
        unseen = unicodedata.category(chr(code))[0] in "CZ" and chr(code) != " "
        return self.setdefault(code, chr(code).encode("unicode_escape").decode() if unseen else code)


_LINE, _LINES = _Escapes(), _Escapes({ord("\n"): ord("\n")})

"""JSON files of a schema read back with their types checked. Imports errors and regular."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import msgspec

from fourier_probe.errors import ResultError
from fourier_probe.io.regular import read_regular

Decoded = TypeVar("Decoded")
_SURROGATES = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\(u[dD][89a-fA-F]..)|\\.", re.DOTALL)
"""Escapes of a JSON file: a pair of surrogates; half a pair, which no character is; any other."""


class _Header(msgspec.Struct):
    schema: str
    version: int


def read_result(path: Path, kind: type[Decoded], *, schema: str, version: int, again: str) -> Decoded:
    """A file as an object of `kind`: a wrong type is refused by the name of its field.

    Args:
        path: of the file.
        kind: a msgspec.Struct.
        schema: what the field of this name must say.
        version: the latest that this package reads.
        again: what to do when it cannot be read, a clause without a full stop.

    Raises:
        ResultError: missing, no JSON, of another schema or a later version, or a field of another type.
    """
    try:
        text = _SURROGATES.sub(_as_text, read_regular(path))
        header = msgspec.json.decode(text, type=_Header)
        if header.schema != schema:
            raise ResultError(f"{path} has schema {header.schema[:60]!r}, not {schema!r}: {again}.")
        if not 1 <= header.version <= version:
            raise ResultError(
                f"{path} is version {header.version} of {schema} and this fourier-probe reads 1 to {version}: "
                f"update fourier-probe, or {again}."
            )
        return msgspec.json.decode(text, type=kind)
    except FileNotFoundError as error:
        raise ResultError(f"there is no file {path}: {again}.") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ResultError(f"{path} cannot be read ({reason}): {again}.") from error
    except msgspec.MsgspecError as error:
        raise ResultError(f"{path} is damaged, {error}: {again}.") from error


def _as_text(escape: re.Match[bytes]) -> bytes:
    """Half a pair of surrogates, as a name that is not UTF-8 holds it, written out; every other escape as it is."""
    return b"\\\\" + escape[1] if escape[1] else escape[0]

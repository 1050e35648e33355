"""One image file -> one 8-bit grey or RGB image, or a reason why not."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from fourier_probe.errors import DataError
from fourier_probe.io.regular import open_regular

_NAMED = 5  # bad files that a message names; the rest are counted
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # of Pillow's plugins: none runs a program
_LARGER = ("GIF", "TIFF")  # may allocate more than the image has, which Pillow tells by a warning
_LONGEST, _SLIMMEST = 65_535, 100  # pixels of a side; of sides: more, and the resized image takes gigabytes


class BadImageError(DataError):
    """Images that cannot be used.

    Attributes:
        bad: (name, reason) of each.
    """

    def __init__(self, bad: Iterable[tuple[str, str]]) -> None:
        self.bad = list(bad)
        super().__init__(self.bad)  # the arguments of an exception are what pickle rebuilds it from

    def __str__(self) -> str:
        named = ", ".join(f"{name} ({reason})" for name, reason in self.bad[:_NAMED])
        rest = f" and {len(self.bad) - _NAMED} more" if len(self.bad) > _NAMED else ""
        count = "1 image" if len(self.bad) == 1 else f"{len(self.bad)} images"
        return f"cannot use {count}: {named}{rest}; mend the files, or pass --skip-bad to leave such images out."


_ahead = ContextVar("ahead", default=False)


def decode_ahead() -> None:
    """Say that this thread decodes while others work: warning filters, which all threads share, are left alone.

    What can only be judged with them is then refused here, for the main thread to decode again.
    """
    _ahead.set(True)


def decode(file: Path | BinaryIO, name: str | None = None) -> Image.Image:
    """Read an image file completely; returns it upright, in mode "L" or "RGB".

    Palettes, CMYK, YCbCr and the like become RGB; 16-bit grey is scaled so that 65535 becomes 255 (16-bit colour keeps
    its high byte, as Pillow reads it); transparency is composited on white, the colour of a page; the EXIF orientation
    is applied; of an animation or a file of several pages, the first is taken.

    Args:
        file: a path, or an open binary file.
        name: what a message calls it; by default the path.

    Raises:
        BadImageError: the file is missing, not a regular file, of another format, damaged, or cut short; has over
            `Image.MAX_IMAGE_PIXELS` pixels (a decompression bomb) or sides out of all proportion; or holds numbers
            without a range (32-bit integers, floats).
    """
    name = name if name is not None else str(file)
    try:
        with _strict():
            if isinstance(file, Path):  # never by its name: Pillow then maps a turned TIFF with its sides exchanged
                with open_regular(file) as opened:
                    return _decoded(opened)
            return _decoded(file)
    except MemoryError:  # says something about the machine, not about the file
        raise
    except Exception as error:  # decoders fail on damaged files with almost any exception
        raise BadImageError([(name, _reason(error))]) from error


def to_8bit(image: Image.Image) -> Image.Image:
    """Any decoded image -> mode "L" or "RGB", by the rules of `decode`.

    Raises:
        ValueError: the numbers have no agreed range.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _from_16bit(image)
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise ValueError(f"its pixels are {kind}, which have no fixed white: store 8 or 16 bits")
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image  # "La" converts to nothing else
        rgba = straight.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("L" if grey else "RGB")


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """Pillow's remarks on odd metadata are left out, and a decompression bomb is an error."""
    if _ahead.get():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _decoded(file: BinaryIO) -> Image.Image:
    with Image.open(file, formats=_FORMATS) as image:
        width, height = image.size
        if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError
        if _ahead.get() and image.format in _LARGER:
            raise ValueError(f"{image.format} is decoded in the main thread")
        if max(width, height) > min(_LONGEST, _SLIMMEST * min(width, height)):
            raise ValueError(
                f"{width} x {height} pixels: expected sides of up to {_LONGEST}, the longer up to {_SLIMMEST} times "
                "the shorter"
            )
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return to_8bit(image)


def _from_16bit(image: Image.Image) -> Image.Image:
    """16-bit grey -> "L", rounded to nearest; the value declared transparent becomes white, as alpha does."""
    values = np.asarray(image).astype(np.int64)  # (H, W), 0 to 65535
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        values = np.where(values == clear, 65535, values)
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a bitmap, GIF, JPEG, PNG, portable map, TIFF or WebP"
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"over {Image.MAX_IMAGE_PIXELS} pixels, a possible decompression bomb"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__

"""How every figure looks, and how it is written. Imports matplotlib, seaborn, atomic and messages."""

from __future__ import annotations

import contextlib
import functools
import io
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib import font_manager
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure

from fourier_probe.errors import OutputError, printable
from fourier_probe.io import atomic
from fourier_probe.runtime.messages import note

MARKERS = "osD^vPX*"
COLUMN, PAGE = 3.5, 7.0  # widths of a journal's column and page, inches
ATTENTION_SHADE, DOWNSAMPLE_SHADE = "0.90", "#cfe3f5"

_RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "figure.dpi": 150,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # text stays text
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "fourier-probe",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Everything drawn inside the block has the project's look."""
    with sns.axes_style("ticks"), mpl.rc_context(_RC):
        yield


def depth_colors() -> Colormap:
    """Shallow dark to deep bright; the palest end of plasma is left out, since it vanishes on white paper."""
    return ListedColormap([mpl.colormaps["plasma"](0.93 * i / 255) for i in range(256)], name="depth")


def categories(count: int) -> list[Any]:
    """Distinct colours, safe for colour-blind readers: named ones for up to eight things, else from one scale."""
    return list(sns.color_palette("colorblind" if count <= 8 else "viridis", max(count, 1)))


def ordered_colors(count: int) -> list[Any]:
    """Colours of an ordered quantity, none too pale."""
    return [mpl.colormaps["viridis"](0.9 * i / max(count - 1, 1)) for i in range(count)]


def literal(text: str) -> str:
    r"""Text of any origin as matplotlib draws it: no formula, and nothing that no font here has.

    Every name that comes from a file, a folder or a network passes through here, in `short_title` and `wrapped_title`
    or by itself: `a$\frac{$b.pt` would else be read as a formula, and fail.

    >>> print(literal("a$b$\n"))
    a\$b\$\n
    """
    shown = "".join(c if ord(c) in _glyphs() else ascii(c)[1:-1] for c in printable(text))
    return (" " * shown.startswith("_") + shown).replace("$", r"\$")  # a legend leaves labels out that begin with _


def short_title(title: str) -> str:
    """A title that fits its panel, as matplotlib takes it (`literal`)."""
    title = printable(title)
    return literal(title if len(title) <= 34 else f"{title[:16]}...{title[-15:]}")


def wrapped_title(title: str, width: int = 22) -> str:
    """`short_title` of a narrow panel: up to three lines, broken after hyphens where there are some."""
    title = printable(title)
    if len(title) > 3 * (width - 4):
        title = f"{title[: width + 3]}...{title[-width:]}"
    return "\n".join(map(literal, textwrap.wrap(title, width)))


@functools.cache
def _glyphs() -> frozenset[int]:
    """Code points that the fonts of our figures have."""
    found: set[int] = set()
    with style():
        families = list(mpl.rcParams["font.sans-serif"])
    for family in families:
        with contextlib.suppress(ValueError):  # not installed
            path = font_manager.findfont(font_manager.FontProperties(family=family), fallback_to_default=False)
            found |= font_manager.get_font(path).get_charmap().keys()
    return frozenset(found)


def save(figure: Figure, stem: Path | str) -> list[Path]:
    """Write PDF and PNG, the same bytes for the same figure; returns both paths.

    Args:
        figure: any figure.
        stem: path without suffix.
    """
    paths = []
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {"Software": None})):
        buffer = io.BytesIO()
        with mpl.rc_context(_RC):
            figure.savefig(buffer, format=suffix[1:], metadata=metadata)
        path = Path(f"{stem}{suffix}")
        atomic.write_bytes(path, buffer.getvalue())
        paths.append(path)
    return paths


def save_each(figures: Mapping[str, Callable[[], Figure]], folder: Path) -> list[str]:
    """Draw and write figures after the numbers are safe: one that cannot be drawn is a note, and the others follow.

    Args:
        figures: name without suffix -> what draws it.
        folder: where to.

    Returns:
        The names of the files that were written.

    Raises:
        OutputError: a file cannot be written.
    """
    written: list[str] = []
    for name, draw in figures.items():
        try:
            written += [path.name for path in save(draw(), folder / name)]
        except OutputError:
            raise
        except Exception as error:  # whatever a drawing raises, the numbers are written and stay
            first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            note(f"the figure {name} could not be drawn ({type(error).__name__}: {first}); the numbers are written.")
    return written

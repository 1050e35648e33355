"""How every figure looks, how large it is, and how it is written. Imports matplotlib, seaborn, atomic and messages."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import io
import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib import font_manager
from matplotlib import style as looks
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure

from fourier_probe.errors import OutputError, ResultError, first_line, printable, suggest
from fourier_probe.io import atomic
from fourier_probe.runtime.messages import note

MARKERS = "osD^vPX*"
COLUMN, PAGE = 3.5, 7.0  # widths of a journal's column and page, inches
ATTENTION_SHADE, DOWNSAMPLE_SHADE = "0.90", "#cfe3f5"

_RC: dict[Any, object] = {
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


LONGEST = 34  # characters of a title that fits its panel

WIDTHS = {"single": COLUMN, "double": PAGE}
"""Names of `--width`, and inches."""


@dataclass(frozen=True)
class Sheet:
    """What figures are made for.

    Attributes:
        width: of a figure, inches; None leaves each figure its own.
        look: a style of matplotlib or a .mplstyle file, on top of ours.
    """

    width: float | None = None
    look: str | None = None


_SHEET: contextvars.ContextVar[Sheet | None] = contextvars.ContextVar("sheet", default=None)


def _sheet() -> Sheet:
    return _SHEET.get() or Sheet()


@contextlib.contextmanager
def figure_style(width: str | float | None = None, look: str | None = None) -> Iterator[None]:
    """Figures drawn inside the block fit a column or a page of a journal, and have a style of your own.

    Args:
        width: "single" (3.5 inches), "double" (7 inches), or inches.
        look: the name of a matplotlib style, or a .mplstyle file; it comes after the project's own look.

    Raises:
        OutputError: there is no such width or style.

    >>> with figure_style("single"):
    ...     float(canvas(7.0, 2.0).get_figwidth())
    3.5
    """
    inches = WIDTHS.get(width) if isinstance(width, str) else width
    if (width is not None and inches is None) or (inches is not None and not 1 <= inches <= 40):
        raise OutputError(f"figure width {width!r}: expected single, double, or inches from 1 to 40.")
    if look is not None and look not in looks.available and not Path(look).is_file():
        raise OutputError(f"there is no figure style {look!r}: name one of matplotlib's, or a .mplstyle file."
                          f"{suggest(look, looks.available)}")  # fmt: skip
    try:
        with looks.context(look or []):  # a file that is no style fails here, before any work
            pass
    except (SyntaxError, ValueError, OSError) as error:
        raise OutputError(f"{look} is no style of matplotlib: {error}.") from error
    token = _SHEET.set(Sheet(inches, look))
    try:
        yield
    finally:
        _SHEET.reset(token)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Everything drawn inside the block has the project's look, and that of `figure_style`."""
    look = _sheet().look
    with sns.axes_style("ticks"), mpl.rc_context(_RC), looks.context(look or []):
        yield


class ShownFigure(Figure):
    """A figure that a notebook shows by itself, whether pyplot was imported or not."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with style():
            self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def canvas(width: float, height: float) -> Figure:
    """An empty figure of this size, inches; of the width that `figure_style` asks for, where it asks."""
    return ShownFigure(figsize=(_sheet().width or width, height))


def figure_of(ax: Axes) -> Figure:
    """The figure that axes belong to.

    Raises:
        ResultError: they belong to none.
    """
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ResultError("these axes belong to no figure: give those of matplotlib's subplots.")
    return figure


def frequency_axis(ax: Axes) -> None:
    """The axis of frequencies from 0 to Nyquist, pi rad/sample; a little more, for what stands in the margin."""
    ax.set_xlim(0, 1.04)
    ax.set_xticks([0, 0.5, 1.0], ["0", r"0.5$\pi$", r"1.0$\pi$"])
    ax.set_xlabel("Frequency per axis")


def hide(axes: Iterable[Axes]) -> None:
    """Panels of a grid that nothing is drawn into."""
    for ax in axes:
        ax.set_visible(False)


def most_columns(most: int, panel: float = PAGE / 4) -> int:
    """Panels in a row: `most`, or as many of `panel` inches as the width that `figure_style` asks for holds."""
    width = _sheet().width
    return most if width is None else max(1, min(most, int(width / (0.9 * panel))))


def panel_columns(panels: int, most: int = 4) -> int:
    """Panels in a row so that none is alone in the last row, where that can be.

    >>> [panel_columns(n) for n in (1, 3, 4, 5, 6, 7, 8, 9, 10)]
    [1, 3, 4, 3, 3, 4, 4, 3, 4]
    """
    most = most_columns(most)
    if panels <= most:
        return max(panels, 1)
    choices = range(max(2, most // 2 + 1), most + 1)
    return min(choices or [most], key=lambda c: (panels % c == 1, -panels % c, -c))


def foot(figure: Figure, handles: Sequence[Artist] = (), notes: Sequence[str] = (), columns: int = 3) -> None:
    """What colours, dashes and intervals mean, below the panels: a legend, and sentences above it.

    Args:
        figure: with all of its panels.
        handles: artists with labels.
        notes: sentences, wrapped to the figure's width.
        columns: of the legend, at most.
    """
    inches = figure.get_figwidth()
    lines = [line for note in notes if note for line in textwrap.wrap(note, int(21 * inches))]
    longest = max([len(str(handle.get_label())) for handle in handles], default=0)
    fitting = max(1, min(columns, len(handles) or 1, int(21 * inches / (longest + 7))))
    if lines or handles:
        figure.legend(
            handles=list(handles), loc="outside lower left", ncols=fitting, fontsize=6, title="\n".join(lines) or None,
            title_fontsize=6, alignment="left", borderpad=0.1, handletextpad=0.5, labelspacing=0.3, columnspacing=1.4,
        )  # fmt: skip


@functools.cache
def depth_colors() -> Colormap:
    """Shallow dark to deep bright; the palest end of plasma is left out, since it vanishes on white paper."""
    return ListedColormap(mpl.colormaps["plasma"](0.93 * np.arange(256) / 255), name="depth")


def categories(count: int) -> list[object]:
    """Distinct colours, safe for colour-blind readers: named ones for up to eight things, else from one scale."""
    return list(sns.color_palette("colorblind" if count <= 8 else "viridis", max(count, 1)))


def ordered_colors(count: int) -> list[Any]:
    """Colours of an ordered quantity, none too pale."""
    colors: list[Any] = list(map(tuple, mpl.colormaps["viridis"](0.9 * np.arange(count) / max(count - 1, 1))))
    return colors


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
    """A title that fits its panel, as matplotlib takes it (`literal`): words left out in the middle, else letters.

    >>> short_title("eit_small_w80 split=attention mlp_ratio=2, seed 1")
    'eit_small_w80 ... seed 1'
    >>> short_title("vit_small_patch14_reg4_dinov2.lvd142m")
    'vit_small_patch1...dinov2.lvd142m'
    """
    title = printable(title)
    if len(title) <= LONGEST:
        return literal(title)
    first, *others = title.split(" ")
    words = f"{first} ..."
    for place in range(len(others) - 1, 0, -1):
        longer = f"{first} ... {' '.join(others[place:])}"
        if len(longer) > LONGEST:
            break
        words = longer
    return literal(words if len(words) <= LONGEST and words[-1] != "." else f"{title[:16]}...{title[-15:]}")


def legend_titles(titles: Sequence[str]) -> list[str]:
    """`short_title` of each entry of a legend; where two would be alike, what differs in up to three lines.

    Words that all titles of one first word begin with are left out then, but that word.

    >>> runs = [f"cifar_resnet8 stem_stride=2, {schedule}, 600 images" for schedule in ("linear", "constant")]
    >>> legend_titles(runs)
    ['cifar_resnet8 linear, 600 images', 'cifar_resnet8 constant, 600 images']
    """
    short = [short_title(title) for title in titles]
    if len(set(short)) == len(set(titles)):
        return short
    words = [printable(title).split(" ") for title in titles]
    entries = []
    for own in words:
        kin = [others for others in words if others[0] == own[0]]
        shared = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, zip(*kin, strict=False)))
        told = [own[0], *own[shared:]] if len(kin) > 1 else own
        entries.append("\n".join(map(literal, textwrap.wrap(" ".join(told), LONGEST)[:3])))
    return entries


def wrapped_title(title: str, width: int = 22) -> str:
    """`short_title` of a narrow panel: up to five lines, broken after hyphens where there are some.

    >>> wrapped_title("cifar_resnet8 stem_stride=2, constant, switch at epoch 0").splitlines()
    ['cifar_resnet8', 'stem_stride=2,', 'constant, switch at', 'epoch 0']
    """
    title = printable(title)
    if len(textwrap.wrap(title, width)) > 5:
        title = f"{title[: width + 3]}...{title[-width:]}"
    return "\n".join(map(literal, textwrap.wrap(title, width)))


@functools.cache
def _glyphs() -> frozenset[int]:
    """Code points that the fonts of our figures have."""
    code_points: set[int] = set()
    with style():
        families = list(mpl.rcParams["font.sans-serif"])
    for family in families:
        with contextlib.suppress(ValueError):  # not installed
            path = font_manager.findfont(font_manager.FontProperties(family=family), fallback_to_default=False)
            code_points |= font_manager.get_font(path).get_charmap().keys()
    return frozenset(code_points)


def save(figure: Figure, stem: Path | str) -> list[Path]:
    """Write PDF and PNG, the same bytes for the same figure; returns both paths.

    Args:
        figure: any figure.
        stem: path without suffix.
    """
    paths = []
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {"Software": None})):
        buffer = io.BytesIO()
        with style():
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
            reason = f"{type(error).__name__}: {first_line(error, 'no message')}"
            note(f"the figure {name} could not be drawn ({reason}); the numbers are written.")
    return written

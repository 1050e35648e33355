"""What the user named -> the images of one split, by the first source in a registry that knows the name.

@register_source("stripes")
def stripes(request: SourceRequest) -> ImageSet:
"First line: what `--data stripes` is."
return ImageSet(request.source, request.split, pixels=...)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from fourier_probe.data.arrays import BUNDLED, open_npz
from fourier_probe.data.folder import SPLITS, open_folder
from fourier_probe.data.images import ImageSet, without_bad
from fourier_probe.data.planted import is_planted, open_planted
from fourier_probe.data.timm_names import is_timm_name, open_timm
from fourier_probe.data.trust import refuse_commands, shown
from fourier_probe.errors import DataError, ProbeError, suggest
from fourier_probe.io.paths import expanded
from fourier_probe.registry import Registry


@dataclass(frozen=True)
class SourceRequest:
    """What a data source is asked for.

    Attributes:
        source: the data as the user named them.
        split: "train", "val" or "test".
        skip_bad: whether unreadable images are left out; `open_data` does it for any reader of files.
        limit: how many images of a stream are read at most; sources with random access need not look at it.

    >>> SourceRequest("stripes:3", "test").argument
    '3'
    """

    source: str
    split: str
    skip_bad: bool = False
    limit: int | None = None

    @property
    def argument(self) -> str:
        """What follows the first colon of the source; empty without one."""
        return self.source.partition(":")[2]

    @property
    def path(self) -> Path:
        """The source as a path."""
        return _path(self.source)


_In = TypeVar("_In")
_Out = TypeVar("_Out")
Opener = Callable[[SourceRequest], ImageSet]


class Source:
    """A function that opens images, with the names it knows.

    >>> Source(bundled, lambda source: source.endswith(".h5")).matches("images.h5")
    True
    """

    def __init__(self, opener: Opener, matches: Callable[[str], bool]) -> None:
        self.matches, self.open = matches, opener
        self.__module__, self.__doc__ = opener.__module__, opener.__doc__  # the origin of the entry, its summary


SOURCES: Registry[Source] = Registry("data source")
"""What `--data` takes, in the order in which the sources are asked; the package's own come first."""


def register_source(
    name: str, summary: str = "", *, matches: Callable[[str], bool] | None = None
) -> Callable[[Opener], Opener]:
    """A decorator that adds a data source: a function from a `SourceRequest` to an `ImageSet`.

    Args:
        name: what the source is called: it opens `NAME` and `NAME:...`.
        summary: what it is; the first line of the docstring by default.
        matches: whether it opens what the user named, in place of that rule: `lambda source: source.endswith(".h5")`.

    Raises:
        RegistryError: the name is taken.

    >>> import numpy as np
    >>> import fourier_probe as fp
    >>> @fp.register_source("grey-doc")
    ... def grey(request):
    ...     "Images of one grey."
    ...     return fp.ImageSet(request.source, request.split, pixels=np.full((4, 8, 8, 1), 128, np.uint8))
    >>> len(fp.open_data("grey-doc"))
    4
    """

    def add(opener: Opener) -> Opener:
        by_name = matches or (lambda source: source == name or source.startswith(f"{name}:"))
        SOURCES.register(name, summary=summary)(Source(opener, by_name))
        return opener

    return add


def open_data(source: str | Path, split: str = "test", *, skip_bad: bool = False, limit: int | None = None) -> ImageSet:
    """Open one split of a source.

    Args:
        source: `bundled`; `planted[:mixed|far|local]` (`data.planted`); a `.npz` file in the MedMNIST
            layout (`data.arrays`); an image folder (`data.folder`); a
            timm data set name such as `torch/cifar100` (`data.timm_names`); or the name of a source that a plug-in
            registered. A path that exists wins over a timm name.
        split: "train", "val" or "test"; a folder without split folders is used for all three.
        skip_bad: decode every file of the split now, leave out those that cannot be read, and count them in
            `ImageSet.skipped`. To check only the images that will be used, leave it off and use `choose`.
        limit: how many images of a stream (`wds/`) are read at most, its first ones, and a note says so; any other
            source is opened whole, for `choose` to spread them over it.

    Raises:
        DataError: nothing of that name, no such split, no images, or arrays of another shape or type.
        BadImageError: `skip_bad`, and not one image can be read.

    >>> images = open_data("bundled")
    >>> len(images), images.array_size
    (1000, (32, 32))
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: expected train, val or test.{suggest(split, SPLITS)}")
    source = str(source)
    refuse_commands(source)
    _path(source)  # says what is wrong with a name that nothing can have
    request = SourceRequest(source, split, skip_bad, limit)
    for entry in SOURCES.entries():
        if _call(entry.name, entry.load().matches, source):
            images = _call(entry.name, entry.load().open, request)
            if not isinstance(images, ImageSet):
                raise DataError(f"data source {entry.name!r} gave {type(images).__name__}: expected an ImageSet.")
            if (images.source, images.split) != (source, split):
                images = replace(images, source=source, split=split)
            return without_bad(images) if skip_bad else images
    problem = "is a file of another kind" if _path(source).exists() else "does not exist"
    raise DataError(
        f"cannot open data {shown(source)}: it {problem}. Expected bundled, planted, a .npz file of uint8 arrays, "
        "a folder of images, a timm data set name such as torch/cifar100, hfds/OWNER/NAME or wds/NAME, or a source of "
        f"yours (--plugin FILE.py).{suggest(source, [name for name in SOURCES if name not in _KINDS])}"
    )


def _call(name: str, function: Callable[[_In], _Out], value: _In) -> _Out:
    """What a source's function gives; an error of another's code names the source."""
    try:
        return function(value)
    except ProbeError:
        raise
    except Exception as error:
        if name in _BUILT_IN:
            raise
        raise DataError(f"data source {name!r} fails: {type(error).__name__}: {error}") from error


def _path(source: str) -> Path:
    """A source as a path; raises DataError where no path can be so."""
    if not source.strip():
        raise DataError("the data are named by an empty text: expected bundled, planted, a path or a data set name.")
    try:
        path = expanded(source)
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # 5,000 characters, a zero byte, no such user
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot open data {shown(source)}: {reason}.") from error
    return path


@register_source("bundled")
def bundled(request: SourceRequest) -> ImageSet:
    """7,000 images of Fashion-MNIST that the package holds."""
    return open_npz(request.source, BUNDLED, request.split)


@register_source("planted", matches=is_planted)
def planted(request: SourceRequest) -> ImageSet:
    """Images made with a cue near and a cue far: planted, planted:mixed, planted:far, planted:local."""
    return open_planted(request.source, request.split)


@register_source("folder", matches=lambda source: _path(source).is_dir())
def folder(request: SourceRequest) -> ImageSet:
    """A folder of images."""
    return open_folder(request.source, request.path, request.split)


@register_source("npz", matches=lambda source: _path(source).suffix.lower() == ".npz" and _path(source).exists())
def npz(request: SourceRequest) -> ImageSet:
    """A .npz file of uint8 arrays in the MedMNIST layout."""
    return open_npz(request.source, request.path, request.split)


@register_source("timm", matches=lambda source: is_timm_name(source) and not _path(source).exists())
def timm(request: SourceRequest) -> ImageSet:
    """A data set of timm: torch/cifar100, hfds/OWNER/NAME, wds/NAME."""
    return open_timm(request.source, request.split, skip_bad=request.skip_bad, limit=request.limit)


_KINDS = ("folder", "npz", "timm")  # known by what they look like, not by this name
_BUILT_IN = frozenset(SOURCES)

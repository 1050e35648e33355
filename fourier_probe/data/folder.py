"""Image folders: with or without splits, with or without classes.

| layout                     | splits served     | labels |
|----------------------------|-------------------|--------|
| `root/test/cat/1.png`      | those that exist  | 0, 1, ... in the order of the class names |
| `root/test/1.png`          | those that exist  | none   |
| `root/cat/1.png`           | any: all images   | 0, 1, ... in the order of the class names |
| `root/1.png`               | any: all images   | none   |

Classes are sorted as plain strings and counted over all splits, so that a class without test images shifts no label. A
folder below a class belongs to that class. Images are in the order of class, then path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np

from fourier_probe.data.images import Files, ImageSet
from fourier_probe.errors import DataError

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)


def open_folder(source: str, root: Path, split: str) -> ImageSet:
    """The images of one split of a folder, decoded when asked for.

    Raises:
        DataError: the split is missing, there are no images, images lie both beside and inside class folders, or a
            folder cannot be read: without it, the labels of the classes after it would be others.
    """
    try:
        return _opened(source, root, split)
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename or root}: {error.strerror or error}. Make it readable, or move it out of "
            f"{root}."
        ) from error


def _opened(source: str, root: Path, split: str) -> ImageSet:
    splits = _split_folders(root)
    if splits and split not in splits:
        have = ", ".join(f"{name} ({folder.name}/)" for name, folder in splits.items())
        raise DataError(
            f"{root} has no {split} split: it has {have}. Ask for one of these, or name a folder inside it as the "
            f"data: a folder without splits is used for every split."
        )
    base = splits.get(split, root)
    classes = sorted({child.name for folder in (splits.values() or [root]) for child in _class_folders(folder)})
    inside = _class_folders(base)
    loose = sorted(path for path in base.iterdir() if _is_image(path.name) and path not in inside)
    if inside and loose:
        raise DataError(
            f"{base} holds images both directly ({loose[0].name}) and in class folders ({inside[0].name}/): move the "
            f"{len(loose)} loose images into a class folder or out of {base}."
        )
    if not inside and not loose:
        raise DataError(
            f"{base} has no images: expected files of type {' '.join(sorted(_SUFFIXES))}, in class folders or not."
        )
    if loose:
        return ImageSet(source, split, classes=tuple(classes) or None, reader=Files(tuple(loose)))
    names = {folder.name for folder in inside}
    files = [
        (path, label) for label, name in enumerate(classes) if name in names for path in sorted(_images(base / name))
    ]
    return ImageSet(
        source,
        split,
        labels=np.array([label for _, label in files], dtype=np.int64),
        classes=tuple(classes),
        reader=Files(tuple(path for path, _ in files)),
    )


def _split_folders(root: Path) -> dict[str, Path]:
    """Split -> folder. A folder called `train` beside other folders of images is a class (of trains), not a split."""
    children = {child.name.lower(): child for child in _folders(root)}
    splits = {split: children[name] for split, names in SPLITS.items() for name in reversed(names) if name in children}
    others = [child for child in children.values() if child not in splits.values()]
    return {} if any(_has_images(child) for child in others) else splits


def _class_folders(folder: Path) -> list[Path]:
    return [child for child in _folders(folder) if _has_images(child)]


def _folders(folder: Path) -> list[Path]:
    return [child for child in sorted(folder.iterdir()) if child.is_dir() and not _hidden(child.name)]


def _has_images(folder: Path) -> bool:
    return next(_images(folder), None) is not None


def _images(folder: Path) -> Iterator[Path]:
    """Files at any depth that are named as images, through links, but never twice through a link that leads back.

    A folder named as an image, without images in it, counts as one: so that it is not passed over in silence.
    """
    seen: set[str] = set()
    folders = [str(folder)]
    while folders:
        here = folders.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        below = []
        with os.scandir(here) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if _hidden(entry.name):
                    continue
                if not entry.is_dir():
                    if _is_image(entry.name):
                        yield Path(entry.path)
                elif _is_image(entry.name) and not _has_images(Path(entry.path)):
                    yield Path(entry.path)
                else:
                    below.append(entry.path)
        folders += reversed(below)


def _is_image(name: str) -> bool:
    return PurePath(name).suffix.lower() in _SUFFIXES and not _hidden(name)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"

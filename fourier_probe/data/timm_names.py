"""Data sets by their timm name: `torch/cifar100`, `hfds/OWNER/NAME`, `wds/NAME`, with `:ROOT` behind it if need be.

timm opens them; images are then decoded by our own rules, since timm puts a neighbour in the place of a bad image.
Small sets that torchvision holds as an array are kept as one; `hfds/` and torchvision's folders are decoded when asked
for; a `wds/` stream has no random access and is copied once, losslessly, into a temporary folder.

ROOT is where the data are or go: a folder, or for `wds/` the place of its shards. By default, the environment variable
FOURIER_PROBE_DATA, else ~/.cache/fourier-probe/NAME.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fourier_probe.data.arrays import as_labels, as_pixels
from fourier_probe.data.decode import BadImageError, decode, to_8bit
from fourier_probe.data.folder import SPLITS
from fourier_probe.data.images import Files, ImageSet
from fourier_probe.errors import DataError
from fourier_probe.runtime import messages

_EXTRAS = {"hfds": ("datasets", "hub"), "wds": ("webdataset", "webdataset")}  # kind -> (module, our extra)
_TRAIN_AND_TEST = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist")
_TRAIN_AND_VAL = ("imagenet", "places365")
_FOREIGN = (OSError, RuntimeError, ValueError, LookupError, ImportError, AssertionError, TypeError)


def is_timm_name(source: str) -> bool:
    """Whether `source` begins like a timm data set name that we can open."""
    return source.partition("/")[0].lower() in ("torch", *_EXTRAS) and "/" in source


def open_timm(source: str, split: str, *, skip_bad: bool = False, limit: int | None = None) -> ImageSet:
    """One split of a data set that timm knows by name; see the top of this module.

    Raises:
        DataError: an extra or the network is missing, timm does not know the name, or the set lacks the split.
    """
    name, _, root = source.partition(":")
    kind, _, rest = name.partition("/")
    kind = kind.lower()
    if kind in _EXTRAS and importlib.util.find_spec(_EXTRAS[kind][0]) is None:
        module, extra = _EXTRAS[kind]
        raise DataError(f"{source} needs the package {module}: pip install 'fourier-probe[{extra}]'.")
    if kind == "hfds":
        return _from_reader(source, _create(name, root or None, split, source), split)
    if kind == "wds":
        dataset = _create(name, root or str(_default_root(rest)), split, source)
        return _from_stream(source, dataset, split, skip_bad, limit)
    return _from_torchvision(source, _create(name, root or str(_default_root(rest)), split, source), split)


def _default_root(name: str) -> Path:
    base = os.environ.get("FOURIER_PROBE_DATA")
    return Path(base) if base else Path.home() / ".cache" / "fourier-probe" / name.rpartition("/")[2].lower()


def _create(name: str, root: str | None, split: str, source: str) -> object:
    """`timm.data.create_dataset` with the split's name in that data set; whatever it prints goes to stderr."""
    from timm.data import create_dataset

    kind, _, rest = name.partition("/")
    candidates: tuple[str, ...] = SPLITS[split]
    known: tuple[str, ...] | None = None
    if kind.lower() == "torch":
        short = rest.rpartition("/")[2].lower()
        known = ("train", "test") if short in _TRAIN_AND_TEST else ("train", "val") if short in _TRAIN_AND_VAL else None
        candidates = ("validation",) if split == "val" else (split,)
    if known and split not in known:
        raise DataError(f"{source} has no {split} split: it has {', '.join(known)}. Ask for one of these.")
    if root is not None and "://" not in root and kind.lower() == "torch":
        Path(root).mkdir(parents=True, exist_ok=True)
    reasons: list[str] = []
    for candidate in candidates:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return create_dataset(
                    name, root=root, split=candidate, is_training=False, download=True, input_img_mode=""
                )
        except _FOREIGN as error:
            cause = error
            reasons.append(f"{candidate}: {' '.join(str(error).split()) or type(error).__name__}")
            if isinstance(error, OSError):  # no network, or no such set: another name of the split helps nothing
                break
    raise DataError(
        f"timm cannot open the {split} split of {source} ({'; '.join(reasons)}). Check the name and the split; without "
        f"a network, name the folder that holds the data, as in {name}:/path/to/data."
    ) from cause


def _from_torchvision(source: str, dataset: object, split: str) -> ImageSet:
    classes = getattr(dataset, "classes", None)
    names = tuple(str(name) for name in classes) if classes else None
    if hasattr(dataset, "data") and hasattr(dataset, "targets"):
        labels = np.asarray(dataset.targets)
        labels = labels[:, 0] if labels.ndim == 2 else labels  # QMNIST: the class, then where the digit comes from
        pixels = as_pixels(np.asarray(dataset.data), f"the array of {source}")
        return ImageSet(
            source, split, labels=as_labels(labels, f"the labels of {source}"), classes=names, pixels=pixels
        )
    samples = getattr(dataset, "samples", None) or getattr(dataset, "imgs", None)
    if samples is None:
        raise DataError(
            f"{source} opens as {type(dataset).__name__}, which lists no files: name its image folder instead."
        )
    return ImageSet(
        source,
        split,
        labels=as_labels(np.array([label for _, label in samples]), f"the labels of {source}"),
        classes=names,
        reader=Files(tuple(Path(path) for path, _ in samples)),
    )


@dataclass(frozen=True)
class _TimmReader:
    """Encoded images out of a timm reader with random access."""

    reader: Any
    source: str

    def __len__(self) -> int:
        return len(self.reader)

    def name(self, index: int) -> str:
        return f"image {index} of {self.source}"

    def read(self, index: int) -> Image.Image:
        try:
            file, *_ = self.reader[index]
        except _FOREIGN as error:
            raise BadImageError([(self.name(index), str(error))]) from error
        with file:
            return decode(file, self.name(index))


def _from_reader(source: str, dataset: Any, split: str) -> ImageSet:
    reader = dataset.reader
    classes: dict[str, int] = getattr(reader, "class_to_idx", None) or {}
    targets = np.array(list(reader.iter_targets()))
    return ImageSet(
        source,
        split,
        labels=as_labels(targets, f"the labels of {source}"),
        classes=tuple(sorted(classes, key=lambda name: classes[name])) or None,
        reader=_TimmReader(reader, source),
    )


def _without_ghostscript(dataset: Any) -> Iterator[tuple[Image.Image, int]]:
    """What timm decodes, which it does with every plugin of Pillow: of PostScript, it then fails."""
    from PIL import EpsImagePlugin

    binary, EpsImagePlugin.gs_binary = EpsImagePlugin.gs_binary, False
    try:
        yield from dataset
    finally:
        EpsImagePlugin.gs_binary = binary


def _from_stream(source: str, dataset: Any, split: str, skip_bad: bool, limit: int | None) -> ImageSet:
    folder = tempfile.mkdtemp(prefix="fourier-probe-")
    paths: list[Path] = []
    labels: list[int] = []
    bad: list[tuple[str, str]] = []
    cut = False
    for position, (image, label) in enumerate(_without_ghostscript(dataset)):
        if cut := limit is not None and len(paths) == limit:
            messages.note(f"{source} is a stream: its first {limit} images are used, in whatever order it has.")
            break
        try:
            buffer = io.BytesIO()
            to_8bit(image).save(buffer, "PNG", compress_level=1)
        except (ValueError, OSError) as error:
            bad.append((f"image {position} of {source}", str(error)))
            continue
        paths.append(Path(folder, f"{position:08d}.png"))
        paths[-1].write_bytes(buffer.getvalue())
        labels.append(label)
    expected = int(getattr(dataset.reader, "num_samples", 0) or 0)
    lost = 0 if cut else max(0, expected - len(paths) - len(bad))  # timm logs and drops what it cannot decode
    if lost:
        bad += [(f"an image of {source}", "dropped by timm, see its log")] * lost
    reader = Files(tuple(paths))
    weakref.finalize(reader, shutil.rmtree, folder, ignore_errors=True)  # copies in loader processes only borrow it
    if bad and not (skip_bad and paths):
        raise BadImageError(bad)
    values: npt.NDArray[np.int64] = as_labels(np.array(labels, dtype=np.int64), f"the labels of {source}")
    return ImageSet(source, split, labels=values, reader=reader, skipped=len(bad))

"""What the user named -> the images of one split."""

from __future__ import annotations

from pathlib import Path

from fourier_probe.data.arrays import BUNDLED, open_npz
from fourier_probe.data.folder import SPLITS, open_folder
from fourier_probe.data.images import ImageSet, without_bad
from fourier_probe.data.planted import is_planted, open_planted
from fourier_probe.data.timm_names import is_timm_name, open_timm
from fourier_probe.data.trust import refuse_commands, shown
from fourier_probe.errors import DataError, suggest


def open_data(source: str, split: str = "test", *, skip_bad: bool = False, limit: int | None = None) -> ImageSet:
    """Open one split of a source.

    Args:
        source: `bundled`; `planted[:mixed|far|local]` (`data.planted`); a `.npz` file in the MedMNIST
            layout (`data.arrays`); an image folder (`data.folder`); or a
            timm data set name such as `torch/cifar100` (`data.timm_names`). A path that exists wins over a timm name.
        split: "train", "val" or "test"; a folder without split folders serves any of them.
        skip_bad: decode every file of the split now, leave out those that cannot be read, and count them in
            `ImageSet.skipped`. To check only the images that will be used, leave it off and use `choose`.
        limit: how many images of a stream (`wds/`) are read at most, its first ones, and a note says so; any other
            source is opened whole, for `choose` to spread them over it.

    Raises:
        DataError: nothing of that name, no such split, no images, or arrays of another shape or type.
        BadImageError: `skip_bad`, and not one image can be read.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: expected train, val or test.{suggest(split, SPLITS)}")
    refuse_commands(source)
    if source == "bundled":
        return open_npz(source, BUNDLED, split)
    if is_planted(source):
        return open_planted(source, split)
    path = _path(source)
    if path.is_dir():
        images = open_folder(source, path, split)
    elif path.suffix.lower() == ".npz" and path.exists():
        return open_npz(source, path, split)
    elif is_timm_name(source) and not path.exists():
        images = open_timm(source, split, skip_bad=skip_bad, limit=limit)
    else:
        problem = "is a file of another kind" if path.exists() else "does not exist"
        raise DataError(
            f"cannot open data {shown(source)}: it {problem}. Expected bundled, planted, a .npz file of uint8 arrays, "
            f"a folder of images, or a timm data set name such as torch/cifar100, hfds/OWNER/NAME or wds/NAME."
            f"{suggest(source, ['bundled', 'planted'])}"
        )
    return without_bad(images) if skip_bad else images


def _path(source: str) -> Path:
    """A source as a path; raises DataError where no path can be so."""
    if not source.strip():
        raise DataError("the data are named by an empty text: expected bundled, planted, a path or a data set name.")
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # 5,000 characters, a zero byte, no such user
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot open data {shown(source)}: {reason}.") from error
    return path

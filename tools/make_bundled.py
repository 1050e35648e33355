"""Make the bundled data set from the idx files of Fashion-MNIST.

    python tools/make_bundled.py FOLDER

FOLDER holds train-images-idx3-ubyte.gz and the other three files of https://github.com/zalandoresearch/fashion-mnist.
The same files give the same bytes (of one version of zlib). Pictures are padded with zeros, not resampled.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fourier_probe.data.arrays import BUNDLED, channel_statistics
from fourier_probe.data.subset import subset
from fourier_probe.io import atomic

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FRACTION = 0.1  # of 60,000 and of 10,000 images
SEED = 0
PADDING = 2  # pixels on each side: 28 -> 32


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of an idx file: two zero bytes, type 8 (uint8), number of axes, their lengths, the values in rows."""
    data = gzip.decompress(path.read_bytes())
    zeros, kind, axes = struct.unpack_from(">HBB", data)
    if (zeros, kind) != (0, 8):
        raise SystemExit(f"{path} is not an idx file of bytes.")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(struct.unpack_from(f">{axes}I", data, 4))


def npz(arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    """A compressed .npz without the time of day, so that the same arrays give the same bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue(), compresslevel=9)
    return file.getvalue()


def main(folder: Path) -> None:
    """Write the bundled file and print what is in it."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")  # (N, 28, 28)
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")  # (N,)
        chosen = subset(labels.astype(np.int64), FRACTION, seed=SEED)
        arrays[f"{split}_images"] = np.pad(images[chosen], ((0, 0), (PADDING,) * 2, (PADDING,) * 2))
        arrays[f"{split}_labels"] = labels[chosen]
    mean, std = channel_statistics(arrays["train_images"][..., None])
    arrays |= {"classes": np.array(CLASSES), "mean": np.array(mean), "std": np.array(std)}
    data = npz(arrays)
    BUNDLED.parent.mkdir(exist_ok=True)
    atomic.write_bytes(BUNDLED, data)
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        print(f"{split}: {images.shape}, images of each class: {np.bincount(labels).tolist()}")
    print(f"mean {mean[0]:.6f}, std {std[0]:.6f} (of the padded training images, black 0, white 1)")
    print(f"{BUNDLED.name}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))

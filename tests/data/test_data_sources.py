"""open_data: the bundled set, .npz files, folders; what is missing is named."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fourier_probe.data import BadImageError, ImageSet, channel_statistics, open_data
from fourier_probe.data.arrays import BUNDLED
from fourier_probe.errors import DataError


def picture(path: Path, value: int = 0) -> Path:
    """A small grey file, in folders made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), value).save(path)
    return path


def names(images: ImageSet) -> list[str]:
    """File names of a lazily read set."""
    assert images.reader is not None
    return [Path(images.reader.name(index)).name for index in range(len(images))]


# The bundled set.


@pytest.mark.parametrize(("split", "each"), [("train", 600), ("test", 100)])
def test_the_bundled_set_is_balanced_and_zero_padded(split: str, each: int) -> None:
    images = open_data("bundled", split)
    assert images.pixels is not None and images.labels is not None and images.classes is not None
    assert images.pixels.shape == (10 * each, 32, 32, 1) and images.pixels.dtype == np.uint8
    assert np.bincount(images.labels).tolist() == [each] * 10 and images.labels.dtype == np.int64
    assert len(images.classes) == 10 and images.classes[9] == "Ankle boot"
    framed = images.pixels.copy()
    framed[:, 2:-2, 2:-2] = 0
    assert not framed.any() and images.pixels.max() == 255
    assert images[0].mode == "L" and images[0].size == (32, 32)
    assert len(np.unique(images.pixels.reshape(len(images), -1), axis=0)) == len(images)


@pytest.mark.slow
def test_the_bundled_statistics_are_those_of_its_training_images() -> None:
    train, test = open_data("bundled", "train"), open_data("bundled", "test")
    assert train.pixels is not None and train.mean == test.mean and train.mean is not None and train.std is not None
    mean, std = channel_statistics(train.pixels)
    assert (train.mean, train.std) == (mean, std)
    np.testing.assert_allclose([*mean, *std], [(train.pixels / 255).mean(), (train.pixels / 255).std()], rtol=1e-12)


def test_the_bundled_set_is_small_licensed_and_quick() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.parent.iterdir()) < 4_000_000
    licence = (BUNDLED.parent / "LICENSE").read_text()
    assert "Zalando SE" in licence and "MIT License" in licence and "WITHOUT WARRANTY OF ANY KIND" in licence
    open_data("bundled", "train")
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        open_data("bundled", "train")
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.15


@pytest.mark.slow
def test_importing_data_leaves_timm_and_torchvision_alone() -> None:
    code = "import sys, fourier_probe.data; print(sorted({'timm', 'torchvision'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Arrays.


def arrays(**changed: Any) -> dict[str, Any]:
    """A small file in the MedMNIST layout."""
    rng = np.random.default_rng(0)
    held: dict[str, Any] = {}
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        held[f"{split}_images"] = rng.integers(0, 256, (count, 5, 4, 3), dtype=np.uint8)
        held[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None]
    held |= changed
    return {key: value for key, value in held.items() if value is not None}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_npz_gives_each_split_as_it_is(split: str) -> None:
    held = arrays()
    np.savez("a.npz", **held)
    images = open_data("a.npz", split)
    np.testing.assert_array_equal(np.asarray(images[1]), held[f"{split}_images"][1])
    np.testing.assert_array_equal(np.asarray(images[-1]), held[f"{split}_images"][-1])
    assert images.labels is not None and images.labels.tolist() == list(range(len(images)))
    assert (images.source, images.split, images.skipped, images.mean, images.classes) == ("a.npz", split, 0, None, None)
    with pytest.raises(IndexError):
        images[len(images)]


@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 5, 4, 1)])
def test_npz_takes_grey_with_and_without_a_channel_axis(shape: tuple[int, ...]) -> None:
    pixels = np.arange(40, dtype=np.uint8).reshape(shape)
    np.savez("a.npz", test_images=pixels, classes=["a", "b"], mean=[0.5], std=[0.25])
    images = open_data("a.npz")
    assert images.pixels is not None and images.pixels.shape == (2, 5, 4, 1)
    assert (images[1].mode, images.labels, images.classes, images.mean) == ("L", None, ("a", "b"), (0.5,))
    np.testing.assert_array_equal(np.asarray(images[1]), pixels[1].reshape(5, 4))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test_images": None}, r"no test split: it has train, val"),
        ({"test_images": np.zeros((2, 5, 4, 3), np.float32)}, r"test_images of a.npz has type float32: expected uint8"),
        ({"test_images": np.zeros((2, 5, 4, 5), np.uint8)}, r"shape \(2, 5, 4, 5\): expected \(N, H, W\)"),
        ({"test_images": np.zeros((2, 5), np.uint8)}, r"shape \(2, 5\)"),
        (
            {"test_images": np.zeros((0, 5, 4), np.uint8), "test_labels": np.zeros(0, int)},
            r"no images in its test split",
        ),
        ({"test_labels": np.zeros(3, np.int64)}, r"2 images and labels of shape \(3,\)"),
        ({"test_labels": np.zeros((2, 14), np.int64)}, r"shape \(2, 14\): expected \(N,\) or \(N, 1\)"),
        ({"test_labels": np.zeros(2)}, r"type float64: expected integers"),
        ({"test_images": np.array([None, None])}, r"cannot read a.npz: Object arrays"),
    ],
)
def test_npz_of_another_shape_or_type_is_refused(changed: dict[str, Any], message: str) -> None:
    np.savez("a.npz", **arrays(**changed))
    with pytest.raises(DataError, match=message):
        open_data("a.npz")


def test_npz_that_holds_something_else_is_refused() -> None:
    np.savez("a.npz", x=np.zeros(3))
    with pytest.raises(DataError, match="has the arrays x: expected train_images, test_images"):
        open_data("a.npz")
    np.save("b.npy", np.zeros(3))
    Path("b.npz").write_bytes(Path("b.npy").read_bytes())
    with pytest.raises(DataError, match="holds a single array"):
        open_data("b.npz")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_npz_cut_short_is_refused(share: float) -> None:
    np.savez_compressed("a.npz", **arrays())
    data = Path("a.npz").read_bytes()
    Path("a.npz").write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"cannot read a.npz.*whole"):
        open_data("a.npz")


def test_npz_with_a_flipped_byte_is_refused() -> None:
    np.savez("a.npz", **arrays())
    data = bytearray(Path("a.npz").read_bytes())
    data[data.index(b"test_images") + 250] ^= 255
    Path("a.npz").write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"cannot read a\.npz"):
        open_data("a.npz")


# Folders.


def test_a_folder_of_classes_serves_any_split_in_the_order_of_class_and_path() -> None:
    for name in ("b/2.png", "b/1.PNG", "a/deep/3.png", "a/4.jpg", "b/notes.txt", ".hidden/5.png", "empty/x.txt"):
        path = Path("set", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x") if path.suffix == ".txt" else picture(path)
    Path("set/empty.txt").write_text("x")
    for split in ("train", "val", "test"):
        images = open_data("set", split)
        assert images.classes == ("a", "b") and names(images) == ["4.jpg", "3.png", "1.PNG", "2.png"]
        assert images.labels is not None and images.labels.tolist() == [0, 0, 1, 1]
        assert (images.source, images.split, images.pixels) == ("set", split, None)


def test_a_flat_folder_has_no_labels() -> None:
    picture(Path("set/2.png"), 20), picture(Path("set/1.png"), 10)
    images = open_data("set", "val")
    assert images.labels is None and images.classes is None
    assert [np.asarray(image).item(0) for image in (images[0], images[1], images[-1])] == [10, 20, 20]


@pytest.mark.parametrize("val", ["val", "validation", "valid", "Val"])
def test_split_folders_are_served_by_name(val: str) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "train/c/3.png", f"{val}/a/4.png", f"{val}/c/5.png"):
        picture(Path("set", name))
    images = open_data("set", "val")
    assert names(images) == ["4.png", "5.png"]
    # c stays class 2, although this split has no b
    assert images.labels is not None and images.labels.tolist() == [0, 2] and images.classes == ("a", "b", "c")
    with pytest.raises(
        DataError, match=rf"no test split: it has train \(train/\), val \({val}/\).*name a folder inside"
    ):
        open_data("set", "test")
    assert names(open_data(f"set/{val}", "test")) == ["4.png", "5.png"]


def test_an_unlabelled_test_split_beside_a_labelled_training_split() -> None:
    picture(Path("set/train/a/1.png")), picture(Path("set/test/2.png"))
    assert open_data("set", "test").labels is None
    assert open_data("set", "train").labels is not None


def test_a_class_called_train_is_no_split() -> None:
    for name in ("bus", "train", "car"):
        picture(Path("set", name, "1.png"))
    images = open_data("set", "test")
    assert images.classes == ("bus", "car", "train") and len(images) == 3


def test_links_that_lead_back_are_followed_once() -> None:
    picture(Path("set/a/1.png"))
    for link in ("again", "and-again"):  # two: a walk that went round would double at every turn
        Path("set/a", link).symlink_to(Path("set/a").resolve())
    picture(Path("elsewhere/2.png"))
    Path("set/b").symlink_to(Path("elsewhere").resolve())
    assert names(open_data("set")) == ["1.png", "2.png"]


def test_folders_that_cannot_be_understood() -> None:
    Path("empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no images: expected files of type .*\.png"):
        open_data("empty")
    picture(Path("mixed/a/1.png")), picture(Path("mixed/loose.png"))
    with pytest.raises(DataError, match=r"both directly \(loose.png\) and in class folders \(a/\)"):
        open_data("mixed")


def test_skip_bad_leaves_out_and_counts_and_never_replaces() -> None:
    for index in range(6):
        picture(Path(f"set/{'ab'[index % 2]}/{index}.png"), index)
    for index in (0, 3):
        Path(f"set/{'ab'[index % 2]}/{index}.png").write_bytes(b"broken")
    whole = open_data("set")
    assert len(whole) == 6 and whole.skipped == 0
    with pytest.raises(BadImageError, match=r"a/0\.png"):
        whole[0]
    good = open_data("set", skip_bad=True)
    assert good.skipped == 2 and names(good) == ["2.png", "4.png", "1.png", "5.png"]
    assert good.labels is not None and good.labels.tolist() == [0, 0, 1, 1]
    assert [np.asarray(good[index]).item(0) for index in range(4)] == [2, 4, 1, 5]


def test_skip_bad_with_nothing_left() -> None:
    picture(Path("set/1.png")).write_bytes(b"")
    with pytest.raises(BadImageError, match=r"cannot use 1 image: set/1\.png"):
        open_data("set", skip_bad=True)


# What is no source.


def test_unknown_sources_and_splits() -> None:
    with pytest.raises(
        DataError, match=r"data bundeld: it does not exist.*\.npz.*torch/cifar100.* Did you mean bundled\?"
    ):
        open_data("bundeld")
    with pytest.raises(DataError, match=r"unknown split 'tets': expected train, val or test. Did you mean test\?"):
        open_data("bundled", "tets")
    with pytest.raises(DataError, match=r"no val split: it has train, test"):
        open_data("bundled", "val")
    Path("a.csv").write_text("")
    with pytest.raises(DataError, match="is a file of another kind"):
        open_data("a.csv")
    with pytest.raises(DataError, match=r"data missing.npz: it does not exist"):
        open_data("missing.npz")


def test_an_image_set_is_pixels_or_files() -> None:
    with pytest.raises(DataError, match="either pixels or a reader"):
        ImageSet("x", "test")


def test_a_path_object_names_a_source_as_its_text_does(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", test_images=np.zeros((2, 4, 4), np.uint8), test_labels=np.zeros((2, 1), np.int64))
    assert open_data(tmp_path / "a.npz").source == str(tmp_path / "a.npz")

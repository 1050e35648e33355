"""timm data set names: real torchvision sets in a local folder, stand-ins at timm's boundary for the other kinds."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm.data
from PIL import Image

from fourier_probe.data import BadImageError, open_data, timm_names
from fourier_probe.errors import DataError
from fourier_probe.runtime.messages import listening

RNG = np.random.default_rng(0)


def fashion_mnist(root: Path, count: int = 4) -> dict[str, np.ndarray]:
    """Tiny idx files where torchvision looks for Fashion-MNIST; returns the arrays."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    held = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        held[f"{split}_images"] = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        held[f"{split}_labels"] = np.arange(count, dtype=np.uint8)
        for kind, axes in (("images", 3), ("labels", 1)):
            array = held[f"{split}_{kind}"]
            head = struct.pack(f">HBB{axes}I", 0, 8, axes, *array.shape)
            (raw / f"{prefix}-{kind}-idx{axes}-ubyte").write_bytes(head + array.tobytes())
    return held


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_small_torchvision_set_is_an_array(tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]) -> None:
    held = fashion_mnist(tmp_path)
    images = open_data(f"torch/fashion_mnist:{tmp_path}", split)
    assert images.pixels is not None and images.labels is not None and images.classes is not None
    np.testing.assert_array_equal(images.pixels[..., 0], held[f"{split}_images"])
    assert images.labels.tolist() == [0, 1, 2, 3] and images.classes[-1] == "Ankle boot"
    assert capsys.readouterr().out == ""


def test_a_split_that_the_set_lacks_is_not_served_by_another(tmp_path: Path) -> None:
    fashion_mnist(tmp_path)
    with pytest.raises(DataError, match="no val split: it has train, test"):
        open_data(f"torch/fashion_mnist:{tmp_path}", "val")
    with pytest.raises(DataError, match="no test split: it has train, val"):
        open_data(f"torch/imagenet:{tmp_path}", "test")


def test_the_default_root_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fashion_mnist(tmp_path)
    monkeypatch.setenv("FOURIER_PROBE_DATA", str(tmp_path))
    assert len(open_data("torch/Fashion_MNIST")) == 4


def test_a_torchvision_folder_is_read_by_our_own_rules(tmp_path: Path) -> None:
    for split, name, value in (("train", "a", 1), ("validation", "a", 2), ("validation", "b", 3)):
        (tmp_path / split / name).mkdir(parents=True)
        Image.new("LA", (3, 3), (value, 0)).save(tmp_path / split / name / "x.png")
    images = open_data(f"torch/image_folder:{tmp_path}", "val")
    assert images.classes == ("a", "b") and images.labels is not None and images.labels.tolist() == [0, 1]
    assert (images[0].mode, np.asarray(images[0]).max()) == ("L", 255)  # transparent, so white: not the value 2


def test_what_timm_cannot_open_is_said_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"cannot open the test split of torch/nothing:.*Unknown torchvision dataset"):
        open_data(f"torch/nothing:{tmp_path}")

    def unreachable(*_: object, **__: object) -> None:
        print("https://example.org/data.tar.gz")
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr(timm.data, "create_dataset", unreachable)
    with pytest.raises(DataError, match=r"name resolution.*without a network, name the folder.*torch/cifar100:/path"):
        open_data(f"torch/cifar100:{tmp_path}")
    assert capsys.readouterr() == ("", "https://example.org/data.tar.gz\n")  # results alone go to stdout
    monkeypatch.setattr(timm.data, "create_dataset", lambda *_, **__: object())
    with pytest.raises(DataError, match="lists no files"):
        open_data(f"torch/cifar100:{tmp_path}")


@pytest.mark.parametrize(("source", "extra"), [("hfds/owner/name", "hub"), ("wds/name", "webdataset")])
def test_a_missing_extra_is_named(source: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_names.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=rf"needs the package .*pip install 'fourier-probe\[{extra}\]'"):
        open_data(source)


class Encoded:
    """Stands in for timm's reader of Hugging Face data sets."""

    class_to_idx = {"dog": 1, "cat": 0}  # noqa: RUF012

    def __init__(self, files: list[bytes]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        return io.BytesIO(self.files[index]), index % 2

    def iter_targets(self) -> Iterator[int]:
        yield from (index % 2 for index in range(len(self.files)))


def png(value: int) -> bytes:
    """A grey 3x3 file."""
    file = io.BytesIO()
    Image.new("L", (3, 3), value).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the optional packages were there."""
    monkeypatch.setattr(timm_names.importlib.util, "find_spec", lambda _: object())


@pytest.mark.usefixtures("extras")
def test_a_hub_set_is_decoded_when_asked_for_and_a_bad_image_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def create(name: str, **options: Any) -> Any:
        asked.append({"name": name} | options)
        if options["split"] == "val":
            raise ValueError('Unknown split "val". Should be one of ["train", "validation"].')
        return SimpleNamespace(reader=Encoded([png(10), b"broken", png(30)]))

    monkeypatch.setattr(timm.data, "create_dataset", create)
    images = open_data("hfds/owner/name", "val")
    assert [(each["name"], each["split"], each["root"]) for each in asked] == [
        ("hfds/owner/name", "val", None),
        ("hfds/owner/name", "valid", None),
    ]
    assert images.classes == ("cat", "dog") and images.labels is not None and images.labels.tolist() == [0, 1, 0]
    assert np.asarray(images[2]).max() == 30
    with pytest.raises(BadImageError, match="image 1 of hfds/owner/name"):
        images[1]
    good = open_data("hfds/owner/name", "val", skip_bad=True)
    assert good.skipped == 1 and np.asarray(good[1]).max() == 30


class Stream:
    """Stands in for timm's WebDataset stream, which drops what it cannot decode."""

    def __init__(self, values: list[int], declared: int) -> None:
        self.values = values
        self.reader = SimpleNamespace(num_samples=declared)

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        yield from ((Image.new("L", (3, 3), value), value % 10) for value in self.values)


@pytest.mark.usefixtures("extras")
def test_a_stream_is_copied_once_and_its_copy_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm.data, "create_dataset", lambda *_, **__: Stream([11, 22, 33], declared=3))
    images = open_data("wds/name:/data")
    assert images.labels is not None and images.labels.tolist() == [1, 2, 3]
    copy = pickle.loads(pickle.dumps(images))  # noqa: S301  # as for a loader process
    assert [np.asarray(each).max() for each in (images[0], images[2], copy[1])] == [11, 33, 22]
    assert images.reader is not None
    folder = Path(images.reader.name(0)).parent
    del copy
    assert folder.is_dir()
    del images
    assert not folder.exists()


@pytest.mark.usefixtures("extras")
def test_of_a_stream_the_first_images_are_used_and_a_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm.data, "create_dataset", lambda *_, **__: Stream([11, 22, 33, 44], declared=4))
    notes: list[str] = []
    with listening(notes.append):
        images = open_data("wds/name:/data", limit=2)
        assert images.labels is not None and images.labels.tolist() == [1, 2] and images.skipped == 0
        assert len(open_data("wds/name:/data", limit=4)) == 4
    assert notes == ["wds/name:/data is a stream: its first 2 images are used, in whatever order it has."]


@pytest.mark.usefixtures("extras")
def test_images_that_a_stream_drops_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm.data, "create_dataset", lambda *_, **__: Stream([11, 22], declared=5))
    with pytest.raises(BadImageError, match="3 images: an image of wds/name"):
        open_data("wds/name:/data")
    images = open_data("wds/name:/data", skip_bad=True)
    assert (len(images), images.skipped) == (2, 3)


def test_a_path_that_exists_wins_over_a_timm_name() -> None:
    Path("torch/cifar100").mkdir(parents=True)
    Image.new("L", (3, 3)).save("torch/cifar100/1.png")
    assert len(open_data("torch/cifar100")) == 1

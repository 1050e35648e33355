"""Batches: order, shards, digests, loader processes, bad files. Faults 19, 20, 21."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image

import fourier_probe.data.decode as decode_module
from fourier_probe.data import BadImageError, Batch, ImageSet, InputSpec, batches, choose, image_digest, open_data
from fourier_probe.data.images import Files
from fourier_probe.data.loading import AHEAD, off_scale
from fourier_probe.data.subset import spread
from fourier_probe.errors import DataError

SPEC = InputSpec(3, (6, 5), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def array_set(count: int, size: tuple[int, int] = (6, 5)) -> ImageSet:
    """Random colour images in memory, every label its index."""
    pixels = np.random.default_rng(count).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    return ImageSet("arrays", "test", labels=np.arange(count), pixels=pixels)


def file_set(folder: Path, count: int) -> ImageSet:
    """Grey files of several shapes, the value of a file its number."""
    paths = []
    for number in range(count):
        paths.append(folder / f"{number:02d}.png")
        Image.new("L", (8 + number % 3, 7), number).save(paths[-1])
    return ImageSet("files", "test", labels=np.arange(count) % 2, reader=Files(tuple(paths)))


def joined(found: list[Batch]) -> Batch:
    """One batch out of several, which have labels."""
    return Batch(*(torch.cat([batch[field] for batch in found]) for field in range(4)))  # type: ignore[misc]


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (7, 1), (7, 3), (7, 7), (7, 100), (8, 4)])
def test_batches_hold_every_image_once_in_order(count: int, batch_size: int) -> None:
    images = array_set(count)
    assert images.pixels is not None
    found = list(batches(images, SPEC, batch_size=batch_size))
    assert [len(batch.images) for batch in found[:-1]] == [batch_size] * (len(found) - 1)
    whole = joined(found)
    assert whole.labels is not None
    assert whole.index.tolist() == whole.labels.tolist() == list(range(count))
    assert (whole.images.dtype, whole.labels.dtype, whole.index.dtype, whole.digest.dtype) == (
        torch.float32,
        torch.int64,
        torch.int64,
        torch.int64,
    )
    wanted = (images.pixels / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)
    np.testing.assert_allclose(whole.images.permute(0, 2, 3, 1), wanted, atol=2e-6)


def test_without_labels_there_are_none() -> None:
    images = ImageSet("arrays", "test", pixels=np.zeros((3, 6, 5, 1), np.uint8))
    assert [batch.labels for batch in batches(images, SPEC, batch_size=2)] == [None, None]


def test_the_bundled_images_reach_a_32_pixel_model_unresampled() -> None:
    images = open_data("bundled")
    assert images.pixels is not None
    spec = InputSpec(3, (32, 32), (0.0,) * 3, (1.0,) * 3, crop_pct=0.875)
    batch = next(batches(images, spec, batch_size=100))
    for channel in range(3):
        np.testing.assert_array_equal((batch.images[:, channel] * 255).round(), images.pixels[:100, :, :, 0])


@pytest.mark.parametrize("kind", ["arrays", "files"])
def test_crop_pct_is_for_files_only(tmp_path: Path, kind: str) -> None:
    border = np.zeros((20, 20, 1), np.uint8)
    border[5:15, 5:15] = 255  # the middle half
    Image.fromarray(border[..., 0]).save(tmp_path / "a.png")
    files = ImageSet("files", "test", reader=Files((tmp_path / "a.png",)))
    images = ImageSet("arrays", "test", pixels=border[None]) if kind == "arrays" else files
    spec = InputSpec(1, (10, 10), (0.0,), (1.0,), interpolation="box", crop_pct=0.5)
    batch = next(batches(images, spec, batch_size=1))
    assert batch.images.mean().item() == pytest.approx(0.25 if kind == "arrays" else 1.0, abs=0.01)


# Which images.


@pytest.mark.parametrize("order", ["sorted", "cycling", "shuffled"])
def test_a_limit_takes_the_same_share_of_every_class(order: str) -> None:
    labels = {
        "sorted": np.repeat(np.arange(10), 20),
        "cycling": np.tile(np.arange(10), 20),  # any even stride through this would miss classes
        "shuffled": np.random.default_rng(0).permutation(np.repeat(np.arange(10), 20)),
    }[order]
    images = ImageSet("x", "test", labels=labels, pixels=np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1))
    chosen = choose(images, limit=50)
    assert chosen.labels is not None and chosen.pixels is not None
    assert np.bincount(chosen.labels).tolist() == [5] * 10
    places = chosen.pixels.ravel()
    assert (np.diff(places.astype(int)) > 0).all()
    np.testing.assert_array_equal(labels[places], chosen.labels)
    assert order != "sorted" or places.tolist() == list(range(0, 200, 4))


def test_a_limit_without_labels_takes_the_smallest_hashes_in_order() -> None:
    images = ImageSet("x", "test", pixels=np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1))
    for limit in (1, 3, 9, 10, 99):
        chosen = choose(images, limit=limit).pixels
        assert chosen is not None and chosen.ravel().tolist() == spread(10, limit).tolist()
    with pytest.raises(DataError, match="0 images asked for"):
        choose(images, limit=0)
    spec = InputSpec(1, (1, 1), (0.0,), (1.0,))
    batch = next(batches(choose(images, limit=3), spec, batch_size=9))
    assert batch.index.tolist() == [0, 1, 2]
    assert (batch.images.ravel() * 255).round().tolist() == spread(10, 3).tolist()


@pytest.mark.parametrize(("count", "world"), [(10, 3), (2, 4), (7, 7)])
def test_shards_hold_every_image_once(count: int, world: int) -> None:
    images = array_set(count)
    whole = joined(list(batches(images, SPEC, batch_size=100)))
    shards = [list(batches(images, SPEC, batch_size=2, shard=(rank, world))) for rank in range(world)]
    for rank, shard in enumerate(shards):
        assert [int(index) for batch in shard for index in batch.index] == list(range(rank, count, world))
    parts = joined([batch for shard in shards for batch in shard])
    order = parts.index.argsort()
    assert torch.equal(parts.images[order], whole.images)
    assert torch.equal(parts.digest[order], whole.digest)
    assert torch.equal(parts.digest.sum(0), whole.digest.sum(0))  # the sum, as it is used: modulo 2^64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": (2, 2)}, r"the shard is 2 of 2: expected a rank from 0 to 1"),
        ({"shard": (-1, 2)}, "the shard is -1 of 2"),
        ({"batch_size": 0}, "batch size 0"),
        ({"workers": -1}, "-1 workers"),
    ],
)
def test_arguments_are_checked_before_the_first_batch(options: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        batches(array_set(2), SPEC, **({"batch_size": 1} | options))  # type: ignore[arg-type]


def test_a_model_of_other_channels_is_refused_at_once() -> None:
    with pytest.raises(DataError, match="the model takes 4 channels"):
        batches(array_set(2), InputSpec(4, (6, 5), (0.0,) * 4, (1.0,) * 4), batch_size=1)


# Digests.


def test_the_digest_is_sha256_of_place_shape_and_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    data = b"".join(number.to_bytes(8, "little") for number in (7, 4, 3, 3)) + bytes(pixels.ravel().tolist())
    assert tuple(image_digest(7, pixels)) == struct.unpack("<4q", hashlib.sha256(data).digest())
    assert tuple(image_digest(7, pixels[:, ::-1][:, ::-1])) == tuple(image_digest(7, pixels))  # whatever the strides


def test_the_digest_sees_pixels_place_and_shape_but_not_the_model() -> None:
    pixels = np.zeros((4, 3, 1), np.uint8)
    changed = pixels.copy()
    changed[0, 0, 0] = 1
    several = [
        image_digest(0, pixels),
        image_digest(1, pixels),
        image_digest(0, changed),
        image_digest(0, pixels.reshape(3, 4, 1)),
    ]
    assert len({tuple(each) for each in several}) == 4
    images = array_set(3)
    other = InputSpec(1, (9, 9), (0.1,), (0.5,))
    first, second = (joined(list(batches(images, spec, batch_size=2))) for spec in (SPEC, other))
    assert torch.equal(first.digest, second.digest)


def test_the_digest_of_a_file_is_that_of_its_pixels(tmp_path: Path) -> None:
    images = file_set(tmp_path, 3)
    held = np.stack([np.full((7, 8), 0, np.uint8)])[..., None]
    batch = next(batches(images, SPEC, batch_size=1))
    assert batch.digest[0].tolist() == image_digest(0, held[0]).tolist()


# Files, one after the other.


def test_files_are_read_when_their_batch_is_soon_due(tmp_path: Path) -> None:
    images = file_set(tmp_path, 2 * (AHEAD + 2))
    stream = batches(images, SPEC, batch_size=2)
    next(stream)
    images.reader.paths[-1].unlink()  # type: ignore[union-attr]
    for _ in range(AHEAD):
        next(stream)
    with pytest.raises(BadImageError, match=r"07\.png \(no such file or directory\)"):
        next(stream)


def test_the_next_batches_are_decoded_while_one_is_worked_on(tmp_path: Path) -> None:
    read: list[int] = []
    seen = threading.Event()

    class Telling(Files):
        def read(self, index: int) -> Image.Image:
            read.append(index)
            if index == 2:
                seen.set()
            return super().read(index)

    files = file_set(tmp_path, 6).reader
    assert isinstance(files, Files)
    stream = batches(ImageSet("files", "test", reader=Telling(files.paths)), SPEC, batch_size=1)
    next(stream)
    assert seen.wait(10)
    assert max(read) <= AHEAD
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decoding")]


@pytest.mark.parametrize("kind", ["png", "gif", "tiff", "jpg"])
def test_a_second_thread_changes_nothing(tmp_path: Path, kind: str) -> None:
    for index in range(7):
        pixels = np.random.default_rng(index).integers(0, 256, (9, 8 + index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.{kind}")
    images = ImageSet("files", "test", reader=Files(tuple(sorted(tmp_path.iterdir()))))
    ahead = joined([batch._replace(labels=batch.index) for batch in batches(images, SPEC, batch_size=2)])
    for number in range(7):
        alone = next(batches(images.take([number]), SPEC, batch_size=1))
        assert torch.equal(ahead.images[number], alone.images[0])
        assert ahead.digest[number].tolist() == image_digest(number, images.read(number)).tolist()


def test_batches_before_a_bad_file_come_first_and_its_message_is_that_of_this_thread(tmp_path: Path) -> None:
    images = file_set(tmp_path, 6)
    (tmp_path / "04.png").write_bytes(b"broken")
    stream = batches(images, SPEC, batch_size=2)
    assert [next(stream).index.tolist(), next(stream).index.tolist()] == [[0, 1], [2, 3]]
    with pytest.raises(BadImageError, match=r"^cannot use 1 image: .*04\.png \(not a bitmap"):
        next(stream)


def test_a_remark_of_the_decoder_fails_nothing_where_warnings_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = file_set(tmp_path, 6)
    plain = decode_module._decoded

    def remarking(file: BinaryIO) -> Image.Image:
        warnings.warn("odd metadata", stacklevel=1)
        return plain(file)

    monkeypatch.setattr(decode_module, "_decoded", remarking)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        assert sum(len(batch.index) for batch in batches(images, SPEC, batch_size=2)) == 6
        assert list(warnings.filters) == filters


def test_the_filters_of_warnings_are_those_of_the_caller_while_a_thread_decodes(tmp_path: Path) -> None:
    inside: list[bool] = []

    class Looking(Files):
        def read(self, index: int) -> Image.Image:
            before = list(warnings.filters)
            image = super().read(index)
            inside.append(list(warnings.filters) == before and threading.current_thread().name.startswith("decoding"))
            return image

    files = file_set(tmp_path, 4).reader
    assert isinstance(files, Files)
    list(batches(ImageSet("files", "test", reader=Looking(files.paths)), SPEC, batch_size=2))
    assert inside == [True] * 4


def test_a_message_names_all_bad_files_of_the_batch(tmp_path: Path) -> None:
    images = file_set(tmp_path, 6)
    for number in (1, 3, 5):
        (tmp_path / f"{number:02d}.png").write_bytes(b"broken")
    stream = batches(images, SPEC, batch_size=4)
    with pytest.raises(BadImageError, match=r"cannot use 2 images: .*01\.png .*03\.png .*--skip-bad"):
        next(stream)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_skip_bad_drops_counts_and_closes_ranks(tmp_path: Path, batch_size: int) -> None:
    images = file_set(tmp_path, 7)
    for number in (0, 3, 6):
        path = tmp_path / f"{number:02d}.png"
        path.write_bytes(path.read_bytes()[:30])
    chosen = choose(images, skip_bad=True)
    assert (len(chosen), chosen.skipped) == (4, 3)
    whole = joined(list(batches(chosen, SPEC, batch_size=batch_size)))
    assert whole.index.tolist() == [0, 1, 2, 3] and whole.labels is not None
    assert whole.labels.tolist() == [1, 0, 0, 1]
    values = (whole.images[:, 0, 0, 0] * SPEC.std[0] + SPEC.mean[0]) * 255
    assert values.round().tolist() == [1, 2, 4, 5]


def test_skip_bad_checks_only_what_the_limit_chooses(tmp_path: Path) -> None:
    images = file_set(tmp_path, 8)
    for number in (0, 3):
        (tmp_path / f"{number:02d}.png").write_bytes(b"broken")
    unlabelled = ImageSet("files", "test", reader=images.reader)
    chosen = choose(unlabelled, limit=2, skip_bad=True)  # files 3 and 5
    assert (len(chosen), chosen.skipped) == (1, 1)
    assert np.asarray(chosen[0]).max() == 5


@pytest.mark.slow
def test_loader_processes_change_nothing(tmp_path: Path) -> None:
    images = file_set(tmp_path, 7)
    before = torch.get_rng_state()
    here = joined(list(batches(images, SPEC, batch_size=2)))
    there = joined(list(batches(images, SPEC, batch_size=2, workers=2)))
    for ours, theirs in zip(here[:4], there[:4], strict=True):
        assert ours is not None and theirs is not None and torch.equal(ours, theirs)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_loader_processes_report_bad_files_in_our_words(tmp_path: Path) -> None:
    images = file_set(tmp_path, 2)
    (tmp_path / "01.png").write_bytes(b"broken")
    with pytest.raises(BadImageError, match=r"^cannot use 1 image: .*01\.png"):
        list(batches(images, SPEC, batch_size=2, workers=1))


class _Killer:
    """A reader whose process is killed, as by the system when memory runs out."""

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> Image.Image:
        os._exit(9)


@pytest.mark.slow
def test_a_loader_process_that_dies_is_reported() -> None:
    with pytest.raises(DataError, match=r"a loader process failed.*--workers 0"):
        list(batches(ImageSet("x", "test", reader=_Killer()), SPEC, batch_size=1, workers=1))


def test_arrays_in_memory_are_not_sent_to_loader_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fourier_probe.data.loading.DataLoader", None)
    assert len(list(batches(array_set(4), SPEC, batch_size=2, workers=2))) == 2


def test_zero_images_are_an_error_with_a_name() -> None:
    with pytest.raises(DataError, match="nothing has no images in its test split"):
        ImageSet("nothing", "test", pixels=np.zeros((0, 4, 4, 1), np.uint8))


@pytest.mark.parametrize(("scale", "odd"), [(1.0, False), (0.25, False), (1 / 255, True)])
def test_statistics_that_were_divided_twice_are_said(scale: float, odd: bool) -> None:
    """Mean and std of the images themselves, and those a common mistake makes of them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    mean, std = (float(value / 255 * scale) for value in (pixels.mean(), pixels.std()))
    images = ImageSet("mine", "test", pixels=pixels)
    text = off_scale(images, InputSpec(3, (8, 8), (mean,) * 3, (std,) * 3))
    assert ("divided by 255 once too often" in text) is odd and bool(text) is odd
    assert off_scale(images, InputSpec(3, (8, 8), (0.0,) * 3, (1.0,) * 3)) == ""  # a network without any
    assert off_scale(images, InputSpec(3, (8, 8), (0.0,) * 3, (1 / 255,) * 3)) == ""  # one of numbers up to 255
    black = ImageSet("mine", "test", pixels=np.zeros((3, 8, 8, 1), np.uint8))
    assert off_scale(black, InputSpec(1, (8, 8), (0.485,), (0.229,))) == ""

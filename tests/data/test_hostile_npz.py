""".npz files that declare what they do not hold: faults 29, 34."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from fourier_probe import cli
from fourier_probe.data import archive, open_data
from fourier_probe.errors import DataError

PLAIN = {"test_images": np.zeros((3, 4, 4), np.uint8), "test_labels": np.arange(3)}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def write(path: str = "a.npz", **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"test_images": header((60_000_000, 1000)) + b"x"}, "declares shape .*60,000,000,000 bytes, and has 1"),
        ({"test_images": header((10**8, 0))}, r"shape \(100000000, 0\)"),
        ({"test_images": header((10**8, 0, 4))}, r"shape \(100000000, 0, 4, 1\)"),
        ({"test_images": header((2**62, 2**62, 0))}, "shape"),
        ({"test_images": header((-1, 4, 4))}, "shape"),
        ({"test_images": header((3, 4, 4), "|O") + bytes(48)}, "Object arrays"),
        ({"test_images": b"\x93NUMPY\x01\x00\x05\x00((((("}, "cannot read a.npz"),
        ({"test_images": b"\x93NUMPY\x03\x00"}, "version"),
        ({"test_images": b""}, "cannot read a.npz"),
    ],
)
def test_arrays_that_are_not_there(members: dict[str, bytes], message: str) -> None:
    write(**members)
    start = time.monotonic()
    with pytest.raises(DataError, match=message):
        open_data("a.npz")
    assert time.monotonic() - start < 1


def test_a_small_file_that_unpacks_to_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_FREE", 2**20)  # of 2**30, to be quick: deflate packs zeros a thousand times
    with zipfile.ZipFile("a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("test_images.npy", header((1 << 15, 32, 32)) + bytes(1 << 25))
    with pytest.raises(DataError, match=r"has 3\d,\d+ bytes and declares 33,554,\d+"):
        open_data("a.npz")
    assert Path("a.npz").stat().st_size < 40_000


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test_labels": np.array([0, 1, 10**9])}, "go from 0 to 1000000000: expected classes counted from 0"),
        ({"test_labels": np.array([-1, 0, 1])}, "go from -1 to 1"),
        ({"test_labels": np.array([0, 1, 2**63], np.uint64)}, "go from 0 to 9223372036854775808"),
        ({"mean": np.array(0.5)}, r"mean of a.npz is float64 of shape \(\): expected \(1,\) finite numbers"),
        ({"mean": np.array(["x"])}, "mean of a.npz is <U1"),
        ({"std": np.array([np.nan])}, "std of a.npz"),
        ({"mean": np.zeros(3)}, r"shape \(3,\): expected \(1,\)"),
        ({"classes": np.array("a")}, "classes of a.npz"),
        ({"test_images": np.zeros((3, 3, 8, 8), np.uint8)}, r"shape \(3, 3, 8, 8\): .*Move the channels last"),
        ({"classes": np.zeros(3)}, "classes of a.npz is float64"),
        ({"classes": np.array(["a", "b"])}, "go up to 2, but it names 2 classes"),
        ({"classes": np.frombuffer(b"a\0\0\0b\0\0\0\0\0\x11\0", "<U1")}, "holds a name that is no text"),
        ({"classes": np.array([b"a", b"b", b"\xff"])}, "holds a name that is no text"),
    ],
)
def test_values_that_cannot_be(changed: dict[str, Any], message: str) -> None:
    np.savez("a.npz", **{**PLAIN, **changed})
    with pytest.raises(DataError, match=message):
        open_data("a.npz")


def test_names_of_classes_in_bytes_are_text() -> None:
    np.savez("a.npz", **PLAIN, classes=np.array(["cat", "dog", "ü"]).astype("U"))
    assert open_data("a.npz").classes == ("cat", "dog", "ü")
    np.savez("a.npz", **PLAIN, classes=np.array([b"cat", b"dog", "ü".encode()]))
    assert open_data("a.npz").classes == ("cat", "dog", "ü")


def test_a_file_that_changes_between_its_arrays() -> None:
    np.savez("a.npz", **PLAIN)
    arrays = archive.Archive(Path("a.npz"))
    assert len(arrays["test_images"]) == 3
    np.savez("b.npz", test_images=PLAIN["test_images"], test_labels=np.array([2, 1, 0]))
    Path("b.npz").replace("a.npz")
    with pytest.raises(DataError, match=r"a\.npz was changed while it was read: run again"):
        arrays["test_labels"]


def test_a_member_of_another_kind_and_one_name_twice() -> None:
    np.savez("a.npz", **PLAIN)
    with zipfile.ZipFile("a.npz", "a") as file:
        file.writestr("readme.txt", "x")
    with pytest.raises(DataError, match=r"holds 'readme.txt'"):
        open_data("a.npz")
    np.savez("a.npz", **PLAIN)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile("a.npz", "a") as file:
        file.writestr("test_labels.npy", header((3,)) + b"abc")
    with pytest.raises(DataError, match="directory is damaged"):
        open_data("a.npz")


@pytest.mark.parametrize("name", ["", " ", "x" * 5000, "~nobody", "~nobody/x.npz", "a\0b", "\x1b[31mred"])
def test_names_that_no_data_have(name: str) -> None:
    with pytest.raises(DataError) as caught:
        open_data(name)
    assert len(str(caught.value)) < 500 and "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", ""], "named by an empty text"),
        (["--data", "x" * 5000], "cannot open data xxx"),
        (["--data", "~nobody"], "cannot open data ~nobody"),
        (["--img-size", "200000"], "expected at most 8192 pixels"),
    ],
)
@pytest.mark.parametrize("verb", ["analyze", "heatmap", "points"])
def test_the_command_line_says_so_at_once(verb: str, arguments: list[str], message: str) -> None:
    if verb == "points" and arguments[0] == "--data":
        return  # it reads none
    start = time.monotonic()
    result = CliRunner().invoke(cli.group, [verb, "timm:cifar_vit_patch4", *arguments])
    assert result.exit_code == 1 and message in result.output, result.output
    assert isinstance(result.exception, SystemExit)
    assert time.monotonic() - start < 2

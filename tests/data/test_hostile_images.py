"""Image files that are not what their names say: faults 27, 28, 34. Each is the real thing."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from fourier_probe.data import BadImageError, open_data
from fourier_probe.data.decode import decode
from fourier_probe.errors import DataError
from fourier_probe.io.regular import open_regular

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) print\n%%EOF\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        Path("set", name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(Path("set", name, "1.png"))


def fake_ghostscript(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `gs` on the path that leaves a trace."""
    Path("bin").mkdir()
    Path("bin/gs").write_text(f"#!/bin/sh\ntouch {Path('ran').resolve()}\n")
    Path("bin/gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path('bin').resolve()}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)


def test_postscript_named_as_a_picture_never_reaches_ghostscript(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ghostscript(monkeypatch)
    Path("set/cat/cat.png").write_bytes(POSTSCRIPT)
    with pytest.raises(BadImageError, match=r"cat/cat.png \(not a bitmap"):
        open_data("set")[1]
    assert not Path("ran").exists()
    with pytest.raises(OSError), Image.open("set/cat/cat.png") as image:  # what a plain Pillow does with it
        image.load()
    assert Path("ran").exists()


@pytest.mark.filterwarnings("ignore")
def test_postscript_in_a_stream_of_shards_never_reaches_ghostscript(monkeypatch: pytest.MonkeyPatch) -> None:
    wds = pytest.importorskip("webdataset")
    fake_ghostscript(monkeypatch)
    Path("shards").mkdir()
    with wds.TarWriter("shards/x-test-0.tar") as tar:
        tar.write({"__key__": "0", "jpg": POSTSCRIPT, "cls": b"0"})
    info = (
        '{"splits": {"test": {"name": "test", "num_samples": 1, "filenames": ["x-test-0.tar"], "shard_lengths": [1]}}}'
    )
    Path("shards/_info.json").write_text(info)
    with pytest.raises(BadImageError, match="dropped by timm"):
        open_data(f"wds/x:{Path('shards').resolve()}")
    assert not Path("ran").exists()


def made(kind: str, path: Path) -> None:
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "folder"])
@pytest.mark.parametrize("layout", ["set/cat", "set"])
def test_only_regular_files_are_opened(kind: str, layout: str) -> None:
    if layout == "set":
        shutil.rmtree("set")
        Path("set").mkdir()
        Image.new("RGB", (8, 8)).save("set/1.png")
    made(kind, Path(layout, "x.png"))
    start = time.monotonic()
    images = open_data("set")
    with pytest.raises(BadImageError, match=rf"x\.png \(an? {kind.lower()}.*not a regular file\)"):
        [images[index] for index in range(len(images))]
    assert open_data("set", skip_bad=True).skipped == 1
    assert time.monotonic() - start < 1
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(Path(layout, "x.png"))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
def test_an_npz_that_is_no_file(kind: str) -> None:
    made(kind, Path("x.npz"))
    with pytest.raises(DataError, match=f"cannot read x.npz: an? {kind}.*not a regular file"):
        open_data("x.npz")


def png(path: Path, width: int, height: int) -> None:
    """A PNG of one grey, with at most 80 million of its pixels."""
    rows = min(height, 80_000_000 // width)
    body = zlib.compressobj(1)
    data = b"".join(body.compress(bytes((1 + width) * min(1 << 16, rows - i))) for i in range(0, rows, 1 << 16))
    chunks = {b"IHDR": struct.pack(">2L5B", width, height, 8, 0, 0, 0, 0), b"IDAT": data + body.flush(), b"IEND": b""}
    parts = [struct.pack(">L", len(v)) + k + v + struct.pack(">L", zlib.crc32(k + v)) for k, v in chunks.items()]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize(("width", "height"), [(1, 80_000_000), (66_000, 700), (101, 1), (20_000, 20_000)])
def test_images_out_of_all_proportion_are_refused_before_they_are_decoded(width: int, height: int) -> None:
    png(Path("x.png"), width, height)
    start = time.monotonic()
    with pytest.raises(BadImageError, match=rf"{width} x {height} pixels: expected sides|decompression bomb"):
        decode(Path("x.png"))
    assert time.monotonic() - start < 1
    png(Path("x.png"), 100, 1)
    assert decode(Path("x.png")).size == (100, 1)


@pytest.mark.parametrize("where", ["set/cat", "set/cat/more", "set/cat/more/below"])
def test_a_folder_that_cannot_be_read_is_an_error_that_names_it(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root reads everything, so that the system call itself is made to refuse."""
    Path("set/cat/more/below").mkdir(parents=True)
    scandir = os.scandir

    def refused(path: str | Path = ".") -> object:
        if Path(path) == Path(where):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    monkeypatch.setattr(os, "listdir", lambda path=".": [entry.name for entry in refused(path)])  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=rf"cannot read {where}: Permission denied.*readable"):
        open_data("set")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="needs root, to become someone else")
def test_a_folder_of_another_user_is_an_error(tmp_path: Path) -> None:
    """The real fault: mode 700, read by a process of another user."""
    import subprocess
    import sys

    Path("set/cat").chmod(0o700)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o5 != 0o5 and str(folder).startswith("/tmp/"):  # noqa: S108 - pytest's own
            folder.chmod(0o755)
    code = (
        "import os\nfrom fourier_probe.data import open_data\nopen_data('bundled')\n"
        "os.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\nopen_data('set')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DataError: cannot read set/cat: Permission denied" in ran.stderr, ran.stderr


def test_a_stored_orientation_keeps_16_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16)).save("deep.png", exif=exif)
    assert np.asarray(decode(Path("deep.png"))).ravel().tolist() == [0, 1, 255]

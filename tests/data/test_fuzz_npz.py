"""Row 29: one bit flipped anywhere in a .npz, directory included, gives the right images and labels or an error."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fuzzing import flipped, outcome
from hypothesis import given, settings
from hypothesis import strategies as st

from fourier_probe.data import ImageSet, open_data
from fourier_probe.errors import ProbeError

RNG = np.random.default_rng(0)
ARRAYS = {
    "test_images": RNG.integers(0, 256, (4, 5, 4, 3), dtype=np.uint8),
    "test_labels": np.array([2, 1, 0, 1], dtype=np.uint8),
    "classes": np.array(["a", "b", "c"]),
}


def packed(kind: str) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if kind == "compressed" else np.savez)(stream, **ARRAYS)  # type: ignore[arg-type]
    return stream.getvalue()


FILES = {kind: packed(kind) for kind in ("stored", "compressed")}


def right(images: ImageSet) -> bool:
    """Whether these are the test images, their labels and their classes."""
    return (
        images.pixels is not None
        and images.labels is not None
        and np.array_equal(images.pixels, ARRAYS["test_images"])
        and images.labels.tolist() == [2, 1, 0, 1]
        and images.classes == ("a", "b", "c")
    )


def check(path: Path, data: bytes, where: str) -> None:
    path.write_bytes(data)
    images = outcome(lambda: open_data(str(path)))
    assert isinstance(images, ProbeError) or right(images), where


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "a.npz"


def uncovered(data: bytes) -> list[int]:
    """Bytes of the directory and of the members' headers: CRCs cover the arrays, nothing covers these."""
    starts = [at for at in range(len(data)) if data.startswith(b"PK\x03\x04", at)]
    headers = {byte for at in starts for byte in range(at, at + 70)}
    return sorted(headers | {*range(data.index(b"PK\x01\x02"), len(data))})


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "bits"), [("stored", range(8)), ("compressed", (0, 3))])
def test_every_bit_of_the_directory_and_of_the_headers(kind: str, bits: Sequence[int], path: Path) -> None:
    check(path, FILES[kind], "as it is")
    for byte in uncovered(FILES[kind]):
        for bit in bits:
            check(path, flipped(FILES[kind], 8 * byte + bit), f"{kind}: bit {bit} of byte {byte}")


@pytest.mark.slow
@given(st.data())
@settings(max_examples=400, derandomize=True, deadline=None)
def test_any_bit(path: Path, draw: st.DataObject) -> None:
    kind = draw.draw(st.sampled_from(sorted(FILES)))
    bit = draw.draw(st.integers(0, 8 * len(FILES[kind]) - 1))
    check(path, flipped(FILES[kind], bit), f"{kind}: bit {bit}")


@given(st.data())
@settings(max_examples=100, derandomize=True, deadline=None)
def test_any_cut(path: Path, draw: st.DataObject) -> None:
    kind = draw.draw(st.sampled_from(sorted(FILES)))
    check(path, FILES[kind][: draw.draw(st.integers(0, len(FILES[kind]) - 1))], kind)

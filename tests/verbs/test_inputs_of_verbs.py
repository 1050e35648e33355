"""What a notebook hands to the verbs: paths, integers of numpy, generators, old names beside new ones, Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import fourier_probe as fp
from fourier_probe.data import InputSpec, batches, choose
from fourier_probe.errors import DataError
from fourier_probe.runtime.messages import ProbeNote


class Tiny(nn.Module):
    """A stem, a residual step and a head."""

    def __init__(self, *, idle: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = Block(idle=idle)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(self.stem(images)).mean((2, 3)))
        return out


class Block(nn.Module):
    def __init__(self, *, idle: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        if idle:
            nn.init.zeros_(self.conv.weight)
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = maps + self.conv(maps)
        return out


BATCHES = [torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(k)) for k in range(3)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, k in ((a, b) for a in "abc" for b in range(4)):
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{k}.png")
    return tmp_path / "photos"


def test_images_is_any_integer(photos: Path) -> None:
    found = fp.analyze(Tiny(), photos, images=np.int64(6), img_size=(16, 16), mean=[0.5] * 3, std=[0.5] * 3)  # type: ignore[arg-type]
    assert found.images.n == 6


def test_heatmap_takes_a_folder_by_its_path(photos: Path) -> None:
    options = {"bands": 2, "images": 12, "img_size": (16, 16), "mean": [0.5] * 3, "std": [0.5] * 3}
    found = fp.heatmap(Tiny(), photos, **options)  # type: ignore[arg-type]
    assert found.images.n == 12 and "error" in found.quantities


def test_old_names_are_not_mixed_with_new_ones() -> None:
    with pytest.raises(TypeError, match="label"):
        fp.analyze(Tiny(), BATCHES, source={}, label="mine")  # type: ignore[call-arg]


def test_images_counts_those_of_our_own_batches() -> None:
    ours = [
        batch
        for batch in batches(
            choose(fp.open_data("bundled"), limit=12), InputSpec(3, (32, 32), (0.5,) * 3, (0.5,) * 3), batch_size=4
        )
    ]
    with pytest.warns(ProbeNote, match="8"):
        found = fp.analyze(Tiny(), ours, images=6)
    assert found.images.n == 8  # whole batches, said


def test_steps_that_change_nothing_are_said() -> None:
    with pytest.warns(ProbeNote, match="1 step.* change nothing .*block"):
        fp.analyze(Tiny(idle=True), BATCHES)


def test_a_generator_serves_one_target_only() -> None:
    with pytest.raises(DataError, match="once"):
        fp.compare([Tiny(), Tiny()], (images for images in BATCHES), labels=["a", "b"])
    again = fp.compare([Tiny(), Tiny()], BATCHES, labels=["a", "b"])
    assert again.labels == ("a", "b")


def test_ctrl_c_ends_a_comparison() -> None:
    """It did go on with the next target, and ended in "cannot be compared"."""

    class Stopped(list[Tensor]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield BATCHES[0]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fp.compare([Tiny(), Tiny()], Stopped(BATCHES), labels=["a", "b"])

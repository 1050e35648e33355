"""The planted task: what is drawn is what its definition says, and an image depends on nothing but its index."""

from __future__ import annotations

import numpy as np
import pytest

from fourier_probe.data import open_data
from fourier_probe.data.planted import CUE_RIGHT, VARIANTS, make, open_planted, scenes, to_pixels
from fourier_probe.errors import DataError


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_objects_lie_where_the_definition_says(variant: str) -> None:
    drawn = scenes(variant, "train", np.arange(3000))
    row, column = drawn.cells // 8, drawn.cells % 8
    assert np.maximum(abs(row[:, 0] - row[:, 1]), abs(column[:, 0] - column[:, 1])).min() == 5
    if variant == "far":
        assert (drawn.pairs == -1).all()
        return
    assert (drawn.pairs % 8).max() == 6  # its right cell is in the same row
    cells = np.concatenate([drawn.cells, drawn.pairs, drawn.pairs + 1], 1)
    assert all(len(set(objects)) == 6 for objects in cells.tolist())


@pytest.mark.slow
def test_labels_are_balanced_and_mean_what_they_should() -> None:
    for variant in ("mixed", "far"):
        drawn = scenes(variant, "test", np.arange(2000))
        assert ((drawn.glyphs[:, 0] == drawn.glyphs[:, 1]) == (drawn.labels == 1)).all()
        assert drawn.labels.mean() == 0.5
    mixed = scenes("mixed", "train", np.arange(20000))
    assert (~mixed.conflict).mean() == pytest.approx(CUE_RIGHT, abs=0.01)
    local = scenes("local", "train", np.arange(20000))
    assert not local.conflict.any()
    same = local.glyphs[:, 0] == local.glyphs[:, 1]
    assert same.mean() == pytest.approx(0.5, abs=0.015)
    assert np.corrcoef(same, local.labels)[0, 1] == pytest.approx(0, abs=0.025)


@pytest.mark.slow
def test_nothing_else_tells_the_label() -> None:
    drawn = scenes("far", "train", np.arange(20000))
    for value in (drawn.cells[:, 0], drawn.cells[:, 1], drawn.glyphs[:, 0], drawn.noise.mean((1, 2, 3))):
        assert abs(np.corrcoef(value, drawn.labels)[0, 1]) < 0.025
    assert drawn.noise.std() == pytest.approx(0.25, rel=1e-3)
    assert abs(drawn.noise.mean()) < 1e-4


def test_glyphs_have_one_energy_and_pixels_follow_the_formula() -> None:
    drawn = scenes("mixed", "test", np.arange(50))
    objects = drawn.values() - drawn.noise
    assert set(np.unique(np.round(objects, 9))) == {-0.6, 0.0, 0.6}
    covered = (objects.reshape(50, 8, 4, 8, 4, 3) != 0).all((2, 4, 5)).sum((1, 2))
    assert (covered == 6).all()
    assert (np.unique((objects**2).sum((1, 2, 3)).round(6)) == [round(6 * 48 * 0.36, 6)]).all()
    assert to_pixels(np.array([0.0, -5.0, 5.0, 1.0])).tolist() == [128, 0, 255, 217]


def test_an_image_is_a_function_of_variant_split_and_index() -> None:
    labels, pixels, conflict = make("mixed", "train", np.array([7, 123_456, 3]))
    again = make("mixed", "train", np.array([3, 7]))
    assert (pixels[[2, 0]] == again[1]).all() and (labels[[2, 0]] == again[0]).all()
    assert (conflict[[2, 0]] == again[2]).all()
    assert (make("far", "train", np.array([7]))[1] != pixels[0]).any()
    assert (make("mixed", "val", np.array([7]))[1] != pixels[0]).any()
    # Known bytes: the set must be the same on every machine and in every version.
    assert int(pixels.astype(np.int64).sum()) == 1173666


def test_training_sets_are_nested_and_only_they_depend_on_the_seed() -> None:
    small, large = (open_planted("planted", "train", images=n, seed=3) for n in (100, 300))
    assert (large.pixels[:100] == small.pixels).all()  # type: ignore[index]
    other = open_planted("planted", "train", images=100, seed=4)
    assert (other.pixels != small.pixels).any()
    for split in ("val", "test"):
        a, b = (open_planted("planted", split, images=20, seed=seed) for seed in (0, 1))
        assert (a.pixels == b.pixels).all()


def test_as_a_source() -> None:
    images = open_data("planted:far", "val")
    assert len(images) == 2000 and images.conflict is None and images.mean == (0.5, 0.5, 0.5)
    mixed = open_data("planted", "test").take(range(40))
    assert mixed.conflict is not None and mixed.conflict.shape == (40,)


@pytest.mark.parametrize(
    ("source", "images", "message"),
    [("planted:fra", None, "Did you mean far"), ("planted:", None, "expected planted"),
     ("planted", 7, "even number"), ("planted", 2_000_000, "1,000,000")],
)  # fmt: skip
def test_what_does_not_exist_is_said(source: str, images: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_planted(source, "train", images=images)

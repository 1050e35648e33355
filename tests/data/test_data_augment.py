"""Batched augmentation: each function against a loop over images given the same parameters, and its distribution."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from fourier_probe.data import random_crop, random_erase, random_flip
from fourier_probe.data.augment import crop_at, erase_at, erase_boxes, flip_where
from fourier_probe.errors import DataError

AREA = (0.02, 1 / 3)


def seeded(seed: int = 0) -> Generator:
    """A generator of its own."""
    return Generator().manual_seed(seed)


def batch(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random pixels, none of them zero, (B, C, H, W)."""
    return torch.randint(1, 256, shape, generator=seeded(9), dtype=torch.uint8).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("padding", "height", "width"), [(0, 4, 5), (1, 4, 4), (3, 5, 7)])
def test_crop_against_a_loop(dtype: torch.dtype, padding: int, height: int, width: int) -> None:
    corners = list(itertools.product(range(2 * padding + 1), repeat=2))  # every offset there is
    images = batch(len(corners), 2, height, width, dtype=dtype)
    top, left = torch.tensor(corners).T
    ours = crop_at(images, padding, top, left)
    assert ours.dtype == dtype and ours.is_contiguous()
    for number, (row, column) in enumerate(corners):
        padded = torch.zeros(2, height + 2 * padding, width + 2 * padding, dtype=dtype)
        padded[:, padding : padding + height, padding : padding + width] = images[number]
        assert torch.equal(ours[number], padded[:, row : row + height, column : column + width])


def test_crop_offsets_are_uniform_and_independent_along_the_axes() -> None:
    images = torch.zeros(20_000, 1, 5, 5)
    images[:, :, 2, 2] = 1  # where this pixel lands tells the offset
    counts = random_crop(images, 2, seeded()).sum((0, 1))
    assert counts.sum() == 20_000
    assert (counts - 800).abs().max() < 5 * 800**0.5


def test_flip_against_a_loop() -> None:
    images = batch(9, 3, 4, 5, dtype=torch.uint8)
    mirrored = torch.arange(9) % 3 == 0
    ours = flip_where(images, mirrored)
    for number in range(9):
        wanted = images[number][:, :, [4, 3, 2, 1, 0]] if mirrored[number] else images[number]
        assert torch.equal(ours[number], wanted)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flip_probability(probability: float) -> None:
    images = torch.tensor([0.0, 1.0]).expand(10_000, 1, 1, 2)
    share = random_flip(images, seeded(), probability)[:, 0, 0, 0].mean().item()
    assert share == pytest.approx(probability, abs=5 * (probability * (1 - probability) / 10_000) ** 0.5)


@pytest.mark.parametrize("shape", [(50, 3, 8, 8), (50, 1, 5, 12)])
def test_erasing_against_a_loop(shape: tuple[int, int, int, int]) -> None:
    images = batch(*shape)
    ours = random_erase(images, seeded(3), 0.7)
    generator = seeded(3)
    boxes = erase_boxes(shape, generator, 0.7)
    count, channels, height, width = shape
    noise = torch.randn(shape, generator=generator)
    for number, (top, left, high, wide) in enumerate(boxes.tolist()):
        wanted = images[number].clone()
        for channel, row, column in itertools.product(range(channels), range(height), range(width)):
            if top <= row < top + high and left <= column < left + wide:
                wanted[channel, row, column] = noise[number, channel, row, column]
        assert torch.equal(ours[number], wanted)
    assert 0 < (boxes[:, 2] == 0).sum() < count  # some erased, some left


def test_erased_rectangles_lie_inside_and_have_the_areas_and_aspects_asked_for() -> None:
    height, width = 64, 96
    boxes = erase_boxes((20_000, 3, height, width), seeded(), 0.25)
    erased = boxes[boxes[:, 2] > 0].double()
    assert len(erased) / 20_000 == pytest.approx(0.25, abs=0.02)
    top, left, high, wide = erased.T
    assert top.min() == 0 and left.min() == 0
    assert (top + high).max() == height and (left + wide).max() == width
    share, aspect = high * wide / (height * width), high / wide
    assert 0.017 < share.min() and share.max() < 0.345
    assert 0.26 < aspect.min() and aspect.max() < 3.9
    assert share.mean().item() == pytest.approx(sum(AREA) / 2, abs=0.01)
    assert aspect.log().mean().item() == pytest.approx(0, abs=0.1)


def test_a_rectangle_never_spans_the_image() -> None:
    boxes = erase_boxes((5000, 3, 3, 30), seeded(), 1.0)
    assert boxes[:, 2].max() == 2


def test_rectangles_agree_with_timm_in_distribution() -> None:
    """Mean height, width and erased share against timm's own loop; equal within five standard errors."""
    import random

    from timm.data.random_erasing import RandomErasing

    state = random.getstate()
    random.seed(0)
    theirs = RandomErasing(1.0, mode="const", device="cpu")(torch.ones(3000, 1, 12, 20)) == 0
    random.setstate(state)
    ours = random_erase(torch.full((3000, 1, 12, 20), 9.0), seeded(), 1.0) != 9
    for measure in (
        lambda mask: mask.any(3).sum(2).double(),  # height
        lambda mask: mask.any(2).sum(2).double(),  # width
        lambda mask: mask.double().mean((2, 3)),
    ):
        one, other = measure(ours), measure(theirs)
        error = ((one.var() + other.var()) / 3000).sqrt()
        assert abs(one.mean() - other.mean()) < 5 * error


def test_an_image_too_small_for_any_rectangle_is_left_whole() -> None:
    images = batch(8, 3, 1, 1)
    assert torch.equal(random_erase(images, seeded(), 1.0), images)


def test_no_rectangle_is_written_for_none() -> None:
    images = batch(2, 1, 3, 3)
    assert torch.equal(erase_at(images, torch.zeros(2, 4, dtype=torch.int64), torch.tensor(0.0)), images)


def test_erasing_of_integers_is_an_error() -> None:
    with pytest.raises(DataError, match=r"needs normalised float images, not torch\.uint8"):
        random_erase(batch(64, 3, 8, 8, dtype=torch.uint8), seeded())


@pytest.mark.parametrize(
    "augment",
    [
        lambda images, generator: random_crop(images, 2, generator),
        random_flip,
        lambda images, generator: random_erase(images, generator, 0.9),
    ],
)
def test_the_generator_alone_decides(augment: Callable[[Tensor, Generator], Tensor]) -> None:
    images = batch(32, 3, 6, 6)
    copy, state = images.clone(), torch.get_rng_state()
    first = augment(images, seeded(1))
    assert torch.equal(first, augment(images, seeded(1)))
    assert not torch.equal(first, augment(images, seeded(2)))
    assert torch.equal(images, copy) and torch.equal(torch.get_rng_state(), state)

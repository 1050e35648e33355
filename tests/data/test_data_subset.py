"""Parts of a data set: balanced, nested, fixed by a seed; labels that fit. Fault 7."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourier_probe.data import check_labels, holdout, subset
from fourier_probe.data.subset import splitmix64, spread
from fourier_probe.errors import DataError

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(7), 40))
label_lists = st.lists(st.integers(0, 5), min_size=1, max_size=120)
fractions = st.floats(0.001, 1.0)


@given(label_lists, fractions, fractions, st.integers(0, 2**40))
def test_parts_are_sorted_nested_and_balanced(labels: list[int], one: float, other: float, seed: int) -> None:
    small, large = (subset(labels, fraction, seed=seed) for fraction in sorted((one, other)))
    assert (np.diff(small) > 0).all() and small.dtype == np.int64
    assert set(small) <= set(large) <= set(range(len(labels)))
    have, kept = np.bincount(labels), np.bincount(np.asarray(labels)[small], minlength=max(labels) + 1)
    wanted = min(one, other) * have
    assert (kept[have > 0] >= 1).all()
    assert (np.abs(kept - wanted)[kept > 1] <= 0.5 + 1e-9).all()


def test_exact_counts_and_the_whole() -> None:
    assert np.bincount(LABELS[subset(LABELS, 0.1, seed=3)]).tolist() == [4] * 7
    assert subset(LABELS, 1.0, seed=3).tolist() == list(range(280))
    assert np.bincount(LABELS[subset(LABELS, 1e-9, seed=3)]).tolist() == [1] * 7


def test_the_choice_is_fixed_by_its_seed_alone() -> None:
    state = np.random.get_state()  # noqa: NPY002
    first = subset(LABELS, 0.5, seed=1)
    np.testing.assert_equal(np.random.get_state(), state)  # noqa: NPY002
    np.testing.assert_array_equal(first, subset(LABELS, 0.5, seed=1))
    assert not np.array_equal(first, subset(LABELS, 0.5, seed=2))
    # drawn once and written down: another version of NumPy must give the same
    assert subset([0] * 8 + [1] * 8, 0.5, seed=0).tolist() == [2, 4, 5, 7, 9, 11, 12, 15]


def test_a_class_is_drawn_whatever_the_others_are() -> None:
    alone = subset([0] * 30, 0.4, seed=9)
    np.testing.assert_array_equal(alone, subset([0] * 30 + [4] * 30, 0.4, seed=9)[:12])


@given(label_lists, st.floats(0.01, 0.99), st.integers(0, 2**40))
def test_holdout_parts_the_set_and_keeps_every_class_in_training(labels: list[int], fraction: float, seed: int) -> None:
    have = np.bincount(labels)
    if have.max() == 1:
        with pytest.raises(DataError, match="no image can be held out"):
            holdout(labels, fraction, seed=seed)
        return
    train, val = holdout(labels, fraction, seed=seed)
    assert sorted([*train, *val]) == list(range(len(labels)))
    assert (np.diff(train) > 0).all() and (np.diff(val) > 0).all()
    held = np.bincount(np.asarray(labels)[val], minlength=len(have))
    assert (held[have > 1] >= 1).all() and (held[have > 0] < have[have > 0]).all()
    inner = (held > 1) & (held < have - 1)
    assert (np.abs(held - fraction * have)[inner] <= 0.5 + 1e-9).all()


def test_holdout_is_no_copy_of_the_subset() -> None:
    val = holdout(LABELS, 0.5, seed=1)[1]
    assert not np.array_equal(val, subset(LABELS, 0.5, seed=1))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_fractions_out_of_range(fraction: float) -> None:
    with pytest.raises(DataError, match=r"the data scale is .*expected a fraction above 0, up to 1"):
        subset(LABELS, fraction, seed=0)
    with pytest.raises(DataError, match=r"the validation fraction is .*above 0 and below 1"):
        holdout(LABELS, fraction, seed=0)


@pytest.mark.parametrize("labels", [[], [[0, 1]], [0, -1]])
def test_labels_that_are_none(labels: list[int]) -> None:
    with pytest.raises(DataError, match=r"expected \(N,\) classes"):
        subset(labels, 0.5, seed=0)


def test_a_negative_seed() -> None:
    with pytest.raises(DataError, match="the seed is -1"):
        subset(LABELS, 0.5, seed=-1)


def test_labels_beyond_the_model() -> None:
    check_labels(np.array([0, 9]), 10)
    check_labels(np.array([], dtype=np.int64), 10)
    with pytest.raises(DataError, match=r"largest label is 10, but the model has 10 classes, 0 to 9.*num_classes=11"):
        check_labels(np.array([0, 10]), 10)
    with pytest.raises(DataError, match=r"smallest label is -1, but the model has 10 classes"):
        check_labels(np.array([-1, 3]), 10)


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_spread_with_labels_is_even(count: int, limit: int) -> None:
    places = spread(count, limit, np.zeros(count, dtype=np.int64))
    assert len(places) == min(count, limit) and places[0] == 0 and places[-1] < count
    steps = np.diff([*places, count])
    assert steps.min() >= 1 and steps.max() - steps.min() <= 1


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300))
def test_a_spread_without_labels_is_nested_and_in_order(count: int, one: int, other: int) -> None:
    few, many = (spread(count, limit).tolist() for limit in sorted((one, other)))
    assert len(many) == min(count, max(one, other)) and set(few) <= set(many)
    assert few == sorted(set(few)) and many == sorted(set(many))


def test_splitmix64_is_the_published_generator() -> None:
    """The first outputs from state 0, as in Vigna's reference."""
    golden = 0x9E3779B97F4A7C15
    states = np.array([i * golden % 2**64 for i in range(3)], dtype=np.uint64)
    assert splitmix64(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize("cycle", [2, 10, 100])
def test_a_spread_of_cycling_classes_shows_them_all_alike(cycle: int) -> None:
    """Every k-th of them, as it was, shows 10 of 100 classes; a random choice, each about as often."""
    counts = np.bincount(spread(10_000, 1_000) % cycle, minlength=cycle)
    expected = 1_000 / cycle
    assert ((counts - expected) ** 2 / expected).sum() < cycle + 4 * np.sqrt(2 * cycle)  # chi square, 4 sigma

"""95 % intervals: of shares and means over independent images, and over seeds. Imports bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from fourier_probe.results.bounds import SLACK

Z95 = 1.959964


class Interval(msgspec.Struct, frozen=True):
    """A value and its 95 % interval over images; ends are null where there is none."""

    value: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name, end, sign in (("low", self.low, 1), ("high", self.high, -1)):
            if end is not None and sign * (end - self.value) > SLACK * max(1.0, abs(self.value)):
                raise ValueError(f"`{name}` is {end:g} and `value` {self.value:g}")


def check_share(**intervals: Interval | None) -> None:
    """Raise ValueError, which names the field, where a share is not from 0 to 1."""
    _check(0, intervals)


def check_change(**intervals: Interval | None) -> None:
    """Raise ValueError, which names the field, where a difference of two shares is not from -1 to 1."""
    _check(-1, intervals)


def _check(least: int, intervals: Mapping[str, Interval | None]) -> None:
    for name, interval in intervals.items():
        if interval is not None and (interval.value < least - SLACK or interval.value > 1 + SLACK):
            raise ValueError(f"`{name}.value` is {interval.value:g}: expected {least} to 1")


def share(count: int, n: int) -> Interval:
    """A share of n images with Wilson's interval, which holds at 0 and 1 and for few images too (Wilson 1927).

    >>> [round(x, 3) for x in (lambda s: (s.value, s.low, s.high))(share(0, 20))]
    [0.0, 0.0, 0.161]
    """
    p, z2 = count / n, Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Interval(p, min(max(middle - half, 0.0), p), max(min(middle + half, 1.0), p))


def paired_increase(broken: int, mended: int, n: int) -> Interval:
    """The difference of two shares of the same n images, with the interval of Agresti & Min (2005).

    Args:
        broken: images counted in the first share alone.
        mended: images counted in the second alone.
        n: images.

    >>> paired_increase(6, 2, 100).value
    0.04
    """
    b, m, n2 = broken + 0.5, mended + 0.5, n + 2
    middle = (b - m) / n2
    half = Z95 * math.sqrt(max((b + m) / n2 - middle**2, 0.0) / n2)
    value = (broken - mended) / n
    return Interval(value, max(min(middle - half, value), -1.0), min(max(middle + half, value), 1.0))


def mean(total: float, squares: float, n: int) -> Interval:
    """A mean over n images with Student's interval; without one where there are fewer than 20 images.

    >>> mean(10.0, 10.0, 10)
    Interval(value=1.0, low=None, high=None)
    """
    value = total / n
    if n < 20:
        return Interval(value)
    from scipy.stats import t

    half = float(t.ppf(0.975, n - 1)) * math.sqrt(max(squares / n - value**2, 0.0) / (n - 1))
    return Interval(value, value - half, value + half)


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean of one value per training, and half of its 95 % interval by Student's t; the half is NaN for one value.

    >>> over_seeds([1.0, 2.0, 3.0])
    (2.0, 2.484...)
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    from scipy.stats import t

    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, float(t.ppf(0.975, len(values) - 1)) * math.sqrt(variance / len(values))


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of a mean of 0, over all 2^n flips of the signs of paired differences; 1 where all are 0.

    Exact, of up to 20 pairs. The least p that n pairs can give is 2 / 2^n.

    >>> sign_flip([1.0, 2.0, 3.0])
    0.25
    """
    import numpy as np

    values = np.asarray(differences, np.float64)
    if not 1 <= len(values) <= 20:
        raise ValueError(f"{len(values)} pairs: expected 1 to 20.")
    signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
    scale = float(np.abs(values).sum())
    return float((np.abs(signs @ values) >= abs(float(values.sum())) - 1e-12 * scale).mean())


def holm(p: Sequence[float]) -> list[float]:
    """The p values of a family of tests, adjusted so that each may be compared with the level of all (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, least = [0.0] * len(p), 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        least = max(least, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = least
    return adjusted


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """95 % percentile interval of a mean, one value per training, resampled 2,000 times with replacement.

    >>> low, high = bootstrap([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> low < 3.0 < high
    True
    """
    import numpy as np

    array = np.asarray(values, np.float64)
    picks = np.random.default_rng(0).integers(0, len(array), (2000, len(array)))
    low, high = np.percentile(array[picks].mean(1), [2.5, 97.5])
    return float(low), float(high)

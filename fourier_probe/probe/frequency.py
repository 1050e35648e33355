"""The frequencies of a grid: bins of the diagonal, rings, which bins are high. Integers only; imports errors.

F is the 2-D discrete Fourier transform of a map (H, W); bin (ky, kx) has the radius
r = sqrt((2 ky / H)^2 + (2 kx / W)^2) in units of pi rad/sample, 1.0 being Nyquist of an axis.
"""

from __future__ import annotations

import functools
import math

from fourier_probe.errors import ResultError


def frequencies(grid: tuple[int, int], axis: str = "true") -> list[float]:
    """Frequency of each bin of the diagonal, per axis, in pi rad/sample, 0 first (0.5 means radius 0.707).

    >>> frequencies((4, 4)), frequencies((7, 7))[-1] == 6 / 7
    ([0.0, 0.5, 1.0], True)
    >>> frequencies((8, 8), "paper")  # the published axis: no Nyquist bin, the last bin drawn at 1.0
    [0.0, 0.3333333333333333, 0.6666666666666666, 1.0]
    """
    short = min(grid)
    if axis == "true":
        return [2 * j / short for j in range(short // 2 + 1)]
    if grid[0] != grid[1]:
        raise ResultError(
            f"the paper's axis is defined for square maps only and this grid is {grid[0]}x{grid[1]}: use axis='true'."
        )
    bins = (short + 1) // 2
    return [j / max(bins - 1, 1) for j in range(bins)]


def usable_bins(grid: tuple[int, int]) -> int:
    """Number of leading diagonal bins fit for comparison: all but Nyquist, which is a real coefficient on even grids.

    >>> usable_bins((56, 56)), usable_bins((7, 7)), usable_bins((1, 1))
    (28, 4, 1)
    """
    return (min(grid) + 1) // 2


def ring_radii(grid: tuple[int, int]) -> list[float]:
    """Radii of the rings of `log_density`: multiples of 2 / min(H, W) up to 1, without 0.

    >>> ring_radii((4, 6))
    [0.5, 1.0]
    """
    short = min(grid)
    return [2 * m / short for m in range(1, short // 2 + 1)]


def bin_of(ky: int, kx: int, grid: tuple[int, int]) -> tuple[int, bool]:
    """The ring nearest to the radius r of a bin, ties outward, and whether r > 0.5; decided in integers.

    Args:
        ky: distance from DC along the rows, 0 to H // 2.
        kx: along the columns, 0 to W // 2.
        grid: (H, W).

    >>> bin_of(1, 1, (8, 8)), bin_of(2, 0, (8, 8)), bin_of(3, 0, (8, 8))
    ((1, False), (2, False), (3, True))
    """
    H, W = grid
    square = ky * ky * W * W + kx * kx * H * H  # (r H W / 2)^2
    ring = (math.isqrt(4 * min(grid) ** 2 * square // (H * H * W * W)) + 1) // 2
    return ring, 16 * square > H * H * W * W


@functools.lru_cache(maxsize=256)
def plane(grid: tuple[int, int]) -> tuple[list[list[int]], list[list[bool]]]:
    """Ring, and whether r > 0.5, of every bin (H, W) of the full plane, DC first."""
    H, W = grid
    bins = [[bin_of(min(y, H - y), min(x, W - x), grid) for x in range(W)] for y in range(H)]
    return [[ring for ring, _ in row] for row in bins], [[high for _, high in row] for row in bins]


@functools.lru_cache(maxsize=256)
def half_plane(grid: tuple[int, int]) -> tuple[list[int], list[int], list[bool]]:
    """Of every bin that rfft2 returns, row-major: how often it stands in the full plane, its ring, whether r > 0.5."""
    H, W = grid
    times, ring, high = [], [], []
    for y in range(H):
        for kx in range(W // 2 + 1):
            ky = min(y, H - y)
            times.append(0 if ky == kx == 0 else 1 if kx == 0 or 2 * kx == W else 2)
            r, h = bin_of(ky, kx, grid)
            ring.append(r)
            high.append(h)
    return times, ring, high


def white_noise_hfd_share(grid: tuple[int, int]) -> float | None:
    """HFD share of white noise: the share of non-DC bins beyond r = 0.5. None where there is no frequency.

    >>> [round(white_noise_hfd_share((n, n)), 3) for n in (4, 7, 8, 14, 56)]
    [0.733, 0.833, 0.81, 0.815, 0.805]
    """
    times, _, high = half_plane(grid)
    total = sum(times)
    return sum(t for t, h in zip(times, high, strict=True) if h) / total if total else None

"""The numbers of one probe point. May import records."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
INPUT = "input"
"""Name, kind and op of the images themselves; their depth is 0 in files and \"input\" where it is shown."""


@dataclass(frozen=True)
class Change:
    """A change of each bin (K,), nats, and its standard error, paired over image groups."""

    change: Array
    stderr: Array


@dataclass(frozen=True)
class Step:
    """A point minus the point before it on the same grid.

    Attributes:
        origin: name of the point before.
        log_amplitude: change of a(f). delta: change of a(f) - a(0); None in results of version 1.
    """

    origin: str
    log_amplitude: Change
    delta: Change | None


@dataclass(frozen=True)
class Radial:
    """The radial profile: radius (R,), log_density (R,), nats, 0 for white noise on every grid, and its stderr (R,)."""

    radius: Array
    log_density: Array
    stderr: Array


@dataclass(frozen=True)
class RadialProfile:
    """A further radial metric: value (R,) at the radii of the point, and its standard error (R,)."""

    value: Array
    stderr: Array


@dataclass(frozen=True)
class Singular:
    """Singular values of the tokens of an image: mean over images of ln(s_i / s_1) (M,), nats, and its stderr (M,)."""

    value: Array
    stderr: Array


@dataclass(repr=False)
class PointSpectrum:
    """The spectra of one probe point.

    Attributes:
        name, kind, op, depth, grid, channels: see `fourier_probe.probe.points.Point`.
        frequency: (K,) of the diagonal, pi rad/sample per axis, 0 first.
        usable: number of leading bins fit for comparison (Nyquist is not).
        log_amplitude: (K,) a(f), nats. delta: a(f) - a(0). stderr: jackknife standard error of delta over images.
        radius, log_density, log_density_stderr: (R,) radial profile, 0 nats for white noise on every grid.
        scalars: hfd_share, hfd_share_pooled, slope, variance, ac_dc, token_cosine, and white_delta, the delta of white
            noise with the mean and variance of each channel of this point; and what else the file holds.
        stderr_of: standard error of each scalar.
        profiles: further radial metrics by name, at `radius`.
        hfd_share_white: HFD share of white noise on this grid. dead_channels: share of constant channels.
        step: change from the point before on the same grid, or None.
        sums: (G, ...) group sums, "count" among them; None when read without the .npz.
        map: (H, W) mean 2-D log-amplitude, DC in the middle, where it was asked for. map_stderr: (H, W) its standard
            error over images.
        singular: spectrum of the tokens of an image, where it was asked for.
        gate: of the halves of gated attention, the share of the positional half per head, 0 to 1.

    >>> import torch
    >>> import fourier_probe as fp
    >>> layers = [torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU()]
    >>> point = fp.analyze(torch.nn.Sequential(*layers), [torch.rand(20, 3, 8, 8)]).points[-1]
    >>> point.grid, point.frequency.tolist(), point.usable
    ((8, 8), [0.0, 0.25, 0.5, 0.75, 1.0], 4)
    """

    name: str
    kind: str
    op: str
    depth: float
    grid: tuple[int, int]
    channels: int
    frequency: Array
    usable: int
    log_amplitude: Array
    delta: Array
    stderr: Array
    radius: Array | None = None
    log_density: Array | None = None
    log_density_stderr: Array | None = None
    scalars: dict[str, float] = field(default_factory=dict)
    stderr_of: dict[str, float] = field(default_factory=dict)
    profiles: dict[str, RadialProfile] = field(default_factory=dict)
    hfd_share_white: float | None = None
    dead_channels: float | None = None
    step: Step | None = None
    sums: dict[str, Array] | None = None
    map: Array | None = None
    map_stderr: Array | None = None
    singular: Singular | None = None
    gate: list[float] | None = None

    @property
    def highest(self) -> float:
        """Highest usable frequency, pi rad/sample; 0 where the map has none."""
        return float(self.frequency[max(self.usable - 1, 0)])

    @property
    def radial(self) -> Radial | None:
        """The radial profile, or None where it was not computed."""
        if self.radius is None or self.log_density is None or self.log_density_stderr is None:
            return None
        return Radial(self.radius, self.log_density, self.log_density_stderr)

    def __repr__(self) -> str:
        high = f", delta {self.delta[self.usable - 1]:+.2f} at {self.highest:.2f} pi" if self.highest > 0 else ""
        grid = "x".join(map(str, self.grid))
        return (
            f"PointSpectrum({self.name!r}, {self.op}, depth {self.depth:.2f}, {grid}, {self.channels} channels{high})"
        )

"""Independent float64 numpy implementations of the definitions, written for reading and not for speed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def published_delta(features: Array, floor: float = 1e-6) -> tuple[Array, Array]:
    """The published steps on (B, C, N, N): fft2, shift, log, mean, half of the diagonal, minus its first value."""
    maps = np.asarray(features, dtype=np.float64)
    spectrum = np.fft.fftshift(np.fft.fft2(maps), axes=(-2, -1))
    logs = np.log(np.abs(spectrum) + floor).mean(axis=(0, 1))
    diagonal = np.diag(logs)[logs.shape[0] // 2 :]
    return np.linspace(0, 1, len(diagonal)), diagonal - diagonal[0]


def log_amplitude(features: Array, floor: float = 1e-6) -> Array:
    """a(f) along the diagonal of (B, C, H, W), read bin by bin, interpolated on the longer axis."""
    maps = np.asarray(features, dtype=np.float64)
    logs = np.log(np.abs(np.fft.fft2(maps)) + floor).mean(axis=(0, 1))
    H, W = logs.shape
    short = min(H, W)
    out = []
    for j in range(short // 2 + 1):
        y, x = j * H / short, j * W / short
        y0, x0 = int(np.floor(y)), int(np.floor(x))
        weight = (y - y0) + (x - x0)  # one of the two is zero
        y1, x1 = (y0 + (y > y0)) % H, (x0 + (x > x0)) % W
        out.append((1 - weight) * logs[y0, x0] + weight * logs[y1, x1])
    return np.array(out)


def plane(features: Array) -> tuple[Array, Array]:
    """Power |F|^2 (B, C, H, W) and the radius (H, W) of each bin."""
    maps = np.asarray(features, dtype=np.float64)
    H, W = maps.shape[-2:]
    radius = np.hypot(2 * np.fft.fftfreq(H)[:, None], 2 * np.fft.fftfreq(W)[None, :])
    return np.abs(np.fft.fft2(maps)) ** 2, radius


def log_density(features: Array) -> tuple[Array, Array]:
    """Radii and ln(mean power of the ring / mean power of all non-DC bins)."""
    power, radius = plane(features)
    mean = power.mean(axis=(0, 1))
    short = min(mean.shape)
    other = radius > 0
    ring = np.floor(radius * short / 2 + 0.5 + 1e-9)
    rings = np.arange(1, short // 2 + 1)
    return 2 * rings / short, np.log([mean[(ring == m) & other].mean() / mean[other].mean() for m in rings])


def hfd_share(features: Array) -> Array:
    """(B, C) power beyond r = 0.5 over all non-DC power."""
    power, radius = plane(features)
    high, other = radius > 0.5 + 1e-12, radius > 0
    return power[..., high].sum(-1) / power[..., other].sum(-1)


def token_cosine(features: Array) -> float:
    """Mean over images of the mean cosine between position vectors i != j."""
    values = []
    for image in np.asarray(features, dtype=np.float64):
        vectors = image.reshape(len(image), -1).T
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosine = unit @ unit.T
        values.append(cosine[~np.eye(len(unit), dtype=bool)].mean())
    return float(np.mean(values))

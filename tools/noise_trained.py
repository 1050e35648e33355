"""Two CNNs whose heat maps must differ as Yin et al. (1906.08988) found: `python tools/noise_trained.py [OUT]`.

One is trained on the bundled images, the other on the same images with Gaussian noise of standard deviation 0.1 (pixels
in [0, 1], drawn anew for each of REPEATS copies of an image); all else is equal. Each becomes a file of
OUT (checkpoints/noise), weights in half precision and no optimizer state. A quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from ship import ship

import fourier_probe as fp

ARMS = {"clean": 0.0, "gaussian": 0.1}
REPEATS = 4
TRAINING = {"model": "cifar_resnet8", "epochs": 12, "hflip": 0.5, "val_split": 0.1, "schedule": "none", "seed": 0}


@fp.register_source("noisy")
def noisy(request: fp.SourceRequest) -> fp.ImageSet:
    """Bundled images with Gaussian noise: noisy:SIGMA; training images REPEATS times, test images once and clean."""
    sigma, clean = float(request.argument or 0), fp.open_data("bundled", request.split)
    if request.split != "train" or clean.pixels is None or clean.labels is None:
        return replace(clean, source=request.source)
    random = np.random.default_rng(0)
    copies = [clean.pixels / 255 + sigma * random.standard_normal(clean.pixels.shape) for _ in range(REPEATS)]
    pixels = (np.concatenate(copies).clip(0, 1) * 255).round().astype(np.uint8)
    return replace(clean, source=request.source, pixels=pixels, labels=np.tile(clean.labels, REPEATS))


def main() -> None:
    """Train both, ship both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, nargs="?", default=Path("checkpoints/noise"))
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        for arm, sigma in ARMS.items():
            run = fp.train(data=f"noisy:{sigma}", out=Path(name) / arm, device="cpu", threads=asked.threads, **TRAINING)
            print(f"{arm}: test top-1 {run.result.test_acc:.1%}")
            ship(run, Path(name) / f"{arm}-small", weights=True)
            shutil.copy(Path(name) / f"{arm}-small" / "last.pt", asked.out / f"{arm}.pt")


if __name__ == "__main__":
    main()

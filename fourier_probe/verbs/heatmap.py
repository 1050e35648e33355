"""What noise of each frequency does to a network: a target and images in, a `HeatMap` out.

May import everything but training and cli; figures are drawn only where a folder is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fourier_probe.errors import DataError, ModelError
from fourier_probe.io import atomic
from fourier_probe.probe.heatmap import NoiseProbe
from fourier_probe.probe.points import find_points
from fourier_probe.results.heatmap import FIGURES, FILES, HeatMap
from fourier_probe.runtime.distributed import device_of
from fourier_probe.targets import ModelOptions, Target
from fourier_probe.verbs.noise import NoiseOptions, measure
from fourier_probe.verbs.opening import AnyTarget, Data, ImageOptions, is_source, open_any, open_source
from fourier_probe.verbs.partial import Partial
from fourier_probe.verbs.pixels import pixels_of_batches, pixels_of_source


def heatmap(
    target: AnyTarget,
    data: Data | None = None,
    *,
    bands: int | None = None,
    eps: float | None = None,
    stride: int = 1,
    seed: int = 0,
    points: Sequence[str] = (),
    images: int = 1000,
    split: str = "test",
    batch_size: int = 32,
    workers: int = 0,
    skip_bad: bool = False,
    img_size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: torch.device | str | None = None,
    label: str | None = None,
    out: Path | str | None = None,
    force: bool = False,
    model: str | None = None,
    model_args: dict[str, Any] | None = None,
    pretrained: bool = False,
    use_ema: bool | None = None,
    untrained: bool = False,
    key: str | None = None,
    prefix: str | None = None,
    ignore_extra: bool = False,
) -> HeatMap:
    """Top-1 error and feature change under noise of each frequency (Yin et al. 2019), or of each of some bands.

    Args:
        target: a module, what the command line calls TARGET, or an opened target.
        data: a source's name, an opened source, or batches of images, with labels or without. Batches are normalised
            with `mean` and `std` where these are given, else they are pixels from 0 to 1. By default what the target
            was trained on, else the bundled images.
        bands: noise limited to each of so many bands of radii, instead of single frequencies.
        eps: L2 norm of the noise per channel, pixels in [0, 1]; 4.0 at 32 pixels and 15.7 at 224 by default.
        stride: measure every so many frequencies of each axis.
        seed: of the noise.
        points: also the mean relative change of features at these probe points.
        images: how many at most, spread evenly over the source.
        split: of the source.
        batch_size: images, or images times frequencies, of a forward.
        workers: processes that read image files.
        skip_bad: leave unreadable images out, counted in the result.
        img_size: (H, W) the model wants to see, where it does not say.
        mean: per channel, in [0, 1], likewise.
        std: likewise.
        device: where to run. A network is left where it is by default, and brought back; a named target runs on a GPU
            where there is one.
        label: what tables and figures call the target.
        out: folder for heatmap.json, its CSV and figure; an interrupted run with the same options goes on from there.
        force: overwrite results in `out`.
        model: architecture of a checkpoint that does not say.
        model_args: its arguments.
        pretrained: for `timm:NAME`, fetch the published weights.
        use_ema: probe the EMA weights or the raw ones; by default EMA where the file has it.
        untrained: probe the same architecture before any training.
        key: where in a file the weights are.
        prefix: take the weights whose names begin with it, without it.
        ignore_extra: leave out weights that the network has no place for.

    Raises:
        DataError: an option that cannot be, or labels that cannot be the model's, with no points to listen at.
        ProbeError: the target, the images or the folder cannot be used.

    >>> import fourier_probe as fp
    >>> model = fp.create("cifar_resnet8", num_classes=10, in_chans=1, width=4)
    >>> fp.heatmap(model, "bundled", stride=8, images=20, points=["layer3.0"]).quantities  # doctest: +SKIP
    ['error', 'change:layer3.0']
    """
    if batch_size < 1:
        raise DataError(f"batch size {batch_size}: expected at least 1.")
    options = NoiseOptions(bands=bands, eps=eps, stride=stride, seed=seed)
    folder = None if out is None else atomic.output_folder(out, results=(*FILES, *FIGURES), force=force)
    opened = open_any(
        target, ModelOptions(model, model_args, pretrained, use_ema, untrained, key, prefix, ignore_extra), label=label
    )
    if device is None and not isinstance(target, nn.Module | Target):
        device = "auto"
    network = opened.model
    if network is None:
        raise ModelError(f"{opened.label} is a saved result: there is no model to disturb.")
    if is_source(data):
        fitting = ImageOptions(images, split, batch_size, workers, skip_bad, img_size, mean, std)
        read = pixels_of_source(*open_source(opened, data, fitting), batch_size, workers)
    else:
        if img_size is not None:
            opened.input_spec(img_size=img_size)
        read = pixels_of_batches(data, images, mean, std)
    home = next(network.parameters(), torch.zeros(())).device
    where = home if device is None else device_of(str(device))
    try:
        network.to(where)
        selected = find_points(network, read.pixels[:1].to(where), select=list(points)) if points else []
        normalised = (read.record.mean, read.record.std)
        noise = NoiseProbe(network, read.pixels, read.labels, *normalised, selected, batch_size, where)
        heat = measure(noise, opened, read, options, folder)
    finally:
        network.to(home)
    if folder is not None:
        heat.save(folder, force=True)
        Partial.remove(folder)
        from fourier_probe.plots import save_each

        save_each({"bands" if bands else "heatmap": heat.plot}, folder)
    return heat

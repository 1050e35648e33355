"""What noise of each frequency, or a filter, does to networks: targets and images in, heat maps out.

May import everything but training and cli; figures are drawn only where a folder is named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import torch

from fourier_probe.errors import DataError, ModelError
from fourier_probe.io import atomic
from fourier_probe.io.locks import held
from fourier_probe.probe.heatmap import NoiseProbe
from fourier_probe.probe.points import find_points
from fourier_probe.results.heatmap import FIGURES, FILES, NAMES, HeatMap
from fourier_probe.results.heatmap_set import HeatMaps, folder_names
from fourier_probe.results.labels import told_apart
from fourier_probe.runtime.distributed import device_of, rank_and_world
from fourier_probe.targets import ModelOptions, Target
from fourier_probe.verbs.noise import NoiseOptions, measure
from fourier_probe.verbs.opening import AnyTarget, Data, ImageOptions, device_for, is_source, open_any, open_source
from fourier_probe.verbs.partial import Partial
from fourier_probe.verbs.pixels import pixels_of_batches, pixels_of_source


@overload
def heatmap(target: AnyTarget, data: Data | None = None, **options: Any) -> HeatMap: ...
@overload
def heatmap(target: Sequence[AnyTarget], data: Data | None = None, **options: Any) -> HeatMaps: ...
def heatmap(  # type: ignore[misc]  # the options are those below
    target: AnyTarget | Sequence[AnyTarget],
    data: Data | None = None,
    *,
    bands: int | None = None,
    filters: bool = False,
    eps: float | None = None,
    stride: int = 1,
    seed: int = 0,
    points: Sequence[str] = (),
    grid: tuple[int, int] | None = None,
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
    labels: Sequence[str | None] | None = None,
    out: Path | str | None = None,
    force: bool = False,
    model: str | None = None,
    model_args: dict[str, object] | None = None,
    pretrained: bool = False,
    use_ema: bool | None = None,
    untrained: bool = False,
    key: str | None = None,
    prefix: str | None = None,
    ignore_extra: bool = False,
) -> HeatMap | HeatMaps:
    """Top-1 error and feature change under noise of each frequency (Yin et al. 2019) or band, or without frequencies.

    Noise asks what disturbs a network, a filter what it needs. Beside noise stands the sensitivity spectrum, the power
    of d loss / d image by radius, which predicts it to first order and costs one backward pass.

    Under torchrun the frequencies, bands or filters are shared out.

    Args:
        target: a module, what the command line calls TARGET, or an opened target; or a list of these.
        data: a source's name, an opened source, or batches of images, with labels or without. Batches are normalised
            with `mean` and `std` where these are given, else they are pixels from 0 to 1. By default what the target
            was trained on, else the bundled images.
        bands: noise limited to each of so many bands of radii, instead of single frequencies.
        filters: in place of noise, keep the radii up to a cut-off (low), those beyond it and the mean (high), or all
            but a band (removed), before normalisation; cut-offs are multiples of 1 / `bands`, 8 by default.
        eps: L2 norm of the noise per channel, pixels in [0, 1]; 4.0 at 32 pixels and 15.7 at 224 by default.
        stride: measure every so many frequencies of each axis.
        seed: of the noise.
        points: also the mean relative change of features at these probe points.
        grid: (H, W) of token sequences whose order cannot be learnt.
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
        labels: of several targets, one for each; None keeps a target's own.
        out: folder for heatmap.json, its CSV and figure, of several targets a folder each in it; an interrupted run
            with the same options goes on from there, also with another number of ranks.
        force: overwrite results in `out`.
        model: architecture of a checkpoint that does not say.
        model_args: its arguments.
        pretrained: for `timm:NAME`, fetch the published weights.
        use_ema: probe the EMA weights or the raw ones; by default EMA where the file has it.
        untrained: probe the same architecture before any training.
        key: where in a file the weights are.
        prefix: take the weights whose names begin with it, without it.
        ignore_extra: leave out weights that the network has no place for.

    Returns:
        A `HeatMap`; of a list, `HeatMaps`.

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
    options = NoiseOptions(bands=bands, eps=eps, stride=stride, seed=seed, filters=filters)
    several = isinstance(target, Sequence) and not isinstance(target, str)
    targets: Sequence[AnyTarget] = target if several else [target]  # type: ignore[assignment,list-item]
    names = _labels(targets, [label] if labels is None and not several else labels, label if several else None)
    first = rank_and_world()[0] == 0
    wanted = (*FILES, *FIGURES, *([f"*/{FILES[0]}"] if several else []))
    folder = None if out is None else Path(out)
    if folder is not None and first:
        atomic.output_folder(folder, results=wanted, force=force)
    with (
        contextlib.nullcontext()
        if folder is None or not first
        else held(folder, "writing a heat map into", leave=False)
    ):
        model_options = ModelOptions(model, model_args, pretrained, use_ema, untrained, key, prefix, ignore_extra)
        opened = [open_any(one, model_options, label=name) for one, name in zip(targets, names, strict=True)]
        labelled, provenances = [one.label for one in opened], [one.provenance for one in opened]
        apart = told_apart(labelled, provenances, [one.name for one in opened])
        opened = [replace(one, label=name or own) for one, name, own in zip(opened, names, apart, strict=True)]
        if data is None:
            named = next((one.data for one in opened if one.data is not None), None)
            opened = [replace(one, data=named) for one in opened]
        if several and isinstance(data, Iterator):
            raise DataError(
                "heatmap reads the data once for each target, and these can be read once only: give a list."
            )
        folders: list[Path | None] = [folder]
        if several:
            below = folder_names([one.label for one in opened])
            folders = [None if folder is None else folder / name for name in below]
        fitting = ImageOptions(images, split, batch_size, workers, skip_bad, img_size, mean, std)
        heats = [
            _measured(one, data, fitting, options, points, grid, device_for(original, device), own)
            for one, original, own in zip(opened, targets, folders, strict=True)
        ]
        result: HeatMap | HeatMaps = HeatMaps(tuple(heats)) if several else heats[0]
        if folder is not None and first:
            from fourier_probe.plots import save_each

            result.save(folder, force=True)
            for own in folders:
                Partial.remove(own or folder)
            save_each({NAMES[options.kind]: result.plot}, folder)
        return result


def _labels(targets: Sequence[AnyTarget], labels: Sequence[str | None] | None, label: str | None) -> list[str | None]:
    """One for each target, or none for any."""
    if label is not None:
        raise DataError("label= is for one target: give labels=, one for each.")
    if not targets:
        raise ModelError("heatmap needs a target: the list is empty.")
    if labels is None:
        return [None] * len(targets)
    if len(labels) != len(targets):
        raise DataError(f"there are {len(targets)} targets and {len(labels)} labels: give one for each, in order.")
    return list(labels)


def _measured(
    target: Target,
    data: Data | None,
    fitting: ImageOptions,
    options: NoiseOptions,
    points: Sequence[str],
    grid: tuple[int, int] | None,
    device: torch.device | str | None,
    folder: Path | None,
) -> HeatMap:
    """The heat map of one opened target, which is left where it was."""
    network = target.model
    if network is None:
        raise ModelError(f"{target.label} is a saved result: there is no model to disturb.")
    if is_source(data):
        read = pixels_of_source(*open_source(target, data, fitting), fitting.batch_size, fitting.workers)
    else:
        if fitting.img_size is not None:
            target.input_spec(img_size=fitting.img_size)
        read = pixels_of_batches(data, fitting.images or 0, fitting.mean, fitting.std)
    home = next(network.parameters(), torch.zeros(())).device
    where = home if device is None else device_of(str(device))
    try:
        network.to(where)
        selected = find_points(network, read.pixels[:1].to(where), select=list(points), grid=grid) if points else []
        normalised = (read.record.mean, read.record.std)
        noise = NoiseProbe(network, read.pixels, read.labels, *normalised, selected, fitting.batch_size, where)
        return measure(noise, target, read, options, folder)
    finally:
        network.to(home)

"""`analyze`: a target and images -> spectra. May import everything but cli; plots only where a folder is named."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import torch
from torch import nn

from fourier_probe.errors import ModelError
from fourier_probe.io import atomic
from fourier_probe.io.tables import write_frame
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.measuring import measure
from fourier_probe.probe.points import Point
from fourier_probe.results.analysis import spectra_of
from fourier_probe.results.filenames import ANALYZE
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime.interrupt import interruptible
from fourier_probe.runtime.messages import note, progress
from fourier_probe.targets import ModelOptions, Target
from fourier_probe.verbs.beside import add_attention, add_kernels, cka_of
from fourier_probe.verbs.earlier_names import analyze_as_in_0_1
from fourier_probe.verbs.opening import AnyTarget, Data, ImageOptions, device_for, open_any, open_stream
from fourier_probe.verbs.probing import ProbeOptions, precision_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def analyze(
    target: AnyTarget | None = None,
    data: Data | None = None,
    *,
    images: int | None = 1000,
    split: str = "test",
    batch_size: int = 32,
    workers: int = 0,
    skip_bad: bool = False,
    img_size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    points: Sequence[str] | Sequence[Point] = (),
    branches: bool = True,
    metrics: Literal["all", "diagonal"] = "all",
    axis: Literal["true", "paper"] = "true",
    log: Literal["floor", "log1p", "plain"] = "floor",
    floor: float = 1e-6,
    window: Literal["none", "hann"] = "none",
    definition: Definition | None = None,
    maps: bool = False,
    map_scale: Literal["common", "panel"] = "common",
    attention: bool = False,
    kernels: bool = False,
    tokens: bool = False,
    cka: bool = False,
    strict: bool = False,
    self_check: bool = True,
    grid: tuple[int, int] | None = None,
    device: torch.device | str | None = None,
    amp: str | torch.dtype | None = None,
    channels_last: bool | None = None,
    label: str | None = None,
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
    **old: object,
) -> Spectra:
    """Relative log-amplitude spectra, and the other metrics, of every layer of a network over a set of images.

    Args:
        target: a network, what the command line calls TARGET, or an opened target.
        data: a source's name, an opened source, a DataLoader, or any iterable of batches (B, C, H, W) already
            normalised for the network, or of (batch, labels). By default what the target was trained on, else the
            bundled images. A source is fitted to the network: resized and normalised as it says.
        images: at most so many, spread evenly over the split and its classes; of batches, the first so many; None: all.
        split: of a source: "train", "val" or "test".
        batch_size: images of a forward.
        workers: processes that read image files.
        skip_bad: leave unreadable images out, counted in the result, instead of stopping.
        img_size: (H, W) the network wants to see, pixels, where it does not say.
        mean: per channel, in [0, 1], likewise.
        std: likewise.
        points: globs of module or point names, or `Point`s, to listen at instead of the network's own points.
        branches: also the branches of EIT and the halves of gated attention.
        metrics: "all", or "diagonal" for log-amplitude along the diagonal alone.
        axis: "true" frequencies, or the published ones ("paper").
        log: ln(|F| + floor), ln(1 + |F|) or ln |F|.
        floor: of the first.
        window: "hann" against leakage from the borders.
        definition: all of the five above in one; comes before them.
        maps: also the mean 2-D log-amplitude of each point, and its figure.
        map_scale: colours of that figure: "common" to all panels, or one scale per "panel".
        attention: also distance, diversity, response, NMI and gates of each attention layer, on 64 images; of gated
            attention also what the network relies on (`Spectra.reliance`), on all of them, where they have labels.
        kernels: also the response of the kernel of each convolution; with `attention`, of each attention map too.
        tokens: also effective rank and singular values of the tokens of each image, at every point.
        cka: also how alike all points are (linear CKA of positions-averaged features).
        strict: stop where a step cannot be read or a map lies elsewhere than said; a note otherwise.
        self_check: test where the maps lie, with six forwards of one image.
        grid: (H, W) of token sequences whose order cannot be learnt, such as (14, 14).
        device: where to run. A network is left where it is by default, and brought back; a named target runs on a GPU
            where there is one.
        amp: "bf16" or "fp16": precision of the forward; spectra are computed in float32 or better.
        channels_last: whether images and convolutions lie channels-last in memory, for speed: rounding differs and
            nothing else. By default in convolutional networks that give the same then.
        label: what tables and figures call the target.
        out: folder for spectra.json, .npz, .csv and the figures; by default nothing is written.
        force: overwrite results that are there.
        model: architecture of a checkpoint that does not say.
        model_args: its arguments.
        pretrained: for `timm:NAME`, fetch the published weights.
        use_ema: the EMA weights or the raw ones; by default EMA where the file has it.
        untrained: the same architecture before any training.
        key: where in a file the weights are.
        prefix: take the weights whose names begin with it, without it.
        ignore_extra: leave out weights that the network has no place for.
        **old: keyword names of version 0.1, which warn.

    Returns:
        The spectra. Interrupted with Ctrl-C, those of the images seen so far, marked in `.images`.

    Raises:
        ProbeError: a leaf of it that says what is wrong and what to do.

    >>> import fourier_probe as fp
    >>> spectra = fp.analyze(fp.create("cifar_resnet8", num_classes=10, in_chans=1), "bundled", images=40)
    >>> spectra.points[-1].name, spectra.points[-1].grid
    ('layer3.0', (8, 8))
    """
    if isinstance(model, nn.Module) or not (images is None or isinstance(images, Integral)) or old:
        added = {"out": out, "label": label, "attention": attention, "strict": strict, "model_args": model_args,
                 "pretrained": pretrained, "untrained": untrained}  # fmt: skip
        if mixed := next((name for name, value in added.items() if value), None):
            raise TypeError(f"analyze() takes {mixed}= only without the keyword names of version 0.1")
        return analyze_as_in_0_1(target, data, model, images, old, definition=definition, metrics=metrics,
                                 points=points, branches=branches, maps=maps, device=device, amp=amp)  # fmt: skip
    if target is None:
        raise ModelError("analyze needs a target: a network, a name or path, or an opened target.")
    folder = None if out is None else atomic.output_folder(out, results=ANALYZE, force=force)
    opened = open_any(
        target, ModelOptions(model, model_args, pretrained, use_ema, untrained, key, prefix, ignore_extra), label=label
    )
    device = device_for(target, device)
    computed = definition or Definition(log=log, floor=floor, window=window, axis=axis, metrics=metrics)
    result = analyze_target(
        opened,
        data,
        ImageOptions(images, split, batch_size, workers, skip_bad, img_size, mean, std),
        ProbeOptions(
            points=points, branches=branches, maps=maps, strict=strict, self_check=self_check, tokens=tokens, cka=cka,
            grid=grid, definition=computed, map_scale=map_scale, attention=attention, kernels=kernels, device=device,
            amp=amp, channels_last=channels_last,
        ),
    )  # fmt: skip
    if folder is not None:
        write(result, opened.label, folder, map_scale=map_scale)
    return result


def analyze_target(
    target: Target,
    data: Data | None,
    images: ImageOptions,
    probe: ProbeOptions,
    *,
    rank: int = 0,
    world: int = 1,
) -> Spectra:
    """Spectra of an opened target: the one way from a target and data to a result, for every verb.

    Under torchrun every rank calls it with its number; all of them return the whole result.
    """
    if target.model is None:
        raise ModelError(f"{target.label} is a saved result: there is no model to analyze.")
    stream = open_stream(target, data, images, rank=rank, world=world)
    with interruptible() as interrupt, progress(f"analyze {target.label}", stream.share) as advance:
        totals = measure(
            target.model,
            interrupt.stopping(stream.batches),
            probe.definition,
            probe,
            device=probe.device,
            amp=precision_of(probe.amp),
            channels_last=probe.channels_last,
            classes=stream.classes,
            progress=advance,
        )
        result = spectra_of(
            totals, probe.definition, target=target.provenance, source=stream.source, selected=bool(probe.points)
        )
    if interrupt.requested and result.images.n != stream.total:
        result.images = msgspec.structs.replace(result.images, interrupted=True)
        note(f"interrupted: these are the spectra of the first {result.images.n} images.")
    for excluded in result.excluded:
        note(f"{excluded.name} is left out: {excluded.reason}.")
    if idle := _idle(result):
        more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
        note(
            f"{len(idle)} steps change nothing ({', '.join(idle[:3])}{more}): their points equal the ones before. "
            "Untrained residual blocks of timm do this: they begin as the identity."
        )
    if probe.cka:
        result.cka = cka_of(result, result, target.label, target.label)
    if probe.kernels and rank == 0:
        add_kernels(result, target, probe)
    if probe.attention and rank == 0:
        add_attention(result, target, stream, data, probe)
    return result


def _idle(result: Spectra) -> list[str]:
    """Points of the stream whose spectra are, digit by digit, those of the point before."""
    return [
        after.name
        for before, after in itertools.pairwise(result.stream)
        if before.grid == after.grid and np.array_equal(before.log_amplitude, after.log_amplitude)
    ]


def write(result: Spectra, label: str, folder: Path, *, map_scale: str = "common") -> list[str]:
    """The three result files, tables of what was measured beside, then the figures; returns what was written."""
    from fourier_probe.plots import depth_figure, save_each, spectra_figure
    from fourier_probe.results.parts import parts_of
    from fourier_probe.results.profile import has_frequencies

    parts = parts_of(result)
    with atomic.staged(folder, (*ANALYZE[1:], ANALYZE[0])) as stage:  # the result itself last, old figures go
        for part in parts:
            if part.frame is not None:
                write_frame(stage / f"{part.name}.csv", part.frame(result))
        result.save(stage)
    figures: dict[str, Callable[[], Figure]] = {"spectra": lambda: spectra_figure([result], [label])}
    if has_frequencies(result):
        figures["depth"] = lambda: depth_figure([result], [label])
        left_out_note([result])
    else:
        note("no point has two usable frequencies, so there is no depth profile to draw.")
    options = {"maps": {"scale": map_scale}}
    for part in parts:
        figures[part.name] = functools.partial(part.draw, result, label, **options.get(part.name, {}))
    save_each(figures, folder)
    return [name for name in ANALYZE if (folder / name).exists()]


def left_out_note(results: list[Spectra]) -> None:
    """Say which points a depth profile cannot show."""
    from fourier_probe.results.profile import profile, view_of

    view = view_of(results)
    names = list(dict.fromkeys(name for result in results for name in profile(result, view).left_out))
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        note(f"maps too small to have {view.heading} are not in the profile: {', '.join(names[:5])}{more}.")

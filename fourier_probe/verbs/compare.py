"""`compare`: several targets or saved results on the same images. May import everything but cli."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import torch

from fourier_probe.data.trust import NamedData
from fourier_probe.errors import DataError, ModelError, ResultError, printable
from fourier_probe.io import atomic
from fourier_probe.io.folders import is_run
from fourier_probe.io.paths import expanded
from fourier_probe.probe.cka import LEAST
from fourier_probe.probe.definition import Definition
from fourier_probe.results.cka import CkaRecord
from fourier_probe.results.comparison import Comparison
from fourier_probe.results.filenames import COMPARE
from fourier_probe.results.labels import arguments, told_apart
from fourier_probe.results.side_by_side import check_comparable
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime.messages import note
from fourier_probe.targets import ModelOptions, Target, has_saved
from fourier_probe.verbs.analyze import analyze_target, left_out_note
from fourier_probe.verbs.beside import cka_of
from fourier_probe.verbs.epochs import compare_epochs, switches_of
from fourier_probe.verbs.opening import AnyTarget, Data, ImageOptions, open_any
from fourier_probe.verbs.probing import ProbeOptions

Compared = AnyTarget | Spectra
"""A target, or a result."""


def compare(
    targets: Sequence[Compared | Sequence[Compared]],
    data: Data | None = None,
    *,
    labels: Sequence[str | None] | None = None,
    by: Literal["model", "data-scale", "schedule", "epoch"] = "model",
    cnn: Compared | None = None,
    vit: Compared | None = None,
    with_untrained: bool = False,
    images: int | None = 1000,
    split: str = "test",
    batch_size: int = 32,
    workers: int = 0,
    skip_bad: bool = False,
    img_size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    axis: Literal["true", "paper"] = "true",
    maps: bool = False,
    cka: bool = False,
    map_scale: Literal["common", "panel"] = "common",
    grid: tuple[int, int] | None = None,
    device: torch.device | str | None = None,
    amp: str | torch.dtype | None = None,
    channels_last: bool | None = None,
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
) -> Comparison:
    """Spectra, depth profiles and step changes of several targets, analyzed on the same images or read from files.

    Args:
        targets: networks, names, opened targets, saved results as paths or as objects, mixed. A list in the list is one
            arm: its members are seeds, and the arm has a mean and an interval over them.
        data: as for `analyze`; by default what the first target was trained on. Batches must be a list, since every
            target reads them.
        labels: of the targets, one for each (of an arm, one for all of its seeds); None keeps a target's own.
        by: panels of the figure of spectra: a target each, or models by data scale, schedule or epoch; "epoch" of run
            folders reads the spectra that they wrote with --probe-every.
        cnn: the end at 0 of the inductive-bias coordinate; with `vit`.
        vit: the end at 1.
        with_untrained: also each architecture before training, as a reference.
        images: as for `analyze`, and so on.
        split: of a source.
        batch_size: images of a forward.
        workers: processes that read image files.
        skip_bad: leave unreadable images out.
        img_size: (H, W) the networks want to see.
        mean: per channel.
        std: likewise.
        axis: "true" frequencies, or the published ones ("paper").
        maps: also the mean 2-D log-amplitude of each point, and its figure; of saved results, where they hold it.
        cka: also how alike the points of each pair of targets are, and of each target; not of saved results.
        map_scale: colours of the figure of maps: "common" to all panels, or one scale per "panel".
        grid: (H, W) of token sequences whose order cannot be learnt.
        device: where to run.
        amp: "bf16" or "fp16".
        channels_last: memory layout of images and convolutions, for speed; as for `analyze`.
        out: folder for the tables and figures; by default nothing is written.
        force: overwrite results that are there.
        model: architecture of the checkpoints that do not say.
        model_args: its arguments.
        pretrained: for `timm:NAME`.
        use_ema: the EMA weights or the raw ones.
        untrained: probe the architectures before any training.
        key: where in a file the weights are.
        prefix: take the weights whose names begin with it, without it.
        ignore_extra: leave out weights that the network has no place for.

    Raises:
        ResultError: results that cannot be compared; names both and what differs.
        ProbeError: a target or the data cannot be used.

    >>> import fourier_probe as fp
    >>> nets = [fp.create(f"cifar_{name}", num_classes=10, in_chans=1) for name in ("resnet8", "vit_patch4")]
    >>> fp.compare(nets, "bundled", labels=["CNN", "ViT"], images=40)
    Comparison(CNN, ViT; 40 images of bundled, log density at r 1.00)
    """
    if (cnn is None) != (vit is None):
        raise ResultError("cnn and vit are the two ends of one segment: give both, or neither.")
    flat, arms, names = _flattened(targets, labels)
    if by == "epoch" and (runs := [name for name in flat if isinstance(name, str | Path) and is_run(name)]) == flat:
        if cnn is not None or with_untrained:
            raise ResultError("by='epoch' reads what runs have written: cnn, vit and with_untrained do nothing.")
        return compare_epochs([Path(run) for run in runs], out, force=force)
    folder = None if out is None else atomic.output_folder(out, results=COMPARE, force=force)
    ends: list[Compared] = [end for end in (cnn, vit) if end is not None]
    model_options = ModelOptions(model, model_args, pretrained, use_ema, untrained, key, prefix, ignore_extra)
    comparison = compare_opened(
        [*flat, *ends],
        data,
        model_options,
        ImageOptions(images, split, batch_size, workers, skip_bad, img_size, mean, std),
        ProbeOptions(
            definition=Definition(axis=axis),
            maps=maps,
            cka=cka,
            map_scale=map_scale,
            grid=grid,
            device=device,
            amp=amp,
            channels_last=channels_last,
        ),
        labels=[*names, *[None] * len(ends)],
        ends=len(ends),
        arms=arms,
        by=by,
        with_untrained=with_untrained,
    )
    if folder is not None:
        write(comparison, folder, map_scale=map_scale)
    return comparison


def compare_opened(
    targets: Sequence[Compared],
    data: Data | None,
    model: ModelOptions,
    images: ImageOptions,
    probe: ProbeOptions,
    *,
    labels: Sequence[str | None],
    ends: int = 0,
    arms: Sequence[str] = (),
    by: str = "model",
    with_untrained: bool = False,
    prefer_saved: bool = True,
) -> Comparison:
    """One result per target, all on the same images: those of `data`, else those the first target was trained on.

    Run folders that hold a result are taken by it if every target has one and `prefer_saved` is set; else models are
    analyzed where there are any. References before training come after the targets; the last `ends` are the ends of the
    coordinate.
    """
    saved = (
        prefer_saved
        and not probe.cka
        and data is None
        and not model
        and not with_untrained
        and all(map(_is_saved, targets))
    )
    opened = [_open(target, model, saved) for target in targets]
    if data is None:
        named = next((target.data for target in opened if target.data is not None and target.spectra is None), None)
        _say_other_data(opened, named)
        opened = [replace(target, data=named) for target in opened]
    shown = [label or _label(name, target) for label, name, target in zip(labels, targets, opened, strict=True)]
    if with_untrained:
        for reference, label in _references(targets, opened, model):
            opened.append(reference)
            shown.append(label)
    if isinstance(data, Iterator) and sum(target.spectra is None for target in opened) > 1:
        raise DataError("compare reads the data once for each target, and these can be read once only: give a list.")
    results = [target.spectra or _analyzed(target, data, images, probe) for target in opened]
    check_comparable(results)
    count = len(targets) - ends
    between = tuple(results[count : count + ends])
    if by == "epoch":
        epochs = [result.target.epoch for result in results]
        shown = [label if e is None else f"{label}, epoch {e}" for label, e in zip(shown, epochs, strict=True)]
    rows, names = _without_repeats(results, shown, [target.name for target in opened], count)
    membership = (*arms, *names[len(arms) :]) if arms else ()
    pairs = _cka(rows, names) if probe.cka else ()
    return Comparison(tuple(rows), tuple(names), by, between, membership, pairs)


def _say_other_data(targets: Sequence[Target], taken: NamedData | None) -> None:
    """A note where targets that are analyzed were trained on other images than those that all are given."""
    others = [
        f"{target.label} on {printable(target.data.source, 200)}"
        for target in targets
        if taken and target.spectra is None and target.data is not None and target.data.source != taken.source
    ]
    if taken and others:
        note(
            f"all are analyzed on {printable(taken.source, 200)}, which the first was trained on; {', '.join(others)}. "
            "--data names other images."
        )


def _cka(results: Sequence[Spectra], labels: Sequence[str]) -> tuple[CkaRecord, ...]:
    """CKA of each target with itself and with each after it; none of too few images, as each analysis has said."""
    records: list[CkaRecord] = []
    if min(result.images.n for result in results) < LEAST:
        return ()
    for at, (result, label) in enumerate(zip(results, labels, strict=True)):
        for other, name in zip(results[at:], labels[at:], strict=True):
            if other is result and result.cka is not None:
                records.append(msgspec.structs.replace(result.cka, a=label, b=label))
            elif (record := cka_of(result, other, label, name)) is not None:
                records.append(record)
    return tuple(records)


def _analyzed(target: Target, data: Data | None, images: ImageOptions, probe: ProbeOptions) -> Spectra:
    """The spectra of one target on all of the images: a part of them could not be compared."""
    result = analyze_target(target, data, images, probe)
    if result.images.interrupted:
        raise KeyboardInterrupt
    return result


def write(comparison: Comparison, folder: Path, *, map_scale: str = "common") -> list[str]:
    """Tables first, then figures; returns the names of what was written."""
    from fourier_probe.plots import save_each

    figures = comparison.figures(map_scale=map_scale)  # raises where there is none, before anything is replaced
    comparison.save(folder, force=True)
    save_each(figures, folder)
    left_out_note(list(comparison.results))
    return [name for name in COMPARE if (folder / name).exists()]


# --- targets and labels -----------------------------------------------------------------------------------------------


def _flattened(
    targets: Sequence[Compared | Sequence[Compared]], labels: Sequence[str | None] | None
) -> tuple[list[Compared], list[str], list[str | None]]:
    """Targets in a row, the arm of each (empty where no target is a list), and the label of each."""
    if isinstance(targets, str | Path | Spectra | torch.nn.Module | Target) or not targets:
        raise ResultError("compare takes a list of targets: compare([a, b], data).")
    wanted = list(labels) if labels is not None else [None] * len(targets)
    if len(wanted) != len(targets):
        raise ResultError(f"{len(wanted)} labels for {len(targets)} targets: give one for each, or none.")
    flat: list[Compared] = []
    arms: list[str] = []
    names: list[str | None] = []
    for number, (target, label) in enumerate(zip(targets, wanted, strict=True)):
        seeds: list[Compared] = list(target) if isinstance(target, list | tuple) else [target]  # type: ignore[list-item]
        arm = label or (f"arm {number + 1}" if len(seeds) > 1 else str(getattr(target, "label", target))[:60])
        flat += seeds
        arms += [arm] * len(seeds)
        names += [label and f"{label}, seed {n + 1}" for n in range(len(seeds))] if len(seeds) > 1 else [label]
    return flat, (arms if len(flat) > len(targets) else []), names


def _is_saved(target: Compared) -> bool:
    return isinstance(target, Spectra) or (isinstance(target, str | Path) and has_saved(str(target)))


def _open(target: Compared, model: ModelOptions, saved: bool) -> Target:
    if isinstance(target, Spectra):
        return Target(label=target.label, provenance=target.target, spectra=target)
    options = model if isinstance(target, str | Path) else ModelOptions()
    return open_any(target, options, saved=saved)


def _references(targets: Sequence[Compared], opened: Sequence[Target], model: ModelOptions) -> list[tuple[Target, str]]:
    """Each architecture before training, once, with its label."""
    seen: set[str] = set()
    references = []
    for name, target in zip(targets, list(opened), strict=True):
        kind = json.dumps([target.provenance.arch, target.provenance.model_args], default=str)
        if target.model is None:
            note(f"{target.label} is a saved result: its untrained network cannot be made from it.")
        elif not isinstance(name, str | Path):
            raise ModelError("with_untrained makes networks anew from their names: give names or paths.")
        elif target.provenance.weights != "untrained" and kind not in seen:
            seen.add(kind)
            reference = open_any(name, replace(model, untrained=True))
            parts = [str(target.provenance.arch or target.label), *arguments(target.provenance)]
            references.append((replace(reference, data=target.data), " ".join([*parts, "(untrained)"])))
    return references


def _label(name: Compared, target: Target) -> str:
    """A target's label with the arguments of its model, and the epoch of a `constant` run's switch."""
    label, provenance = target.label, target.provenance
    if provenance.label:
        return label
    parts = [" ".join([label, *(word for word in arguments(provenance) if word not in label)])]
    if target.provenance.schedule == "constant" and isinstance(name, str | Path):
        path = expanded(name)
        when = set(switches_of(path if path.is_dir() else path.parent))
        parts += [f"switch at epoch {epoch}" for epoch in when if len(when) == 1]
    return ", ".join(parts)


def _without_repeats(
    results: list[Spectra], labels: list[str], names: list[str], targets: int
) -> tuple[list[Spectra], list[str]]:
    """All targets, and the ends of the coordinate and references that are not among them; labels that differ."""
    rows = list(zip(results, labels, names, strict=True))
    distinct = rows[:targets]
    for result, label, name in rows[targets:]:
        if not any(label == other and result.target == earlier.target for earlier, other, _ in distinct):
            distinct.append((result, label, name))
    apart = told_apart([row[1] for row in distinct], [row[0].target for row in distinct], [row[2] for row in distinct])
    return [row[0] for row in distinct], apart

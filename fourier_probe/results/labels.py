"""What tables and figures call a result that nobody labelled: what it is, not where its file lies. Imports records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fourier_probe.results.records import Provenance

_TELLING = (
    ("weights", "{}"),
    ("schedule", "{}"),
    ("data_scale", "{:g} of the data"),
    ("train_images", "{:,} images"),
    ("seed", "seed {}"),
    ("epoch", "epoch {}"),
)
"""Fields that tell results of one label apart, and how a label says them."""
_OF_DATA = (
    "num_classes",
    "in_chans",
    "img_size",
    "image_size",
    "dynamic_img_size",
    "dynamic_img_pad",
    "strict_img_size",
)


def arguments(target: Provenance) -> list[str]:
    """What a model was made with beyond its name, as a label says it; not what its data give (classes, image sizes).

    >>> arguments(Provenance(arch="eit_small", model_args={"num_classes": 10, "split": "attention"}))
    ['split=attention']
    """
    return [f"{name}={value}" for name, value in (target.model_args or {}).items() if name not in _OF_DATA]


def legible(target: Provenance, otherwise: str, schedule: str | None = None) -> str:
    """The label that it was given; else architecture with its arguments, schedule, and part of the data.

    `otherwise` where no architecture is known, or where the user named it and no file. `schedule` says more than the
    name of the schedule, where that is known.

    >>> legible(Provenance(arch="cifar_resnet20", schedule="linear", data_scale=0.1), "prs-4a18cc72")
    'cifar_resnet20, linear, 10 % of the data'
    >>> legible(Provenance(arch="patch_resnet", train_images=3000), "cnn-4a18cc72")
    'patch_resnet, 3,000 images'
    >>> legible(Provenance(), "net")
    'net'
    """
    if target.label:
        return target.label
    if not target.arch or ".py:" in target.arch or (target.source or "").startswith(("timm:", "torchvision:")):
        return otherwise
    parts = [" ".join([target.arch, *arguments(target)])]
    if target.schedule not in (None, "none"):
        parts.append(schedule or str(target.schedule))
    if target.data_scale not in (None, 1.0):
        parts.append(f"{100 * target.data_scale:g} % of the data")
    if target.train_images:
        parts.append(f"{target.train_images:,} images")
    if target.weights == "untrained" and target.data is not None:
        parts.append("untrained")
    return ", ".join(parts)


def name_of(target: Provenance, otherwise: str = "network") -> str:
    """What every table, figure and page calls a result, by what the result alone says.

    >>> name_of(Provenance(source="timm:resnet18", arch="resnet18")), name_of(Provenance(source="runs/prs/last.pt"))
    ('resnet18', 'prs')
    >>> name_of(Provenance(source="net.py:make")), name_of(Provenance(label="CNN", source="a.pt"))
    ('make', 'CNN')
    """
    return legible(target, source_name(target.source or "") or otherwise)


def source_name(source: str) -> str:
    """The model of timm:NAME, the factory of file.py:NAME, else the name of the run folder or file; "" for none."""
    if source.startswith(("timm:", "torchvision:")) or ".py:" in source:
        return source.rpartition(":")[2]
    path = Path(source)
    return path.parent.name if path.stem in ("last", "best") and path.parent.name else path.stem


def told_apart(labels: Sequence[str], targets: Sequence[Provenance], names: Sequence[str]) -> list[str]:
    """Labels that differ: what tells equal ones apart is added, then the name of the file, then a number.

    Args:
        labels: of the results.
        targets: what is known of each.
        names: of their files or folders.

    >>> told_apart(["net", "net", "other"], [Provenance(seed=0), Provenance(seed=1), Provenance()], ["a", "b", "c"])
    ['net, seed 0', 'net, seed 1', 'other']
    >>> told_apart(["net", "net"], [Provenance()] * 2, ["a", "b"]), told_apart(["net", "net"], [Provenance()] * 2, "aa")
    (['net, a', 'net, b'], ['net #1', 'net #2'])
    """
    apart = list(labels)

    def add(texts: Sequence[str]) -> None:
        for label in {label for label in apart if apart.count(label) > 1}:
            same = [index for index, other in enumerate(apart) if other == label]
            if len({texts[index] for index in same}) > 1:
                for index in same:
                    apart[index] = f"{label}, {texts[index]}" if texts[index] else label

    for field, form in _TELLING:
        values = [getattr(target, field) for target in targets]
        add([f"{field.replace('_', ' ')} unknown" if value is None else form.format(value) for value in values])
    add([name if name not in label else "" for name, label in zip(names, apart, strict=True)])
    return [f"{label} #{apart[: i + 1].count(label)}" if apart.count(label) > 1 else label
            for i, label in enumerate(apart)]  # fmt: skip

"""What a result says of its network, images and steps: typed, unknown fields kept. Imports errors and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from typing_extensions import Self

from fourier_probe.errors import ResultError
from fourier_probe.results.bounds import Count, Pixel, Share, Side, Size, Spread


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Named fields, and in `extra` whatever else a file or a caller brings."""

    extra: dict[str, Any] = {}

    @classmethod
    def of(cls, value: Mapping[str, object]) -> Self:
        """A record from a mapping; what has no field of its own goes into `extra`.

        Raises:
            ResultError: a field of another type, by its name.
        """
        known = {name: value[name] for name in cls._names() if name in value}
        rest = {name: item for name, item in value.items() if name not in known}
        try:
            return msgspec.convert({**known, "extra": rest}, cls)
        except msgspec.ValidationError as error:
            raise ResultError(f"{cls.__name__}: {error}.") from error

    def to_json(self) -> dict[str, object]:
        """Its fields, then what is in `extra`."""
        return {name: getattr(self, name) for name in self._names()} | self.extra

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in cls.__struct_fields__ if name != "extra"]


class Provenance(Record, frozen=True, kw_only=True):
    """Which network it was; what is not known is null.

    Attributes:
        label: what the user calls it, null where no label was given. source: as the user named it. sha256: of the file.
        arch, model_args: its architecture, and what that was made with.
        weights: "raw", "ema" or "untrained".
        data, data_scale, schedule, seed, epoch: of its training. train_images: where it was given in their number.
    """

    label: str | None = None
    source: str | None = None
    sha256: str | None = None
    arch: str | None = None
    model_args: dict[str, Any] | None = None
    weights: str | None = None
    data: str | None = None
    data_scale: Annotated[float, Meta(gt=0, le=1)] | None = None
    train_images: Count | None = None
    schedule: str | None = None
    seed: int | None = None
    epoch: Count | None = None


def weights_text(weights: str | None) -> str:
    """Which weights it was, behind a label; nothing where they are the plain ones.

    >>> weights_text("ema"), weights_text("raw")
    (', EMA weights', '')
    """
    return {"ema": ", EMA weights", "untrained": ", untrained"}.get(str(weights), "")


def images_text(n: int, source: str | None, skipped: int) -> str:
    """How many images of what, and how many were left out."""
    left_out = f", {skipped} left out" if skipped else ""
    return f"{n} image{'s' * (n != 1)} of {source or 'your own'}{left_out}"


class ImagesInfo(Record, frozen=True, kw_only=True):
    """Which images, and as the network saw them.

    Attributes:
        source, split: where they are from. n: their number.
        size: (H, W) pixels. mean, std: of each channel, subtracted and divided by.
        skipped: unreadable files left out. digest: of the raw pixels in order.
        asked: what a sweep asked for: images, attention.
        layout: "channels_last" where they and the convolutions lay so in memory, else null; nothing but rounding.
        interrupted: the user stopped the analysis; these are the first n images.
    """

    source: str | None = None
    split: str | None = None
    n: Count = 0
    size: Annotated[list[Side], Meta(min_length=2, max_length=2)] | None = None
    mean: list[Pixel] | None = None
    std: list[Spread] | None = None
    skipped: Count = 0
    digest: str | None = None
    asked: dict[str, Any] | None = None
    layout: str | None = None
    interrupted: bool = False

    @property
    def text(self) -> str:
        """How many images of what, and how many were left out.

        >>> ImagesInfo(source="photos/", n=20, skipped=3).text, ImagesInfo(n=1).text
        ('20 images of photos/, 3 left out', '1 image of your own')
        """
        return images_text(self.n, self.source, self.skipped)


class LeftOut(msgspec.Struct, frozen=True):
    """A point or step of the network that is not in the result, and why."""

    name: str
    reason: str


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the network was read; null in a result until it is known.

    Attributes:
        steps: residual steps of the network. read: those with a probe point. unread: the others, with the reason.
        evidence: point -> what its layout was read from. self_check: what a check of guessed layouts found.
    """

    steps: Count
    read: Count
    unread: list[LeftOut] = []
    evidence: dict[str, str] | None = None
    self_check: str | None = None

    def text(self) -> str:
        """One line, without a full stop.

        >>> Coverage(steps=7, read=7).text()
        '7 of 7 steps read'
        """
        check = "" if self.self_check is None else f"; {self.self_check.partition('. ')[0]}"
        return f"{self.read} of {self.steps} steps read{check}"


class MetricInfo(msgspec.Struct, frozen=True):
    """How a metric is called and what it is measured in; carried by the file, so that any reader can show it."""

    label: str
    unit: str = ""
    summary: str = ""

    @property
    def title(self) -> str:
        """Of an axis or a column.

        >>> MetricInfo("log density", "nats").title
        'log density (nats)'
        """
        return f"{self.label} ({self.unit})" if self.unit else self.label


class TopOneBound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of the top-1 that a network cannot pass on a variant of the planted task (`probe.window`).

    Attributes:
        variant: of the task: mixed, far, local.
        second_difference: mixed, of the logits over the two glyphs, over the largest first difference; 0 where the
            score is a sum over windows that never hold both.
        top1: the bound, 0 to 1; null where there is none: the second difference is not 0, or the variant has no bound.
    """

    variant: str
    second_difference: Size
    top1: Share | None = None

    def __str__(self) -> str:
        if self.top1 is not None:
            return f"bound {100 * self.top1:.1f} % (its score is a sum over 5x5 cells)"
        if self.variant == "local":
            return "no bound (planted:local has none)"
        return f"no bound (its score is no sum over 5x5 cells: second difference {self.second_difference:.1e})"

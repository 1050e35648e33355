"""What a classifier answers, as a result: top-1, top-5, per class, confusion, and its files.

Imports errors, io, records, intervals, drawing.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fourier_probe.errors import ResultError
from fourier_probe.io import atomic
from fourier_probe.io.paths import expanded
from fourier_probe.io.tables import write_frame
from fourier_probe.io.typed import read_result
from fourier_probe.results.bounds import Count, Finite, Share
from fourier_probe.results.drawing import drawing
from fourier_probe.results.filenames import VALIDATE
from fourier_probe.results.intervals import Interval, check_change, check_share, mean
from fourier_probe.results.records import ImagesInfo, LeftOut, Provenance, TopOneBound
from fourier_probe.runtime.versions import now

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA, VERSION = "fourier-probe/validation", 2
INTERVALS = (
    "95 % over images: Wilson for shares, Student for losses, Agresti and Min (paired) for changes of top-1; nothing "
    "about training another network, and none where there are too few images"
)
AGAIN = "run `fourier-probe validate` again"


class ClassAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """The images of one class.

    Attributes:
        name: of the class, or its index where the source has no names.
        images: of this class. predicted: images, of any class, that were taken for it.
        top1: share of its images that were recognised; null without images.
    """

    name: str
    images: Count
    predicted: Count
    top1: Interval | None = None

    def __post_init__(self) -> None:
        check_share(top1=self.top1)


class PartAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the images: how many, and the share of correct answers."""

    images: Annotated[int, Meta(ge=1)]
    top1: Interval

    def __post_init__(self) -> None:
        check_share(top1=self.top1)


class Lesion(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of the network with one residual step replaced by the identity.

    Attributes:
        name, op, depth: of the point behind the step.
        top1: without it. top1_change, loss_change: that minus the whole network's on the same images, paired; the loss
            in nats, null where it was not finite.
    """

    name: str
    op: str
    depth: Share
    top1: Interval
    top1_change: Interval
    loss_change: Interval | None = None

    def __post_init__(self) -> None:
        check_share(top1=self.top1)
        check_change(top1_change=self.top1_change)


class Curvature(msgspec.Struct, frozen=True, kw_only=True):
    """The Hessian of the loss, weight decay left out, and the loss around the network.

    Attributes:
        batch_size: images of each minibatch, each of which has a Hessian of its own.
        eigenvalues: a row per minibatch, the largest first.
        largest: mean over minibatches of the largest, with Student's interval from 20 minibatches on.
        at, loss: of two random directions, normalised per filter: multiples, and the loss (nats), a row per multiple of
            the first. Empty where it was not measured.
    """

    batch_size: Annotated[int, Meta(ge=1)]
    eigenvalues: Annotated[list[list[Finite]], Meta(min_length=1)]
    largest: Interval
    at: list[Finite] = []
    loss: list[list[Finite]] = []

    def __post_init__(self) -> None:
        if not self.eigenvalues[0] or any(len(row) != len(self.eigenvalues[0]) for row in self.eigenvalues):
            raise ValueError("`eigenvalues` are not of as many for each minibatch")
        if len(self.loss) != len(self.at) or any(len(row) != len(self.at) for row in self.loss):
            raise ValueError(f"`loss` is not of {len(self.at)} rows and columns, as `at`")

    def ranked(self) -> list[Interval]:
        """Of each rank, the largest eigenvalue first: the mean over minibatches, with an interval from 20 of them."""
        values = np.array(self.eigenvalues, np.float64)
        sums = zip(values.sum(0).tolist(), np.square(values).sum(0).tolist(), strict=True)
        return [mean(total, squares, len(values)) for total, squares in sums]


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """What a classifier answers on labelled images; the fields are those of validation.json.

    Attributes:
        label: what tables and figures call the target.
        target, images: what was run, on what.
        top1, top5: shares of correct answers; top-5 is null with five classes or fewer.
        loss: cross-entropy, nats; null where it was not finite.
        classes: a row per class, in the order of its index.
        answers: (class, predicted class, images), where there are any: the confusion matrix.
        conflict, agreeing: of the planted task, images whose local cue contradicts the label, and the others.
        bound: of the planted task, the top-1 that this network cannot pass.
        lesions: a row per residual step, by depth; null where they were not asked for. kept: steps that cannot be taken
            out, with the reason.
        curvature: of the loss; null where it was not asked for.
        notes: what a reader must know, such as a top-1 at chance.

    >>> import fourier_probe as fp
    >>> model = fp.create("cifar_resnet8", num_classes=10, in_chans=1)
    >>> validation = fp.validate(model, "bundled", images=20)
    >>> validation.images.n, len(validation.classes)
    (20, 10)
    """

    schema: str = SCHEMA
    version: int = VERSION
    label: str
    target: Provenance
    images: ImagesInfo
    top1: Interval
    top5: Interval | None = None
    loss: Interval | None = None
    classes: Annotated[list[ClassAnswers], Meta(min_length=2)]
    answers: Annotated[list[tuple[Count, Count, Annotated[int, Meta(ge=1)]]], Meta(min_length=1)]
    conflict: PartAnswers | None = None
    agreeing: PartAnswers | None = None
    bound: TopOneBound | None = None
    lesions: list[Lesion] | None = None
    kept: list[LeftOut] = []
    curvature: Curvature | None = None
    notes: list[str] = []
    intervals: str = INTERVALS
    versions: dict[str, str] = {}
    created: str = msgspec.field(default_factory=now)

    def __post_init__(self) -> None:
        if max(max(truth, answer) for truth, answer, _ in self.answers) >= len(self.classes):
            raise ValueError(f"`$.answers` names a class that is not among the {len(self.classes)} of `$.classes`")
        check_share(top1=self.top1, top5=self.top5)
        if self.loss is not None and self.loss.value < 0:
            raise ValueError(f"`loss.value` is {self.loss.value:g}: a cross-entropy is 0 or more")
        sums = {"images": [0] * len(self.classes), "predicted": [0] * len(self.classes)}  # a matrix may be too large
        for truth, answer, images in self.answers:
            sums["images"][truth] += images
            sums["predicted"][answer] += images
        if sum(sums["images"]) != self.images.n:
            raise ValueError(f"`$.answers` are of {sum(sums['images'])} images and `$.images.n` is {self.images.n}")
        for name, counted in sums.items():
            if [getattr(row, name) for row in self.classes] != counted:
                raise ValueError(f"`$.classes[].{name}` do not agree with `$.answers`")

    # --- to look at ---

    @property
    def matrix(self) -> NDArray[np.int64]:
        """(classes, classes) images: rows are true classes, columns what they were taken for."""
        out = np.zeros((len(self.classes),) * 2, dtype=np.int64)
        for truth, answer, images in self.answers:
            out[truth, answer] += images
        return out

    def confusion(self) -> pd.DataFrame:
        """`matrix` with the names of the classes."""
        import pandas as pd

        names = [row.name for row in self.classes]
        return pd.DataFrame(self.matrix, index=pd.Index(names, name="class"), columns=names)

    def to_frame(self) -> pd.DataFrame:
        """A row per class: images, images taken for it, top-1 and the ends of its interval."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"class": row.name, "images": row.images, "predicted": row.predicted, **_ends("top1", row.top1)}
                for row in self.classes
            ]
        )

    def table(self) -> pd.DataFrame:
        """A row for all images, for those of the planted task apart, and for each class; shares in per cent."""
        import pandas as pd

        rows: list[tuple[str, int, Interval | None]] = [("all images", self.images.n, self.top1)]
        for name, part in (("cue conflicts with label", self.conflict), ("cue agrees", self.agreeing)):
            rows += [] if part is None else [(name, part.images, part.top1)]
        rows += [(row.name, row.images, row.top1) for row in self.classes]
        cells = [
            {"of": name, "images": images, **{key: 100 * value for key, value in _ends("top-1, %", top1).items()}}
            for name, images, top1 in rows
        ]
        return pd.DataFrame(cells).set_index("of")

    def lesion_table(self) -> pd.DataFrame:
        """A row per residual step: what it is, top-1 without it and the change, with the ends of the intervals."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"step": row.name, "op": row.op, "depth": row.depth, **_ends("top1", row.top1),
                 **_ends("top1_change", row.top1_change), **_ends("loss_change", row.loss_change)}
                for row in self.lesions or []
            ]
        )  # fmt: skip

    def plot(self, kind: Literal["confusion", "lesions", "hessian"] = "confusion", *, ax: Axes | None = None) -> Figure:
        """The confusion matrix, as shares of each true class; the lesion profile; or the curvature of the loss.

        Raises:
            ResultError: it was not measured.
        """
        missing = {"lesions": self.lesions is None, "hessian": self.curvature is None}
        if missing.get(kind, False):
            raise ResultError(f"this validation holds no {kind}: validate with {kind}=True.")
        return drawing(kind)(self, ax=ax)

    def __repr__(self) -> str:
        top5 = "" if self.top5 is None else f", top-5 {self.top5.value:.1%}"
        bound = "" if self.bound is None else f", {'no bound' if self.bound.top1 is None else self._bound()}"
        of = self.images.text
        return f"Validation({self.label!r}, {of}: top-1 {self.top1.value:.1%}{top5}{bound})"

    def _bound(self) -> str:
        return "" if self.bound is None or self.bound.top1 is None else f"bound {self.bound.top1:.1%}"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<p>{escape(repr(self))}</p>{notes}{self.table().to_html(float_format='{:.1f}'.format, na_rep='')}"

    # --- files ---

    def save(self, folder: Path | str, *, force: bool = False) -> Path:
        """Write validation.json, validation.csv (per class) and confusion.csv; returns the path of the first.

        Raises:
            OutputError: the folder cannot be written, or holds a result already and `force` is not set.
        """
        import pandas as pd

        folder = atomic.output_folder(folder, results=VALIDATE, force=force)
        with atomic.staged(folder, (*VALIDATE[1:], VALIDATE[0])) as stage:  # figures of an older result go
            for name, frame in (
                ("validation.csv", self.to_frame().set_index("class")),
                ("confusion.csv", self.confusion()),
            ):
                write_frame(stage / name, frame, index=True)
            if self.lesions:
                write_frame(stage / "lesions.csv", self.lesion_table())
            if self.curvature is not None:
                rows = [
                    {"minibatch": batch, "rank": rank, "eigenvalue": value}
                    for batch, values in enumerate(self.curvature.eigenvalues)
                    for rank, value in enumerate(values, 1)
                ]
                write_frame(stage / "hessian.csv", pd.DataFrame(rows))
            atomic.write_json(stage / VALIDATE[0], msgspec.to_builtins(self, enc_hook=str))
        return folder / VALIDATE[0]

    @classmethod
    def load(cls, path: Path | str) -> Validation:
        """Read a validation from validation.json or its folder.

        Raises:
            ResultError: missing, damaged, of another schema or of a later version; a wrong type is named by its field.
        """
        path = expanded(path)
        path = path / VALIDATE[0] if path.is_dir() else path
        return read_result(path, cls, schema=SCHEMA, version=VERSION, again=AGAIN)


def _ends(name: str, interval: Interval | None) -> dict[str, float]:
    """A value and the ends of its interval, NaN where there is none."""
    known = interval or Interval(float("nan"))
    ends = {"": known.value, "_low": known.low, "_high": known.high}
    return {name + suffix: float("nan") if value is None else value for suffix, value in ends.items()}

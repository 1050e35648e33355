"""What validations, heat maps and comparisons by CKA hold, as parts: table, figure, how to read it.

Imports parts, heatmaps, validation, similarity.

One list serves `validate` (its figures), the report page, and whoever adds a measure of this kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fourier_probe.results import cka
from fourier_probe.results.drawing import drawing
from fourier_probe.results.heatmap_set import HeatMaps
from fourier_probe.results.parts import Part
from fourier_probe.results.similarity import Similarity
from fourier_probe.results.validation import Validation

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def curvature_table(result: Validation) -> pd.DataFrame | None:
    """A row per rank: mean, least and largest eigenvalue over minibatches, and the interval of the mean."""
    import pandas as pd

    if result.curvature is None:
        return None
    rows = []
    for rank, interval in enumerate(result.curvature.ranked(), 1):
        values = [largest[rank - 1] for largest in result.curvature.eigenvalues]
        rows.append({"rank": rank, "mean": interval.value, "low": interval.low, "high": interval.high,
                     "least": min(values), "most": max(values), "minibatches": len(values)})  # fmt: skip
    return pd.DataFrame(rows)


def sensitivity_table(heats: HeatMaps) -> pd.DataFrame:
    """A row per target: how well the gradient's power ranks the errors, and by how much that power falls."""
    import pandas as pd

    rows = []
    for label, heat in zip(heats.labels, heats, strict=True):
        if heat.sensitivity is not None:
            rho, radii = heat.prediction() or (float("nan"), 0)
            first, last = heat.sensitivity.log_power[0], heat.sensitivity.log_power[-1]
            rows.append({"target": label, "rank correlation with the error": rho, "radii": radii,
                         "ln power, lowest ring": first.value, "highest ring": last.value})  # fmt: skip
    return pd.DataFrame(rows)


def _table(heats: HeatMaps) -> pd.DataFrame:
    table = heats.table()
    table = table if table.index.name is None else table.reset_index()
    return table if len(heats) > 1 else table.drop(columns="target")


def _draw(heats: HeatMaps, _title: str) -> Figure:
    return heats.plot() if len(heats) > 1 else heats[0].plot()


CKA_PARTS: tuple[Part[Similarity], ...] = (
    Part(
        name="cka",
        title=cka.TITLE,
        present=lambda similarity: True,
        draw=lambda similarity, title: similarity.plot(),
        short=lambda similarity: similarity.table(),
        reading=cka.READING,
    ),
)
"""Of several networks; that of one network with itself is a part of its analysis, shown in the same place."""

VALIDATION_PARTS: tuple[Part[Validation], ...] = (
    Part(
        name="confusion",
        title="Answers by class",
        present=lambda result: True,
        draw=lambda result, title: drawing("confusion")(result),
        short=lambda result: result.table().reset_index(),
        reading=(
            "Shares of each true class, by the class they were taken for; the diagonal is right. Intervals of the "
            "table are 95 % over images (Wilson)."
        ),
    ),
    Part(
        name="lesions",
        title="Lesion profile",
        present=lambda result: bool(result.lesions),
        draw=lambda result, title: drawing("lesions")(result),
        frame=lambda result: result.lesion_table(),
        short=lambda result: result.lesion_table(),
        reading=(
            "Top-1 with one residual step replaced by the identity, against the depth of the step; dashed: the whole "
            "network. A step far below the dashed line is one that no other can stand in for. Changes are paired, on "
            "the same images; ± 95 % over images."
        ),
    ),
    Part(
        name="hessian",
        title="Curvature of the loss",
        present=lambda result: result.curvature is not None,
        draw=lambda result, title: drawing("hessian")(result),
        short=curvature_table,
        reading=(
            "The largest eigenvalues of the Hessian of the loss, weight decay left out, a dot per minibatch: large "
            "ones are directions in which the loss bends sharply, negative ones directions in which it is not convex. "
            "Beside it the loss over two random directions, 1 being the norm of each filter. The interval is over "
            "minibatches, from 20 on."
        ),
    ),
)
"""Of a validation, in the order in which they are shown."""

_NOISE = (
    "Images with noise of one {what} added to their pixels, all of the same L2 norm, and the top-1 error or the change "
    "of features that it causes: what disturbs a network. {more} 95 % over images."
)
HEATMAP_PARTS: tuple[Part[HeatMaps], ...] = (
    Part(
        name="heatmap",
        title="Heat map of noise",
        present=lambda heats: heats[0].definition.kind == "frequencies",
        draw=_draw,
        short=_table,
        reading=_NOISE.format(
            what="frequency", more="Frequency 0 is in the middle. The table has means over rings; heatmap.csv has"
        ),
    ),
    Part(
        name="bands",
        title="Noise by bands of frequencies",
        present=lambda heats: heats[0].definition.kind == "bands",
        draw=_draw,
        short=_table,
        reading=_NOISE.format(what="band of radii", more="Bars and the table have"),
    ),
    Part(
        name="filters",
        title="Filtered accuracy",
        present=lambda heats: heats[0].definition.kind == "filters",
        draw=_draw,
        short=_table,
        reading=(
            "Images that keep radii up to a cut-off (low), those beyond it and the mean (high), or all but one band "
            "(removed): what a network needs, where noise asks what disturbs it. Bars: 95 % over images."
        ),
    ),
    Part(
        name="sensitivity",
        title="Sensitivity spectrum",
        present=lambda heats: any(heat.sensitivity is not None for heat in heats),
        draw=lambda heats, title: drawing("sensitivity")(heats),
        short=sensitivity_table,
        reading=(
            "Power of the gradient of the loss with respect to the image, by radius: what small noise would do, to "
            "first order. The rank correlation says whether it orders the radii as the errors do; near 1 it predicts "
            "them, below 0 noise of this strength is outside of the linear range. Bands: 95 % over images."
        ),
    ),
)
"""Of heat maps of one kind on the same images, in the order in which they are shown."""

"""What queries say of keys, as a part of spectra.json, and the table of attention. Imports attention, bounds.

The definitions are those of `probe.attention`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from fourier_probe.results.attention import AttentionErrors, AttentionRecord
from fourier_probe.results.bounds import Count, Share, Size

if TYPE_CHECKING:
    import pandas as pd


class InformationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Normalised mutual information of the queries and keys of one attention; see `probe.attention.Information`."""

    name: str
    over: str
    queries: Count
    keys: Count
    nmi: Annotated[list[Share], Meta(min_length=1)]
    stderr: list[Size | None]
    mean: Share
    mean_stderr: Size | None = None
    images: Count

    def __post_init__(self) -> None:
        if len(self.stderr) != len(self.nmi):
            raise ValueError(f"`stderr` is not of {len(self.nmi)} heads")


def attention_frame(layers: Sequence[AttentionRecord], information: Sequence[InformationRecord]) -> pd.DataFrame:
    """A row per attention and head: NMI of all, distance of those over a grid, with standard errors."""
    import pandas as pd

    rows = []
    for name, record, layer in _together(layers, information):
        heads = len(layer.distance) if layer is not None else len(record.nmi) if record is not None else 0
        errors = (None if layer is None else layer.stderr_of) or AttentionErrors()
        for head in range(heads):
            rows.append(
                {
                    "layer": name,
                    "over": None if record is None else record.over,
                    "head": head,
                    "nmi": None if record is None else record.nmi[head],
                    "nmi_stderr": None if record is None else record.stderr[head],
                    "distance": None if layer is None else layer.distance[head],
                    "distance_stderr": None if errors.distance is None else errors.distance[head],
                }
            )
    return pd.DataFrame(rows)


def attention_table(
    layers: Sequence[AttentionRecord], information: Sequence[InformationRecord], t95: float
) -> pd.DataFrame:
    """A row per attention: mean NMI, mean distance, diversity, with half of its 95 % interval where there is one."""
    import pandas as pd

    rows = []
    for name, record, layer in _together(layers, information):
        diversity = None if layer is None else layer.diversity_error
        rows.append(
            {
                "layer": name,
                "over": None if record is None else record.over,
                "heads": len(record.nmi) if record is not None else len(layer.distance) if layer else 0,
                "NMI": math.nan if record is None else record.mean,
                "± NMI": math.nan if record is None or record.mean_stderr is None else t95 * record.mean_stderr,
                "distance (pixels)": math.nan if layer is None else sum(layer.distance) / len(layer.distance),
                "diversity (pixels)": math.nan if layer is None else layer.diversity,
                "± diversity": math.nan if diversity is None else t95 * diversity,
            }
        )
    return pd.DataFrame(rows)


def _together(
    layers: Sequence[AttentionRecord], information: Sequence[InformationRecord]
) -> list[tuple[str, InformationRecord | None, AttentionRecord | None]]:
    """Each attention by name, in the order of execution, with what is known of it."""
    known = {record.name: record for record in information}
    grids = {layer.name: layer for layer in layers}
    return [(name, known.get(name), grids.get(name)) for name in dict.fromkeys([*known, *grids])]

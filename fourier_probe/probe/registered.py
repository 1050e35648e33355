"""Which metrics there are, and how one is added. Imports registry, frequency, numpy and errors; no torch.

A metric is a function from the maps of one batch to numbers of each image that add up over images; what is reported is
computed from their sums, so that it merges over batches and ranks and has a jackknife error over image groups.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from fourier_probe.errors import ProbeError, ResultError
from fourier_probe.probe.frequency import ring_radii
from fourier_probe.registry import Registry, RegistryError
from fourier_probe.runtime.accelerator import wide

if TYPE_CHECKING:
    from torch import Tensor

    from fourier_probe.probe.metrics import MetricRequest

Array = NDArray[np.float64]
Sums = Mapping[str, Array]
Kind = Literal["scalar", "radial"]


@dataclass(frozen=True)
class Ratio:
    """A metric that is a sum over images divided by another: of each image its part of both.

    Attributes:
        numerator, denominator: (B,), or (B, R) of a radial metric.

    >>> import torch
    >>> Ratio(torch.ones(2), torch.full((2,), 4.0)).denominator.sum()
    tensor(8.)
    """

    numerator: Tensor
    denominator: Tensor


Measure = Callable[["MetricRequest"], "Tensor | Ratio | Mapping[str, Tensor]"]
Estimate = Callable[[Sums, tuple[int, int]], Array]
M = TypeVar("M", bound=Measure)


@dataclass(frozen=True)
class Metric:
    """A metric: how it is called, what it sums over images, and what is computed of the sums.

    Attributes:
        name: in files and tables. label: in figures and headings. unit: of its values, "" for none.
        kind: "scalar", a number per point; "radial", a number per ring, see `frequency.ring_radii`.
        summary: one line on what it is.
        measure: from a `MetricRequest` to numbers of each image.
        estimate: from sums (M, ...) and the grid (H, W) to values (M,) or (M, R); None: the mean over images, or the
            ratio of the two sums.
        shared: names of the sums it needs, where they are among those of `image_statistics`; else its sums are its own.
        asked: whether it is measured only where it is asked for, by an option of its own.
    """

    name: str
    label: str
    unit: str
    kind: Kind
    summary: str
    measure: Measure
    estimate: Estimate | None = None
    shared: tuple[str, ...] = ()
    asked: bool = False

    def statistics(self, request: MetricRequest) -> dict[str, Tensor]:
        """Its numbers (B, ...) of each image, by the names under which they are summed.

        Raises:
            ResultError: the function fails, or gives something else; names the metric.
        """
        import torch

        try:
            result = self.measure(request)
        except ProbeError:
            raise
        except Exception as error:
            raise ResultError(f"metric {self.name!r} fails: {type(error).__name__}: {error}.") from error
        if isinstance(result, torch.Tensor):
            parts: dict[str, Tensor] = {"mean": result}
        elif isinstance(result, Ratio):
            parts = {"numerator": result.numerator, "denominator": result.denominator}
        elif isinstance(result, Mapping) and self.estimate is not None:
            parts = dict(result)
        else:
            raise ResultError(
                f"metric {self.name!r} gave {type(result).__name__}: expected a tensor, an fp.Ratio, or named tensors "
                "with estimate= where it is registered."
            )
        images = len(request.maps)
        expected = (images,) if self.kind == "scalar" else (images, len(request.radii))
        for value in parts.values():
            shape = tuple(value.shape)
            if shape != expected and (self.estimate is None or shape[:1] != (images,)):
                raise ResultError(
                    f"metric {self.name!r} gave {shape}: expected {expected}, a number per image"
                    f"{' and ring' if self.kind == 'radial' else ''}; kind= says which it is."
                )
        if self.shared:
            return parts
        return {f"{self.name}.{part}": wide(value.detach().to(request.maps.device)) for part, value in parts.items()}

    def value(self, sums: Sums, grid: tuple[int, int]) -> Array | None:
        """Its values (M,) or (M, R) from sums with a leading axis M; None where they are not of it.

        Raises:
            ResultError: the function `estimate` fails; names the metric.
        """
        own = self.own(sums)
        if not own:
            return None
        if self.estimate is not None:
            return self._estimated(self.estimate, own | {"count": sums["count"]}, grid)
        if "mean" in own:
            return np.asarray(own["mean"] / sums["count"].reshape(-1, *[1] * (own["mean"].ndim - 1)))
        return np.asarray(own["numerator"] / own["denominator"])

    def _estimated(self, estimate: Estimate, sums: dict[str, Array], grid: tuple[int, int]) -> Array:
        try:
            value = np.asarray(estimate(sums, grid), dtype=np.float64)
        except Exception as error:
            raise ResultError(f"estimate= of metric {self.name!r} fails: {type(error).__name__}: {error}.") from error
        rows = len(sums["count"])
        expected = (rows,) if self.kind == "scalar" else (rows, len(ring_radii(grid)))
        if value.shape != expected:
            raise ResultError(f"estimate= of metric {self.name!r} gave {value.shape}: expected {expected}.")
        return value

    def own(self, sums: Sums) -> dict[str, Array]:
        """Of sums those that are of this metric, by the names its function gave them; empty where there are none."""
        if self.shared:
            return {name: sums[name] for name in self.shared} if all(name in sums for name in self.shared) else {}
        prefix = f"{self.name}."
        return {name.removeprefix(prefix): value for name, value in sums.items() if name.startswith(prefix)}


_AT = "fourier_probe.probe.metrics:"
METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "log_density": (f"{_AT}log_density", "ln of the power of each ring over the mean power of all bins but DC"),
        "hfd_share": (f"{_AT}hfd_share", "share of power beyond half of Nyquist, mean over images and channels"),
        "hfd_share_pooled": (f"{_AT}hfd_share_pooled", "share of power beyond half of Nyquist, of the summed power"),
        "slope": (f"{_AT}slope", "least squares of log_density on ln r; 0 is white noise, below 0 is smooth"),
        "variance": (f"{_AT}variance", "over positions, mean over channels and images"),
        "ac_dc": (f"{_AT}ac_dc", "norm of what varies over positions over the norm of the mean"),
        "token_cosine": (f"{_AT}token_cosine", "cosine of the feature vectors of two positions, mean over pairs"),
        "white_delta": (f"{_AT}white_delta", "delta of white noise with the mean and variance of each channel"),
        "effective_rank": ("fourier_probe.probe.tokens:effective_rank", "directions that tokens use; with --tokens"),
    },
)
"""Every metric by name, beside the log-amplitude along the diagonal; in the order in which files hold them."""

OURS = frozenset(METRICS)
"""Names of the metrics of this package."""

TAKEN = frozenset(
    "name kind op depth grid channels frequency usable log_amplitude delta stderr radial profiles stderr_of "
    "hfd_share_white dead_channels gate singular step count sums map map_stderr scalars radius "
    "log_density log_density_stderr".split()
)
"""Names that a point has already."""


def register_metric(
    name: str, *, label: str = "", unit: str = "", kind: Kind = "scalar", estimate: Estimate | None = None
) -> Callable[[M], M]:
    """A decorator that adds a metric: a function from an `fp.MetricRequest` to numbers of each image.

    The function gives a tensor (B,), whose mean over images is reported; an `fp.Ratio`; or named tensors (B, ...), from
    whose sums over images `estimate` computes the value. A radial metric gives (B, R). The value then stands in files,
    tables, figures and the report, with an interval over images.

    Args:
        name: in files, of letters a to z, digits and _.
        label: in figures and headings; the name by default.
        unit: of its values.
        kind: "scalar", or "radial" for a number per ring of `MetricRequest.radii`.
        estimate: from sums by name, each with a leading axis (M, ...), "count" (the images) among them, and the grid
            (H, W), to values (M,) or (M, R).

    Raises:
        RegistryError: the name is taken, or is no such name; or the kind is no kind.

    >>> @register_metric("peak", label="Largest over mean power")
    ... def peak(request):
    ...     "Power of the strongest bin over the mean power of all bins but DC, mean over images and channels."
    ...     power = request.power.flatten(2)
    ...     return (power.amax(2) / power.mean(2).clamp_min(1e-30)).mean(1)
    >>> METRICS.get("peak").label
    'Largest over mean power'
    >>> METRICS.discard("peak")
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise RegistryError(f"{name!r} cannot be the name of a metric: expected letters a to z, digits and _.")
    if name in TAKEN:
        raise RegistryError(f"a point has {name!r} already: choose another name for the metric.")
    if kind not in ("scalar", "radial"):
        raise RegistryError(f"kind={kind!r} of metric {name!r}: expected 'scalar' or 'radial'.")

    def add(measure: M) -> M:
        lines = (measure.__doc__ or "").strip().splitlines()
        metric = Metric(name, label or name, unit, kind, lines[0] if lines else "", measure, estimate)
        METRICS.register(name, summary=metric.summary, origin=measure.__module__)(metric)
        return measure

    return add


def added() -> list[Metric]:
    """The metrics that are not of this package."""
    return [METRICS.get(name) for name in METRICS if name not in OURS]

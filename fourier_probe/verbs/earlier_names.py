"""Calls with the keyword names of version 0.1, for one version more."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from torch import nn

from fourier_probe.probe.definition import Definition
from fourier_probe.probe.measuring import Listen
from fourier_probe.results.analysis import analyze as analyze_batches
from fourier_probe.results.records import ImagesInfo, Provenance
from fourier_probe.results.spectra import Spectra
from fourier_probe.verbs.probing import precision_of


def analyze_as_in_0_1(target: Any, data: Any, model: Any, images: Any, old: dict[str, Any], **options: Any) -> Spectra:
    """A call with the keyword names of version 0.1: model=, images=, target=, source=, classes=, progress=."""
    unknown = set(old) - {"source", "classes", "progress"}
    if unknown:
        raise TypeError(f"analyze() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    warnings.warn(
        "fourier_probe.analyze(model=, images=, target=, source=, classes=, progress=) are the names of version 0.1: "
        "give the network first and the batches second; the next version drops them.",
        DeprecationWarning,
        stacklevel=3,
    )
    network = model if isinstance(model, nn.Module) else target
    batches: Iterable[Any] = images if not (images is None or isinstance(images, int)) else data
    provenance = Provenance.of(target) if isinstance(target, dict) else None
    if isinstance(old.get("source"), dict):
        old["source"] = ImagesInfo.of(old["source"])
    amp, metrics, definition, device = (options.pop(name) for name in ("amp", "metrics", "definition", "device"))
    return analyze_batches(
        network,
        batches,
        definition=definition or Definition(metrics=metrics),
        listen=Listen(**options),
        target=provenance,
        device=device,
        amp=precision_of(amp),
        **old,
    )

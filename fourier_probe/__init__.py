"""See what a vision model responds to, frequency by frequency and layer by layer.

    import fourier_probe as fp

    spectra = fp.analyze(model, "photos/")                 any network, any images
    fp.compare([a, b], "photos/", labels=["CNN", "ViT"])   side by side, on the same images
    run = fp.train(model="resnet18", data="photos/", schedule="linear")
    fp.recast(conv)                                        nn.Conv2d -> gated positional self-attention

Every verb of the command line is a function of the same name and defaults. Names are imported when first used, so that
`import fourier_probe` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fourier_probe.checkpoints.readers import CheckpointContents, register_reader
    from fourier_probe.data import ImageSet, open_data
    from fourier_probe.data.sources import SourceRequest, register_source
    from fourier_probe.errors import (
        CheckpointError,
        DataError,
        ModelError,
        OutputError,
        PointError,
        ProbeError,
        ResultError,
        TrainingError,
    )
    from fourier_probe.models.gpsa.recast import logit_change, recast, recast_
    from fourier_probe.models.zoo import create
    from fourier_probe.papers.exhibit import Exhibit
    from fourier_probe.papers.registered import register_figure
    from fourier_probe.plots.style import figure_style
    from fourier_probe.probe.capture import Capture
    from fourier_probe.probe.definition import Definition
    from fourier_probe.probe.fast import image_statistics, relative_log_amplitude
    from fourier_probe.probe.metrics import MetricRequest
    from fourier_probe.probe.points import Point, find_points
    from fourier_probe.probe.registered import Ratio, register_metric
    from fourier_probe.results.compared import Comparison
    from fourier_probe.results.heatmap import HeatMap
    from fourier_probe.results.heatmaps import HeatMaps
    from fourier_probe.results.point import PointSpectrum
    from fourier_probe.results.spectra import Spectra
    from fourier_probe.results.validation import Validation
    from fourier_probe.trace.blocks import BlockRequest, register_blocks
    from fourier_probe.training.config import TrainConfig
    from fourier_probe.training.rules import ScheduleRequest, register_schedule
    from fourier_probe.training.runs import Run
    from fourier_probe.training.schedule import PRSSchedule
    from fourier_probe.verbs.analyze import analyze
    from fourier_probe.verbs.compare import compare
    from fourier_probe.verbs.demo import demo
    from fourier_probe.verbs.figures import figures
    from fourier_probe.verbs.heatmap import heatmap
    from fourier_probe.verbs.models import list_models
    from fourier_probe.verbs.opening import open_target
    from fourier_probe.verbs.preview import preview
    from fourier_probe.verbs.report import Page, report
    from fourier_probe.verbs.sweep import sweep
    from fourier_probe.verbs.train import train
    from fourier_probe.verbs.validate import validate

    __version__: str

_HOME = {
    "BlockRequest": "trace.blocks",
    "Capture": "probe.capture",
    "CheckpointContents": "checkpoints.readers",
    "CheckpointError": "errors",
    "Comparison": "results.compared",
    "DataError": "errors",
    "Definition": "probe.definition",
    "Exhibit": "papers.exhibit",
    "HeatMap": "results.heatmap",
    "HeatMaps": "results.heatmaps",
    "ImageSet": "data",
    "MetricRequest": "probe.metrics",
    "ModelError": "errors",
    "OutputError": "errors",
    "PRSSchedule": "training.schedule",
    "Page": "verbs.report",
    "Point": "probe.points",
    "PointError": "errors",
    "PointSpectrum": "results.point",
    "ProbeError": "errors",
    "Ratio": "probe.registered",
    "ResultError": "errors",
    "Run": "training.runs",
    "ScheduleRequest": "training.rules",
    "SourceRequest": "data.sources",
    "Spectra": "results.spectra",
    "TrainConfig": "training.config",
    "TrainingError": "errors",
    "Validation": "results.validation",
    "analyze": "verbs.analyze",
    "compare": "verbs.compare",
    "create": "models.zoo",
    "demo": "verbs.demo",
    "figure_style": "plots.style",
    "figures": "verbs.figures",
    "find_points": "probe.points",
    "heatmap": "verbs.heatmap",
    "image_statistics": "probe.fast",
    "list_models": "verbs.models",
    "logit_change": "models.gpsa.recast",
    "open_data": "data",
    "open_target": "verbs.opening",
    "preview": "verbs.preview",
    "recast": "models.gpsa.recast",
    "recast_": "models.gpsa.recast",
    "register_blocks": "trace.blocks",
    "register_figure": "papers.registered",
    "register_metric": "probe.registered",
    "register_reader": "checkpoints.readers",
    "register_schedule": "training.rules",
    "register_source": "data.sources",
    "relative_log_amplitude": "probe.fast",
    "report": "verbs.report",
    "sweep": "verbs.sweep",
    "train": "verbs.train",
    "validate": "verbs.validate",
}

__all__ = [
    "BlockRequest",
    "Capture",
    "CheckpointContents",
    "CheckpointError",
    "Comparison",
    "DataError",
    "Definition",
    "Exhibit",
    "HeatMap",
    "HeatMaps",
    "ImageSet",
    "MetricRequest",
    "ModelError",
    "OutputError",
    "PRSSchedule",
    "Page",
    "Point",
    "PointError",
    "PointSpectrum",
    "ProbeError",
    "Ratio",
    "ResultError",
    "Run",
    "ScheduleRequest",
    "SourceRequest",
    "Spectra",
    "TrainConfig",
    "TrainingError",
    "Validation",
    "__version__",
    "analyze",
    "compare",
    "create",
    "demo",
    "figure_style",
    "figures",
    "find_points",
    "heatmap",
    "image_statistics",
    "list_models",
    "logit_change",
    "open_data",
    "open_target",
    "preview",
    "recast",
    "recast_",
    "register_blocks",
    "register_figure",
    "register_metric",
    "register_reader",
    "register_schedule",
    "register_source",
    "relative_log_amplitude",
    "report",
    "sweep",
    "train",
    "validate",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from fourier_probe.runtime.versions import own

        return own()
    if name not in _HOME:
        raise AttributeError(f"module 'fourier_probe' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fourier_probe.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

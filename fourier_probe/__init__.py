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

import contextlib
import importlib
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fourier_probe.checkpoints.readers import (
        CheckpointContents as CheckpointContents,
        register_reader as register_reader,
    )
    from fourier_probe.data import ImageSet as ImageSet, open_data as open_data
    from fourier_probe.data.sources import SourceRequest as SourceRequest, register_source as register_source
    from fourier_probe.errors import (
        CheckpointError as CheckpointError,
        DataError as DataError,
        ModelError as ModelError,
        OutputError as OutputError,
        PointError as PointError,
        ProbeError as ProbeError,
        ResultError as ResultError,
        TrainingError as TrainingError,
    )
    from fourier_probe.models.gpsa.recast import logit_change as logit_change, recast as recast, recast_ as recast_
    from fourier_probe.models.zoo import create as create
    from fourier_probe.papers.exhibit import Exhibit as Exhibit
    from fourier_probe.papers.registered import register_figure as register_figure
    from fourier_probe.plots.style import figure_style as figure_style
    from fourier_probe.probe.capture import Capture as Capture
    from fourier_probe.probe.definition import Definition as Definition
    from fourier_probe.probe.fast import (
        image_statistics as image_statistics,
        relative_log_amplitude as relative_log_amplitude,
    )
    from fourier_probe.probe.metrics import MetricRequest as MetricRequest
    from fourier_probe.probe.points import Point as Point, find_points as find_points
    from fourier_probe.probe.registered import Ratio as Ratio, register_metric as register_metric
    from fourier_probe.results.comparison import Comparison as Comparison
    from fourier_probe.results.heatmap import HeatMap as HeatMap
    from fourier_probe.results.heatmap_set import HeatMaps as HeatMaps
    from fourier_probe.results.point import PointSpectrum as PointSpectrum
    from fourier_probe.results.spectra import Spectra as Spectra
    from fourier_probe.results.validation import Validation as Validation
    from fourier_probe.trace.blocks import BlockRequest as BlockRequest, register_blocks as register_blocks
    from fourier_probe.training.config import TrainConfig as TrainConfig
    from fourier_probe.training.rules import ScheduleRequest as ScheduleRequest, register_schedule as register_schedule
    from fourier_probe.training.runs import Run as Run
    from fourier_probe.training.schedule import PRSSchedule as PRSSchedule
    from fourier_probe.verbs.analyze import analyze as analyze
    from fourier_probe.verbs.compare import compare as compare
    from fourier_probe.verbs.demo import demo as demo
    from fourier_probe.verbs.figures import figures as figures
    from fourier_probe.verbs.heatmap import heatmap as heatmap
    from fourier_probe.verbs.models import list_models as list_models
    from fourier_probe.verbs.opening import open_target as open_target
    from fourier_probe.verbs.preview import preview as preview
    from fourier_probe.verbs.report import Page as Page, report as report
    from fourier_probe.verbs.sweep import sweep as sweep
    from fourier_probe.verbs.train import train as train
    from fourier_probe.verbs.validate import validate as validate

    __version__: str

_NAMES = {
    "checkpoints.readers": ("CheckpointContents", "register_reader"),
    "data": ("ImageSet", "open_data"),
    "data.sources": ("SourceRequest", "register_source"),
    "errors": (
        "CheckpointError",
        "DataError",
        "ModelError",
        "OutputError",
        "PointError",
        "ProbeError",
        "ResultError",
        "TrainingError",
    ),
    "models.gpsa.recast": ("logit_change", "recast", "recast_"),
    "models.zoo": ("create",),
    "papers.exhibit": ("Exhibit",),
    "papers.registered": ("register_figure",),
    "plots.style": ("figure_style",),
    "probe.capture": ("Capture",),
    "probe.definition": ("Definition",),
    "probe.fast": ("image_statistics", "relative_log_amplitude"),
    "probe.metrics": ("MetricRequest",),
    "probe.points": ("Point", "find_points"),
    "probe.registered": ("Ratio", "register_metric"),
    "results.comparison": ("Comparison",),
    "results.heatmap": ("HeatMap",),
    "results.heatmap_set": ("HeatMaps",),
    "results.point": ("PointSpectrum",),
    "results.spectra": ("Spectra",),
    "results.validation": ("Validation",),
    "trace.blocks": ("BlockRequest", "register_blocks"),
    "training.config": ("TrainConfig",),
    "training.rules": ("ScheduleRequest", "register_schedule"),
    "training.runs": ("Run",),
    "training.schedule": ("PRSSchedule",),
    "verbs.analyze": ("analyze",),
    "verbs.compare": ("compare",),
    "verbs.demo": ("demo",),
    "verbs.figures": ("figures",),
    "verbs.heatmap": ("heatmap",),
    "verbs.models": ("list_models",),
    "verbs.opening": ("open_target",),
    "verbs.preview": ("preview",),
    "verbs.report": ("Page", "report"),
    "verbs.sweep": ("sweep",),
    "verbs.train": ("train",),
    "verbs.validate": ("validate",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> object:
    if name == "__version__":
        from fourier_probe.runtime.versions import own

        return own()
    if name not in _HOME:
        raise AttributeError(f"module 'fourier_probe' has no attribute {name!r}")
    _import_progress_bars()
    return getattr(importlib.import_module(f"fourier_probe.{_HOME[name]}"), name)


def _import_progress_bars() -> None:
    """In a notebook without ipywidgets: the bars of timm's hub, which else tell of them when timm is imported."""
    if "ipykernel" in sys.modules and "tqdm.auto" not in sys.modules:
        with warnings.catch_warnings(), contextlib.suppress(ImportError):
            warnings.filterwarnings("ignore", message="IProgress not found")
            importlib.import_module("tqdm.auto")


def __dir__() -> list[str]:
    return __all__

"""Options shared by several verbs, by one name: `options.NAME`. Nothing here imports torch."""

from fourier_probe.cli.options.images import image_options, image_options_of
from fourier_probe.cli.options.output import FILE_PATH, figure_options, folder, force_option, json_option, out_option
from fourier_probe.cli.options.parsing import NAMED, existing, key_values, size
from fourier_probe.cli.options.probing import (
    axis_option,
    cka_option,
    coverage_options,
    device_of,
    grid_option,
    layout_option,
    map_options,
    noise_options,
    probe_options,
    ranks,
    records,
)
from fourier_probe.cli.options.targets import check_labels, ends_options, label_option, labels_option, model_options

__all__ = [
    "FILE_PATH",
    "NAMED",
    "axis_option",
    "check_labels",
    "cka_option",
    "coverage_options",
    "device_of",
    "ends_options",
    "existing",
    "figure_options",
    "folder",
    "force_option",
    "grid_option",
    "image_options",
    "image_options_of",
    "json_option",
    "key_values",
    "label_option",
    "labels_option",
    "layout_option",
    "map_options",
    "model_options",
    "noise_options",
    "out_option",
    "probe_options",
    "ranks",
    "records",
    "size",
]

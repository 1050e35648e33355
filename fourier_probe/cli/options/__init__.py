"""Options shared by several verbs, by one name: `options.NAME`. Nothing here imports torch."""

# ruff: noqa: F401

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

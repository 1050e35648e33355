"""Where to listen and what to compute; the flags as the records that verbs take. Nothing here imports torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from fourier_probe.cli.options.parsing import size, strength, together
from fourier_probe.errors import DeviceError
from fourier_probe.runtime.launched import rank_and_world

if TYPE_CHECKING:
    from fourier_probe.targets import ModelOptions
    from fourier_probe.verbs.opening import ImageOptions
    from fourier_probe.verbs.probing import ProbeOptions

axis_option = click.option(
    "--axis",
    type=click.Choice(["true", "paper"]),
    default="true",
    show_default=True,
    help="Frequency axis, pi rad/sample: true, or as published, which draws the last bin at 1.0.",
)
map_options = together(
    click.option("--maps", is_flag=True, help="Also the mean 2-D log-amplitude of each point."),
    click.option(
        "--map-scale",
        type=click.Choice(["common", "panel"]),
        default="common",
        show_default=True,
        help="Colours of --maps: one scale for all panels, or one per panel.",
    ),
)
cka_option = click.option("--cka", is_flag=True, help="Also how alike layers are: linear CKA of all pairs.")
grid_option = click.option(
    "--grid",
    metavar="HxW",
    callback=size,
    help="Grid of token sequences whose order cannot be learnt, tokens, as 14x14.  [default: as the forward shows]",
)
layout_option = click.option(
    "--channels-last/--no-channels-last",
    default=None,
    help="Memory layout of images and convolutions, for speed alone.  [default: channels-last in convolutional "
    "networks]",
)
coverage_options = together(
    grid_option,
    click.option("--strict", is_flag=True, help="Stop where a step cannot be read or a map lies elsewhere."),
    click.option(
        "--self-check/--no-self-check",
        default=True,
        show_default=True,
        help="Change patches of an image to test where the maps lie.",
    ),
)
probe_options = together(
    click.option(
        "--points",
        metavar="GLOB",
        multiple=True,
        help="Listen at the modules or points of this name instead; repeat.  [default: the network's own points]",
    ),
    click.option(
        "--branches/--no-branches",
        default=True,
        show_default=True,
        help="Also the branches of EIT and the halves of gated attention.",
    ),
    click.option(
        "--metrics",
        type=click.Choice(["all", "diagonal"]),
        default="all",
        show_default=True,
        help="diagonal: the spectrum along the diagonal alone, which is faster.",
    ),
    axis_option,
    click.option(
        "--log",
        type=click.Choice(["floor", "log1p", "plain"]),
        default="floor",
        show_default=True,
        help="Which logarithm of the amplitude |F|, nats: ln(|F| + floor), ln(1 + |F|) or ln |F|.",
    ),
    click.option("--floor", type=float, default=1e-6, show_default=True, help="Of ln(|F| + floor), in units of |F|."),
    click.option(
        "--window",
        type=click.Choice(["none", "hann"]),
        default="none",
        show_default=True,
        help="Window over the map, against leakage from its borders.",
    ),
    map_options,
    click.option("--attention", is_flag=True, help="Also attention distance, response, NMI, gates and reliance."),
    click.option("--kernels", is_flag=True, help="Also the response of each kernel; with --attention, of each map."),
    click.option("--tokens", is_flag=True, help="Also effective rank and singular values of the tokens."),
    cka_option,
    coverage_options,
    layout_option,
)
"""Where `analyze` listens, and what it computes."""

noise_options = together(
    click.option(
        "--points",
        metavar="GLOB",
        multiple=True,
        help="Also the mean change of features at these probe points; repeat.  [default: the answers alone]",
    ),
    grid_option,
    click.option(
        "--eps",
        type=float,
        callback=strength,
        help="L2 norm of the noise per channel, pixels in [0, 1].  [default: 4.0 at 32 pixels]",
    ),
    click.option(
        "--stride",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Every so many frequencies, cycles an image.",
    ),
    click.option(
        "--bands",
        type=click.IntRange(min=2),
        help="Instead: noise limited to each of so many bands of radii.  [default: single frequencies]",
    ),
    click.option(
        "--filters",
        is_flag=True,
        help="Instead: low-pass, high-pass, without a band; cut-offs are multiples of 1/BANDS, without --bands of 1/8.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the noise."),
)
"""What `heatmap` disturbs images with, and where it listens."""


def records(flags: dict[str, Any]) -> tuple[ModelOptions, ImageOptions, ProbeOptions]:
    """The flags of `model_options`, `image_options` and `probe_options` as the records that verbs take."""
    from fourier_probe.probe.definition import Definition
    from fourier_probe.targets import ModelOptions
    from fourier_probe.verbs.opening import ImageOptions
    from fourier_probe.verbs.probing import ProbeOptions

    computed = {name: flags[name] for name in ("log", "floor", "window", "axis", "metrics") if name in flags}
    listens = "points branches maps map_scale attention kernels tokens cka strict self_check grid channels_last"
    listen = {name: flags[name] for name in listens.split() if name in flags}
    return (
        ModelOptions(**{name: flags[name] for name in ModelOptions.__dataclass_fields__}),
        ImageOptions(
            images=flags["limit"],
            **{name: flags[name] for name in ImageOptions.__dataclass_fields__ if name != "images"},
        ),
        ProbeOptions(definition=Definition(**computed), device=device_of(flags["device"]), amp=flags["amp"], **listen),
    )


def device_of(name: str) -> str:
    """The device that `--device` names; `auto` takes a GPU where there is one, and under torchrun the rank's own."""
    from fourier_probe.runtime import distributed

    try:
        return str(distributed.device_of(name))
    except DeviceError as error:
        raise click.UsageError(str(error)) from error


@contextlib.contextmanager
def ranks() -> Iterator[int]:
    """Join the other processes where torchrun started several; yields this one's rank."""
    if rank_and_world()[1] == 1:  # without torch
        yield 0
        return
    from fourier_probe.runtime.distributed import joined

    with joined("gloo") as (rank, _):  # sums are gathered on the CPU, whatever the model runs on
        yield rank

"""What is measured beside the spectra: kernels, attention, reliance, similarity of layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from fourier_probe.data import batches, choose
from fourier_probe.data.numbered import numbered
from fourier_probe.errors import ProbeError, first_line
from fourier_probe.results.attention import attention_record
from fourier_probe.results.cka import CkaRecord
from fourier_probe.results.information import InformationRecord
from fourier_probe.results.kernels import KernelRecord
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime.messages import note
from fourier_probe.targets import Target
from fourier_probe.verbs.opening import Data, ImageOptions, Stream, open_stream
from fourier_probe.verbs.probing import ProbeOptions

if TYPE_CHECKING:
    from fourier_probe.probe.attention import Information
    from fourier_probe.probe.kernels import KernelResponse

ATTENTION_IMAGES = 64
"""Images whose attention maps are looked at."""


def cka_of(ours: Spectra, theirs: Spectra, label: str, other: str) -> CkaRecord | None:
    """CKA of two results whose features are at hand; a note where there is none."""
    from fourier_probe.probe.cka import LEAST, similarity

    if ours.pooled is None or theirs.pooled is None:
        saved = other if theirs.pooled is None else label
        note(f"CKA with {saved} is left out: a saved result holds no features of images; name the network.")
        return None
    if ours.images.n < LEAST:
        note(f"CKA is left out: it needs {LEAST} images, and there are {ours.images.n}.")
        return None
    rows, columns = ours.points, theirs.points
    group, features = ours.pooled.ordered([point.name for point in rows])
    same = features if theirs is ours else theirs.pooled.ordered([point.name for point in columns])[1]
    similar = similarity(features, same, group, groups=ours.definition.groups)
    return CkaRecord(
        a=label,
        b=other,
        rows=[point.name for point in rows],
        columns=[point.name for point in columns],
        row_depth=[point.depth for point in rows],
        column_depth=[point.depth for point in columns],
        value=_matrix(similar.value),
        stderr=_matrix(similar.stderr),
        images=similar.images,
        minibatch=similar.minibatch,
    )


def _matrix(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[list[float | None]]:
    return [[value if np.isfinite(value) else None for value in row] for row in values.tolist()]


def add_kernels(result: Spectra, target: Target, probe: ProbeOptions) -> None:
    """The responses of the kernels of convolutions into `result`; a note where there is none to show."""
    from fourier_probe.probe.kernels import kernel_responses

    model = target.model
    point = result.input
    if model is None or (point is None and result.images.size is None):
        note("kernels are left out: the size of the images is not known.")
        return
    size = point.grid if point is not None else (result.images.size or [1, 1])
    channels = point.channels if point is not None else len(result.images.mean or [0, 0, 0])
    like = next(model.parameters(), torch.zeros(()))
    with _or_noted("kernels", model, like.device, like.device):
        responses, left_out = kernel_responses(model, torch.zeros(1, channels, *size).to(like))
        for name, reason in list(left_out.items())[:3]:
            note(f"the kernel of {name} is left out: {reason}.")
        result.kernels = [_kernel_record(response) for response in responses]
        if not any(record.taps > 1 for record in result.kernels):
            what = "kernels of one tap alone, which pass all frequencies" if result.kernels else "no convolution"
            more = "" if probe.attention else "; --attention measures what attention maps pass"
            note(f"kernels: this network has {what}{more}.")


def _kernel_record(response: KernelResponse) -> KernelRecord:
    values = {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(response).items()
    }
    for name in ("log_power", "stderr"):
        values[name] = [value if np.isfinite(value) else None for value in values[name]]
    for name in ("tilt", "tilt_stderr"):
        values[name] = values[name] if np.isfinite(values[name]) else None
    return KernelRecord(**values)


def add_attention(result: Spectra, target: Target, stream: Stream, data: Data | None, probe: ProbeOptions) -> None:
    """The measures of each attention layer, and reliance, into `result`; a note says what has none, and why."""
    from fourier_probe.probe.attention import observe
    from fourier_probe.probe.reliance import gated_layers
    from fourier_probe.results.measured_reliance import measure

    model, chosen, source = target.model, stream.chosen, stream.source
    if model is None or (chosen is None and isinstance(data, Iterator)):
        note("attention is left out: it reads its images again, and these can be read once only: give a list.")
        return
    home = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    spec, total, read = None, None, _few(open_stream(target, data, ImageOptions()).batches) if chosen is None else None
    if chosen is not None and source.size is not None:
        some = choose(chosen, limit=ATTENTION_IMAGES)
        spec = target.input_spec(img_size=(source.size[0], source.size[1]), mean=source.mean, std=source.std)
        total, read = len(some), (batch.images for batch in batches(some, spec, batch_size=8))
    with _or_noted("attention", model, probe.device if probe.device is not None else home, home):
        seen = observe(model, read or [], total=total)
        informed = {record.name for record in seen.information}
        for name, reason in list(seen.left_out.items())[:3]:
            there = "; its NMI is there" if name in informed else ""
            note(f"attention of {name} is left out: {reason}{there}.")
        if not seen.information:
            note("attention is left out: this network has none with a map.")
        result.attention = [attention_record(layer, seen.images) for layer in seen.layers]
        result.information = [_information(record, seen.images) for record in seen.information]
        if probe.kernels:
            result.kernels += [_kernel_record(layer.filter) for layer in seen.layers]
    if chosen is None or spec is None:
        if gated_layers(model):
            note("reliance is left out: it takes the labelled images of a source.")
        return
    with _or_noted("reliance", model, probe.device if probe.device is not None else home, home):
        result.reliance = measure(model, chosen, spec, 50, named=data is None or isinstance(data, str | Path))


def _few(own: Iterable[object]) -> Iterator[torch.Tensor]:
    """The first images of batches of the caller's own, as many as attention looks at."""
    seen = 0
    for batch in numbered(own):
        yield batch.images[: ATTENTION_IMAGES - seen]
        seen += len(batch.images)
        if seen >= ATTENTION_IMAGES:
            return


def _information(information: Information, images: int) -> InformationRecord:
    return InformationRecord(
        **{name: getattr(information, name) for name in ("name", "over", "queries", "keys", "mean")},
        nmi=information.nmi.tolist(),
        stderr=[value if np.isfinite(value) else None for value in information.stderr.tolist()],
        mean_stderr=information.mean_stderr if np.isfinite(information.mean_stderr) else None,
        images=images,
    )


@contextlib.contextmanager
def _or_noted(what: str, model: nn.Module, device: torch.device | str, home: torch.device) -> Iterator[None]:
    """The model on a device and back; whatever a foreign network raises is a note: the spectra are done."""
    try:
        model.to(device)
        yield
    except Exception as error:
        kind = "" if isinstance(error, ProbeError) else f"{type(error).__name__}: "
        note(f"{what} is left out: {kind}{first_line(error, 'no message')}.")
    finally:
        model.to(home)

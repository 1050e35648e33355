"""`torchvision:NAME`: torchvision's own models, weights only where they are asked for. Imports errors, model_names."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from fourier_probe.errors import ModelError, first_line, printable
from fourier_probe.runtime.model_names import unknown_of_torchvision


class Wanted(NamedTuple):
    """What a torchvision model was made for."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def create(name: str, *, pretrained: bool, model_args: dict[str, object]) -> nn.Module:
    """A model of torchvision's, of the name after `torchvision:`.

    Raises:
        ModelError: there is none, arguments it does not take, or weights named as an argument.
    """
    import inspect

    from torchvision import models

    known = models.list_models()
    if name not in known:
        raise unknown_of_torchvision(name, known)
    if named := [key for key in model_args if key in ("weights", "weights_backbone", "pretrained")]:
        raise ModelError(f"{named[0]} is no argument to give with --model-arg: --pretrained loads published weights.")
    builder = inspect.signature(models.get_model_builder(name)).parameters
    backbone = {} if pretrained or "weights_backbone" not in builder else {"weights_backbone": None}
    quiet = {"init_weights": True} if name in ("googlenet", "inception_v3") and not pretrained else {}  # else a warning
    try:
        made: nn.Module = models.get_model(
            name, weights="DEFAULT" if pretrained else None, **{**backbone, **quiet, **model_args}
        )
    except Exception as error:  # whatever a constructor raises, or a download where there is no network
        weights = "with pretrained weights " if pretrained else ""
        listed = printable(", ".join(f"{key}={value!r}" for key, value in model_args.items()), 300) or "its defaults"
        raise ModelError(f"cannot create torchvision:{name} {weights}from {listed}: {first_line(error)}") from error
    return made


def wanted(name: str) -> Wanted | None:
    """The input of its published weights; None where they say none."""
    from torchvision import models

    try:
        transform = next(iter(models.get_model_weights(name))).transforms()
    except (ValueError, StopIteration):
        return None
    crop = getattr(transform, "crop_size", None)
    if not crop:
        return None
    return Wanted((crop[0], crop[-1]), tuple(transform.mean), tuple(transform.std))

"""Give a model images, and say what is wrong when its own forward raises. Imports torch and errors only."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fourier_probe.errors import ModelError, ProbeError

IMAGES = "pixel_values"
"""The name that transformers gives to images."""


def eager(model: nn.Module) -> nn.Module:
    """What `torch.compile` wrapped, or the model itself: hooks are for modules that run one by one."""
    inner = getattr(model, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else model


def run(model: nn.Module, images: Tensor) -> Any:
    """The model's output for images: its first argument, or `pixel_values` where it has one that is not its first."""
    if IMAGES in _parameters(model)[1:]:
        return model(**{IMAGES: images})
    return model(images)


@contextlib.contextmanager
def giving(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Around a first forward: what the model's own code raises on (B, C, H, W) images becomes a `ModelError`.

    Raises:
        ModelError: names the model, the exception and what to do: the size to give where the model takes another one,
            else the wrapper to write. Memory that runs out is no fault of the model.
    """
    try:
        yield
    except (ProbeError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a foreign forward raises
        name = type(eager(model)).__name__
        first = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
        shape = " x ".join(map(str, images.shape[1:]))
        raise ModelError(
            f"{name} fails on an image of {shape}: {type(error).__name__}: {first}. {_advice(model, images, name)}"
        ) from error


def _advice(model: nn.Module, images: Tensor, name: str) -> str:
    required = _required(model)
    if len(required) > 1:
        return f"Its forward takes ({', '.join(required)}), not images alone. {_wrapper(name, required)}"
    if _takes(model, images):
        return "It takes these images when it is not traced: please report this."
    size = _another_size(model, images)
    if size is not None:
        return (
            f"It takes images of {size[0]} x {size[1]}: give images of a size it takes with --img-size "
            f"{size[0]}x{size[1]}; one that is made for a size, with --model-arg img_size=PX."
        )
    if _takes_video(model, images):
        return (
            "It takes video (five dimensions), and features of several frames are no maps: give the network of one "
            "frame, or a module whose forward makes a clip of images[:, :, None]."
        )
    return f"No other size was found that it takes. {_wrapper(name, required)}"


def _wrapper(name: str, required: list[str]) -> str:
    arguments = ", ".join(["images", *(f"{other}=..." for other in required[1:])])
    return (
        "If it takes something else than a tensor (B, C, H, W), wrap it: "
        f"class Wrapper(torch.nn.Module) with the {name} as self.model and "
        f"def forward(self, images): return self.model({arguments}); a dictionary as self.model({{'key': images}}), "
        "a list as self.model(list(images))."
    )


def _another_size(model: nn.Module, images: Tensor) -> tuple[int, int] | None:
    """The one other size that is tried, if the model takes it: its own where it says one, else 224."""
    own = _own_size(model) or (224, 224)
    if own == tuple(images.shape[-2:]):
        return None
    return own if _takes(model, images.new_zeros(len(images), images.shape[1], *own)) else None


def _takes_video(model: nn.Module, images: Tensor) -> bool:
    """Whether it takes five dimensions, in either order of frames and channels."""
    config = getattr(eager(model), "config", None)
    own = [getattr(config, key, None) for key in ("frames_per_clip", "num_frames")]
    for frames in [*(count for count in own if isinstance(count, int)), 4, 8, 16]:
        clip = images[:, None].repeat(1, frames, 1, 1, 1)
        if _takes(model, clip) or _takes(model, clip.transpose(1, 2)):
            return True
    return False


def _takes(model: nn.Module, images: Tensor) -> bool:
    try:
        with torch.no_grad():
            run(model, images)
    except Exception:  # whatever a foreign forward raises
        return False
    return True


def _own_size(model: nn.Module) -> tuple[int, int] | None:
    inner = eager(model)
    for holder, key in (("config", "image_size"), ("patch_embed", "img_size"), ("", "image_size")):
        size = getattr(getattr(inner, holder, None) if holder else inner, key, None)
        if isinstance(size, int):
            return size, size
        if isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(side, int) for side in size):
            return int(size[0]), int(size[1])
    declared = getattr(inner, "pretrained_cfg", None)
    size = declared.get("input_size") if isinstance(declared, dict) else None
    return (int(size[-2]), int(size[-1])) if size else None


def _parameters(model: nn.Module) -> list[str]:
    try:
        return list(inspect.signature(eager(model).forward).parameters)
    except (TypeError, ValueError):  # a forward in C
        return []


def _required(model: nn.Module) -> list[str]:
    """Arguments that a forward cannot do without."""
    try:
        parameters = inspect.signature(eager(model).forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]

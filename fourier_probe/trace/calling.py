"""Give a model images, and say what is wrong when its own forward raises. Imports torch and errors only."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fourier_probe.errors import ModelError, ProbeError, Terminated, first_line

IMAGES = "pixel_values"
"""The name that transformers gives to images."""

SIDES = (224, 256, 32, 64, 96, 128, 384, 512)
"""Sizes that are tried, after the model's own, on a model that does not take its images; for at most `PATIENCE` s."""

PATIENCE = 20.0


def eager(model: nn.Module) -> nn.Module:
    """What `torch.compile` wrapped, or the model itself: hooks are for modules that run one by one."""
    inner = getattr(model, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else model


def run(model: nn.Module, images: Tensor) -> object:
    """The model's output for images: its first argument, or the one that takes images by its name.

    Raises:
        ModelError: what the model's own code raises, as `giving` says it.
    """
    with giving(model, images):
        return call(model, images)


def call(model: nn.Module, images: object) -> object:
    """As `run`, with the model's own exceptions.

    >>> call(nn.Identity(), "images")
    'images'
    """
    name = _name_of_images(model)
    return model(images) if name is None else model(**{name: images})


@contextlib.contextmanager
def giving(model: nn.Module, images: Tensor, *, advise: bool = True) -> Iterator[None]:
    """Around a forward: what the model's own code raises on (B, C, H, W) images becomes a `ModelError`.

    Args:
        model: any module.
        images: what it is given.
        advise: run it again on other images to find out what it takes.

    Raises:
        ModelError: names the model, the exception and what to do: the size to give where the model takes another one,
            else the wrapper to write. Memory that runs out is no fault of the model, nor is a signal.
    """
    try:
        yield
    except (ProbeError, KeyboardInterrupt, Terminated, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except BaseException as error:  # whatever a foreign forward raises, sys.exit included
        if isinstance(error, SystemExit) and error.code in (130, 143):  # a signal
            raise
        name = _name(model)
        shape = " x ".join(map(str, images.shape[1:]))
        kind = f"it calls sys.exit({error.code!r})" if isinstance(error, SystemExit) else type(error).__name__
        message = "" if isinstance(error, SystemExit) else f": {first_line(error, 'no message')}"
        mode = "" if advise else f" in {'training' if model.training else 'evaluation'} mode"
        advice = f" {_advice(model, images, error)}" if advise else ""
        raise ModelError(f"{name} fails on an image of {shape}{mode}: {kind}{message}.{advice}") from error


def _advice(model: nn.Module, images: Tensor, error: BaseException) -> str:
    if isinstance(eager(model), torch.jit.ScriptModule):
        return (
            "It is a scripted module, which runs no Python and cannot be listened to: give the module that was "
            "scripted or traced."
        )
    message = first_line(error)
    if "allocate memory" in message:
        return "Memory runs out: give smaller images with --img-size, or fewer at a time with --batch-size."
    required = _required(model)
    if len(required) > 1:
        return f"Its forward takes ({', '.join(required)}), not images alone. {_wrapper(model)}"
    by_name = _name_of_images(model)
    if by_name is not None and "positional argument" in message:
        return f"It takes images by name: wrap it, {_class(model)} {_forward(f'{by_name}=images')}."
    if _takes(model, images, contextlib.nullcontext()):
        return "It takes these images when nothing listens and they are given once more: please report this."
    for other, advice in _other_inputs(model, images):
        if _takes(model, other):
            return advice
    if "grad" in message and _takes(model, images, _plainly(gradients=True)):
        return (
            "It takes them where gradients are computed, and they are not here: wrap it, "
            f"{_class(model)} def forward(self, images): under torch.inference_mode(False) and torch.enable_grad() "
            "return self.model(images.clone())."
        )
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
    mode = "training" if model.training else "evaluation"
    return f"No other size was found that it takes (in {mode} mode, as here). {_wrapper(model)}"


def _other_inputs(model: nn.Module, images: Tensor) -> Iterator[tuple[object, str]]:
    """What a model may take in place of these images, and what to do then."""
    like = next((p for p in model.parameters() if p.is_floating_point()), images)
    if like.is_meta:
        yield images.to("meta"), "Its weights are on the meta device and have no values: make it on the CPU."
    elif like.dtype != images.dtype:
        yield images.to(like.dtype), f"It takes them as {like.dtype}: give images of that type."
    if len(images) > 1:
        yield images[:1], f"It takes one image, and not {len(images)} at once: its forward must take any number."
    yield images[0], "It takes one image (C, H, W), and no batch: its forward must take (B, C, H, W)."
    for other, written in (
        (images.permute(0, 2, 3, 1), "images.permute(0, 2, 3, 1)"),
        (list(images), "list(images)"),
        ((images * 255).byte(), "(images * 255).byte()"),
    ):
        yield other, f"It takes {written}: wrap it, {_class(model)} {_forward(written)}."


def _wrapper(model: nn.Module) -> str:
    required = _required(model)
    by_name = _name_of_images(model)
    first = f"{by_name}=images" if by_name else "images"
    arguments = ", ".join([first, *(f"{other}=..." for other in required if other not in (by_name, required[0]))])
    return (
        f"If it takes something else than a tensor (B, C, H, W), wrap it: {_class(model)} {_forward(arguments)}; a "
        "dictionary as self.model({'key': images}), a list as self.model(list(images))."
    )


def _class(model: nn.Module) -> str:
    return f"class Wrapper(torch.nn.Module) with the {_name(model)} as self.model and"


def _forward(arguments: str) -> str:
    return f"def forward(self, images): return self.model({arguments})"


def _name(model: nn.Module) -> str:
    return type(eager(model)).__name__


def _another_size(model: nn.Module, images: Tensor) -> tuple[int, int] | None:
    """Another size that the model takes: its own where it says one, else a usual one."""
    sizes = [own] if (own := _own_size(model)) else []
    since = time.monotonic()
    for size in [*sizes, *((side, side) for side in SIDES)]:
        if size == tuple(images.shape[-2:]):
            continue
        if _takes(model, images.new_zeros(len(images), images.shape[1], *size)):
            return size
        if time.monotonic() - since > PATIENCE:
            break
    return None


def _takes_video(model: nn.Module, images: Tensor) -> bool:
    """Whether it takes five dimensions, in either order of frames and channels."""
    config = getattr(eager(model), "config", None)
    own = [getattr(config, key, None) for key in ("frames_per_clip", "num_frames")]
    for frames in [*(count for count in own if isinstance(count, int)), 4, 8, 16]:
        clip = images[:, None].repeat(1, frames, 1, 1, 1)
        if _takes(model, clip) or _takes(model, clip.transpose(1, 2)):
            return True
    return False


@contextlib.contextmanager
def _plainly(*, gradients: bool = False) -> Iterator[None]:
    with torch.inference_mode(False), torch.set_grad_enabled(gradients):
        yield


def _takes(model: nn.Module, value: object, modes: contextlib.AbstractContextManager[None] | None = None) -> bool:
    try:
        with modes or _plainly():
            call(model, value.clone() if isinstance(value, Tensor) else value)
    except (KeyboardInterrupt, Terminated):
        raise
    except BaseException:  # whatever a foreign forward raises
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


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(eager(model).forward).parameters.values())
    except (TypeError, ValueError):  # a forward in C
        return []


def _name_of_images(model: nn.Module) -> str | None:
    """The argument that takes images by its name; None where that is the first."""
    parameters = _parameters(model)
    by_place = [p.name for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    if by_place[:1] != [IMAGES] and any(p.name == IMAGES for p in parameters):
        return IMAGES
    return next(iter(_required(model)), None) if not by_place else None


def _required(model: nn.Module) -> list[str]:
    """Arguments that a forward cannot do without."""
    return [
        p.name
        for p in _parameters(model)
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]

"""Any model by name, what it wants to see, and what it costs."""

from __future__ import annotations

import importlib.util
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from fourier_probe import plugins
from fourier_probe.errors import ModelError, Terminated, first_line, printable
from fourier_probe.io.paths import expanded
from fourier_probe.models import hub, torchvision_names
from fourier_probe.runtime import model_names
from fourier_probe.runtime.modes import evaluating, keeping_random_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fourier_probe.data.transform import InputSpec

_NAME = re.compile(r"[\w.-]+")  # of a model of timm or ours: no path and no address, which timm would follow
FACTORY = re.compile(r"(?P<file>.+\.py):(?P<factory>\w+)")


class Stats(NamedTuple):
    """What a model costs."""

    parameters: int
    multiply_adds: int  # for one image; half of torch's FLOPs
    attention_products: int = 0  # of these, query with key and map with value: batched products and fused attention


def create(name: str, *, pretrained: bool = False, **model_args: Any) -> nn.Module:
    """A model by name, initialised from torch's global generator as its authors do.

    Args:
        name: a model of timm or of `fourier_probe.models.small`, with or without `timm:`; `torchvision:NAME`; or
            `path/to/file.py:factory`, where `factory(**model_args)` returns an `nn.Module`. The file is run: only name
            files you trust.
        pretrained: fetch the weights its authors publish (timm and torchvision; needs a network the first time).
        model_args: what the model takes: `num_classes`, `in_chans`, `img_size`, ...

    Raises:
        ModelError: an unknown name, arguments the model does not take, a factory that fails, or no such weights.

    >>> model = create("cifar_resnet8", num_classes=10, in_chans=1)
    >>> model.num_classes
    10
    """
    _check(model_args)
    name = name.removeprefix("timm:")
    if name.startswith(model_names.TORCHVISION):
        plain = name.removeprefix(model_names.TORCHVISION)
        return torchvision_names.create(plain, pretrained=pretrained, model_args=model_args)
    if factory := FACTORY.fullmatch(name):
        if pretrained:
            raise ModelError(f"pretrained weights were asked for, but {name} is a file: let its factory load them.")
        return _from_file(expanded(factory["file"]), factory["factory"], model_args)
    if not is_registered(name):
        raise model_names.unknown(name, names())
    import timm

    if not pretrained:
        try:
            return timm.create_model(name, **model_args)
        except Exception as error:  # whatever a constructor raises
            raise ModelError(f"cannot create {name} from {_listed(model_args)}: {first_line(error)}") from error
    with hub.at_once() as blocked:
        try:
            return timm.create_model(name, pretrained=True, **model_args)
        except Exception as error:  # that, or what a client of a hub raises
            asked = f"cannot create {name} with pretrained weights from {_listed(model_args)}"
            away = blocked and isinstance(error, OSError)
            why = f"{blocked}, and they were not fetched before" if away else first_line(error)
            raise ModelError(f"{asked}: {why}") from error


def skeleton(name: str, *, in_full: bool = True, **model_args: Any) -> nn.Module:
    """The model without its weights: `create` on torch's meta device, for its names and shapes.

    A model whose constructor reads values of tensors is created in full, if `in_full`; no model of timm's or ours needs
    it. Leaves torch's generator as it was.
    """
    with keeping_random_state():
        try:
            with torch.device("meta"):
                return create(name, **model_args)
        except ModelError:
            if not in_full:
                raise
            return create(name, **model_args)


def is_registered(name: str) -> bool:
    """Whether timm knows `name`, also with a tag of pretrained weights (`resnet50.a1_in1k`)."""
    import timm

    return bool(_NAME.fullmatch(name) and timm.is_model(name))


def is_typed(name: str) -> bool:
    """Whether `name` is of a kind that only a user may give, not a file: a factory, or a model of torchvision."""
    return bool(FACTORY.fullmatch(name)) or name.startswith(model_names.TORCHVISION)


def names(pattern: str = "*") -> list[str]:
    """Names that `create` takes and that match a shell pattern, sorted naturally.

    >>> names("cifar_resnet20*")
    ['cifar_resnet20', 'cifar_resnet20_x2', 'cifar_resnet20_x4']
    """
    import timm

    return list(timm.list_models(pattern))


def ours() -> list[str]:
    """Names of the models this package registers, sorted naturally."""
    import timm

    import fourier_probe.models

    home = fourier_probe.models.__name__
    return [name for name in names() if timm.models.model_entrypoint(name).__module__.startswith(home)]


def input_spec(
    model: nn.Module,
    *,
    img_size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> InputSpec:
    """What a model wants to see. What is given here comes first, then what the model says of itself, then a default.

    - size: `img_size`; the `img_size` the model was created with (timm's traits); timm's `pretrained_cfg`; 224 x 224.
    - channels: timm's `in_chans`; `in_channels` of the first convolution; 3.
    - mean, std, interpolation, crop: timm's `pretrained_cfg`; without one ImageNet's mean and std, bicubic, no crop.
      Given for another number of channels, mean and std are averaged into one and repeated: a grey image has about the
      mean of the colours. timm keeps the three.

    Args:
        model: any module.
        img_size: pixels, one number or (H, W).
        mean: one number, or one a channel, in [0, 1].
        std: likewise.

    Raises:
        ModelError: a mean or std given for another number of channels than the model has.
        DataError: values no image can have.
    """
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, resolve_data_config

    from fourier_probe.data.transform import InputSpec

    config: dict[str, Any] = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD, "input_size": (3, 224, 224)}
    if getattr(model, "pretrained_cfg", None):
        config = resolve_data_config({}, model=model)  # type: ignore[no-untyped-call]
    channels = _channels(model)
    return InputSpec(
        channels=channels,
        size=_pair(img_size or getattr(model, "_traits", {}).get("img_size") or config["input_size"][1:]),
        mean=_per_channel("mean", mean, config["mean"], channels),
        std=_per_channel("std", std, config["std"], channels),
        interpolation=config.get("interpolation", "bicubic"),
        crop_pct=min(config.get("crop_pct", 1.0), 1.0),
    )


def says_size(model: nn.Module) -> bool:
    """Whether a model says for which size of images it was made: timm's and ours do, others may not."""
    config = getattr(model, "pretrained_cfg", None) or {}
    return bool(getattr(model, "_traits", {}).get("img_size") or config.get("input_size"))


def stats(model: nn.Module, size: int | Sequence[int]) -> Stats:
    """Parameters, and multiply-adds of one image, by torch's FLOP counter.

    Counted are convolutions, matrix products and attention, as in papers; not normalisation, activation, pooling. torch
    counts a multiply-add as two operations, papers as one, and so do we. The forward pass runs in evaluation mode on
    the meta device, where nothing is allocated or computed; if some layer cannot run there, on zeros.

    Args:
        model: any module; left as it was.
        size: (H, W) or (C, H, W) of one image, pixels.

    Raises:
        ModelError: the model does not take images of this size.
    """
    from torch.func import functional_call
    from torch.utils.flop_counter import FlopCounterMode

    shape = (*([] if not isinstance(size, int) and len(size) == 3 else [_channels(model)]), *_sides(size))
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    try:
        with torch.no_grad(), evaluating(model), keeping_random_state():
            try:
                meta = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
                with FlopCounterMode(display=False) as counter:
                    functional_call(model, meta, (torch.empty(1, *shape, device="meta"),))
            except Exception:  # a tensor that is neither parameter nor buffer, an operator without a meta kernel
                like = next((tensor for tensor in tensors.values() if tensor.is_floating_point()), torch.empty(0))
                learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
                model.requires_grad_(False)  # the counter fails on views of what has gradients
                try:
                    with FlopCounterMode(display=False) as counter:
                        model(torch.zeros(1, *shape, device=like.device, dtype=like.dtype))
                finally:
                    for parameter in learnt:
                        parameter.requires_grad_(True)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} does not take an image of {' x '.join(map(str, shape))}: {first_line(error)}"
        ) from error
    by_operator = counter.get_flop_counts().get("Global", {})
    products = sum(flops for op, flops in by_operator.items() if "bmm" in str(op) or "attention" in str(op))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Stats(parameters, counter.get_total_flops() // 2, products // 2)


def _from_file(file: Path, factory: str, model_args: dict[str, object]) -> nn.Module:
    """`factory(**model_args)` of a Python file, which is run once a call."""
    shown = printable(file)
    try:
        kind = "" if file.is_file() else "not a regular file" if file.exists() else "no such file"
    except (OSError, ValueError) as error:
        kind = f"no file can have this name ({first_line(error)})"
    if kind:
        raise ModelError(f"{kind}: {shown}; expected path/to/file.py:factory.")
    name = plugins.module_name(file)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ModelError(f"{shown} cannot be loaded as a Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _reported(f"{shown} fails when it is loaded"):
            spec.loader.exec_module(module)
    except ModelError:
        del sys.modules[name]
        raise
    with _reported(f"{shown} fails when {factory} is looked up"):
        build = getattr(module, factory, None)
    if not callable(build):
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ModelError(f"{shown} has no function {factory!r}; it has {', '.join(functions) or 'none'}.")
    with _reported(f"{factory} of {shown} fails on {_listed(model_args)}"):
        model = build(**model_args)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{factory} of {shown} returned {type(model).__name__}, expected a torch.nn.Module.")
    check_weights(model)
    return model


def check_weights(model: nn.Module) -> None:
    """Refuse a network whose weights have no values yet.

    Raises:
        ModelError: says why, and what to do.
    """
    name = type(model).__name__
    for path, weight in model.named_parameters():
        if nn.parameter.is_lazy(weight):
            raise ModelError(
                f"{name} has weights without a size ({path}, of a lazy layer): run it once on an image before you give "
                "it, in the factory where there is one."
            )
        if weight.is_meta:
            raise ModelError(f"{name} has weights without values ({path}, on the meta device): make it on the CPU.")


@contextmanager
def _reported(what: str) -> Iterator[None]:
    """Whatever a user's file raises, `sys.exit` included, as a ModelError; only Ctrl-C and SIGTERM go through."""
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        raise
    except BaseException as error:
        name = "it calls sys.exit" if isinstance(error, SystemExit) else type(error).__name__
        raise ModelError(f"{what}: {name}: {first_line(error)}") from error


def _check(model_args: dict[str, object]) -> None:
    """Refuse values that no model takes, before a constructor makes what it will of them."""
    for name, least in (("num_classes", 0), ("in_chans", 1), ("img_size", 1)):
        value = model_args.get(name)
        numbers = value if name == "img_size" and isinstance(value, list | tuple) else (value,)
        if value is not None and not all(type(number) is int and number >= least for number in numbers):
            kind = "pixels, one number or (height, width)" if name == "img_size" else "a whole number"
            raise ModelError(f"{name} is {printable(repr(value), 80)}, expected {kind}, at least {least}.")


def _channels(model: nn.Module) -> int:
    """Channels of the images a model takes; see `input_spec`."""
    declared = getattr(model, "in_chans", None)
    if isinstance(declared, int):
        return declared
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return first.in_channels if first is not None else 3


def _per_channel(
    what: str, chosen: Sequence[float] | None, default: Sequence[float], channels: int
) -> tuple[float, ...]:
    if chosen is not None and len(chosen) not in (1, channels):
        raise ModelError(f"{what} has {len(chosen)} values: expected 1, or one for each of the {channels} channels.")
    values = tuple(float(value) for value in (default if chosen is None else chosen))
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _sides(size: int | Sequence[int]) -> tuple[int, ...]:
    sides = (size, size) if isinstance(size, int) else tuple(int(side) for side in size)
    if len(sides) not in (2, 3) or min(sides) < 1:
        raise ModelError(f"the image size is {size}: expected pixels, one number or (height, width).")
    return sides


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    sides = _sides(size)
    if len(sides) != 2:
        raise ModelError(f"the image size is {size}: expected pixels, one number or (height, width).")
    return sides[0], sides[1]


def _listed(model_args: dict[str, object]) -> str:
    return printable(", ".join(f"{name}={value!r}" for name, value in model_args.items()), 300) or "its defaults"

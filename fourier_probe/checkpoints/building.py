"""`Checkpoint` -> model: the architecture created, every name, shape and number checked, then loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from fourier_probe.checkpoints.formats import Checkpoint
from fourier_probe.checkpoints.misfits import advice, classes_of
from fourier_probe.errors import CheckpointError, ModelError, printable, suggest
from fourier_probe.models import fresh, zoo
from fourier_probe.runtime.messages import note
from fourier_probe.runtime.model_names import TORCHVISION
from fourier_probe.runtime.modes import keeping_random_state

_SHOWN = 4  # names of a list in a message
_IMAGENET = 1000  # classes that torchvision's models have unless they are asked for others
_SLACK = 256 << 20  # bytes that a model may have beside its weights: masks, tables of positions


def architecture(
    checkpoint: Checkpoint, *, model: str | None = None, model_args: dict[str, object] | None = None
) -> tuple[str, dict[str, Any]]:
    """Name and arguments the checkpoint's model is made with: given, else of the file, else read off its weights.

    Raises:
        CheckpointError: nothing says what it is.
        ModelError: the architecture cannot be created with these arguments.
    """
    name = model or checkpoint.arch
    if name is None:
        ignored = "".join(f" Left out: {printable(reason, 200)}." for reason in checkpoint.ignored)
        raise CheckpointError(
            f"{checkpoint.path} does not say what it is ({len(checkpoint.state)} tensors, the first "
            f"{printable(next(iter(checkpoint.state)), 80)}): pass --model NAME and, where needed, --model-arg "
            f"KEY=VALUE; for one of several files, FILE=NAME.{ignored}"
        )
    if model is None:
        _check_name(checkpoint, name)
    arguments = {**(checkpoint.model_args if _speaks_of(checkpoint, name) else {}), **(model_args or {})}
    if name.startswith(TORCHVISION):
        classes = classes_of(checkpoint.state)
        return name, arguments if classes in (None, _IMAGENET) else {"num_classes": classes, **arguments}
    if not zoo.is_registered(name):
        return name, arguments
    with keeping_random_state(0), _at_most(_modules(checkpoint)):
        return name, _inferred(name, arguments, checkpoint)


def build(
    checkpoint: Checkpoint,
    *,
    model: str | None = None,
    model_args: dict[str, object] | None = None,
    untrained: bool = False,
    ignore_extra: bool = False,
) -> nn.Module:
    """The checkpoint's model, in evaluation mode on the CPU, in the precision its architecture has (float32).

    Half-precision and double weights are cast to it. Arguments neither the file nor the caller gives are read off the
    weights, for models of timm and ours: `num_classes` off the head (timm's `classifier`), `in_chans` off the first
    convolution. Missing `num_batches_tracked` (torch before 0.4.1) does not matter in evaluation and is let through.
    For these models everything is compared on a skeleton, which has no numbers, before any memory is taken.

    Args:
        checkpoint: from `read`.
        model: name or `path/to/file.py:factory`, for a file that does not say; overrides one that does.
        model_args: on top of the file's.
        untrained: the same architecture, initialised from a fixed seed: the control without training.
        ignore_extra: leave out weights that the network has no place for, with a note.

    Raises:
        CheckpointError: the architecture is not known, the weights do not all fit it, or are not finite.
        ModelError: the architecture cannot be created with these arguments.
    """
    name, arguments = architecture(checkpoint, model=model, model_args=model_args)
    if zoo.is_registered(name):
        with keeping_random_state(0), _at_most(_modules(checkpoint)):
            bones = _skeleton(checkpoint, name, arguments)
            _replay(bones, checkpoint)
        _fitting(checkpoint, bones, name, arguments, ignore_extra)
        _check_size(checkpoint, bones, name)
    with keeping_random_state(0):
        built = fresh.untrained(name, **arguments) if untrained else zoo.create(name, **arguments)
        _replay(built, checkpoint)
    built.eval()
    state = _fitting(checkpoint, built, name, arguments, ignore_extra)
    if ignore_extra and (left := len(checkpoint.state) - len(state)):
        note(f"{left} weights of {checkpoint.path.name} have no place in {printable(name, 80)} and are left out.")
    if not untrained:
        broken = {key for key, value in built.state_dict().items() if not _finite(value)}  # a mask may hold inf
        try:
            built.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"{checkpoint.path} does not fit {name}: {error}") from error
        for key, value in built.state_dict().items():
            if key not in broken and not _finite(value):
                count = int((~torch.isfinite(value)).sum())
                raise CheckpointError(
                    f"{checkpoint.path}: {printable(key, 80)} holds {count} of {value.numel()} values that are NaN or "
                    f"infinite (as {str(value.dtype).removeprefix('torch.')}): the run diverged. Use an earlier "
                    "checkpoint."
                )
    return built


@contextmanager
def _at_most(modules: int) -> Iterator[None]:
    """Stop a constructor that makes more than so many modules."""
    made = 0

    def count(*_: object) -> None:
        nonlocal made
        made += 1
        if made > modules:
            raise ModelError(f"it makes more than {modules} modules, and the file has tensors for far fewer")

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _skeleton(checkpoint: Checkpoint, name: str, arguments: dict[str, object]) -> nn.Module:
    """The model without numbers; never created in full on the word of a file."""
    theirs = checkpoint.model_args if _speaks_of(checkpoint, name) else {}
    try:
        return zoo.skeleton(name, in_full=not theirs, **arguments)
    except ModelError as error:
        if not theirs:
            raise
        raise CheckpointError(
            f"{checkpoint.path} says {checkpoint.says}: {str(error).rstrip('.')}. Pass what it was trained as: "
            "--model NAME, --model-arg KEY=VALUE."
        ) from error


def _modules(checkpoint: Checkpoint) -> int:
    """More modules than any network has that these tensors could be of."""
    return 3000 + 10 * len(checkpoint.state)


def _fitting(
    checkpoint: Checkpoint, model: nn.Module, name: str, arguments: dict[str, object], ignore_extra: bool
) -> dict[str, Tensor]:
    """The weights under the model's names, every name and shape matched."""
    fresh = model.state_dict()
    state = _under_model_names(checkpoint, fresh)
    if ignore_extra:
        state = {key: value for key, value in state.items() if key in fresh}
    if problem := _misfit(state, fresh):
        label = f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
        raise CheckpointError(
            f"{checkpoint.path} does not fit {printable(label, 300)}: {problem}. The file says "
            f"{checkpoint.says}. {advice(state, fresh, model)}"
        )
    return state


def _check_size(checkpoint: Checkpoint, bones: nn.Module, name: str) -> None:
    """A model takes about the memory of its weights: arguments of a file may not ask for more."""
    needed = sum(tensor.nbytes for tensor in (*bones.parameters(), *bones.buffers()))
    held = sum(tensor.nbytes for tensor in checkpoint.state.values())
    if needed > 8 * held + _SLACK:  # up to 8: weights of one byte that become float64
        raise CheckpointError(
            f"{checkpoint.path} asks for a {name} of {needed / 1e9:.1f} GB, and holds {held / 1e9:.3f} GB of weights: "
            "its model_args are wrong. Pass the right ones: --model-arg KEY=VALUE."
        )


def _check_name(checkpoint: Checkpoint, name: str) -> None:
    """A file may name an architecture, not code to run."""
    if zoo.FACTORY.fullmatch(name):
        raise CheckpointError(
            f"{checkpoint.path} asks for the code in {printable(name)}: if you trust that file, pass --model "
            f"{printable(name)}."
        )
    if not zoo.is_registered(name):
        raise CheckpointError(
            f"{checkpoint.path} says it is '{printable(name, 80)}', which is no model of timm or ours: pass --model "
            f"NAME or --model path/to/file.py:factory.{suggest(name[:80], zoo.names())}"
        )


def _speaks_of(checkpoint: Checkpoint, name: str) -> bool:
    """Whether the file's arguments are meant for this model, which the caller may have named."""
    if checkpoint.arch is None:
        return zoo.is_registered(name)
    moved = zoo.FACTORY.fullmatch(name) and zoo.FACTORY.fullmatch(checkpoint.arch)  # the same code, in another place
    return name == checkpoint.arch or bool(moved)


def _inferred(name: str, arguments: dict[str, object], checkpoint: Checkpoint) -> dict[str, object]:
    """`arguments` with what the weights tell of the rest."""
    state = checkpoint.state
    bones = _skeleton(checkpoint, name, arguments)
    expected = bones.state_dict()
    config = getattr(bones, "pretrained_cfg", {})
    read: dict[str, object] = {}
    head, stem = _first(config.get("classifier")), _first(config.get("first_conv"))
    if head and f"{head}.weight" in expected:
        if f"{head}.weight" in state and state[f"{head}.weight"].dim() > 0:
            read["num_classes"] = len(state[f"{head}.weight"])
        elif not any(key.startswith(f"{head}.") for key in state):
            read["num_classes"] = 0
    weight = f"{stem}.weight"
    if stem and all(weight in weights and weights[weight].dim() == 4 for weights in (expected, state)):
        channels = int(getattr(bones, "in_chans", 3)) * state[weight].shape[1]  # a stem may fold pixels into channels
        if channels % expected[weight].shape[1] == 0:
            read["in_chans"] = channels // expected[weight].shape[1]
    default = {"num_classes": getattr(bones, "num_classes", None), "in_chans": getattr(bones, "in_chans", None)}
    arguments = {**{key: value for key, value in read.items() if value != default[key]}, **arguments}
    if "img_size" in checkpoint.hints and "img_size" not in arguments:
        hinted = {**arguments, "img_size": checkpoint.hints["img_size"]}
        try:  # timm's scripts also keep the size of the images there, which says nothing of the model
            if not _misfit(state, _skeleton(checkpoint, name, hinted).state_dict()):
                return hinted
        except (ModelError, CheckpointError):
            pass
    return arguments


def _replay(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Recast the layers that were recast while the checkpoint was trained."""
    if not checkpoint.conversions:
        return
    from fourier_probe.models.gpsa.recast import recast_
    from fourier_probe.models.gpsa.sizes import default_head_dim

    for conversion in checkpoint.conversions:
        layer, options = conversion.layer, conversion.options
        convolution = dict(model.named_modules()).get(layer)
        if type(convolution) is nn.Conv2d:  # what is none is refused by `recast_`
            name = f"{layer}.query_weight".removeprefix(checkpoint.prefix)
            width = options.head_dim or default_head_dim(convolution)
            expected = ((options.content_maps or math.prod(convolution.kernel_size)) * width, convolution.in_channels)
            query = checkpoint.state.get(name)
            if query is None or query.shape != expected:
                raise CheckpointError(
                    f"{checkpoint.path}: it says that {printable(layer, 80)} was converted to attention, but its "
                    f"{printable(name, 80)} is {None if query is None else tuple(query.shape)}, expected {expected}. "
                    "The file was changed, or another program wrote it."
                )
        try:
            recast_(model, [layer], **options.chosen)
        except ModelError as error:
            raise CheckpointError(
                f"{checkpoint.path}: its conversion of {printable(layer, 80)} cannot be repeated: {error}"
            ) from error


def _under_model_names(checkpoint: Checkpoint, fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the model's names, should a stripped prefix be one of its own (`self.model = ...`)."""
    parts = re.findall(r"\w+\.", checkpoint.prefix)
    for prefix in ("".join(parts[index:]) for index in range(len(parts), -1, -1)):
        state = {prefix + name: tensor for name, tensor in checkpoint.state.items()}
        if prefix and set(state) >= {name for name in fresh if not _optional(name)}:
            return state
    return checkpoint.state


def _misfit(state: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> str:
    """What keeps `state` from being the model's; empty if nothing."""
    missing = [key for key in fresh if key not in state and not _optional(key)]
    unexpected = [key for key in state if key not in fresh]
    common = [key for key in fresh if key in state]
    shapes = [
        f"{printable(key, 80)} is {tuple(state[key].shape)}, expected {tuple(fresh[key].shape)}"
        for key in common
        if state[key].shape != fresh[key].shape
    ]
    kinds = [
        f"{printable(key, 80)} is {state[key].dtype}, expected {fresh[key].dtype}"
        for key in common
        if state[key].is_floating_point() != fresh[key].is_floating_point() or state[key].is_complex()
    ]
    misfits = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", shapes),
        ("of another kind", kinds),
    )
    return "; ".join(f"{len(keys)} {what} ({_some(keys)})" for what, keys in misfits if keys)


def _optional(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def _first(names: Any) -> str | None:
    """The first name: timm gives one, several (a head and its distilled twin), or none."""
    return names if isinstance(names, str) else next(iter(names or ()), None)


def _some(keys: list[str]) -> str:
    return ", ".join(printable(key, 80) for key in keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")

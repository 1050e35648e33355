"""What to do about weights that do not fit a network: the likeliest cause, and what to type. Imports pretraining."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from fourier_probe.checkpoints.pretraining import common_prefix
from fourier_probe.errors import printable


def advice(state: Mapping[str, Tensor], fresh: Mapping[str, Tensor], model: nn.Module) -> str:
    """One or two sentences: the cause that explains the misfit, the architecture only where no other does."""
    missing = [key for key in fresh if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in fresh]
    shapes = [key for key in fresh if key in state and state[key].shape != fresh[key].shape]
    named = _head(model)
    head = named or _last_layer(fresh)
    if head and all(key.startswith(f"{head}.") for key in shapes) and shapes and not missing and not extra:
        have, want = (len(weights[f"{head}.weight"]) for weights in (state, fresh))
        return (
            f"Its head {head} has {have} classes, the model was asked for {want}: pass --model-arg "
            f"num_classes={have}{', or none' if named else ''}."
        )
    heads = tuple(f"{name}." for name in (head, "head", "fc", "classifier", "head_dist") if name)
    if missing and not shapes and all(key.startswith(heads) for key in missing):
        return (
            f"Only its head is missing ({printable(missing[0].split('.')[0], 80)}), the rest of the network is there: "
            "pass --model-arg num_classes=0"
            + (", and --ignore-extra for what the network has no place for." if extra else ".")
        )
    positions = [key for key in shapes if "pos" in key]
    if positions and positions == shapes and not missing and not extra:
        return _resized(state[positions[0]], fresh[positions[0]], model)
    if prefix := common_prefix(state, fresh):
        return f"Its weights are in the file under {printable(prefix, 200)}: pass --prefix {printable(prefix, 200)}"
    if extra and not missing and not shapes:
        return (
            "The file holds the whole network and more: --ignore-extra leaves the rest out, if it is no part of what "
            "you want to probe."
        )
    if shapes and not extra:
        return (
            "The file's names are this architecture's, and sizes differ: it is another size of this architecture. "
            "Pass that: --model NAME, or --model-arg KEY=VALUE."
        )
    return "Pass the architecture it was trained as: --model NAME, --model-arg KEY=VALUE."


def _resized(have: Tensor, want: Tensor, model: nn.Module) -> str:
    """Position embeddings of another grid: the size they were trained at, where it can be told from them."""
    side = _trained_at(have, want, model)
    size = "N" if side is None else str(side)
    text = f"Position embeddings differ: pass the size it was trained at, --model-arg img_size={size}"
    if hasattr(model, "patch_embed") and hasattr(model.patch_embed, "strict_img_size"):
        usual = getattr(model.patch_embed, "img_size", None) or (224, 224)
        text += (
            f"; to give it images of {usual[0]} pixels all the same: --model-arg img_size={size} --model-arg "
            f"dynamic_img_size=True --img-size {usual[0]}"
        )
    return text + "."


def _trained_at(have: Tensor, want: Tensor, model: nn.Module) -> int | None:
    """Pixels of a square image whose tokens have these embeddings (1, N, C)."""
    patches: object = getattr(model, "patch_embed", None)
    patch, grid = getattr(patches, "patch_size", None), getattr(patches, "grid_size", None)
    if not patch or not grid or have.dim() != 3 or want.dim() != 3:
        return None
    prefix = want.shape[1] - math.prod(grid)  # class and register tokens
    side = math.isqrt(max(have.shape[1] - prefix, 0))
    return side * int(patch[0]) if side and side * side == have.shape[1] - prefix else None


def classes_of(state: Mapping[str, Tensor]) -> int | None:
    """The number of classes of a classifier, off its weights where its name is a usual one; None where it is not."""
    head = _last_layer(state)
    return len(state[f"{head}.weight"]) if head else None


def _last_layer(state: Mapping[str, Tensor]) -> str | None:
    """The last layer with a matrix or a kernel whose name begins as classifiers' do: fc, classifier, head, heads."""
    layers = [
        name.removesuffix(".weight")
        for name, value in state.items()
        if name.endswith(".weight") and value.dim() > 1 and name.split(".")[0] in ("fc", "classifier", "head", "heads")
    ]
    return layers[-1] if layers else None


def _head(model: nn.Module) -> str | None:
    """The name of timm's classifier; a factory's model may have anything in its place."""
    config = getattr(model, "pretrained_cfg", None)
    names = config.get("classifier") if isinstance(config, dict) else None
    return names if isinstance(names, str) else next(iter(names or ()), None)

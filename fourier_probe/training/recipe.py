"""Named defaults of a training run, one for each family of models.

| name | for | source |
|---|---|---|
| cnn-small | networks with BatchNorm, up to 64 pixels | He et al. 2015 (arXiv 1512.03385) 4.2, with a cosine, Nesterov momentum and smoothing (ours) |
| vit-small | other networks, up to 64 pixels | AdamW, as vit, with less of everything that slows a short run (ours) |
| cnn | networks with BatchNorm | He et al. 2015, 3.4, with a cosine, warm-up and smoothing (Goyal et al., 1706.02677), a quarter of the batch and rate, for memory |
| vit | other networks | DeiT (Touvron et al., 2012.12877), table 9; ConViT trains with the same |
| eit-small | EIT, up to 64 pixels | AdamW, as vit-small; fewer epochs, as each costs more (ours) |
| planted | the planted task, any model | AdamW at a constant rate with a tenth of warm-up and of decay; switches early, as learning the relation takes up to 1,124 steps after one (ours, docs/planted.md) |
| eit | EIT | Xia et al. 2022 (arXiv 2203.07116): as vit, at twice the rate, no stochastic depth |

Convolutional networks are kept channels-last, which is faster on CPUs and with tensor cores (benchmarks/train.py).
The learning rate is for the recipe's own batch size and scales with the batch, as in Goyal et al. and DeiT.
"""  # noqa: E501

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from typing import Any

RECIPES: dict[str, dict[str, object]] = {
    "cnn-small": {
        "epochs": 20,
        "batch_size": 128,
        "opt": "sgd",
        "lr": 0.1,
        "weight_decay": 5e-4,
        "warmup_epochs": 1.0,
        "smoothing": 0.1,
        "crop_padding": 4,
        "channels_last": True,
    },
    "vit-small": {
        "epochs": 30,
        "batch_size": 128,
        "opt": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.05,
        "warmup_epochs": 3.0,
        "smoothing": 0.1,
        "clip_grad": 1.0,
        "crop_padding": 4,
    },
    "cnn": {
        "epochs": 90,
        "batch_size": 64,
        "opt": "sgd",
        "lr": 0.025,
        "weight_decay": 1e-4,
        "warmup_epochs": 5.0,
        "smoothing": 0.1,
        "crop_padding": 4,
        "channels_last": True,
    },
    "vit": {
        "epochs": 300,
        "batch_size": 512,
        "opt": "adamw",
        "lr": 5e-4,
        "weight_decay": 0.05,
        "warmup_epochs": 5.0,
        "smoothing": 0.1,
        "mixup": 0.8,
        "cutmix": 1.0,
        "aa": "rand-m9-mstd0.5-inc1",
        "reprob": 0.25,
        "drop_path": 0.1,
        "scale_min": 0.08,
        "crop_padding": 4,
    },
}
RECIPES["eit-small"] = {**RECIPES["vit-small"], "epochs": 20, "warmup_epochs": 2.0}
RECIPES["eit"] = {name: value for name, value in RECIPES["vit"].items() if name != "drop_path"} | {"lr": 1e-3}
RECIPES["planted"] = {
    "steps": 2400,
    "epochs": 9,  # where they are asked for in place of steps; about as long
    "batch_size": 32,
    "opt": "adamw",
    "lr": 2e-3,
    "weight_decay": 0.05,
    "sched": "wsd",
    "warmup_epochs": 1.0,
    "early_epoch": 1 / 3,
    "late_epoch": 1 / 6,
}
SMALL = 64  # pixels, a side


def defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `TrainConfig` by the recipe that is named, or that fits the model.

    Args:
        options: what the user chose; read are `recipe`, `data`, `model`, `model_args`, the length and `batch_size`.

    >>> defaults({"recipe": "cnn-small", "batch_size": 256})["lr"]
    0.2
    """
    name = options.get("recipe", "auto")
    if name == "auto" and str(options.get("data", "")).partition(":")[0] == "planted":
        name = "planted"
    elif name == "auto":
        name = suited(options.get("model", "cifar_resnet20"), options.get("model_args", {}))
    chosen = RECIPES.get(name)
    if chosen is None:  # TrainConfig says so
        return {}
    batch = options.get("batch_size", chosen["batch_size"])
    epochs = options.get("epochs", chosen["epochs"])
    return {
        **chosen,
        "recipe": name,
        "lr": chosen["lr"] * batch / chosen["batch_size"],
        "warmup_epochs": min(chosen["warmup_epochs"], epochs / 4),  # a short run is not all warm-up
        **_steps(chosen, options),
    }


def _steps(chosen: Mapping[str, object], options: Mapping[str, Any]) -> dict[str, int]:
    """Length and warm-up in steps, of a recipe that counts in them; 0 where the user counts in epochs."""
    if "steps" not in chosen:
        return {}
    steps = options.get("steps", 0 if options.get("epochs") or options.get("iso_steps") else chosen["steps"])
    return {"steps": steps, "warmup_steps": 0 if "warmup_epochs" in options else steps // 10}


def suited(model: str, model_args: Mapping[str, object]) -> str:
    """The recipe of a model's family: by BatchNorm without attention, and by the size it is made for.

    Raises:
        ModelError: no such model.
    """
    from fourier_probe.models import zoo

    if zoo.FACTORY.fullmatch(model):  # the user's file may change
        return _suited(model, model_args)
    return _of_name(model, repr(dict(sorted(model_args.items()))))


@functools.cache
def _of_name(model: str, model_args: str) -> str:
    """The recipe of a model that a name fixes: a sweep asks for the same few again and again."""
    return _suited(model, ast.literal_eval(model_args))


def _suited(model: str, model_args: Mapping[str, Any]) -> str:
    from torch import nn

    from fourier_probe.errors import ModelError
    from fourier_probe.models import zoo

    try:
        bones = zoo.skeleton(model, **model_args)
    except ModelError:
        if not zoo.FACTORY.fullmatch(model):
            raise
        bones = zoo.skeleton(model, **{"num_classes": 2, "in_chans": 3, **model_args})  # as the data will say
    modules = list(bones.modules())
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)
    attends = any("attention" in type(module).__name__.lower() for module in modules)
    size = (getattr(bones, "pretrained_cfg", None) or {}).get("input_size", (3, SMALL, SMALL))
    family = "eit" if type(bones).__name__ == "EIT" else "cnn" if normed and not attends else "vit"
    return family + ("-small" if max(size[1:]) <= SMALL else "")

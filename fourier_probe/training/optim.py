"""Optimizer, learning rate and loss from timm's parts, with parameter groups that are there before their parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fourier_probe.errors import TrainingError, suggest
from fourier_probe.models.gpsa.layer import GROUPS, GPSAConv2d
from fourier_probe.models.gpsa.recast import added_parameters
from fourier_probe.training.config import TrainConfig

if TYPE_CHECKING:
    from fourier_probe.training.plan import Plan

_POSITIONS = ("pos_embed", "cls_token", "dist_token", "reg_token", "relative_position_bias_table", "gating_param")


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """An optimizer of timm's over five groups: `decay`, `no_decay`, and the three of a conversion, empty for now.

    With `--layer-decay` there are five for each depth. timm's schedulers pair base rates with groups when they are
    made, so a group added later would keep a constant rate.

    Raises:
        TrainingError: timm has no such optimizer, or layer decay finds no depths.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    spared = set(getattr(model, "no_weight_decay", set)())
    gained = {name for names in added_parameters(model).values() for name in names}  # of layers that are recast already
    depths = _depths(model, config)
    made: list[dict[str, object]] = []
    for scale in sorted(set(depths.values())) or [1.0]:
        groups: dict[str, list[nn.Parameter]] = {"decay": [], "no_decay": []}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and name not in gained and depths.get(name, 1.0) == scale:
                groups["no_decay" if _spare(name, parameter, spared) else "decay"].append(parameter)
        for group, parameters in {**groups, **dict.fromkeys(GROUPS)}.items():
            decay = config.weight_decay if group in ("decay", "qk") else 0.0
            rate = scale * (_multiplier(group, config) if group in GROUPS else 1.0)
            made.append({"name": group, "params": parameters or [], "weight_decay": decay, "lr_scale": rate,
                         "depth_scale": scale})  # fmt: skip
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            made, opt=config.opt, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum
        )
    except (ValueError, TypeError, ImportError) as error:
        raise TrainingError(
            f"--opt {config.opt}: {error}.{suggest(config.opt, map(str, list_optimizers()))}"
        ) from error
    adopt(optimizer, model, [name for name, module in model.named_modules() if isinstance(module, GPSAConv2d)])
    return optimizer


def adopt(optimizer: torch.optim.Optimizer, model: nn.Module, layers: Iterable[str]) -> None:
    """Put the parameters that `layers` gained into the groups made for them, at the depth of their kernel."""
    groups = {(group.get("name"), _depth(group)): group for group in optimizer.param_groups}
    depths = {id(parameter): _depth(group) for group in optimizer.param_groups for parameter in group["params"]}
    for layer in layers:
        module = model.get_submodule(layer)
        depth = depths.get(id(module.get_parameter("weight")), max(depth for _, depth in groups))
        for group, names in GROUPS.items():
            groups[group, depth]["params"] += [module.get_parameter(name) for name in names]


def rescale(optimizer: torch.optim.Optimizer, config: TrainConfig) -> None:
    """Multipliers of this config for groups restored from another run."""
    for group in optimizer.param_groups:
        if group.get("name") in GROUPS:
            group["lr_scale"] = _depth(group) * _multiplier(group["name"], config)
            group["weight_decay"] = config.weight_decay if group["name"] == "qk" else 0.0


def rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate, of what no multiplier changes: where `--layer-decay` lowers it, of the last depth."""
    plain = [group for group in optimizer.param_groups if group.get("lr_scale", 1.0) == 1.0]
    return float((plain or optimizer.param_groups)[0]["lr"])


def clip(optimizer: torch.optim.Optimizer, net: nn.Module, norm: Tensor, config: TrainConfig) -> None:
    """Clip the gradients as asked, by timm.

    AGC leaves the head out, as its authors do, and gates and positions, whose size says nothing of their gradients'.

    Args:
        optimizer: of the parameters.
        net: that they are of.
        norm: of all gradients.
        config: the limit and the mode.
    """
    from timm.models import model_parameters
    from timm.utils import dispatch_clip_grad

    if not config.clip_grad:
        return
    if config.clip_mode == "agc":
        body = {id(parameter) for parameter in model_parameters(net, exclude_head=True)}
        groups = [group for group in optimizer.param_groups if group.get("name") not in ("gates", "positions")]
        clipped = [parameter for group in groups for parameter in group["params"] if id(parameter) in body]
    else:
        clipped = [
            parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None
        ]
    if config.clip_mode == "norm":
        nn.utils.clip_grads_with_norm_(clipped, config.clip_grad, norm)
    else:
        dispatch_clip_grad(clipped, config.clip_grad, mode=config.clip_mode)


def make_scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig, plan: Plan) -> object:
    """A learning-rate schedule of timm's, or `wsd`; updated every step.

    Args:
        optimizer: its groups are those of `make_optimizer`.
        config: epochs in it are multiplied by `plan.scale`.
        plan: how long the training is.
    """
    from timm.scheduler import create_scheduler_v2

    if config.sched == "wsd":
        return warmup_stable_decay(optimizer, config, plan)
    scale = plan.scale
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=config.sched,
        num_epochs=plan.epochs,
        decay_epochs=max(1, round(config.decay_epochs * scale)),
        decay_milestones=[round(epoch * scale) for epoch in config.decay_milestones],
        decay_rate=config.decay_rate,
        min_lr=config.min_lr,
        warmup_lr=config.warmup_lr,
        warmup_epochs=plan.warmup(config),  # type: ignore[arg-type]  # a part of an epoch is as good
        step_on_epochs=False,
        updates_per_epoch=plan.steps,
    )
    scheduler.step_update(0)
    return scheduler


def warmup_stable_decay(optimizer: torch.optim.Optimizer, config: TrainConfig, plan: Plan) -> object:
    """Linear warm-up, constant rate, linear decay over the last steps: a function of the step alone.

    So runs that switch at different times share one curve, and a longer run is the shorter one up to its decay.

    Raises:
        TrainingError: warm-up and decay are longer than the training.
    """
    from timm.scheduler.wsd_lr import WSDLRScheduler

    total = plan.epochs * plan.steps
    warmup = round(plan.warmup(config) * plan.steps)
    cooldown = config.cooldown_steps or max(1, total // 10)
    if warmup + cooldown > total:
        raise TrainingError(
            f"--sched wsd: {warmup} steps of warm-up and {cooldown} of decay do not fit into {total}: shorten "
            "--warmup-steps or --cooldown-steps."
        )

    scheduler = WSDLRScheduler(
        optimizer,
        t_initial=total - warmup,
        decay_t=cooldown,
        decay_fn="linear",
        lr_min=config.min_lr,
        warmup_t=warmup,
        warmup_lr_init=config.warmup_lr,
        t_in_epochs=False,
    )
    scheduler.step_update(0)
    return scheduler


def loss_of(logits: Tensor, targets: Tensor, config: TrainConfig) -> Tensor:
    """Mean training loss, nats: cross-entropy, or the mean over classes of timm's binary cross-entropy."""
    if not config.bce_loss:
        return cross_entropy(logits, targets, config.smoothing)
    from timm.loss import BinaryCrossEntropy

    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    dense = targets.to(wide.dtype) if targets.is_floating_point() else targets
    loss: Tensor = BinaryCrossEntropy(smoothing=config.smoothing)(wide, dense)
    return loss


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean loss, nats, in at least float32; targets are labels (B,) or probabilities (B, classes)."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if targets.is_floating_point():
        return nn.functional.cross_entropy(wide, targets.to(wide.dtype))
    return nn.functional.cross_entropy(wide, targets, label_smoothing=smoothing)


def _spare(name: str, parameter: Tensor, spared: set[str]) -> bool:
    """Whether a parameter keeps out of weight decay: norms, biases, tokens, positions, gates."""
    last = name.rpartition(".")[2]
    return parameter.ndim <= 1 or last == "bias" or name in spared or last in _POSITIONS or ".pos_proj." in f".{name}"


def _multiplier(group: str, config: TrainConfig) -> float:
    return config.new_lr_mult if group == "qk" else config.gate_lr_mult


def _depth(group: dict[str, Any]) -> float:
    return float(group.get("depth_scale", 1.0))  # states of earlier versions have none


def _depths(model: nn.Module, config: TrainConfig) -> dict[str, float]:
    """What `--layer-decay` makes of the rate of each parameter, as timm's groups have it; empty without."""
    if config.layer_decay == 1:
        return {}
    from timm.optim import param_groups_layer_decay

    groups = param_groups_layer_decay(model, layer_decay=config.layer_decay)
    scales = {id(parameter): float(group["lr_scale"]) for group in groups for parameter in group["params"]}
    if len(set(scales.values())) < 2:
        raise TrainingError(
            f"--layer-decay {config.layer_decay}: timm finds no depths in {type(model).__name__}, which has neither "
            "a group_matcher nor a named classifier: leave it out."
        )
    return {name: scales[id(parameter)] for name, parameter in model.named_parameters() if id(parameter) in scales}

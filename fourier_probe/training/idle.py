"""Options that cannot do anything beside the others given: said before the first step. Imports config; timm in need.

Only what the user gave is looked at: what a recipe or a default says may well have no use.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

from fourier_probe.training.config import SCHEDULE_FIELDS, TrainConfig, flag_of
from fourier_probe.training.rules import CUSTOM

if TYPE_CHECKING:
    from fourier_probe.training.session import Session

_PERIOD = ("early_epoch", "late_epoch", "early_step", "late_step")
_EASING = ("anneal_epochs", "anneal_steps")
_OURS = ("none", "linear", "reverse", "constant", "random", "stage", "stage-end", "soft", CUSTOM)
_DEFAULTS = {each.name: each.default for each in fields(TrainConfig) if each.default is not MISSING}


def idle(config: TrainConfig, asked: Collection[str]) -> dict[str, str]:
    """Options that change nothing, whatever the images and the model are -> why.

    Args:
        config: of the run.
        asked: names of the options that the user gave.

    >>> idle(TrainConfig(mixup_prob=0.5), ["mixup_prob"])
    {'mixup_prob': 'neither --mixup nor --cutmix is on'}
    """
    why = _of_data(config) | _of_optimisation(config) | _of_schedule(config)
    return {name: why[name] for name in why if name in asked and getattr(config, name) != _DEFAULTS.get(name, {})}


def idle_here(session: Session, asked: Collection[str]) -> dict[str, str]:
    """Likewise, those that the model, the images and the length of the run make so."""
    config, plan, splits = session.config, session.plan, session.splits
    length, steps = f"the training has {plan.epochs} {plan.unit}s", plan.epochs * plan.steps
    why: dict[str, str] = {}
    if not plan.mixes_differ(config):
        why["mixup_off_epoch"] = length
    if config.checkpoint_every > plan.epochs:
        why["checkpoint_every"] = length
    if config.checkpoint_at and min(config.checkpoint_at) > plan.epochs:
        why["checkpoint_at"] = length
    if config.checkpoint_at_step and min(config.checkpoint_at_step) > steps:
        why["checkpoint_at_step"] = f"the training has {steps} steps"
    if config.log_interval > steps:
        why["log_interval"] = f"the training has {steps} steps"
    if config.sched == "step" and config.decay_epochs * plan.scale >= plan.epochs:
        why["decay_epochs"] = length
    if config.decay_milestones and min(config.decay_milestones) * plan.scale >= plan.epochs:
        why["decay_milestones"] = length
    files = splits.train.pixels is None
    if not files:
        why |= dict.fromkeys(("scale_min", "skip_bad"), "the images are an array, not files")
        if session.training.decoding is None:
            why["workers"] = "the images are an array, which no process decodes"
    else:
        why["crop_padding"] = "the images are files, which --scale-min crops"
        if session.training.decoding is None:
            why["scale_min"] = "files that are kept on the device are not cropped at random"
    if session.ranks.world == 1:
        why["sync_bn"] = "there is one process"
    if splits.test is None:
        why["test"] = "there is no test split"
    taken = session.arch["model_args"]
    for name, argument in (("drop", "drop_rate"), ("drop_path", "drop_path_rate")):
        if argument not in taken:
            why[name] = f"{config.model} is not made with {argument}"
    return {name: why[name] for name in why if name in asked and getattr(config, name) != _DEFAULTS.get(name, {})}


def said(session: Session, asked: Collection[str]) -> list[str]:
    """A remark for each option without an effect, or with another one than its name says."""
    config, plan = session.config, session.plan
    found = idle(config, asked) | idle_here(session, asked)
    flags = {name: flag_of(name) if getattr(config, name) is not False else f"--no-{name}" for name in found}
    remarks = [f"{flags[name]} changes nothing: {reason}." for name, reason in found.items()]
    length = f"the training has {plan.epochs} {plan.unit}s"
    if config.probe_every > plan.epochs:
        remarks.append(f"--probe-every {config.probe_every}: {length}, so only spectra of its beginning are written.")
    if plan.warmup(config) >= plan.epochs:
        remarks.append(f"the warm-up is as long as the training: the learning rate {config.lr:g} is never reached.")
    return remarks


def _of_data(config: TrainConfig) -> dict[str, str]:
    why: dict[str, str] = {}
    planted = config.data.partition(":")[0] == "planted"
    if config.data_scale == 1 and not config.train_images:
        why["iso_steps"] = "all images are trained on (--data-scale)"
        if not config.val_split and not planted:
            why["data_seed"] = "nothing is chosen: there is neither --data-scale nor --val-split"
    if planted and config.val_split:
        why["val_split"] = "the planted task has validation images of its own; 0 leaves them out"
    if not (config.mixup or config.cutmix):
        why |= dict.fromkeys(("mixup_prob", "mixup_switch_prob"), "neither --mixup nor --cutmix is on")
    elif not (config.mixup and config.cutmix):
        why["mixup_switch_prob"] = "only one of --mixup and --cutmix is on"
    elif not config.mixup_prob:
        why["mixup_switch_prob"] = "--mixup-prob is 0"
    if config.aug_repeats == 1:
        why["aug_repeats"] = "once is what every image is seen"
    if not config.probe_every:
        why["probe_images"] = "--probe-every is not given"
    return why


def _of_optimisation(config: TrainConfig) -> dict[str, str]:
    why: dict[str, str] = {}
    if config.steps:
        why["epochs"] = "--steps says how long the training is"
    if config.warmup_steps:
        why["warmup_epochs"] = "--warmup-steps comes first"
    elif not config.warmup_epochs:
        why["warmup_lr"] = "there is no warm-up"
    sched = f"--sched is {config.sched}"
    users = {
        "decay_rate": ("step", "multistep", "poly"),
        "decay_epochs": ("step",),
        "decay_milestones": ("multistep",),
        "cooldown_steps": ("wsd",),
        "min_lr": ("cosine", "tanh", "poly", "wsd"),
    }
    why |= {name: sched for name, kinds in users.items() if config.sched not in kinds}
    if not config.model_ema:
        why["model_ema_decay"] = "--model-ema is not given"
    if not _has_momentum(config.opt):
        why["momentum"] = f"--opt {config.opt} has none"
    return why


def _has_momentum(name: str) -> bool:
    from timm.optim import get_optimizer_info

    try:
        return bool(get_optimizer_info(name.split("_")[-1]).has_momentum)
    except ValueError:  # unknown, which is said elsewhere
        return True


def _of_schedule(config: TrainConfig) -> dict[str, str]:
    """Of a schedule of the user's own it is not known what it reads."""
    why: dict[str, str] = {}
    kind = f"--schedule is {config.schedule}"
    if config.schedule == "none":
        why |= dict.fromkeys((name for name in SCHEDULE_FIELDS if name != "schedule"), kind)
        if config.initial_checkpoint:  # which may have layers that are attention already
            for name in ("gate_lr_mult", "new_lr_mult"):
                why.pop(name)
        return why
    if config.schedule in _OURS:
        why["schedule_args"] = kind
        why |= {"schedule_seed": kind} if config.schedule != "random" else {}
        why |= {"soft_epochs": kind} if config.schedule != "soft" else {}
        why |= dict.fromkeys(("at_epoch", "at_step"), kind) if config.schedule != "constant" else {}
        given = config.schedule == "constant" and (config.at_epoch >= 0 or config.at_step >= 0)
        if config.schedule == CUSTOM or given:
            given_by = "--switch" if config.schedule == CUSTOM else "--at-epoch"
            why |= dict.fromkeys(_PERIOD, f"{given_by} says when")
        if config.schedule != "constant" or given:
            why["weighted_mean"] = "--at-epoch is given" if given else kind
    for which in ("early", "late", "at"):
        if getattr(config, f"{which}_step") >= 0:
            why[f"{which}_epoch"] = f"--{which}-step comes first"
    if config.convert or config.schedule == CUSTOM:
        why["max_key_grid"] = f"{'--convert' if config.convert else '--switch'} says which layers"
    if config.schedule == CUSTOM:
        why["convert"] = "--switch says which layers"
    if config.schedule == "soft":
        why |= dict.fromkeys(_EASING, "the ramps of --schedule soft ease instead")
    elif config.anneal_steps >= 0:
        why["anneal_epochs"] = "--anneal-steps comes first"
    if config.schedule != "soft" and not config.switch_ends:
        if not (config.anneal_steps if config.anneal_steps >= 0 else config.anneal_epochs):
            why |= dict.fromkeys(("anneal_gate", "anneal_locality"), "nothing is eased: --anneal-epochs is 0")
    return why

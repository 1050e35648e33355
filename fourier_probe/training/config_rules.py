"""Which options of a training go together, and their ranges. Imports nothing that imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from fourier_probe.errors import TrainingError, suggest
from fourier_probe.io import decode
from fourier_probe.training.config import NAMES, TrainConfig, flag_of
from fourier_probe.training.rules import CUSTOM

_LARGEST = 2**63  # whole numbers that torch takes are below
PROCESSES = 4096  # or threads: more take a machine down before the first step


DISTORTIONS = ("hflip", "crop_padding", "smoothing", "mixup", "cutmix", "reprob", "aa", "color_jitter")
"""Options that are 0 on the planted task."""


_RULES: list[tuple[str, Callable[[Any], bool], str]] = [
    *((name, lambda v: v >= 1, "at least 1") for name in (  # before what a recipe makes of the first two
        "epochs", "batch_size", "probe_images", "max_key_grid", "grad_accum_steps", "content_stride",
    )),
    *((name, lambda v: 0 <= v <= PROCESSES, f"from 0 to {PROCESSES}") for name in ("workers", "threads")),
    *((name, lambda v: 0 < v <= 1, "above 0, up to 1") for name in ("data_scale", "scale_min", "layer_decay")),
    *((name, lambda v: 0 <= v < 1, "from 0 to below 1") for name in ("val_split", "smoothing", "drop", "drop_path")),
    *(
        (name, lambda v: 0 <= v <= 1, "a probability, 0 to 1")
        for name in ("hflip", "reprob", "mixup_prob", "mixup_switch_prob")
    ),
    *((name, lambda v: 0 < v < float("inf"), "a number above 0") for name in ("lr", "decay_epochs")),
    *(
        (name, lambda v: 0 <= v < float("inf"), "0 or more")
        for name in (
            "img_size", "data_seed", "crop_padding", "mixup", "cutmix", "weight_decay", "clip_grad",
            "warmup_epochs", "warmup_lr", "min_lr", "early_epoch", "late_epoch", "soft_epochs", "seed",
            "anneal_epochs", "checkpoint_every", "probe_every", "train_images", "steps", "val_every", "warmup_steps",
            "cooldown_steps", "new_lr_mult", "gate_lr_mult", "schedule_seed", "sam_rho", "color_jitter", "aug_repeats",
            "mixup_off_epoch", "log_interval",
        )
    ),
    ("content_maps", lambda v: v in (0, 1), "0, one per tap, or 1, one for all"),
    *((name, lambda v: 0 <= v < 1, "from 0 to below 1") for name in ("momentum", "model_ema_decay")),
    *((name, math.isfinite, "a finite number") for name in ("anneal_gate", "anneal_locality", "decay_rate")),
    ("data", lambda v: "pipe:" not in str(v).lower(), "data without pipe:, whose shell command is never run"),
    ("at_epoch", math.isfinite, "an epoch or a fraction of the training; below 0: the mean of linear"),
]  # fmt: skip


def check(config: TrainConfig) -> None:
    """Refuse a value out of range, and options that do not go together; names the flags.

    Raises:
        TrainingError: says which, and what is expected.
    """
    for name, test, expected in _RULES:
        value = getattr(config, name)
        if not test(value):
            raise TrainingError(f"{flag_of(name)} is {value!r}: expected {expected}.")
    for option in fields(config):
        choices, value = option.metadata.get("choices"), getattr(config, option.name)
        if choices and value not in choices:
            raise TrainingError(
                f"{flag_of(option.name)} is {value!r}: expected one of {', '.join(choices)}."
                f"{suggest(str(value), choices)}"
            )
    if config.schedule != CUSTOM and (config.switches or config.switch_ends):
        raise TrainingError(f"--switch belongs to --schedule {CUSTOM}, and --schedule is {config.schedule}.")
    for name in NAMES:
        value = getattr(config, name)
        decode.check_plain(value, flag_of(name), TrainingError)
        if isinstance(value, int) and abs(value) >= _LARGEST:
            raise TrainingError(f"{flag_of(name)} is {decode.shown(value)}: expected less than 2 to the 63.")
    if config.initial_checkpoint and config.pretrained:
        raise TrainingError("--initial-checkpoint and --pretrained both give the first weights: choose one.")
    if config.initial_args and not config.initial_checkpoint:
        raise TrainingError("--initial-arg says how to read --initial-checkpoint, which is not given.")
    if config.sched == "multistep" and not config.decay_milestones:
        raise TrainingError("--sched multistep needs its epochs: --decay-milestones E, repeated.")
    if config.train_images and config.data_scale != 1:
        raise TrainingError("--train-images and --data-scale both choose the training images: give one of them.")
    if config.steps and config.iso_steps:
        raise TrainingError("--steps fixes the number of steps, as --iso-steps does: give one of them.")
    if config.data.partition(":")[0] == "planted":
        _check_planted(config)
    _check_augmentation(config)
    if config.clip_mode != "norm" and not config.clip_grad:
        usual = "0.01" if config.clip_mode == "agc" else "1"
        raise TrainingError(f"--clip-mode {config.clip_mode} needs its limit: --clip-grad, such as {usual}.")
    if config.sam_rho and config.grad_accum_steps > 1:
        raise TrainingError(
            "--sam-rho needs the gradient of the whole batch before its second pass; --grad-accum-steps takes it "
            "in parts: choose one."
        )
    if config.sync_bn and config.compile:
        raise TrainingError("--sync-bn sums over processes within the forward, which --compile cannot: choose one.")
    if config.model_dtype == "float64" and config.amp != "none":
        raise TrainingError("--amp lowers the precision that --model-dtype float64 asks for: choose one.")


def _check_augmentation(config: TrainConfig) -> None:
    for name in ("aa", "color_jitter"):
        if config.loader == "device" and getattr(config, name):
            raise TrainingError(f"{flag_of(name)} runs in processes: drop --loader device.")
    if config.aa and config.color_jitter:
        raise TrainingError("timm leaves --color-jitter out beside --aa, which changes colours itself: choose one.")
    if config.mixup_off_epoch and not (config.mixup or config.cutmix):
        raise TrainingError("--mixup-off-epoch ends --mixup and --cutmix, and neither is on.")


def _check_planted(config: TrainConfig) -> None:
    """A flip mirrors glyphs and cue, a shift lets one window see parts of both glyphs, mixing adds objects."""
    if config.aug_repeats > 1:
        raise TrainingError("--aug-repeats has no place on the planted task, where nothing is augmented: leave it out.")
    changed = next((name for name in DISTORTIONS if getattr(config, name)), None)
    if changed is not None:
        raise TrainingError(
            f"{flag_of(changed)} {getattr(config, changed)} would change what the label of a planted image means: "
            f"the planted task is trained without it. Leave {flag_of(changed)} out."
        )

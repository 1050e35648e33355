"""What a training run is asked to do: one frozen dataclass, whose fields are the flags and the keys of a config file.

Imports nothing that imports torch, so that the command line can list its flags at once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from fourier_probe.errors import TrainingError, suggest
from fourier_probe.io import decode
from fourier_probe.training.rules import CUSTOM, SCHEDULES
from fourier_probe.training.schedule import PRSSchedule

CLIP_MODES = ("norm", "value", "agc")
SCHEDULERS = ("cosine", "tanh", "step", "multistep", "poly", "constant", "wsd")
FREE = (
    "device",
    "workers",
    "threads",
    "checkpoint_every",
    "checkpoint_at",
    "checkpoint_at_step",
    "probe_every",
    "probe_images",
    "log",
    "log_interval",
)
"""What may change when a run is resumed: none of it changes what is learned (threads: up to rounding)."""
SCHEDULE_FIELDS = (
    "schedule", "early_epoch", "late_epoch", "at_epoch", "early_step", "late_step", "at_step", "switches",
    "switch_ends", "schedule_args", "weighted_mean",
    "schedule_seed", "convert", "max_key_grid", "soft_epochs", "recast_args", "content_stride",
    "content_maps", "anneal_epochs", "anneal_steps", "anneal_gate", "anneal_locality", "new_lr_mult", "gate_lr_mult",
)  # fmt: skip
"""What a run and the run it is forked from may differ in."""


def _flag(section: str, default: object, text: str, **more: object) -> Any:
    """A field that the command line and config files offer under its own name."""
    made = {"default_factory": default} if callable(default) else {"default": default}
    return field(**made, metadata={"section": section, "help": text, **more})


@dataclass(frozen=True)
class TrainConfig:
    """Everything needed to repeat a run, checked when it is made.

    `TrainConfig.of(...)` takes what is not given from the recipe of the model's family (`training.recipe`); the
    defaults below are those of a small CNN. Epochs are passes over the training images; a switch epoch below 1 is a
    fraction of training. `batch_size` is that of one optimizer step: under torchrun the ranks share it, so that the
    same command trains the same model on any number of them (timm's is per process).

    Raises:
        TrainingError: a value out of range, not finite, or of a kind that no file can hold; names the flag.

    >>> config = TrainConfig.of(model="cifar_resnet8", data="planted", epochs=2)
    >>> config.model, config.epochs
    ('cifar_resnet8', 2)
    """

    # fmt: off
    model: str = _flag("Model", "cifar_resnet20", "timm's or ours by name, or file.py:factory.", metavar="NAME")
    model_args: dict[str, Any] = _flag("Model", dict, "Argument of the model; repeat.",  # noqa: RUF009
                                       flag="--model-arg")
    pretrained: bool = _flag("Model", False, "Start from the weights its authors publish (needs a network).")
    initial_checkpoint: str = _flag("Model", "", "Start from the weights in a file, any that analyze reads, or a run "
                                    "folder; without --model as what the file says it is.  [default: none]",
                                    metavar="FILE")
    initial_args: dict[str, Any] = _flag("Model", dict, "How to read it, as analyze: use_ema, key, prefix, "  # noqa: RUF009
                                         "ignore_extra; head: the module that may be new; repeat.",
                                         flag="--initial-arg")
    img_size: int = _flag("Model", 0, "Input side, pixels; 0: that of arrays, else the model's own.", metavar="PX")
    mean: tuple[float, ...] = _flag("Model", (), "Channel mean in [0, 1].  [default: that of the images, or of "
                                    "--initial-checkpoint]", metavar="R,G,B", numbers=True)
    std: tuple[float, ...] = _flag("Model", (), "Channel standard deviation in [0, 1].  [default: likewise]",
                                   metavar="R,G,B", numbers=True)
    drop: float = _flag("Model", 0.0, "Probability of dropout before the head, where the model has it.")
    drop_path: float = _flag("Model", 0.0, "Probability of stochastic depth, where the model has it.", recipe=True)
    channels_last: bool = _flag("Model", False, "Channels-last memory format.", recipe=True)
    compile: bool = _flag("Model", False, "torch.compile; compiled again at conversions.")
    sync_bn: bool = _flag("Model", False, "Under torchrun: statistics of BatchNorm over all processes.")
    model_dtype: str = _flag("Model", "float32", "Type of the weights.", choices=("float32", "float64"))

    data: str = _flag("Data", "bundled", "bundled, a .npz, an image folder, or a timm data set name.", metavar="D")
    data_scale: float = _flag("Data", 1.0, "Share of the training images, 0 to 1: a class-balanced, nested part.",
                              metavar="F")
    train_images: int = _flag("Data", 0, "Train on this many images instead, nested too, beside the validation split.",
                              metavar="N", shown="by --data-scale")
    data_seed: int = _flag("Data", 0, "Seed of that choice and of the validation split.")
    iso_steps: bool = _flag("Data", False, "Multiply epochs so that every data scale takes the same steps.")
    val_split: float = _flag("Data", 0.1, "Share of the training images held out for validation; 0: none.")
    test: bool = _flag("Data", True, "Look at the test set at the end; not while options are being chosen.")
    skip_bad: bool = _flag("Data", False, "Look for image files that cannot be read, and leave them out.")
    loader: str = _flag("Data", "auto", "Keep images on the device, or decode in processes.",
                        choices=("auto", "device", "processes"))
    workers: int = _flag("Data", 2, "Processes that decode image files; 0: this one.")

    crop_padding: int = _flag("Augmentation", 4, "Random shift of images in memory, pixels.", recipe=True)
    hflip: float = _flag("Augmentation", 0.5, "Probability of mirroring.", recipe=True)
    scale_min: float = _flag("Augmentation", 0.35, "Image files: smallest area of the random resized crop, share of "
                             "the image.", recipe=True)
    reprob: float = _flag("Augmentation", 0.0, "Probability of random erasing.", recipe=True)
    aa: str = _flag("Augmentation", "", "timm's RandAugment, such as rand-m9-mstd0.5-inc1.  [default: none, by recipe]",
                     recipe=True, metavar="S")
    color_jitter: float = _flag("Augmentation", 0.0, "timm's colour jitter: largest change of brightness, contrast and "
                                "saturation; 0: none. In processes; not beside --aa.", metavar="F")
    aug_repeats: int = _flag("Augmentation", 0, "Repeated augmentation: each image so many times in an epoch, of "
                             "as many fewer images; 0: once.", metavar="R")
    mixup: float = _flag("Augmentation", 0.0, "Mixup alpha; 0: off.", recipe=True)
    cutmix: float = _flag("Augmentation", 0.0, "CutMix alpha; 0: off.", recipe=True)
    mixup_prob: float = _flag("Augmentation", 1.0, "Probability of either, a batch.")
    mixup_off_epoch: float = _flag("Augmentation", 0.0, "No mixup and CutMix from there on, epoch or fraction; 0: to "
                                   "the end.", metavar="E")
    mixup_switch_prob: float = _flag("Augmentation", 0.5, "Probability of CutMix where both are on.")
    smoothing: float = _flag("Augmentation", 0.1, "Label smoothing.", recipe=True)

    recipe: str = _flag("Optimisation", "auto", "Named defaults of this and the section above.",
                        choices=("auto", "cnn-small", "vit-small", "eit-small", "cnn", "vit", "eit", "planted"))
    epochs: int = _flag("Optimisation", 20, "Epochs: passes over the training images.", recipe=True)
    steps: int = _flag("Optimisation", 0, "Optimizer steps in place of epochs.", recipe=True, metavar="T",
                       shown="by --epochs")
    val_every: int = _flag("Optimisation", 0, "Validate, log and save every so many steps: a round, which then counts "
                           "as an epoch.", metavar="STEPS", shown="every epoch; a twentieth of --steps")
    batch_size: int = _flag("Optimisation", 128, "Images per optimizer step, over all ranks.", recipe=True, short="-b")
    grad_accum_steps: int = _flag("Optimisation", 1, "Run each batch in so many parts, one after another: less memory, "
                                  "the same step.", metavar="K")
    opt: str = _flag("Optimisation", "sgd", "timm's optimizers (sgd is with Nesterov momentum).", recipe=True)
    lr: float = _flag("Optimisation", 0.1, "Peak learning rate.", recipe=True)
    weight_decay: float = _flag("Optimisation", 5e-4, "Not on norms, biases, positions and gates.", recipe=True)
    momentum: float = _flag("Optimisation", 0.9, "Where the optimizer has it.")
    layer_decay: float = _flag("Optimisation", 1.0, "Learning rate of each depth over that of the next one; 1: all the "
                               "same. A recast layer keeps its depth.", metavar="F")
    clip_grad: float = _flag("Optimisation", 0.0, "Largest gradient norm, or as --clip-mode says; 0: no clipping.",
                             recipe=True)
    clip_mode: str = _flag("Optimisation", "norm", "norm: of all gradients; value: of each number; agc: of each unit, "
                           "over that of its weights.", choices=CLIP_MODES)
    sam_rho: float = _flag("Optimisation", 0.0, "Sharpness-aware minimisation (Foret et al. 2021): length of its step; "
                           "0: off. Twice the time.", metavar="RHO")
    bce_loss: bool = _flag("Optimisation", False, "timm's binary cross-entropy, one for each class, for training.")
    sched: str = _flag("Optimisation", "cosine", "Learning-rate schedule.", choices=SCHEDULERS, recipe=True)
    warmup_epochs: float = _flag("Optimisation", 1.0, "Linear warm-up, epochs.", recipe=True)
    warmup_steps: int = _flag("Optimisation", 0, "Likewise, in steps.", recipe=True, metavar="STEPS",
                              shown="by --warmup-epochs")
    cooldown_steps: int = _flag("Optimisation", 0, "wsd (warm-up, constant, linear decay): steps of the decay; 0: a "
                                "tenth of them all.", recipe=True, metavar="STEPS")
    warmup_lr: float = _flag("Optimisation", 1e-5, "Learning rate at which warm-up begins.")
    min_lr: float = _flag("Optimisation", 0.0, "Learning rate at which the schedule ends.")
    decay_rate: float = _flag("Optimisation", 0.1, "Factor of step and multistep; power of poly.")
    decay_epochs: float = _flag("Optimisation", 30, "Interval of step, epochs.")
    decay_milestones: tuple[int, ...] = _flag("Optimisation", (), "Epoch of multistep; repeat.  [default: none]",
                                              element=int)
    model_ema: bool = _flag("Optimisation", False, "Also keep an average of the weights.")
    model_ema_decay: float = _flag("Optimisation", 0.998, "Decay of that average per step; warmed up.")
    amp: str = _flag("Optimisation", "none", "Half-precision autocast.", choices=("none", "bf16", "fp16"))

    schedule: str = _flag("Schedule", "none", "When convolutions become attention.", choices=SCHEDULES)
    early_epoch: float = _flag("Schedule", 0.5, "Switch of the earliest layer, epochs or fraction.", metavar="E",
                               recipe=True)
    late_epoch: float = _flag("Schedule", 1 / 6, "Switch of the latest layer, epochs or fraction.", metavar="E",
                              recipe=True)
    at_epoch: float = _flag("Schedule", -1.0, "constant: its epoch or fraction.", metavar="E",
                            shown="the mean of linear")
    early_step: int = _flag("Schedule", -1, "Switch of the earliest layer, in steps.", metavar="STEP",
                            shown="by --early-epoch")
    late_step: int = _flag("Schedule", -1, "Switch of the latest layer, in steps.", metavar="STEP",
                           shown="by --late-epoch")
    at_step: int = _flag("Schedule", -1, "constant: its step.", metavar="STEP", shown="by --at-epoch")
    switches: dict[str, Any] = _flag("Schedule", dict, "custom: epoch of one layer; repeat.", flag="--switch",  # noqa: RUF009
                                     metavar="LAYER=EPOCH", layers=True)
    switch_ends: dict[str, Any] = _flag("Schedule", dict, "custom: epoch at which its ramp ends; repeat.",  # noqa: RUF009
                                        flag="--switch-end", metavar="LAYER=EPOCH", layers=True)
    schedule_args: dict[str, Any] = _flag("Schedule", dict, "Argument of a schedule of your own; repeat.",  # noqa: RUF009
                                          flag="--schedule-arg")
    weighted_mean: bool = _flag("Schedule", False, "constant: that mean weighted by parameters.")
    schedule_seed: int = _flag("Schedule", 0, "random: seed of the order.")
    soft_epochs: float = _flag("Schedule", 0.0, "soft: length of a ramp, epochs; 0: the spread of the switches.",
                               metavar="E")
    convert: tuple[str, ...] = _flag("Schedule", (), "Layers to convert; repeat.  [default: by key grid]",
                                     metavar="GLOB", element=str)
    max_key_grid: int = _flag("Schedule", 8, "Side of the largest key grid converted, positions; cost grows as "
                              "its 4th power.")
    recast_args: dict[str, Any] = _flag("Schedule", dict, "locality_strength, gate (4; 1 if eased), head_dim; repeat.",  # noqa: RUF009
                                        flag="--recast-arg")
    content_stride: int = _flag("Schedule", 1, "2: content attention looks at means of 2x2 pixels, about 3 times "
                                "cheaper on large grids: another architecture.", metavar="PX")
    content_maps: int = _flag("Schedule", 0, "1: one content map for all taps, about 4 times cheaper: another "
                              "architecture; 0: one per tap.")
    anneal_epochs: float = _flag("Schedule", 0.1, "Ease a layer out of its convolution for so many epochs; 0: not.",
                                 metavar="E")
    anneal_steps: int = _flag("Schedule", -1, "Likewise, in steps; 0: not.", metavar="STEPS",
                              shown="by --anneal-epochs")
    anneal_gate: float = _flag("Schedule", 6.0, "Logit added to its gates at first, for soft and annealing.")
    anneal_locality: float = _flag("Schedule", 0.0, "Locality strength added at first, likewise.")
    new_lr_mult: float = _flag("Schedule", 1.0, "Learning rate of new query and key weights over that of the rest.")
    gate_lr_mult: float = _flag("Schedule", 10.0, "Learning rate of gates and positions over that of the rest.")

    seed: int = _flag("Run", 0, "Seed of weights, order and augmentation.")
    device: str = _flag("Run", "auto", "auto, cpu, cuda, cuda:1, mps, xpu.")
    threads: int = _flag("Run", 0, "Threads of the CPU; 0: as torch finds.")
    deterministic: bool = _flag("Run", False, "On a GPU, only algorithms that repeat bit by bit.")
    checkpoint_every: int = _flag("Run", 0, "Also keep epoch-NNN.pt every so many epochs; 0: never.",
                                 metavar="K")
    checkpoint_at: tuple[int, ...] = _flag("Run", (), "Also keep epoch-NNN.pt there; repeat.  [default: none]",
                                           metavar="E", element=int)
    checkpoint_at_step: tuple[int, ...] = _flag("Run", (), "Likewise, in steps; repeat.  [default: none]",
                                                metavar="STEP", element=int)
    probe_every: int = _flag("Run", 0, "Write spectra/epoch-NNN.json every so many epochs, epoch 0 too; 0: never.",
                            metavar="K")
    probe_images: int = _flag("Run", 256, "Number of images of those spectra.")
    log_interval: int = _flag("Run", 10, "A row of steps.csv every so many steps; 0: no file.", metavar="STEPS")
    log: str = _flag("Run", "csv", "tensorboard: also to RUN/tensorboard.", choices=("csv", "tensorboard"))
    # fmt: on

    def __post_init__(self) -> None:
        from fourier_probe.training.config_rules import check

        check(self)

    @classmethod
    def of(cls, options: Mapping[str, object] | None = None, /, **more: object) -> TrainConfig:
        """A config from what the user gave, and a recipe for the rest.

        Args:
            options: field -> value, as from a config file.
            more: likewise; comes first.

        Raises:
            TrainingError: a name that is no field, a value out of range.
            ModelError: a model that does not exist (the recipe depends on it).
        """
        from fourier_probe.training import recipe

        chosen = {**(options or {}), **more}
        unknown = [name for name in chosen if name not in NAMES]
        if unknown:
            raise TrainingError(f"unknown training option {unknown[0]!r}.{suggest(unknown[0], NAMES)}")
        if isinstance(schedule := chosen.get("schedule"), PRSSchedule):
            chosen |= {"schedule": CUSTOM, "switches": dict(schedule), "switch_ends": dict(schedule.ends)}
        chosen = {name: checked(name, value, "options") for name, value in chosen.items()}
        if str(chosen.get("data", "")).partition(":")[0] == "planted":
            from fourier_probe.training.config_rules import DISTORTIONS

            chosen = {**dict.fromkeys(DISTORTIONS, 0), "aa": "", **chosen}
            chosen = chosen if chosen.get("initial_checkpoint") else {"model": "patch_resnet", **chosen}
        if chosen.get("initial_checkpoint") and "model" not in chosen:
            from fourier_probe.training.initial import named_model

            chosen["model"] = named_model(chosen)
        usual = recipe.defaults(chosen)
        if chosen.get("clip_mode", "norm") != "norm":
            usual.pop("clip_grad", None)  # the recipe's is a norm
        return cls(**{**chosen, **usual, **{k: v for k, v in chosen.items() if k != "recipe"}})

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> TrainConfig:
        """The config that `to_json` wrote; fields it lacks (an older version) have their defaults.

        Raises:
            TrainingError: a field that does not exist, or of another type, or out of range.
        """
        return decode.convert(dict(values), cls, "config", TrainingError)

    def to_json(self) -> dict[str, object]:
        """Plain values, lists for tuples."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def differing(self, other: TrainConfig) -> list[str]:
        """Names of the fields in which two configs differ."""
        return [name for name in NAMES if getattr(self, name) != getattr(other, name)]


NAMES = tuple(option.name for option in fields(TrainConfig))


def flag_of(name: str) -> str:
    """The command-line flag of a field.

    >>> flag_of("weight_decay"), flag_of("model_args")
    ('--weight-decay', '--model-arg')
    """
    for option in fields(TrainConfig):
        if option.name == name:
            return str(option.metadata.get("flag") or "--" + name.replace("_", "-"))
    return "--" + name.replace("_", "-")


def checked(name: str, value: object, where: str) -> object:
    """`value` in the type of the field `name`; raises TrainingError if it is of another."""
    kind = _types()[name]
    value = str(value) if kind is str and isinstance(value, Path) else value
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 5e-4 as text
        try:
            value = float(value)
        except ValueError:
            pass
    try:
        return msgspec.convert(list(value) if isinstance(value, tuple) else value, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: msgspec names odd text badly
        expected = getattr(kind, "__name__", str(kind)) if kind in (int, float, str, bool) else str(kind)
        raise TrainingError(f"{where}: {name} is {decode.shown(value)}, expected {expected}.") from error


@functools.cache
def _types() -> dict[str, object]:
    return get_type_hints(TrainConfig)

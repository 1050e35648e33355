"""What a checkpoint says of its network, whoever wrote it: architecture, arguments, configuration. Imports record."""

from __future__ import annotations

from collections.abc import Iterator

from fourier_probe.checkpoints.record import (
    LARGEST,
    HubConfig,
    decoded,
)

_ARCH = ("arch", "architecture", "model", "model_name", "backbone")


# What timm's `create_model` and `build_model_with_cfg` take to fetch, read or wrap a model: never followed from inside
# a file. Complete: a test compares it with their signatures.
NOT_ARCHITECTURE = {
    "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "checkpoint_path",
    "cache_dir", "features_only", "feature_cls", "out_indices", "scriptable", "exportable", "no_jit", "device", "dtype",
    "model_cls", "variant", "model_cfg", "feature_cfg", "pretrained_strict", "pretrained_filter_fn", "kwargs_filter",
    "pruned",
}  # fmt: skip


def format_of(values: dict[str, object]) -> str:
    """Who wrote a file, by the names in it."""
    if "digest" in values and "version" in values:
        return "fourier-probe"
    if "pytorch-lightning_version" in values or "hyper_parameters" in values:
        return "lightning"
    if "model" in values and "args" in values:
        return "torchvision"
    return "timm" if "args" in values else "pytorch"


def settings_of(values: dict[str, object]) -> dict[str, object]:
    """The run's configuration, under whichever name."""
    sections = (values.get(key) for key in ("config", "args", "hyper_parameters"))
    return next((dict(section) for section in sections if isinstance(section, dict)), {})


def architecture_of(values: dict[str, object], settings: dict[str, object]) -> str | None:
    """The name of the architecture, if the file gives one."""
    named = (section.get(key) for section in (values, settings) for key in _ARCH)
    return next((name for name in named if isinstance(name, str) and 0 < len(name) <= 1000), None)


def arguments_of(
    values: dict[str, object], settings: dict[str, object], kind: str
) -> tuple[dict[str, object], dict[str, object]]:
    """Arguments the model was created with, and those it may have been."""
    recorded = values.get("model_args")
    arguments = dict(recorded) if isinstance(recorded, dict) else {}
    hints: dict[str, object] = {}
    if kind != "fourier-probe":
        extra = settings.get("model_kwargs")
        arguments = {
            **_timm_args(settings),
            **(extra if isinstance(extra, dict) else {}),
            **_timm_args(values),
            **arguments,
        }
        size = settings.get("img_size")
        if "img_size" not in arguments and isinstance(size, int) and 0 < size <= LARGEST:
            hints["img_size"] = size
    return {str(name): value for name, value in arguments.items() if name not in NOT_ARCHITECTURE}, hints


def _timm_args(settings: dict[str, object]) -> dict[str, object]:
    """What timm's training script hands to `create_model`, under its names there."""

    def pairs() -> Iterator[tuple[str, object]]:
        size = settings.get("input_size")
        if isinstance(size, list | tuple) and len(size) == 3:
            yield "in_chans", size[0]
        for ours, theirs, kinds in (
            ("in_chans", "in_chans", int),
            ("num_classes", "num_classes", int),
            ("global_pool", "gp", str),
            ("global_pool", "global_pool", str),
            ("bn_eps", "bn_eps", float),
        ):
            if isinstance(settings.get(theirs), kinds):
                yield ours, settings[theirs]

    return dict(pairs())


def from_metadata(metadata: dict[str, str]) -> tuple[dict[str, object], list[str]]:
    """What a safetensors file says of its architecture (strings, some of them JSON), and what of it is left out."""
    values: dict[str, object] = {}
    ignored: list[str] = []
    for key, text in metadata.items():
        if key in ("arch", "architecture"):
            values["arch"] = text
        elif key == "global_pool":
            values[key] = text.strip('"')
        elif key in ("model_args", "num_classes", "in_chans", "epoch"):
            value, reason = decoded(text)
            kind = dict if key == "model_args" else int
            if not reason and isinstance(value, kind):
                values[key] = value
            else:
                ignored.append(f"metadata {key}: {reason or f'expected {kind.__name__}, got {type(value).__name__}'}")
    return values, ignored


def from_hub(config: HubConfig) -> dict[str, object]:
    """What the config.json beside a file of the hub says."""
    fields = {"arch": config.architecture, "num_classes": config.num_classes, "global_pool": config.global_pool}
    return {**fields, "model_args": config.model_args or {}}

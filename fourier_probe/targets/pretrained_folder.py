"""A folder as transformers' `save_pretrained` leaves it (extra `hf`): local safetensors, nothing run or fetched.

May import checkpoints and what is above it, and results. transformers is given a configuration and tensors, never a
path: it reads no file itself, and what would make it run, fetch or unpickle something is refused by name before.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from fourier_probe.checkpoints import files
from fourier_probe.checkpoints.record import Input, decoded
from fourier_probe.errors import CheckpointError, ModelError, first_line, printable
from fourier_probe.io.paths import expanded
from fourier_probe.io.regular import open_regular
from fourier_probe.results.records import Provenance
from fourier_probe.runtime.messages import note
from fourier_probe.runtime.modes import keeping_random_state
from fourier_probe.targets.options import ModelOptions
from fourier_probe.targets.target import Target

LIMIT = 1 << 20  # bytes of a JSON file
_SLACK = 256 << 20  # bytes that a network may have beside its weights


class Sides(msgspec.Struct, frozen=True):
    """A size of images, as image processors write it."""

    height: int | None = None
    width: int | None = None
    shortest_edge: int | None = None

    @property
    def pair(self) -> tuple[int, int] | None:
        """(H, W), where it says one."""
        height, width = self.height or self.shortest_edge, self.width or self.shortest_edge
        return (height, width) if height and width else None


class Processor(msgspec.Struct, frozen=True):
    """What preprocessor_config.json says of the images a network wants."""

    size: int | Sides | None = None
    crop_size: int | Sides | None = None
    do_center_crop: bool | None = None
    do_normalize: bool | None = None
    image_mean: float | list[float] | None = None
    image_std: float | list[float] | None = None

    def input(self, image_size: tuple[int, int] | None) -> Input:
        """Size, mean and std; the size of the network itself where the processor names none."""
        crop = self.crop_size if self.do_center_crop is not False else None
        named = crop if crop is not None else self.size
        size = (named, named) if isinstance(named, int) else named.pair if named is not None else None
        if self.do_normalize is False:
            return Input(size=size or image_size, mean=(0.0,), std=(1.0,))
        return Input(size=size or image_size, mean=_values(self.image_mean), std=_values(self.image_std))


def is_one(name: str) -> bool:
    """Whether `name` is a folder with a config.json of transformers."""
    path = expanded(name) / "config.json"
    if not path.is_file():
        return False
    config, _ = decoded(_text(path))
    return isinstance(config, dict) and any(key in config for key in ("model_type", "architectures", "auto_map"))


def open_folder(name: str, options: ModelOptions, own: str | None) -> Target:
    """The network of a folder of transformers: the classifier it was saved as, else the backbone without a head.

    Raises:
        CheckpointError: something in it would be run, fetched or unpickled, or its weights do not fit.
        ModelError: transformers is not installed, or the network does not take images.
    """
    folder = expanded(name)
    if options.pretrained or options.use_ema or options.key or options.prefix or options.model_args:
        raise ModelError(
            f"{folder} is a folder of transformers, which describes itself completely: --pretrained, --use-ema, --key, "
            "--prefix and --model-arg are for other targets."
        )
    config = _object(folder / "config.json")
    refuse(folder, config)
    state, sha256 = _weights(folder)
    architectures = config.get("architectures")
    saved_as = architectures[0] if isinstance(architectures, list) and architectures else None
    network = _class(folder, config, saved_as if isinstance(saved_as, str) else "")
    model = _built(folder, network, config, state, options.untrained, options.ignore_extra)
    provenance = Provenance(
        source=name,
        sha256=sha256,
        arch=type(model).__name__,
        model_args={},
        weights="untrained" if options.untrained else "raw",
        seed=0 if options.untrained else None,
    )
    return Target(label=folder.resolve().name, provenance=provenance, model=model, transform=_input(folder, config))


def refuse(folder: Path, config: dict[str, object]) -> None:
    """Refuse what would run code, fetch weights or kernels, or unpickle.

    Raises:
        CheckpointError: names the key or file, and what to do.
    """
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(
            f"{folder} holds an adapter (adapter_config.json), whose base network is fetched: merge it and save that."
        )
    for where, key, value in _walk(config, "", 0):
        problem = _problem(key, value)
        if problem:
            raise CheckpointError(
                f"{folder / 'config.json'}: {printable(where, 80)} is {printable(repr(value), 120)}: {problem}. A file "
                "never decides what is run or fetched. If you trust it, load it in a Python file of your own and give "
                "that: file.py:factory."
            )


def _problem(key: str, value: object) -> str:
    if value is None or value is False or value in ({}, [], ""):
        return ""
    if key == "auto_map":
        return "it names code that comes with the network"
    if key in ("trust_remote_code", "custom_pipelines", "custom_generate"):
        return "it asks for code from elsewhere"
    if key in ("use_pretrained_backbone", "backbone_kwargs") or (key == "backbone" and isinstance(value, str)):
        return "it has the weights of a backbone fetched"
    if key in ("quantization_config", "compression_config"):
        return "its weights are quantised, and some quantisers fetch code"
    if key in ("use_kernels", "kernel_config"):
        return "it has kernels fetched from a hub"
    if key.endswith(("attn_implementation", "experts_implementation")) and value not in ("eager", "sdpa"):
        return "its attention may be fetched from a hub; eager and sdpa are read"
    return ""


def _walk(value: object, where: str, depth: int) -> Iterator[tuple[str, str, object]]:
    """Every key of nested dictionaries: where it is, the key, the value."""
    if depth > 50:
        raise CheckpointError("config.json is nested too deeply to be a network's.")
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        path = f"{where}.{key}" if where else str(key)
        yield path, str(key), inner
        yield from _walk(inner, path, depth + 1)


def _weights(folder: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of all shards, and a SHA-256: of the file, or of those of the shards in order."""
    shards = [folder / "model.safetensors"]
    if not shards[0].exists():
        index = folder / "model.safetensors.index.json"
        if not index.exists():
            pickled = sorted(file.name for file in folder.glob("*.bin"))
            raise CheckpointError(
                f"{folder} has no model.safetensors."
                + (
                    f" {printable(pickled[0])} is pickled, and is not read from such a folder: save it anew with "
                    "save_pretrained, which writes safetensors, or give the file itself with --model."
                    if pickled
                    else " save_pretrained writes it; give the folder that holds it."
                )
            )
        shards = _shards(index)
    state: dict[str, Tensor] = {}
    digests = []
    for shard in shards:
        contents = files.load(shard)
        if contents.metadata is None or not isinstance(contents.values, dict):
            raise CheckpointError(f"{shard} is no safetensors file, whatever its name says.")
        if twice := sorted(state.keys() & contents.values.keys()):
            raise CheckpointError(
                f"{shard} holds {printable(twice[0], 80)}, which another shard of {folder} holds too: which of them is "
                "right is not known. Save it anew with save_pretrained, into an empty folder."
            )
        state |= contents.values
        digests.append(contents.sha256)
    return state, digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _shards(index: Path) -> list[Path]:
    """The files that an index names, each once; links are followed, as the folders of a hub's cache are made of them.

    Raises:
        CheckpointError: it names none, something that is no file beside it, or a file that is not there.
    """
    named = _object(index).get("weight_map")
    names = list(named.values()) if isinstance(named, dict) else []
    if not names:
        raise CheckpointError(
            f"{index} names no file: expected a weight_map, from the name of a tensor to the file that holds it, as "
            "save_pretrained writes it."
        )
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name in ("", "..") or "\0" in name:
            raise CheckpointError(
                f"{index} names {printable(repr(name), 120)}: expected the names of safetensors files beside it. Save "
                "the network anew with save_pretrained."
            )
    shards = [index.with_name(name) for name in sorted(set(names))]
    if missing := [shard for shard in shards if not os.path.lexists(shard)]:
        raise CheckpointError(
            f"{index} names {printable(missing[0].name, 120)}, which is not there ({len(missing)} of {len(shards)} "
            "files are missing): copy or download all of them into this folder."
        )
    return shards


def _class(folder: Path, config: dict[str, object], saved_as: str) -> tuple[type[object], object]:
    """The class of the network and its configuration: a classifier where it was saved as one."""
    transformers = _transformers(folder)
    kind = config.get("model_type")
    configs = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING
    if not isinstance(kind, str) or kind not in configs:
        raise CheckpointError(
            f"{folder / 'config.json'}: model_type is {printable(repr(kind), 80)}, which transformers "
            f"{transformers.__version__} does not know."
        )
    classifier = saved_as.endswith(("ForImageClassification", "ForImageClassificationWithTeacher"))
    auto = transformers.AutoModelForImageClassification if classifier else transformers.AutoModel
    try:
        settings = configs[kind].from_dict({key: value for key, value in config.items() if key != "dtype"})
        network = auto._model_mapping[type(settings)]
    except KeyError as error:
        what = "image classifier" if classifier else "network without a head"
        raise CheckpointError(f"{folder / 'config.json'}: in transformers a {kind} is no {what}.") from error
    except Exception as error:  # whatever a configuration makes of values of another type
        raise CheckpointError(f"{folder / 'config.json'}: {type(error).__name__}: {first_line(error)}.") from error
    network = network[0] if isinstance(network, tuple | list) else network
    if getattr(network, "main_input_name", "") != "pixel_values":
        raise ModelError(
            f"{folder} is a {network.__name__}, whose input is {getattr(network, 'main_input_name', 'unknown')}, not "
            "images (pixel_values). From a network of images and text, save the vision model alone."
        )
    return network, settings


def _built(
    folder: Path,
    network: tuple[type[Any], object],
    config: dict[str, object],
    state: dict[str, Tensor],
    untrained: bool,
    ignore_extra: bool,
) -> nn.Module:
    kind, settings = network
    held = sum(tensor.nbytes for tensor in state.values())
    try:
        with torch.device("meta"):
            bones = kind(settings)
    except Exception as error:  # whatever a constructor raises
        raise CheckpointError(f"{folder}: {kind.__name__} cannot be made: {first_line(error)}.") from error
    if sum(weight.nbytes for weight in (*bones.parameters(), *bones.buffers())) > 8 * held + _SLACK:
        raise CheckpointError(f"{folder}: its config.json asks for a far larger network than it holds weights for.")
    with keeping_random_state(0):
        if untrained:
            made: nn.Module = kind(settings).eval()
            return made
        try:
            made, report = kind.from_pretrained(None, config=settings, state_dict=state, output_loading_info=True)
        except Exception as error:  # shapes that differ, among others
            raise CheckpointError(f"{folder} does not fit {kind.__name__}: {first_line(error)}.") from error
    missing, extra = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if missing:
        raise CheckpointError(
            f"{folder} does not fit {kind.__name__}: {len(missing)} weights are missing "
            f"({printable(', '.join(missing[:4]), 300)})."
        )
    if extra:
        note(
            f"{len(extra)} weights of {folder} are no part of its {kind.__name__} and are left out "
            f"({printable(', '.join(extra[:3]), 200)})."
        )
    for key, value in made.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"{folder}: {printable(key, 80)} holds values that are NaN or infinite.")
    return made.float().eval()


def _input(folder: Path, config: dict[str, object]) -> Input:
    own = config.get("image_size")
    size = (own, own) if isinstance(own, int) else tuple(own) if isinstance(own, list) and len(own) == 2 else None
    path = folder / "preprocessor_config.json"
    if not path.exists():
        note(
            f"{folder} has no preprocessor_config.json: ImageNet's mean and std are assumed. --mean and --std name "
            "others."
        )
        processor = Processor()
    else:
        try:
            processor = msgspec.convert(_object(path), Processor)
        except msgspec.ValidationError as error:
            raise CheckpointError(f"{path}: {first_line(error)}.") from error
    try:
        return msgspec.convert(msgspec.to_builtins(processor.input(size)), Input)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{path}: {first_line(error)}.") from error


def _transformers(folder: Path) -> Any:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ModelError(
            f"{folder} is a folder of transformers, which is not installed: pip install 'fourier-probe[hf]'."
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _object(path: Path) -> dict[str, object]:
    values, reason = decoded(_text(path))
    if reason or not isinstance(values, dict):
        raise CheckpointError(f"{path}: {reason or 'expected a JSON object'}.")
    return values


def _text(path: Path) -> bytes:
    try:
        with open_regular(path) as stream:
            data = stream.read(LIMIT + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    return data if len(data) <= LIMIT else b"too large"


def _values(values: float | list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values) if isinstance(values, list) else (values,)

"""A trained network to begin from: a file that `analyze` reads, by the same readers. May import targets and models.

T-CNN's protocol (d'Ascoli et al., 2021) begins so: a trained convolutional network is recast, then trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from torch import Tensor, nn

from fourier_probe.errors import CheckpointError, TrainingError, printable, suggest
from fourier_probe.io.paths import expanded
from fourier_probe.models import zoo
from fourier_probe.models.gpsa.layer import GPSAConv2d
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.models.gpsa.sizes import architecture
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.record import InitialRecord

READ_ARGS = ("use_ema", "key", "prefix", "ignore_extra", "head")


@dataclass
class Initial:
    """What a run begins from.

    Attributes:
        record: what config.json says of it.
        arguments: that its network was made with.
        state: its weights; none where a run is resumed, whose own follow.
        size: (H, W) pixels of the images it was trained on, where the file says.
        easing: layers that were in the middle of their easing.
    """

    record: InitialRecord
    arguments: dict[str, Any]
    state: dict[str, Tensor] = field(default_factory=dict, repr=False)
    size: tuple[int, int] | None = None
    easing: tuple[str, ...] = ()

    @classmethod
    def open(cls, config: TrainConfig) -> Initial:
        """Read the file that a config names, as the network that it names.

        Raises:
            CheckpointError: not there, damaged, unsafe, or the weights of another network.
            TrainingError: it says that it is another architecture than `--model`.
        """
        target = _resolve(config.initial_checkpoint, config.initial_args, config.model, config.model_args)
        provenance, network = target.provenance, target.model
        if provenance.arch != config.model:
            raise TrainingError(
                f"--initial-checkpoint {printable(config.initial_checkpoint)} says that it is {provenance.arch}, and "
                f"--model is {config.model}: leave --model out to train what the file holds. If it is something else "
                f"than it says, name it: --initial-checkpoint FILE={config.model}."
            )
        spec = zoo.input_spec(network, mean=target.transform.mean, std=target.transform.std)
        layers = {name: module for name, module in network.named_modules() if isinstance(module, GPSAConv2d)}
        easing = tuple(name for name, module in layers.items() if module.gate_shift or module.locality_shift)
        record = InitialRecord(
            source=config.initial_checkpoint,
            sha256=provenance.sha256,
            weights=provenance.weights or "raw",
            epoch=provenance.epoch,
            mean=spec.mean,
            std=spec.std,
            recast={name: module.head_dim for name, module in layers.items()},
            content={
                name: (module.content_stride, module.content_maps)
                for name, module in layers.items()
                if architecture(module.content_stride, module.content_maps, module.heads)
            },
        )
        arguments = dict(provenance.model_args or {})
        return cls(record, arguments, dict(network.state_dict()), target.transform.size, easing)

    def into(self, model: nn.Module, config: TrainConfig) -> None:
        """Recast the layers that the file has as attention, and load its weights; the head may be another.

        The head is the classifier that timm's configuration names, or `--initial-arg head=NAME`. Where its size is
        another one, the weights of the fresh head stay, and `record.head` says so.

        Raises:
            CheckpointError: other weights than the head's do not fit; names them.
        """
        for layer in self.record.recast:
            recast_(model, [layer], **self._options(layer))
        if not self.state:
            return
        own = model.state_dict()
        unlike = [
            name
            for name in dict.fromkeys((*own, *self.state))
            if name not in own or name not in self.state or own[name].shape != self.state[name].shape
        ]
        heads = _heads(model, config)
        outside = [name for name in unlike if not any(name.startswith(f"{head}.") for head in heads)]
        if outside:
            raise CheckpointError(
                f"{self.record.source} does not fit {config.model}: {_unlike(outside[0], own, self.state)}"
                f"{f', and {len(outside) - 1} more' if len(outside) > 1 else ''}. {_advice(heads)}"
            )
        model.load_state_dict({name: self.state[name] for name in self.state if name not in unlike}, strict=False)
        if unlike:
            description = f"{', '.join(heads)} is new: {_unlike(unlike[0], own, self.state)}"
            self.record = msgspec.structs.replace(self.record, head=description)
        self.state = {}

    def description(self) -> str:
        """What a reader of the log should know of it."""
        record = self.record
        when = "" if record.epoch is None else f" after {record.epoch} epochs"
        parts = [f"the weights are those of {record.source} ({record.weights}{when})"]
        parts += [record.head] * bool(record.head)
        parts += [f"{len(record.recast)} of its layers are attention already"] * bool(record.recast)
        parts += [f"{len(self.easing)} of these were being eased, and stay as far as they were"] * bool(self.easing)
        return "; ".join(parts) + "."

    @property
    def rows(self) -> list[dict[str, object]]:
        """The layers that were attention before the run, as rows of a checkpoint's `conversions`."""
        return [
            {"layer": layer, "epoch": None, "options": self._options(layer), "initial": True}
            for layer in self.record.recast
        ]

    def _options(self, layer: str) -> dict[str, Any]:
        """How a layer was recast, as far as its weights do not say."""
        names = ("content_stride", "content_maps")
        return {
            "head_dim": self.record.recast[layer],
            **dict(zip(names, self.record.content.get(layer, ()), strict=False)),
        }


def named_model(chosen: Mapping[str, Any]) -> str:
    """The architecture that a file says it is, for a config in which no model is named."""
    target = _resolve(
        str(chosen["initial_checkpoint"]), chosen.get("initial_args", {}), None, chosen.get("model_args", {})
    )
    return str(target.provenance.arch)


def _resolve(source: str, read: Mapping[str, Any], model: str | None, arguments: Mapping[str, object]) -> Any:
    """The target that a file is, with a model and a digest."""
    from fourier_probe.targets import ModelOptions, resolve
    from fourier_probe.targets.kinds import split

    if unknown := [name for name in read if name not in READ_ARGS]:
        raise TrainingError(
            f"--initial-arg {unknown[0]}: expected one of {', '.join(READ_ARGS)}.{suggest(unknown[0], READ_ARGS)}"
        )
    path = expanded(source)
    if source.startswith(("timm:", "torchvision:")):
        raise TrainingError(
            f"--initial-checkpoint {printable(source)} names no file: for weights that their authors publish give "
            f"--model {printable(source.removeprefix('timm:'))} --pretrained."
        )
    if path.is_dir() and not (path / "last.pt").exists():
        raise CheckpointError(
            f"--initial-checkpoint {printable(source)} is a folder without last.pt: name a checkpoint file, or the "
            "folder of a run."
        )
    options = {name: value for name, value in read.items() if name != "head"}
    model = None if split(source)[1] else model
    made = {name: value for name, value in arguments.items() if name != "num_classes"}
    target = resolve(source, ModelOptions(model=model, model_args=made, **options))
    if target.model is None or target.provenance.sha256 is None:
        raise CheckpointError(f"--initial-checkpoint {printable(source)} holds no weights: name a checkpoint file.")
    return target


def _heads(model: nn.Module, config: TrainConfig) -> tuple[str, ...]:
    """Names of the modules that may be made new."""
    if asked := config.initial_args.get("head"):
        head, modules = str(asked), dict(model.named_modules())
        if head not in modules:
            raise TrainingError(
                f"--initial-arg head={head}: {config.model} has no such module.{suggest(head, modules)}"
            )
        return (head,)
    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def _unlike(name: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    have, want = (tuple(weights[name].shape) if name in weights else "not there" for weights in (state, own))
    return f"{printable(name, 80)} is {have} in the file and {want} in the network"


def _advice(heads: tuple[str, ...]) -> str:
    head = f"Only its head, {', '.join(heads)}, may be another" if heads else "It names no head that may be another"
    return f"{head}; --initial-arg head=NAME names it. For a network of another size give --model-arg KEY=VALUE."

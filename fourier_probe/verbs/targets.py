"""What the user named: a checkpoint, a run folder, a saved result, or `timm:NAME`.

May import everything but training, plots and cli.

A target becomes a model with its provenance, or a saved `Spectra`; everything a command needs to know is in `Target`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fourier_probe import checkpoints
from fourier_probe.data import InputSpec
from fourier_probe.data.trust import NamedData, read_fingerprint
from fourier_probe.errors import CheckpointError, ModelError, printable
from fourier_probe.models import zoo
from fourier_probe.results.spectra import Spectra

SEED = 0  # of the weights of a model that is not trained


@dataclass
class Target:
    """A model to be probed, or a result that was.

    Attributes:
        label: what tables and figures call it.
        provenance: the `target` field of spectra.json.
        model: in eval mode on the CPU; None for a saved result.
        data: the source it was trained on, where the file says; `data.trust` decides whether it is used.
        transform: what its run used: size, mean, std; empty where the file does not say.
        spectra: the saved result, if it is one.
    """

    label: str
    provenance: dict[str, Any]
    model: nn.Module | None = None
    data: NamedData | None = None
    transform: Mapping[str, Any] = field(default_factory=dict)
    spectra: Spectra | None = None

    def __post_init__(self) -> None:
        self.label = printable(self.label)

    def input_spec(
        self,
        *,
        img_size: tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> InputSpec:
        """What the model wants to see: as given, else as its run had it, else as its architecture says.

        A model with position embeddings of a fixed grid is resized by its own `set_input_size` where it has one.
        """
        if self.model is None:
            raise ModelError(f"{self.label} is a saved result: there is no model to give images to.")
        native = zoo.input_spec(self.model, **_known(self.transform))
        resize = getattr(self.model, "set_input_size", None)
        if img_size is not None and img_size != native.size and callable(resize):
            try:
                resize(img_size=img_size)
            except TypeError:
                pass  # some families have other arguments, and need none of this
            except (RuntimeError, AssertionError, ValueError) as error:
                raise ModelError(f"{self.label} cannot take images of {img_size[0]}x{img_size[1]}: {error}") from error
        patches = getattr(self.model, "patch_embed", None)
        made_for = getattr(patches, "img_size", None) if getattr(patches, "strict_img_size", False) else None
        if img_size is not None and made_for is not None and tuple(made_for) != img_size:
            sides = ",".join(map(str, img_size))
            raise ModelError(
                f"{self.label} takes images of {made_for[0]}x{made_for[1]} only. If it has no trained weights, make it "
                f"for another size with --model-arg img_size={sides}."
            )
        given = {"img_size": img_size, "mean": mean, "std": std}
        return zoo.input_spec(
            self.model, **{**_known(self.transform), **{k: v for k, v in given.items() if v is not None}}
        )


def resolve(
    name: str,
    *,
    model: str | None = None,
    model_args: dict[str, Any] | None = None,
    pretrained: bool = False,
    use_ema: bool | None = None,
    untrained: bool = False,
    saved: bool = False,
) -> Target:
    """Find out what `name` is and load it.

    Args:
        name: path of a checkpoint, of a run folder (its last.pt), of a spectra.json or its folder; or `timm:NAME`,
            which also takes our own models.
        model: architecture, for a checkpoint that does not say.
        model_args: its arguments; they come before those of the file.
        pretrained: for `timm:NAME`, fetch the published weights.
        use_ema: see `checkpoints.read`.
        untrained: the same architecture with fresh weights (seed 0).
        saved: of a run folder with weights and a saved result, take the result; else the weights are taken.

    Raises:
        CheckpointError, ModelError, ResultError: what is wrong, and what to do.
    """
    if name.startswith("timm:"):
        if model is not None or use_ema is not None:
            raise ModelError(f"{name} names an architecture: --model and --use-ema are for checkpoint files.")
        return _named(name, model_args or {}, pretrained and not untrained)
    path = Path(name).expanduser()
    if path.suffix == ".json" or (has_saved(name) and (saved or not (path / "last.pt").exists())):
        spectra = Spectra.load(path)
        return Target(
            label=_label(str(spectra.target.get("source") or name)), provenance=spectra.target, spectra=spectra
        )
    if path.is_dir():
        if not (path / "last.pt").exists():
            raise CheckpointError(
                f"{path} is neither a run folder (it has no last.pt) nor a result (no spectra.json): "
                "name a checkpoint file, or the folder of a finished `fourier-probe train`."
            )
        path = path / "last.pt"
    elif not path.exists():
        known = zoo.is_registered(name)
        advice = f" Did you mean timm:{name}?" if known else " A model of timm or ours is named timm:NAME."
        raise CheckpointError(f"there is no file or folder {name}.{advice}")
    return _checkpoint(path, name, model, model_args, use_ema, untrained, pretrained)


def has_saved(name: str) -> bool:
    """Whether `name` is a spectra.json, or a folder with one."""
    path = Path(name).expanduser()
    return path.suffix == ".json" or (path / "spectra.json").exists()


def _named(name: str, model_args: dict[str, Any], pretrained: bool) -> Target:
    arch = name.removeprefix("timm:")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = zoo.create(arch, pretrained=pretrained, **model_args).eval()
    provenance = _provenance(name, arch=arch, model_args=model_args, weights="raw" if pretrained else "untrained")
    return Target(label=arch, provenance={**provenance, "seed": None if pretrained else SEED}, model=model)


def _checkpoint(
    path: Path,
    name: str,
    model: str | None,
    model_args: dict[str, Any] | None,
    use_ema: bool | None,
    untrained: bool,
    pretrained: bool,
) -> Target:
    if pretrained:
        raise CheckpointError(f"{name} is a checkpoint with weights of its own: --pretrained is for timm:NAME.")
    checkpoint = checkpoints.read(path, use_ema=use_ema)
    built = checkpoints.build(checkpoint, model=model, model_args=model_args, untrained=untrained)
    arch, arguments = checkpoints.architecture(checkpoint, model=model, model_args=model_args)
    config = checkpoint.config
    provenance = _provenance(
        name,
        arch=arch,
        model_args=arguments,
        weights="untrained" if untrained else checkpoint.weights,
    )
    provenance |= {key: config.get(key) for key in ("data", "data_scale", "schedule", "seed")}
    provenance |= {"sha256": checkpoint.sha256, "epoch": checkpoint.epoch}
    transform = config.get("input") or {}
    return Target(
        label=_label(str(path)), provenance=provenance, model=built, data=_data(checkpoint, name), transform=transform
    )


def _data(checkpoint: checkpoints.Checkpoint, name: str) -> NamedData | None:
    """What the file says it was trained on."""
    source, ours = checkpoint.config.get("data"), checkpoint.format == "fourier-probe"
    if not isinstance(source, str) or not source:
        return None
    return NamedData(source, name, ours, read_fingerprint(checkpoint.payload.get("data_fingerprint")) if ours else None)


def _label(source: str) -> str:
    """What tables and figures call a target: the architecture, the run folder, or the name of the file."""
    if source.startswith("timm:"):
        return source.removeprefix("timm:")
    path = Path(source)
    return path.parent.name if path.stem in ("last", "best") and path.parent.name else path.stem or source


def _provenance(source: str, **known: Any) -> dict[str, Any]:
    fields = ("sha256", "arch", "model_args", "weights", "data", "data_scale", "schedule", "seed", "epoch")
    return {"source": source, **dict.fromkeys(fields), **known}


def _known(transform: Mapping[str, Any]) -> dict[str, Any]:
    """The size, mean and std a run wrote down, as `input_spec` takes them."""
    names = {"size": "img_size", "mean": "mean", "std": "std"}
    return {ours: transform[theirs] for theirs, ours in names.items() if transform.get(theirs) is not None}

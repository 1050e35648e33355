"""What the user named: a checkpoint, a run folder, a saved result, or `timm:NAME`.

May import everything but training, plots and cli.

A target becomes a model with its provenance, or a saved `Spectra`; everything a command needs to know is in `Target`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from fourier_probe import checkpoints
from fourier_probe.checkpoints.record import Input
from fourier_probe.data import InputSpec
from fourier_probe.data.trust import NamedData, read_fingerprint
from fourier_probe.errors import CheckpointError, ModelError, printable
from fourier_probe.models import zoo
from fourier_probe.results.records import Provenance
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime import messages
from fourier_probe.runtime.modes import keeping_random_state

SEED = 0  # of the weights of a model that is not trained


@dataclass
class Target:
    """A model to be probed, or a result that was.

    Attributes:
        label: what tables and figures call it.
        provenance: the `target` field of spectra.json.
        model: in eval mode on the CPU; None for a saved result.
        data: the source it was trained on, where the file says; `data.trust` decides whether it is used.
        transform: what its run used, as far as the file says.
        spectra: the saved result, if it is one.
    """

    label: str
    provenance: Provenance
    model: nn.Module | None = None
    data: NamedData | None = None
    transform: Input = field(default_factory=Input)
    spectra: Spectra | None = None

    def __post_init__(self) -> None:
        self.label = printable(self.label)

    @property
    def input(self) -> InputSpec:
        """What the model wants to see: channels, size, mean, std."""
        return self.input_spec()

    def input_spec(
        self,
        *,
        img_size: tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        arrays: tuple[int, int] | None = None,
    ) -> InputSpec:
        """What the model wants to see: as given, else as its run had it, else as its architecture says.

        A network that says nothing of its size, as a factory's may, takes that of the arrays it is given; a note says
        so. A model with position embeddings of a fixed grid is resized by its own `set_input_size` where it has one.

        Args:
            img_size: (H, W) pixels.
            mean: one number, or one per channel, in [0, 1].
            std: likewise.
            arrays: (H, W) of the images, where they are arrays of one size (`ImageSet.array_size`).
        """
        if self.model is None:
            raise ModelError(f"{self.label} is a saved result: there is no model to give images to.")
        known = self.transform
        if img_size is None and known.size is None and not zoo.says_size(self.model):
            messages.note(_assumed(self.label, arrays))
            img_size = arrays
        spec = zoo.input_spec(
            self.model,
            img_size=img_size or known.size,
            mean=known.mean if mean is None else mean,
            std=known.std if std is None else std,
        )
        native = known.size or zoo.input_spec(self.model).size
        resize = getattr(self.model, "set_input_size", None)
        if img_size is not None and img_size != native and callable(resize):
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
        return spec


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
        return Target(label=_label(str(spectra.target.source or name)), provenance=spectra.target, spectra=spectra)
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
    with keeping_random_state(SEED):
        model = zoo.create(arch, pretrained=pretrained, **model_args).eval()
    weights, seed = ("raw", None) if pretrained else ("untrained", SEED)
    provenance = Provenance(source=name, arch=arch, model_args=model_args, weights=weights, seed=seed)
    return Target(label=arch, provenance=provenance, model=model)


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
    trained = {key: config.get(key) for key in ("data", "data_scale", "schedule", "seed")}
    provenance = Provenance.of(
        {
            "source": name,
            "sha256": checkpoint.sha256,
            "arch": arch,
            "model_args": arguments,
            "weights": "untrained" if untrained else checkpoint.weights,
            **trained,
            "epoch": checkpoint.epoch,
        }
    )
    return Target(
        label=_label(str(path)),
        provenance=provenance,
        model=built,
        data=_data(checkpoint, name),
        transform=_input(checkpoint),
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


def _input(checkpoint: checkpoints.Checkpoint) -> Input:
    """What a file says of its run's input; of another tool's, only what reads as ours."""
    try:
        return msgspec.convert(checkpoint.config.get("input") or {}, Input)
    except (msgspec.ValidationError, RecursionError):
        return Input()


def _assumed(label: str, arrays: tuple[int, int] | None) -> str:
    height, width = arrays or (224, 224)
    whose = "that of the images is used" if arrays else f"{height}x{width} is assumed"
    return f"{label} does not say for which size of images it was made: {whose}. --img-size names another."

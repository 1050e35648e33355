"""The kinds of TARGET, in the order they are looked for, and `resolve`. May import everything above `plots`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fourier_probe.errors import CheckpointError, ModelError, printable
from fourier_probe.io.paths import expanded
from fourier_probe.models import zoo
from fourier_probe.results.labels import name_of, source_name
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime import messages
from fourier_probe.runtime.model_names import TORCHVISION
from fourier_probe.targets import named, pretrained_folder
from fourier_probe.targets.options import ModelOptions
from fourier_probe.targets.target import Target
from fourier_probe.targets.weights import open_checkpoint

TIMM = "timm:"


@dataclass(frozen=True)
class Kind:
    """A kind of TARGET.

    Attributes:
        name: in messages and docs.
        names: whether a name is of this kind.
        open: the name, the options, and the architecture that the user gives for it alone (TARGET=MODEL).
        says: whether it says itself what it is, so that TARGET=MODEL has no place.
    """

    name: str
    names: Callable[[str], bool]
    open: Callable[[str, ModelOptions, str | None], Target]
    says: bool = True


def resolve(name: str, options: ModelOptions | None = None, *, saved: bool = False) -> Target:
    """Find out what `name` is and load it.

    Args:
        name: what the command line calls TARGET, `TARGET=MODEL` included. What exists is taken whole.
        options: how to make its model; where it names a `model`, its `model_args` are that one's alone.
        saved: of a run folder with weights and a saved result, take the result; else the weights are taken.

    Raises:
        CheckpointError, ModelError, ResultError: what is wrong, and what to do.
    """
    options = options or ModelOptions()
    if saved and has_saved(name):
        return _saved(name, options, None)
    source, own = split(name)
    kind = _kind(source)
    if kind is None:
        raise CheckpointError(_nothing(name))
    if own is not None and kind.says:
        raise ModelError(
            f"{printable(source)} is a {kind.name}, which names its own architecture: leave ={printable(own)} out."
        )
    if options.model is not None and own is not None:
        options = replace(options, model_args=None)
    if kind.says and options.model is not None and kind.name != SAVED:
        options = replace(options, model_args=None)
        messages.note(f"{source} is a {kind.name}, which says what it is: --model is for files that do not say.")
    return kind.open(source, options, own)


def split(name: str) -> tuple[str, str | None]:
    """TARGET and MODEL of `TARGET=MODEL`, from the last `=` that has a target before it; what exists is taken whole.

    >>> split("timm:resnet18"), split("no_such_file.pt=resnet18")
    (('timm:resnet18', None), ('no_such_file.pt=resnet18', None))
    """
    if _kind(name) is not None:
        return name, None
    cuts = [index for index, letter in enumerate(name) if letter == "="]
    for cut in reversed(cuts):
        if name[cut + 1 :] and _kind(name[:cut]) is not None:
            return name[:cut], name[cut + 1 :]
    return name, None


def has_saved(name: str) -> bool:
    """Whether `name` is a spectra.json, or a folder with one."""
    path = expanded(name)
    return path.suffix == ".json" or (path / "spectra.json").exists()


def _kind(name: str) -> Kind | None:
    return next((kind for kind in KINDS if kind.names(name)), None)


def _nothing(name: str) -> str:
    path = expanded(name)
    if path.is_dir():
        return (
            f"{path} is neither a run folder (it has no last.pt) nor a result (no spectra.json) nor a folder of "
            "transformers (no config.json of its kind). Name a checkpoint file, or the folder of a "
            "finished `fourier-probe train`."
        )
    file, colon, _ = name.rpartition(":")
    if colon and file.endswith(".py"):
        return f"{printable(name)} names no factory: expected path/to/file.py:factory, the name of a function in it."
    source, equals, _ = name.rpartition("=")
    if equals and not expanded(source).exists():
        return f"there is no file or folder {printable(source)} (of {printable(name)}), nor one with the full name."
    if zoo.is_registered(name):
        return f"there is no file or folder {name}. Did you mean timm:{name}?"
    return f"there is no file or folder {printable(name)}. A model of timm or ours is named timm:NAME."


def _is_saved(name: str) -> bool:
    path = expanded(name)
    return has_saved(name) and (path.suffix == ".json" or not (path / "last.pt").exists())


def _saved(name: str, options: ModelOptions, own: str | None) -> Target:
    spectra = Spectra.load(expanded(name))
    return Target(label=name_of(spectra.target, source_name(name)), provenance=spectra.target, spectra=spectra)


def _run(name: str, options: ModelOptions, own: str | None) -> Target:
    return open_checkpoint(expanded(name) / "last.pt", name, options, own)


def _file(name: str, options: ModelOptions, own: str | None) -> Target:
    return open_checkpoint(expanded(name), name, options, own)


SAVED = "saved result"
KINDS = (
    Kind("model of timm or ours", lambda name: name.startswith(TIMM), named.open_timm),
    Kind("model of torchvision", lambda name: name.startswith(TORCHVISION), named.open_torchvision),
    Kind(SAVED, _is_saved, _saved),
    Kind("run folder", lambda name: (expanded(name) / "last.pt").exists(), _run, says=False),
    Kind("folder of transformers", pretrained_folder.is_one, pretrained_folder.open_folder),
    Kind("checkpoint", lambda name: _exists(name) and not expanded(name).is_dir(), _file, says=False),
    Kind("factory", named.is_factory, named.open_factory),
)


def _exists(name: str) -> bool:
    return expanded(name).exists()

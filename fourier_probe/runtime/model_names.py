"""Names of models as they stand in the sources of timm, torchvision and ours: a wrong one is answered without torch.

Importing timm takes seconds. Its models are functions under a decorator, which a search for text finds in a tenth of
one, in whatever version is installed. Imports errors only.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from fourier_probe.errors import ModelError, printable, suggest

TORCHVISION = "torchvision:"
_NAME = re.compile(r"[\w.-]+")
_REGISTERED = re.compile(r"^@register_model\b.*\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)


def check(name: str) -> None:
    """Refuse what is certainly no model: the name of none, in a process that has not imported the models.

    What stands anywhere in the sources is left to the registry to judge; so is everything once timm is imported, for
    then it is at hand, and a plug-in may have added to it.

    Args:
        name: of a model, with or without `timm:` or `torchvision:`; anything else with a colon is no name and passes.

    Raises:
        ModelError: with near names, as `models.zoo.create` says it.
    """
    plain = name.removeprefix("timm:").removeprefix(TORCHVISION)
    if ":" in plain or {"timm", "torchvision"} & sys.modules.keys():
        return
    theirs = name.startswith(TORCHVISION)
    text = _sources("torchvision" if theirs else "timm") + ("" if theirs else _ours())
    if text and not (_NAME.fullmatch(plain) and re.search(rf"\b{re.escape(plain.partition('.')[0])}\b", text)):
        raise (unknown_of_torchvision if theirs else unknown)(plain, _REGISTERED.findall(text))


def check_pattern(pattern: str) -> None:
    """Refuse a shell pattern that matches the name of no model, likewise.

    Raises:
        ModelError: nothing matches.
    """
    if "timm" not in sys.modules and _sources("timm") and not fnmatch.filter(registered(), pattern):
        raise no_match(pattern)


def registered() -> list[str]:
    """Names of the models that timm and we register, as far as the sources tell."""
    return _REGISTERED.findall(_sources("timm") + _ours())


def no_match(pattern: str) -> ModelError:
    """What to say of a shell pattern that matches no model."""
    return ModelError(f"no model matches {pattern!r}: patterns are shell globs, as in 'vit_tiny*'.")


def unknown(name: str, names: Iterable[str]) -> ModelError:
    """What to say of a name that is no model of timm's or ours."""
    advice = suggest(name[:80], names) or " `fourier-probe models PATTERN` lists them."
    return ModelError(
        f"unknown model '{printable(name, 80)}': expected the name of a timm model, of one of ours, "
        f"torchvision:NAME, or path/to/file.py:factory.{advice}"
    )


def unknown_of_torchvision(name: str, names: Iterable[str]) -> ModelError:
    """What to say of a name that is no model of torchvision's."""
    return ModelError(
        f"torchvision has no model '{printable(name, 80)}'.{suggest(name[:80], names)} "
        "python -c 'import torchvision; print(torchvision.models.list_models())' lists them."
    )


@functools.lru_cache(maxsize=2)
def _sources(package: str) -> str:
    """All that an installed package says of its models; empty where its files cannot be read."""
    spec = importlib.util.find_spec(package)  # of a package on top, which is not imported
    return _text(Path(spec.origin).parent / "models") if spec is not None and spec.origin else ""


def _ours() -> str:
    return _text(Path(__file__).parents[1] / "models")


def _text(folder: Path) -> str:
    try:
        return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py")))
    except (OSError, ValueError):
        return ""

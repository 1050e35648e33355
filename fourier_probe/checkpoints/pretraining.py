"""The network inside what self-supervised and downstream training save. May import models, formats and errors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from fourier_probe.checkpoints.formats import Checkpoint
from fourier_probe.errors import printable
from fourier_probe.models import zoo
from fourier_probe.runtime.messages import note


@dataclass(frozen=True)
class Layout:
    """Where a kind of training keeps its network.

    Attributes:
        name: who saves so.
        prefix: of the names of the network's weights.
        signs: beginnings of names that such a file holds.
        extra: beginnings of names, after the prefix, that are no part of the network: projection heads, decoders.
    """

    name: str
    prefix: str
    signs: tuple[str, ...]
    extra: tuple[str, ...] = ()


LAYOUTS = (
    Layout("MoCo v3", "base_encoder.", ("base_encoder.", "momentum_encoder."), ("head.", "fc.")),
    Layout("MoCo", "encoder_q.", ("encoder_q.", "encoder_k."), ("head.", "fc.")),
    Layout("MAE", "", ("mask_token", "decoder_"), ("mask_token", "decoder_")),
    Layout("DINO or mm", "backbone.", ("backbone.",)),
)


def encoder(checkpoint: Checkpoint, name: str | None, model_args: dict[str, Any] | None = None) -> Checkpoint:
    """The checkpoint with the network's weights alone, where it is laid out in one of `LAYOUTS`; a note says so.

    A network that has such names itself keeps them all.

    Args:
        checkpoint: from `read`.
        name: the architecture that it will be made as; where that is None, the file's own.
        model_args: as the caller gives them.
    """
    layout = next((known for known in LAYOUTS if _signed(checkpoint.state, known.signs)), None)
    name = name or checkpoint.arch
    if layout is None or name is None or not (zoo.is_registered(name) or zoo.is_typed(name)):
        return checkpoint
    own = zoo.skeleton(name, **(model_args or {})).state_dict()
    if any(_signed(own, (sign,)) for sign in layout.signs):
        return checkpoint
    inside = {
        key.removeprefix(layout.prefix): tensor
        for key, tensor in checkpoint.state.items()
        if key.startswith(layout.prefix) and not key.removeprefix(layout.prefix).startswith(layout.extra or ("\0",))
    }
    left = sorted({_top(key) for key in checkpoint.state if key.removeprefix(layout.prefix) not in inside})
    where = f"the weights under {layout.prefix} are used" if layout.prefix else "the encoder's weights are used"
    note(
        f"{checkpoint.path.name} is laid out as {layout.name} saves a network: {where}, and "
        f"{len(checkpoint.state) - len(inside)} others left out ({printable(', '.join(left[:6]), 300) or 'none'})."
    )
    return replace(checkpoint, state=inside, prefix=checkpoint.prefix + layout.prefix)


def common_prefix(state: Collection[str], fresh: Collection[str]) -> str:
    """The prefix under which the most names of a network are in a file; empty where they are fewer than half."""
    counts: dict[str, int] = {}
    wanted = set(fresh)
    for key in state:
        parts = key.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in wanted:
                prefix = ".".join(parts[:cut]) + "."
                counts[prefix] = counts.get(prefix, 0) + 1
    best = max(counts, key=lambda prefix: counts[prefix], default="")
    return best if best and counts[best] * 2 >= len(wanted) else ""


def _signed(names: Collection[str], signs: tuple[str, ...]) -> bool:
    return all(any(name.startswith(sign) for name in names) for sign in signs)


def _top(key: str) -> str:
    """The first part of a name, as a group."""
    head, dot, _ = key.partition(".")
    return head + dot

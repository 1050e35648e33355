"""Every measure on what it cannot be taken of: a note and the rest of the result, or an error of ours that says why.

Nothing else is raised, nothing is not a number where a file is written, and every figure and table can be made.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import fourier_probe as fp
from fourier_probe.errors import ProbeError
from fourier_probe.results.answer_parts import HEATMAP_PARTS, VALIDATION_PARTS
from fourier_probe.results.heatmap_set import HeatMaps
from fourier_probe.results.parts import parts_of
from fourier_probe.runtime.messages import listening

Batches = list[Any]


class Step(nn.Module):
    """A residual step."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Convolutional(nn.Module):
    """A stem, a residual step, and a classifier or none."""

    def __init__(self, *, channels: int = 3, classes: int = 3, kernel: int = 3, stride: int = 1, head: bool = True):
        super().__init__()
        self.stem = nn.Conv2d(channels, 6, kernel, stride=stride, padding=kernel // 2)
        self.block = Step(nn.Sequential(nn.Conv2d(6, 6, kernel, padding=kernel // 2), nn.Tanh()))
        self.head = nn.Linear(6, classes) if head else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stem(x))
        return x if self.head is None else self.head(x.mean((2, 3)))


class Unconvolved(nn.Module):
    """Patches by a linear layer, one MLP: no convolution, no attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Linear(12, 8), Step(nn.Sequential(nn.Linear(8, 8))), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.reshape(len(x), 3, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(len(x), 16, 12)
        return self.head(self.block(self.embed(patches)).mean(1))


def transformer() -> nn.Module:
    return timm.models.vision_transformer.VisionTransformer(
        img_size=8, patch_size=2, embed_dim=8, depth=1, num_heads=2, num_classes=3
    )


def images(
    count: int = 24, size: tuple[int, int] = (8, 8), *, channels: int = 3, classes: int = 3, fill: float | None = None
) -> Batches:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(count, channels, *size, generator=generator)
    pixels = pixels if fill is None else torch.full_like(pixels, fill)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return list(zip(pixels.split(12), labels.split(12), strict=True))


NETWORK, PIXELS = Convolutional, images
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Batches]]] = {
    "no labels": (NETWORK, lambda: [batch for batch, _ in images()]),
    "labels of other classes": (NETWORK, lambda: images(classes=9)),
    "no attention": (NETWORK, PIXELS),
    "no convolution": (Unconvolved, PIXELS),
    "maps of one position": (lambda: Convolutional(kernel=1, stride=8), PIXELS),
    "images of one pixel": (lambda: Convolutional(kernel=1), lambda: images(size=(1, 1))),
    "one image": (NETWORK, lambda: images(1)),
    "one image, attention": (transformer, lambda: images(1)),
    "NaN images": (NETWORK, lambda: images(fill=math.nan)),
    "NaN images, attention": (transformer, lambda: images(fill=math.nan)),
    "constant images": (NETWORK, lambda: images(fill=0.5)),
    "constant images, attention": (transformer, lambda: images(fill=0.5)),
    "two classes": (lambda: Convolutional(classes=2), lambda: images(classes=2)),
    "one class": (lambda: Convolutional(classes=1), lambda: images(classes=1)),
    "no classifier": (lambda: Convolutional(head=False), PIXELS),
    "not square": (NETWORK, lambda: images(size=(6, 11))),
    "grey": (lambda: Convolutional(channels=1), lambda: images(channels=1)),
}


def analyzed(net: nn.Module, data: Batches) -> fp.Spectra:
    plain = [batch[0] if isinstance(batch, tuple) else batch for batch in data]
    return fp.analyze(net, plain, maps=True, tokens=True, cka=True, kernels=True, attention=True, self_check=False)


MEASURES: dict[str, Callable[[nn.Module, Batches], Any]] = {
    "analyze": analyzed,
    "validate": lambda net, data: fp.validate(net, data, lesions=True, hessian=True),
    "bands": lambda net, data: fp.heatmap(net, data, bands=2),
    "frequencies": lambda net, data: fp.heatmap(net, data, stride=4, points=["*"]),
    "filters": lambda net, data: fp.heatmap(net, data, filters=True, bands=2),
}
REFUSED = {
    **{(case, name): "no labels" for case in ("no labels",) for name in ("validate", "bands", "filters")},
    **{("labels of other classes", name): "largest label is" for name in ("validate", "bands", "filters")},
    **{("one class", name): "no scores of classes" for name in ("validate", "bands", "filters")},
    **{("no classifier", name): "no scores of classes" for name in ("validate", "bands", "filters")},
    **{("images of one pixel", name): "no frequency in band" for name in ("bands", "filters")},
    **{(f"NaN images{more}", "analyze"): "not finite" for more in ("", ", attention")},
    **{(f"NaN images{more}", "validate"): "not finite" for more in ("", ", attention")},
    **{
        (f"NaN images{more}", name): "run from nan to nan"
        for more in ("", ", attention")
        for name in ("bands", "frequencies", "filters")
    },
}
"""What cannot be measured at all, and what the error says; every other pair gives a result."""
NOTES = {
    ("no attention", "analyze"): "attention is left out: this network has none",
    ("no convolution", "analyze"): "no convolution",
    ("maps of one position", "analyze"): "kernels of one tap alone",
    ("one image", "analyze"): "CKA is left out: it needs 4 images",
    ("no labels", "frequencies"): "top-1 error is left out: the images have no labels",
    ("labels of other classes", "frequencies"): "top-1 error is left out: the largest label is",
    ("no classifier", "frequencies"): "top-1 error is left out: the model returns no scores",
    ("images of one pixel", "frequencies"): "sensitivity spectrum is left out",
}


@pytest.mark.parametrize(("case", "measure"), list(itertools.product(CASES, MEASURES)))
def test_a_note_or_a_reason_and_never_a_crash(case: str, measure: str, tmp_path: Path) -> None:
    network, data = CASES[case]
    torch.manual_seed(0)
    heard: list[str] = []
    refused = REFUSED.get((case, measure))
    with listening(heard.append):
        if refused is not None:
            with pytest.raises(ProbeError, match=refused):
                MEASURES[measure](network(), data())
            return
        result = MEASURES[measure](network(), data())
    wanted = NOTES.get((case, measure))
    assert wanted is None or any(wanted in text for text in heard), heard
    result.save(tmp_path)  # nothing in it is not a number
    assert repr(result) and result._repr_html_()
    parts, shown = (
        (parts_of(result), result)
        if isinstance(result, fp.Spectra)
        else (VALIDATION_PARTS, result)
        if isinstance(result, fp.Validation)
        else (HEATMAP_PARTS, HeatMaps((result,)))
    )
    for part in parts:
        if part.present(shown):
            figure = part.draw(shown, "net")
            figure.draw_without_rendering()
            for table in (part.short, part.frame):
                assert table is None or table(shown) is not None

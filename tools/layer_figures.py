"""Every figure that draws layer by layer, with one, seven and twenty-five of them: to be opened and looked at.

    python tools/layer_figures.py /tmp/figures [--layers 1 7 25]

Networks are small and untrained, images are noise: what is looked at is whether names, ticks, legends and colour bars
can be read. tests/plots/test_layer_figures.py looks at what a program can see: edges, overlaps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import fourier_probe as fp
from fourier_probe.plots import save
from fourier_probe.results.drawing import drawing
from fourier_probe.results.heatmap_set import HeatMaps

Figures = dict[str, Callable[[], Figure]]


class Block(nn.Module):
    """A residual step around one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """The input plus what the branch makes of it."""
        return torch.add(x, self.branch(x))


class ResidualNetwork(nn.Module):
    """A stem, so many blocks, a classifier of ten classes."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes."""
        scores: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return scores


def network(kind: str, layers: int) -> nn.Module:
    """Of kind "cnn" blocks of one convolution, of kind "vit" blocks of attention and MLP, two steps each."""
    torch.manual_seed(0)
    if kind == "cnn":
        return ResidualNetwork(layers)
    return VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=layers, num_heads=2, num_classes=10)


def images(count: int = 40) -> list[tuple[Tensor, Tensor]]:
    """Batches of noise of several strengths, from 0 to 1, and classes."""
    generator = torch.Generator().manual_seed(0)
    strength = torch.linspace(0.2, 1, count)[:, None, None, None]
    pixels = torch.rand(count, 3, 16, 16, generator=generator) * strength
    return list(zip(pixels.split(8), torch.randint(0, 10, (count,), generator=generator).split(8), strict=True))


def figures_of(kind: str, layers: int) -> Figures:
    """Name -> what draws it, for a network of so many layers."""
    net, data = network(kind, layers), images()
    label = f"{kind} with a rather long name, {layers} layers"
    spectra = fp.analyze(net, [batch for batch, _ in data], self_check=False, maps=True, tokens=True, cka=True,
                         kernels=True, attention=kind == "vit", label=label)  # fmt: skip
    out: Figures = {
        name: lambda name=name: spectra.plot(name, label=label)  # type: ignore[misc]
        for name in ("spectra", "depth", "hfd_share", "maps", "tokens", "kernels", "cka")
    }
    if kind == "vit":
        out["attention"] = lambda: spectra.plot("attention", label=label)
    comparison = fp.compare([spectra, spectra], labels=[label, f"{label}, again"])
    for name in ("depth", "zigzag", "steps", "density", "maps"):
        out[f"compare-{name}"] = lambda name=name: comparison.plot(name)  # type: ignore[misc]
    validation = fp.validate(net, data, lesions=True, label=label)
    out["lesions"] = lambda: validation.plot("lesions")
    points = [point.name for point in spectra.stream][:layers]
    for name, heat in {
        "heatmap": fp.heatmap(net, data, stride=4, points=points, label=label),
        "bands": fp.heatmap(net, data, bands=4, points=points, label=label),
        "bands-unlabelled": fp.heatmap(net, [batch for batch, _ in data], bands=4, points=points, label=label),
        "filters-unlabelled": fp.heatmap(net, [batch for batch, _ in data], filters=True, bands=4, points=points,
                                         label=label),
    }.items():  # fmt: skip
        out[name] = heat.plot
        if heat.sensitivity is not None:
            out[f"sensitivity-{name}"] = lambda heat=heat: drawing("sensitivity")(HeatMaps((heat,)))  # type: ignore[misc]
    return out


def main() -> None:
    """Write the figures, PDF and PNG."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 7, 25])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for kind in ("cnn", "vit"):
        for layers in args.layers:
            for name, draw in figures_of(kind, layers).items():
                save(draw(), args.out / f"{kind}-{layers:02d}-{name}")
            print(f"{kind}, {layers} layers: written", flush=True)


if __name__ == "__main__":
    main()

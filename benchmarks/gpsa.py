"""Speed, memory and accuracy of GPSA: our module against timm's, a network with recast layers against itself.

    python benchmarks/gpsa.py convit  [--model convit_tiny --size 224 --batch 8 --pairs 20]
    python benchmarks/gpsa.py recast  [--model cifar_resnet20 --model cifar_resnet20_x4 --batch 128]
    python benchmarks/gpsa.py layer   [--channels 64 --channels 256 --grid 8 --batch 128]
    python benchmarks/gpsa.py content [--channels 16 --channels 64 --batch 8]     coarse content, 16x16 and 32x32
    python benchmarks/gpsa.py earlier [--channels 64 --grid 16 --batch 32 --revision 04ff748]     (a git checkout)

The arms of a pair run one after the other, in alternating order; a table gives the median of each arm, the median of
the ratios within pairs, and its 95 % bootstrap interval over pairs. Memory is the rise of the process's resident set
over a forward and backward, in a fresh process an arm. Needs a quiet machine: with the cores shared, two threads wait
for each other.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import io
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fourier_probe.models  # noqa: F401  # registers the small networks
from fourier_probe.models.gpsa.attention import swap_convit_
from fourier_probe.models.gpsa.recast import recast, recast_
from fourier_probe.training.layers import convertible_layers


def main() -> None:
    """Parse and run one of the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("convit", "recast", "layer", "content", "earlier"))
    parser.add_argument("--model", action="append", help="repeat for several")
    parser.add_argument("--size", type=int, help="input pixels a side (default: 224 for convit, 32 for recast)")
    parser.add_argument("--batch", type=int, help="images (default: 8 for convit, 128 for the others)")
    parser.add_argument("--channels", type=int, action="append", help="layer: channels; repeat (default: 64, 256)")
    parser.add_argument(
        "--grid", type=int, default=8, help="key grid, pixels a side: largest converted, or that of the layer"
    )
    parser.add_argument(
        "--revision", default="04ff748", help="earlier: the code to compare with (default: %(default)s)"
    )
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak-of", choices=("theirs", "ours"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.peak_of:
        print(_peak(args))
        return
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, torch {torch.__version__}, ", end="")
    print(f"timm {timm.__version__}, float32, {args.pairs} pairs\n")
    if args.what == "convit":
        _convit(args)
    elif args.what == "recast":
        _recast(args)
    elif args.what == "content":
        _content(args)
    elif args.what == "earlier":
        _earlier(args)
    else:
        _layer(args)


def _convit(args: argparse.Namespace) -> None:
    """A whole timm ConViT, its GPSA modules swapped for ours, and one module of it."""
    name = (args.model or ["convit_tiny"])[0]
    theirs, images = _convit_model(args)
    ours = copy.deepcopy(theirs)
    swap_convit_(ours)
    with torch.no_grad():
        difference = (theirs(images) - ours(images)).abs().max()
    print(f"{name}, {images.shape[-1]} px, batch {images.shape[0]}; largest difference of logits {difference:.1e}\n")
    module, swapped = theirs.blocks[0].attn, ours.blocks[0].attn  # type: ignore[union-attr,index]
    tokens = torch.randn(images.shape[0], theirs.patch_embed.num_patches, theirs.embed_dim)  # type: ignore[union-attr,arg-type]
    rows = []
    for label, a, b, x in (("model", theirs, ours, images), ("GPSA module", module, swapped, tokens)):
        rows.append((f"{label}, forward", *_pairs(_forward(a, x), _forward(b, x), args.pairs)))
        rows.append((f"{label}, forward + backward", *_pairs(_both(a, x), _both(b, x), args.pairs)))
    _table(rows, "timm", "ours", "speed-up", faster=True)
    peaks = [_peak_in_a_process(args, arm) for arm in ("theirs", "ours")]
    print(f"\nmemory of a forward and backward of the model: timm {peaks[0]:.0f} MB, ours {peaks[1]:.0f} MB")


def _recast(args: argparse.Namespace) -> None:
    """A training step of a small-image ResNet before and after recasting its layers with small key grids."""
    rows = []
    for name in args.model or ["cifar_resnet20", "cifar_resnet20_x4"]:
        model = timm.create_model(name).train()
        size = args.size or 32
        images = torch.randn(args.batch or 128, 3, size, size)
        names = [layer.name for layer in convertible_layers(model, images[:1], max_grid=args.grid)]
        converted = copy.deepcopy(model)
        recast_(converted, names)
        arms = (_both(model, images), _both(converted, images))
        rows.append((f"{name}, {len(names)} layers, batch {len(images)}", *_pairs(*arms, args.pairs)))
    _table(rows, "CNN", "recast", "cost", faster=False)


def _layer(args: argparse.Namespace) -> None:
    """One 3 x 3 layer, forward and backward."""
    rows = []
    for channels in args.channels or [64, 256]:
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        maps = torch.randn(args.batch or 128, channels, args.grid, args.grid, requires_grad=True)
        arms = (_both(conv, maps), _both(recast(conv), maps))
        rows.append((f"{channels} channels, {args.grid} x {args.grid}", *_pairs(*arms, args.pairs)))
    _table(rows, "conv", "recast", "cost", faster=False)


def _content(args: argparse.Namespace) -> None:
    """One recast 3 x 3 layer with coarse content against one without, forward and backward."""
    rows = []
    for channels in args.channels or [16, 64]:
        for side in (16, 32):
            conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            maps = torch.randn(args.batch or 8, channels, side, side, requires_grad=True)
            full = _both(recast(copy.deepcopy(conv)), maps)
            for label, coarse in (
                ("--content-stride 2", {"content_stride": 2}),
                ("--content-maps 1", {"content_maps": 1}),
                ("both", {"content_stride": 2, "content_maps": 1}),
            ):
                arm = _both(recast(copy.deepcopy(conv), **coarse), maps)
                rows.append((f"{channels} channels, {side} x {side}, {label}", *_pairs(full, arm, args.pairs)))
    _table(rows, "full", "coarse", "speed-up", faster=True)


def _earlier(args: argparse.Namespace) -> None:
    """One recast 3 x 3 layer against that of an earlier revision, forward and backward; memory that each holds."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        old = _revision(args.revision, Path(folder))
        for channels in args.channels or [64]:
            torch.manual_seed(0)
            conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            maps = torch.randn(args.batch or 32, channels, args.grid, args.grid, requires_grad=True)
            layers = [module(copy.deepcopy(conv), gate=0.5, locality_strength=1.0) for module in (old, recast)]
            layers[1].load_state_dict(layers[0].state_dict())
            gradients = []
            for layer in layers:
                maps.grad = None
                _both(layer, maps)()
                gradients.append([maps.grad, *(parameter.grad for parameter in layer.parameters())])
            apart = max(float((b - a).abs().max() / a.abs().max()) for a, b in zip(*gradients, strict=True))
            held = [_saved(layer, maps) / 1e6 for layer in layers]
            label = f"{channels} channels, {args.grid} x {args.grid}, batch {len(maps)}"
            print(f"{label}: largest difference of gradients {apart:.1e}; kept for the backward pass {held[0]:.1f} MB, "
                  f"now {held[1]:.1f} MB")  # fmt: skip
            arms = (_both(layer, maps) for layer in layers)
            rows.append((label, *_pairs(*arms, args.pairs)))
    print()
    _table(rows, args.revision, "now", "cost", faster=False)


def _revision(name: str, folder: Path) -> Callable[..., nn.Module]:
    """`recast` of an earlier revision, as a package of another name."""
    root = Path(__file__).parent.parent
    wanted = ["fourier_probe/errors.py", "fourier_probe/models/gpsa"]
    packed = subprocess.run(["git", "archive", name, *wanted], cwd=root, check=True, capture_output=True).stdout  # noqa: S603, S607
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    package = folder / "earlier_probe"
    (folder / "fourier_probe").rename(package)
    for file in package.rglob("*.py"):
        file.write_text(file.read_text().replace("fourier_probe", "earlier_probe"))
    sys.path.insert(0, str(folder))
    module = importlib.import_module("earlier_probe.models.gpsa.recast")
    sys.path.remove(str(folder))
    found: Callable[..., nn.Module] = module.recast
    return found


def _saved(layer: nn.Module, maps: Tensor) -> int:
    """Bytes of the distinct tensors that a forward keeps for its backward."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = layer(maps)
    del out
    return sum(kept.values())


def _convit_model(args: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    size = args.size or 224
    model = timm.create_model((args.model or ["convit_tiny"])[0], img_size=size).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gating_param" in name:
                parameter.normal_()
            elif "pos_proj.weight" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model, torch.randn(args.batch or 8, 3, size, size)


def _forward(module: nn.Module, x: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return module(x)

    return run


def _both(module: nn.Module, x: Tensor) -> Callable[[], object]:
    target = torch.zeros(len(x), dtype=torch.long)

    def run() -> None:
        module.zero_grad()
        out = module(x)
        loss = F.cross_entropy(out, target) if out.dim() == 2 else out.square().mean()
        loss.backward()

    return run


def _pairs(one: Callable[[], object], other: Callable[[], object], pairs: int) -> tuple[list[float], list[float]]:
    """Milliseconds of both arms, run in alternating order after a warm-up of each."""
    for _ in range(2):
        one()
        other()
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for arm in (0, 1) if pair % 2 == 0 else (1, 0):
            start = time.perf_counter()
            (one, other)[arm]()
            times[arm].append(1000 * (time.perf_counter() - start))
    return times


def _table(rows: list[tuple[str, list[float], list[float]]], one: str, other: str, ratio: str, *, faster: bool) -> None:
    print(f"| | {one}, ms | {other}, ms | {ratio} | 95 % |\n|---|---|---|---|---|")
    draw = np.random.default_rng(0)
    for label, a, b in rows:
        ratios = np.array(a) / np.array(b) if faster else np.array(b) / np.array(a)
        medians = np.median(draw.choice(ratios, (2000, len(ratios))), axis=1)
        low, high = np.percentile(medians, (2.5, 97.5))
        middle = statistics.median(a), statistics.median(b), float(np.median(ratios))
        print(
            f"| {label} | {middle[0]:.1f} | {middle[1]:.1f} | {middle[2]:.2f} | {low:.2f} to {high:.2f} |", flush=True
        )


def _peak_in_a_process(args: argparse.Namespace, arm: str) -> float:
    command = [sys.executable, __file__, "convit", "--peak-of", arm, "--threads", str(args.threads)]
    command += ["--model", (args.model or ["convit_tiny"])[0]]
    command += ["--size", str(args.size or 224), "--batch", str(args.batch or 8)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return float(done.stdout)


def _peak(args: argparse.Namespace) -> float:
    """Megabytes by which the resident set rises over a forward and backward, sampled (Linux)."""
    model, images = _convit_model(args)
    if args.peak_of == "ours":
        swap_convit_(model)
    _both(model, images[:1])()  # caches of the libraries
    start, peak, done = _resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    _both(model, images)()
    done.set()
    watcher.join()
    return peak - start


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()

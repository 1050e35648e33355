"""What each further measure of docs/measures.md costs over a bare forward pass.

    python benchmarks/measures.py                     the table of docs/benchmarks.md
    python benchmarks/measures.py --device cuda --batch 64 --pairs 25

Arms run interleaved in one process, random weights. Each pair gives the ratio of an arm to the bare forward of the same
images, run right before it; reported are the median and its bootstrap 95 % interval. "all metrics" is `analyze` without
any of them, input, maps, tokens and CKA come on top of it. Attention (distance, diversity, response, NMI) is a pass of
its own over 64 images. Lesions cost one such forward per step, noise and filters one per frequency, band or filter, the
sensitivity spectrum one per image, the Hessian one such product some twenty to forty times per minibatch; kernels and
the matrix of CKA are computed once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import timm
import torch
from torch import Tensor, nn

from fourier_probe.probe.attention import observe
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.cka import Pooled, similarity
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.fast import Scratch, image_statistics
from fourier_probe.probe.filters import ImageFilter
from fourier_probe.probe.heatmap import NoiseProbe, default_eps
from fourier_probe.probe.hessian import hessian_product, landscape, twice_differentiable
from fourier_probe.probe.kernels import kernel_responses
from fourier_probe.probe.lesions import removable_steps, without
from fourier_probe.probe.points import Point, find_points
from fourier_probe.probe.sensitivity import gradient_spectra
from fourier_probe.probe.sums import Sums
from fourier_probe.probe.tokens import token_statistics

ANALYZE = ("all metrics", "input", "maps", "tokens", "cka", "attention")
VALIDATE = ("lesion, per step", "Hessian, per product", "landscape, per loss")
HEATMAP = ("noise, per frequency", "noise, per band", "filter, per cut-off", "sensitivity")


def arms_of(model: nn.Module, images: Tensor, points: list[Point]) -> dict[str, Callable[[], object]]:
    """Each arm as a function that runs the forward, and what it measures of it."""
    definition, scratch = Definition(), Scratch()
    group = torch.arange(len(images), device=images.device) % definition.groups

    def probing(*, maps: bool = False, tokens: bool = False, pooled: bool = False, images_too: bool = False) -> None:
        sums = {point.name: Sums(definition.groups) for point in points}
        kept = Pooled()

        def reduce(point: Point, features: Tensor) -> None:
            found = image_statistics(features, definition, maps=maps, scratch=scratch)
            sums[point.name].update({**found, **token_statistics(features)} if tokens else found, group)
            if pooled:
                kept.add(point.name, features)

        if images_too:
            Sums(definition.groups).update(image_statistics(images, definition, scratch=scratch), group)
        with Capture(model, points, reduce):
            model(images)

    def forward() -> None:
        model(images)

    def attention() -> None:
        observe(model, [images])

    return {
        "forward": forward,
        "all metrics": probing,
        "input": lambda: probing(images_too=True),
        "maps": lambda: probing(maps=True),
        "tokens": lambda: probing(tokens=True),
        "cka": lambda: probing(pooled=True),
        "attention": attention,
        **_answering(model, images),
    }


def _answering(model: nn.Module, images: Tensor) -> dict[str, Callable[[], object]]:
    """The arms of `validate` and of `heatmap`, on the same images as pixels from 0 to 1."""
    pixels = torch.rand(images.shape)
    labels = torch.arange(len(images)) % 10
    probe = NoiseProbe(model, pixels, labels, [0.5] * 3, [0.5] * 3, batch_size=len(images), device=images.device)
    probe.clean()  # once per network
    steps, _ = removable_steps(model, images[:1])
    batch = (images, labels.to(images.device))
    size = (images.shape[2], images.shape[3])
    made: list[Callable[[], object]] = []

    def lesion() -> None:
        with without(model, steps[len(steps) // 2]):
            model(images)

    def product() -> None:
        with torch.enable_grad():
            if not made:
                made.append(_product(model, batch))
            made[0]()

    return {
        "lesion, per step": lesion,
        "Hessian, per product": product,
        "landscape, per loss": partial(landscape, model, [batch], steps=1),
        "noise, per frequency": partial(probe.frequencies, [(1, 2)], default_eps(size)),
        "noise, per band": partial(probe.bands, 8, default_eps(size), only=[3]),
        "filter, per cut-off": partial(probe.filtered, [ImageFilter("low", 4, 8)]),
        "sensitivity": partial(gradient_spectra, probe, torch.arange(len(images))),
    }


def _product(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Callable[[], object]:
    """The product of the Hessian with a vector, on a graph that is made once, as it is for each minibatch."""
    with twice_differentiable(model) as parameters:
        multiply = hessian_product(model, parameters, *batch)
    return partial(multiply, np.random.default_rng(0).normal(size=sum(p.numel() for p in parameters)))


def measure(name: str, args: argparse.Namespace) -> list[str]:
    """Rows of the table for one model."""
    model = timm.create_model(name).eval().to(args.device)
    images = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    points = find_points(model, images[:1])
    arms = arms_of(model, images, points)

    def timed(arm: str) -> float:
        _wait(args.device)
        start = time.perf_counter()
        arms[arm]()
        _wait(args.device)
        return time.perf_counter() - start

    attends = bool(observe(model, [images[:1]]).information)
    chosen = [arm for arm in (*ANALYZE, *VALIDATE, *HEATMAP) if attends or arm != "attention"]
    ratios: dict[str, list[float]] = {arm: [] for arm in chosen if not args.arms or arm in args.arms}
    seconds = []
    with torch.no_grad():
        for arm in ("forward", *ratios):
            timed(arm)  # warm up
        for _ in range(args.pairs):
            for arm, found in ratios.items():
                base = timed("forward")
                found.append(timed(arm) / base)
                seconds.append(base)
    rows = [f"| {name} | {1e3 * np.median(seconds):.0f} ms | {arm} | {np.median(found):.2f} | {_interval(found)} |"
            for arm, found in ratios.items()]  # fmt: skip
    start = time.perf_counter()
    with contextlib.suppress(ValueError):
        kernel_responses(model, images[:1])
    forwards = (time.perf_counter() - start) / float(np.median(seconds))
    rows.append(f"| {name} | | kernels, once | {forwards:.1f} | |")
    features = [np.random.default_rng(0).normal(size=(1000, point.layout.channels)) for point in points]
    start = time.perf_counter()
    similarity(features, features, np.arange(1000) % 20)
    forwards = (time.perf_counter() - start) / float(np.median(seconds))
    rows.append(f"| {name} | | CKA of {len(points)} points, 1,000 images, once | {forwards:.1f} | |")
    return rows


def _interval(values: list[float]) -> str:
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(np.array(values), (4000, len(values))), axis=1)
    return f"{np.quantile(medians, 0.025):.2f} to {np.quantile(medians, 0.975):.2f}"


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["resnet50", "vit_tiny_patch16_224"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--arms", nargs="+", help="some of them alone")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    where = (
        torch.cuda.get_device_name()
        if args.device.startswith("cuda")
        else f"{args.threads} threads of {platform.machine()}"
    )
    print(f"torch {torch.__version__}, {where}, {args.size} px, batch {args.batch}, {args.pairs} pairs\n")
    print("| model | forward | arm | median ratio to forward | 95 % |\n|---|---|---|---|---|")
    for name in args.models:
        print("\n".join(measure(name, args)), flush=True)


if __name__ == "__main__":
    main()

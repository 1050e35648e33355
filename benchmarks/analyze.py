"""What analysis costs over a bare forward pass, and that its memory does not grow with the number of images.

    python benchmarks/analyze.py                      the table of docs/benchmarks.md
    python benchmarks/analyze.py --device cuda --batch 64
    python benchmarks/analyze.py --memory             peak memory at 500 and at 5,000 images

Arms run interleaved in one process, random weights, 224 pixels. Each pair gives the ratio of an arm to the bare forward
run right before it; reported are the median and its bootstrap 95 % interval.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import timm
import torch
from torch import Tensor, nn

from fourier_probe.probe.capture import Capture
from fourier_probe.probe.definition import Definition
from fourier_probe.probe.fast import image_statistics
from fourier_probe.probe.points import Point, find_points
from fourier_probe.probe.sums import Sums


def published_steps(features: Tensor) -> Tensor:
    """The notebook's steps on maps (B, C, H, W): full 2-D FFT, shift, logarithm, mean, half of the diagonal."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(features), dim=(-2, -1))
    logs = torch.log(spectrum.abs() + 1e-6).mean(dim=(0, 1))
    diagonal = logs.diagonal()[len(logs) // 2 :]
    return diagonal - diagonal[0]


@contextlib.contextmanager
def probing(model: nn.Module, points: list[Point], metrics: str, batch: int, device: str) -> Iterator[None]:
    """Our analysis in place: hooks, statistics, sums."""
    definition = Definition(metrics=metrics)  # type: ignore[arg-type]
    sums = {point.name: Sums(definition.groups) for point in points}
    group = torch.arange(batch, device=device) % definition.groups

    def reduce(point: Point, maps: Tensor) -> None:
        sums[point.name].update(image_statistics(maps, definition), group)

    with Capture(model, points, reduce):
        yield


@contextlib.contextmanager
def notebook(model: nn.Module, points: list[Point]) -> Iterator[None]:
    """The published way at the same points."""
    with Capture(model, points, lambda _point, maps: published_steps(maps)):
        yield


def measure(name: str, args: argparse.Namespace) -> list[str]:
    """Rows of the table for one model."""
    model = timm.create_model(name).eval().to(args.device)
    images = torch.randn(args.batch, 3, 224, 224, device=args.device)
    points = find_points(model, images[:1])
    arms: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
        "forward": contextlib.nullcontext,
        "diagonal": lambda: probing(model, points, "diagonal", args.batch, args.device),
        "all": lambda: probing(model, points, "all", args.batch, args.device),
        "notebook": lambda: notebook(model, points),
    }

    def timed(arm: str) -> float:
        with arms[arm]():
            _wait(args.device)
            start = time.perf_counter()
            model(images)
            _wait(args.device)
            return time.perf_counter() - start

    ratios: dict[str, list[float]] = {arm: [] for arm in arms if arm != "forward"}
    seconds: list[float] = []
    with torch.inference_mode():
        for arm in arms:
            timed(arm)  # warm up
        for _ in range(args.pairs):
            for arm, found in ratios.items():
                base = timed("forward")
                found.append(timed(arm) / base)
                seconds.append(base)
    rows = []
    for arm, found in ratios.items():
        low, high = _interval(np.array(found))
        base = f"{1e3 * np.median(seconds):.1f} ms"
        rows.append(f"| {name} | {len(points)} | {base} | {arm} | {np.median(found):.3f} | {low:.3f} to {high:.3f} |")
    return rows


def memory(images: int) -> None:
    """Child process: analyze `images` random images and print the peak resident memory in MB."""
    import resource

    from fourier_probe.results.analysis import analyze

    torch.manual_seed(0)
    model = timm.create_model("resnet18")
    analyze(model, (torch.randn(20, 3, 96, 96) for _ in range(images // 20)))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _interval(values: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (4000, len(values))), axis=1)
    return float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    """Print the table, or the memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["resnet50", "vit_tiny_patch16_224"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        memory(args.memory_of)
        return
    if args.memory:
        print("| images | peak resident memory, MB |\n|---|---|")
        for images in (500, 5000):
            command = [sys.executable, __file__, "--memory-of", str(images)]
            peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
            print(f"| {images} | {float(peak):.0f} |")
        return
    torch.set_num_threads(args.threads)
    where = (
        torch.cuda.get_device_name()
        if args.device.startswith("cuda")
        else f"{args.threads} threads of {platform.machine()}"
    )
    print(f"torch {torch.__version__}, {where}, batch {args.batch}, {args.pairs} pairs\n")
    print("| model | points | forward | arm | median ratio to forward | 95 % |\n|---|---|---|---|---|---|")
    for name in args.models:
        print("\n".join(measure(name, args)), flush=True)


if __name__ == "__main__":
    main()
